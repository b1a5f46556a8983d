//! The kernels' images, as `build.rs` made them.

#[rustfmt::skip]
mod made {
    include!(concat!(env!("OUT_DIR"), "/images.rs"));
}
use made::{AMD, HOST, NVIDIA};

/// The image for a GPU of this architecture (see [`Gpu::architecture`](super::Gpu::architecture)); `None` where this build has none.
#[must_use]
pub fn image_for(architecture: &str) -> Option<&'static [u8]> {
    match architecture.get(..3) {
        Some("gfx") => AMD,
        Some("sm_") => NVIDIA,
        Some("cpu") => HOST,
        _ => None,
    }
}
