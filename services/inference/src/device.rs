//! The device that the flags ask for.

use std::num::NonZeroUsize;

use kernels::{Device, DeviceError, HipOptions, HipPhase};
use tracing::{Span, info_span};

use crate::{
    Config,
    config::{DeviceChoice, DeviceFlags},
    error::Chain,
};

/// A GPU's share that its KV cache may take where no budget is given: a quarter.
const GPU_KV_SHARE: usize = 4;
/// What the KV cache may take on the processor where no budget is given.
const HOST_KV_BYTES: u64 = 1 << 30;

/// Most prompt tokens of a step where it is not given: on a GPU, and elsewhere.
const GPU_PREFILL_CHUNK: usize = 2048;
const HOST_PREFILL_CHUNK: usize = 512;

/// Opens the device. With `auto`, a GPU that cannot be used is passed over with a word on why.
///
/// # Errors
/// [`DeviceError`]
pub(crate) fn open(config: &Config) -> Result<Device, DeviceError> {
    let flags = &config.device;
    match flags.device {
        DeviceChoice::Cpu => processor(config),
        DeviceChoice::Reference => Ok(Device::reference()),
        DeviceChoice::Hip { index } => open_gpu(flags, index),
        DeviceChoice::Auto => match open_gpu(flags, 0) {
            Ok(device) => Ok(device),
            Err(error) => {
                let cause = Chain(&error).to_string();
                tracing::info!(cause, "no GPU is used: models run on the processor");
                processor(config)
            }
        },
    }
}

/// Opens a GPU, each phase of it in a span of its own.
fn open_gpu(flags: &DeviceFlags, ordinal: usize) -> Result<Device, DeviceError> {
    let mut under_way = None;
    Device::hip_in_phases(&options(flags, ordinal), |phase| {
        // Left before the next is made, which would be its child.
        drop(under_way.take());
        under_way = Some(span_of(phase).entered());
    })
}

fn span_of(phase: HipPhase) -> Span {
    match phase {
        HipPhase::Library => info_span!("device.open.library"),
        HipPhase::Driver => info_span!("device.open.driver"),
        HipPhase::Context => info_span!("device.open.context"),
        HipPhase::Kernels => info_span!("device.open.kernels"),
    }
}

fn processor(config: &Config) -> Result<Device, DeviceError> {
    if config.pin_threads {
        Device::cpu_pinned(config.threads)
    } else {
        Device::cpu(config.threads)
    }
}

fn options(flags: &DeviceFlags, ordinal: usize) -> HipOptions {
    HipOptions {
        library: flags.hip_library.clone(),
        ordinal,
        batch_invariant: flags.batch_invariant,
    }
}

/// How keys and values are kept.
pub(crate) fn kv_type(config: &Config, device: &Device) -> kernels::KvType {
    match (config.device.kv_type, device) {
        (Some(choice), _) => choice.into(),
        (None, Device::Hip(_) | Device::Cpu(_)) => kernels::KvType::F16,
        (None, Device::Reference) => kernels::KvType::F32,
    }
}

/// Most prompt tokens in one step.
pub(crate) fn prefill_chunk_tokens(config: &Config, device: &Device) -> usize {
    let default = match device {
        Device::Hip(_) => GPU_PREFILL_CHUNK,
        Device::Reference | Device::Cpu(_) => HOST_PREFILL_CHUNK,
    };
    config
        .prefill_chunk_tokens
        .map_or(default, NonZeroUsize::get)
}

/// What the KV cache may take.
pub(crate) fn kv_budget_bytes(config: &Config, device: &Device) -> u64 {
    let default = match device {
        Device::Hip(hip) => (hip.gpu().total_bytes() / GPU_KV_SHARE) as u64,
        Device::Reference | Device::Cpu(_) => HOST_KV_BYTES,
    };
    config.kv_budget_bytes.unwrap_or(default)
}
