//! A GPU as a device of [`ops`](crate::ops): what it was opened with, and what its operations share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gguf::TensorType;

use super::launch::{Kernels, repack};
use super::{Gpu, HipError, Library, Memory, Pinned, Stream, View};

/// How a GPU is opened and used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HipOptions {
    /// The HIP library; the newest that is found where none is named.
    pub library: Option<PathBuf>,
    /// Which of the library's GPUs.
    pub ordinal: usize,
    /// Every product and every attention runs in the kernel that fits any number of rows, so that a row's result does not depend on the rows beside it. Else small batches have kernels of their
    /// own, which are faster and round differently.
    pub batch_invariant: bool,
}

/// What opening a GPU does, one after the other. Each ends where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HipPhase {
    /// The HIP library is opened and its functions are found.
    Library,
    /// Its driver starts and counts the GPUs.
    Driver,
    /// The GPU's context is made, and the GPU is asked what it is.
    Context,
    /// The image is loaded and its kernels are found.
    Kernels,
}

/// A GPU with this project's kernels on it, and the stream on which they run. Made by [`Device::hip`](crate::Device::hip).
#[derive(Debug)]
pub struct Hip {
    kernels: Kernels,
    stream: Stream,
    batch_invariant: bool,
    scratch: Mutex<[Option<View>; Purpose::COUNT]>,
}

impl Hip {
    /// Starts the driver and loads the kernels; `on_phase` is told each phase as it begins.
    ///
    /// # Errors
    /// [`HipError`]: no library, no GPU, no kernels in this build for it, or a call that failed.
    pub fn open(options: &HipOptions, mut on_phase: impl FnMut(HipPhase)) -> Result<Hip, HipError> {
        on_phase(HipPhase::Library);
        let library = Library::find(options.library.as_deref())?;
        on_phase(HipPhase::Driver);
        let library = library.start()?;
        on_phase(HipPhase::Context);
        let gpu = Gpu::open(&library, options.ordinal)?;
        on_phase(HipPhase::Kernels);
        Ok(Hip {
            kernels: Kernels::load(&gpu)?,
            stream: Stream::new(&gpu)?,
            batch_invariant: options.batch_invariant,
            scratch: Mutex::default(),
        })
    }

    /// The GPU.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.kernels.gpu()
    }

    /// The kernels on it.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The stream on which operations run. What another stream brought must have arrived before an operation uses it.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether a row's result is the same bits in any batch.
    #[must_use]
    pub fn is_batch_invariant(&self) -> bool {
        self.batch_invariant
    }

    /// Name, architecture, image and driver, for logs and people.
    #[must_use]
    pub fn description(&self) -> String {
        let gpu = self.gpu();
        let invariant = if self.batch_invariant {
            ", batch-invariant"
        } else {
            ""
        };
        format!(
            "hip:{}: {}, {}, image {}, driver {}, {}{invariant}",
            gpu.ordinal(),
            gpu.name(),
            gpu.architecture(),
            self.kernels.image(),
            gpu.driver_version(),
            gpu.library().path().display(),
        )
    }

    pub(crate) fn supports(tensor_type: TensorType) -> bool {
        repack::is_supported(tensor_type)
    }

    /// Memory of its own, zeros.
    pub(super) fn zeros(&self, len_bytes: usize) -> Result<View, HipError> {
        let view = View::whole(&Memory::allocate(self.gpu(), len_bytes)?);
        self.stream.fill(&view, 0)?;
        Ok(view)
    }

    /// Memory of its own with a copy of bytes of the host.
    pub(crate) fn copied(&self, bytes: &[u8]) -> Result<View, HipError> {
        let view = View::whole(&Memory::allocate(self.gpu(), bytes.len())?);
        self.upload(bytes, &view)?;
        Ok(view)
    }

    /// Copies bytes of the host to the device and waits until they are there.
    pub(super) fn upload(&self, bytes: &[u8], to: &View) -> Result<(), HipError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut pinned = Pinned::allocate(self.gpu(), bytes.len())?;
        pinned.bytes_mut().copy_from_slice(bytes);
        self.stream.upload(pinned, 0..bytes.len(), to)?.wait()?;
        Ok(())
    }

    /// Copies a view to the host, once all that is enqueued is done.
    pub(super) fn download(&self, from: &View) -> Result<Pinned, HipError> {
        let pinned = Pinned::allocate(self.gpu(), from.len())?;
        if from.is_empty() {
            return Ok(pinned);
        }
        self.stream.download(from, pinned, 0..from.len())?.wait()
    }

    /// Memory for what an operation puts down between its kernels: at least `len_bytes`, the same each time, used by one operation after the other.
    ///
    /// It grows by allocating, which no recording allows; a step is recorded only when it has run before.
    pub(super) fn scratch(&self, purpose: Purpose, len_bytes: usize) -> Result<View, HipError> {
        let mut scratch = self.lock_scratch();
        let place = &mut scratch[purpose as usize];
        if let Some(view) = place.as_ref().filter(|view| view.len() >= len_bytes) {
            return Ok(view.clone());
        }
        // The old one lives on until the stream has passed it.
        let view = self.zeros(len_bytes.next_power_of_two())?;
        *place = Some(view.clone());
        Ok(view)
    }

    fn lock_scratch(&self) -> MutexGuard<'_, [Option<View>; Purpose::COUNT]> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What scratch memory is for: an operation uses one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Partial sums of a product or of attention.
    Partial,
    /// Gates, and what they let through.
    Gates,
    /// Counters that are zero between operations.
    Counters,
}

impl Purpose {
    const COUNT: usize = 3;
}
