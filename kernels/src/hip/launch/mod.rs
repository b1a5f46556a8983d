//! Launches of kernels: for each family one file that turns operands into grid, block and arguments, and does nothing else.
//!
//! Every launch checks that the views are as long as the kernel reads and writes, and has the stream hold them. What lies *in* device memory (token ids, block tables, positions) is not seen here:
//! where a kernel follows such indices, the launch is `unsafe` and says which.
//!
//! The structures of arguments repeat those of `kernels/hip`, field by field. An address of 0 means "none".

mod operands;

pub mod attention;
pub mod embed;
pub mod experts;
pub mod few;
pub mod matrix;
pub mod repack;
pub mod rope;
pub mod rowwise;
pub mod sampling;

use std::sync::Arc;

use super::images::{image_for, kind_of};
use super::{Function, Gpu, HipError, Module};

pub use operands::{Forms, Half, Int8};

/// Lists the kernels once: as fields, and as names to look up.
macro_rules! kernels {
    ($($name:ident)*) => {
        /// All kernels, loaded onto one GPU.
        #[derive(Debug)]
        pub struct Kernels {
            gpu: Arc<Gpu>,
            image: &'static str,
            $($name: Function,)*
        }

        impl Kernels {
            /// Loads the image for this GPU and finds every kernel in it.
            ///
            /// # Errors
            /// [`HipError::NoImage`] if this build has no kernels for the GPU; the call that failed.
            pub fn load(gpu: &Arc<Gpu>) -> Result<Kernels, HipError> {
                let image = image_for(gpu.architecture()).ok_or_else(|| HipError::NoImage {
                    architecture: gpu.architecture().to_owned(),
                })?;
                // SAFETY: the image is what `build.rs` made of this project's kernels.
                let module = unsafe { Module::load(gpu, image) }?;
                Ok(Kernels {
                    gpu: gpu.clone(),
                    image: kind_of(image),
                    $($name: module.function(stringify!($name))?,)*
                })
            }
        }
    };
}

kernels! {
    rms_norm layer_norm head_norm write_forms activate add soft_cap gate_rows gather_rows
    repack embed rope_angles rope_write
    matvec_1 matvec_4 gated_matvec_1 gated_matvec_4 expert_matvec
    matmul_16 matmul_64 matmul_128
    matfew_16 matfew_32 matfew_64
    attention_prefill_64 attention_prefill_80 attention_prefill_96 attention_prefill_128 attention_prefill_256
    attention_decode_64 attention_decode_80 attention_decode_96 attention_decode_128 attention_decode_256
    attention_plain
    choose_experts order_slots add_experts
    top_logits
}

impl Kernels {
    /// The kind of the image that they were loaded from.
    #[must_use]
    pub fn image(&self) -> &'static str {
        self.image
    }

    /// The GPU that they are loaded onto.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}
