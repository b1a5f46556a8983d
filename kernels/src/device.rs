//! Where tensors live and operations run.

use std::num::NonZeroUsize;
use std::sync::Arc;

use gguf::TensorType;

use crate::cpu::Cpu;
use crate::hip::{Hip, HipError, HipOptions, HipPhase};
use crate::layout;

/// A place where tensors live and operations run. Cheap to clone; a clone is the same device.
#[derive(Debug, Clone)]
pub enum Device {
    /// Plain float32 truth: slow, one thread, nothing clever.
    Reference,
    /// This machine's processor.
    Cpu(Arc<Cpu>),
    /// A GPU, through HIP. Operations are enqueued and run in their order; what is asked back waits for them.
    Hip(Arc<Hip>),
}

/// Why a device could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The threads of the pool could not be started.
    #[error("starting {threads} threads for the cpu device")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Pinned threads would share a processor.
    #[error(
        "{threads} pinned threads for {processors} processors that this process may use: each wants one of its own; take fewer threads, or do not pin them"
    )]
    TooFewProcessors {
        /// Number of threads asked for.
        threads: usize,
        /// Processors in the process's affinity mask.
        processors: usize,
    },
    /// The GPU cannot be used.
    #[error(transparent)]
    Hip(#[from] HipError),
}

impl Device {
    /// The device that computes plain float32 truth.
    #[must_use]
    pub fn reference() -> Device {
        Device::Reference
    }

    /// The processor, with the best instructions that it has. The calling thread works too, so `threads - 1` are started.
    ///
    /// # Errors
    /// [`DeviceError::Threads`] if the threads cannot be started.
    pub fn cpu(threads: NonZeroUsize) -> Result<Device, DeviceError> {
        Ok(Device::Cpu(Arc::new(Cpu::detect(threads)?)))
    }

    /// [`Device::cpu`] with each started thread kept on a processor of its own, for a process that shares its processors with nobody. The calling thread is not pinned.
    ///
    /// # Errors
    /// [`DeviceError::TooFewProcessors`] if there are more threads than processors in the process's affinity mask; [`DeviceError::Threads`] if they cannot be started or pinned.
    pub fn cpu_pinned(threads: NonZeroUsize) -> Result<Device, DeviceError> {
        Ok(Device::Cpu(Arc::new(Cpu::pinned(threads)?)))
    }

    /// The processor without any instruction that the compiler's baseline does not have, as on a machine where detection finds none. Tests compare it with the others.
    ///
    /// # Errors
    /// [`DeviceError::Threads`] if the threads cannot be started.
    pub fn cpu_portable(threads: NonZeroUsize) -> Result<Device, DeviceError> {
        Ok(Device::Cpu(Arc::new(Cpu::portable(threads)?)))
    }

    /// The processor once for each instruction set that it has, the best first and the portable one last: tests compare them with each other.
    ///
    /// # Errors
    /// [`DeviceError::Threads`] if the threads cannot be started.
    pub fn cpu_each(threads: NonZeroUsize) -> Result<Vec<Device>, DeviceError> {
        let each = Cpu::each(threads)?.into_iter();
        Ok(each.map(|cpu| Device::Cpu(Arc::new(cpu))).collect())
    }

    /// A GPU.
    ///
    /// # Errors
    /// [`DeviceError::Hip`]: there is none, this build has no kernels for it, or it failed.
    pub fn hip(options: &HipOptions) -> Result<Device, DeviceError> {
        Device::hip_in_phases(options, |_| {})
    }

    /// A GPU; `on_phase` is told each phase of opening it as it begins, so that whoever waits can see what for.
    ///
    /// # Errors
    /// As [`Device::hip`]; the phase that was told last has failed then.
    pub fn hip_in_phases(
        options: &HipOptions,
        on_phase: impl FnMut(HipPhase),
    ) -> Result<Device, DeviceError> {
        Ok(Device::Hip(Arc::new(Hip::open(options, on_phase)?)))
    }

    /// The kind of device, as `--device` spells it: `reference`, `cpu` or `hip`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Device::Reference => "reference",
            Device::Cpu(_) => "cpu",
            Device::Hip(_) => "hip",
        }
    }

    /// Kind, and what there is to know of it, for logs and people: instruction set and threads, or name, architecture, image and driver.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Device::Reference => "reference".to_owned(),
            Device::Cpu(cpu) => cpu.description(),
            Device::Hip(hip) => hip.description(),
        }
    }

    /// Whether both are the same device, so that their tensors may meet in one operation.
    #[must_use]
    pub fn same_as(&self, other: &Device) -> bool {
        match (self, other) {
            (Device::Reference, Device::Reference) => true,
            (Device::Cpu(a), Device::Cpu(b)) => Arc::ptr_eq(a, b),
            (Device::Hip(a), Device::Hip(b)) => Arc::ptr_eq(a, b),
            (Device::Reference | Device::Cpu(_) | Device::Hip(_), _) => false,
        }
    }

    /// Whether [`ops::embed`](crate::ops::embed) and [`ops::matmul`](crate::ops::matmul) take tables and weights of this tensor type.
    #[must_use]
    pub fn supports(&self, tensor_type: TensorType) -> bool {
        match self {
            Device::Reference => layout::unpack(tensor_type).is_some(),
            Device::Cpu(_) => Cpu::supports(tensor_type),
            Device::Hip(_) => Hip::supports(tensor_type),
        }
    }
}
