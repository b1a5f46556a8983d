//! Which device models run on.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use kernels::KvType;

/// Flags that choose the device and how it is used.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceFlags {
    /// Where models run: auto, cpu, reference, hip or hip:INDEX
    ///
    /// `auto` takes the first GPU that works, and the processor where there is none; the log says why. `cpu` is the processor with the widest instructions that it has, `reference` the processor in plain
    /// float32, for comparison. `hip:1` is the second GPU: with several, run one service for each, all on one loader daemon.
    #[arg(
        long,
        value_name = "DEVICE",
        env = "HEARTH_DEVICE",
        default_value = "auto"
    )]
    pub device: DeviceChoice,

    /// The HIP library to use [default: the newest libamdhip64 that the dynamic linker finds]
    ///
    /// On an NVIDIA GPU, the library that forwards HIP to CUDA.
    #[arg(long, value_name = "PATH", env = "HEARTH_HIP_LIBRARY")]
    pub hip_library: Option<PathBuf>,

    /// Keep keys and values as f16 or f32 [default: f16, on the reference device f32]
    #[arg(long, value_name = "TYPE", env = "HEARTH_KV_TYPE")]
    pub kv_type: Option<KvChoice>,

    /// On a GPU, give the same tokens whatever else is in the batch, at some cost in speed
    ///
    /// Small batches otherwise run in kernels of their own, which are faster and round differently. On the processor it is always so, and costs nothing.
    #[arg(long, env = "HEARTH_BATCH_INVARIANT")]
    pub batch_invariant: bool,
}

/// A device, or the choice of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeviceChoice {
    /// The first GPU that works, else the processor.
    Auto,
    /// The processor, with the widest instructions that it has.
    Cpu,
    /// The processor in plain float32, for comparison.
    Reference,
    /// A GPU.
    Hip {
        /// Which of them.
        index: usize,
    },
}

/// No device is spelled like this.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be auto, cpu, reference, hip or hip:INDEX")]
pub struct NoDevice;

impl FromStr for DeviceChoice {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<DeviceChoice, NoDevice> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "reference" => Ok(DeviceChoice::Reference),
            "hip" => Ok(DeviceChoice::Hip { index: 0 }),
            _ => {
                let index = text.strip_prefix("hip:").ok_or(NoDevice)?;
                let index = index.parse().map_err(|_| NoDevice)?;
                Ok(DeviceChoice::Hip { index })
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Reference => f.write_str("reference"),
            DeviceChoice::Hip { index } => write!(f, "hip:{index}"),
        }
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KvChoice {
    /// Half precision.
    F16,
    /// As they are computed.
    F32,
}

impl From<KvChoice> for KvType {
    fn from(choice: KvChoice) -> KvType {
        match choice {
            KvChoice::F16 => KvType::F16,
            KvChoice::F32 => KvType::F32,
        }
    }
}
