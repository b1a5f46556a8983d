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

/// What an image holds, for people.
pub(super) fn kind_of(image: &[u8]) -> &'static str {
    match image {
        [0x7f, b'E', b'L', b'F', ..] => "object code",
        [b'_', b'_', b'C', b'L', ..] => "bundle of object code",
        _ => "PTX",
    }
}
