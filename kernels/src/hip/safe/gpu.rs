//! One GPU.

use std::ffi::c_int;
use std::sync::Arc;

use hip_runtime_sys::hipDeviceAttribute_t;

use super::Library;
use crate::hip::HipError;
use crate::hip::sys::Table;

/// One GPU of the library, and what it says of itself.
#[derive(Debug)]
pub struct Gpu {
    library: Arc<Library>,
    ordinal: c_int,
    name: String,
    architecture: String,
    driver_version: i32,
    runtime_version: i32,
    total_bytes: usize,
    multiprocessors: usize,
    warp_width: usize,
    shared_bytes: usize,
}

impl Gpu {
    /// Opens the GPU of this index: its driver context starts here, if it has not yet.
    ///
    /// # Errors
    /// [`HipError::NoSuchGpu`], or the call that failed.
    pub fn open(library: &Arc<Library>, ordinal: usize) -> Result<Arc<Gpu>, HipError> {
        let count = library.gpu_count();
        let index = c_int::try_from(ordinal).ok().filter(|_| ordinal < count);
        let index = index.ok_or(HipError::NoSuchGpu { ordinal, count })?;
        let table = &library.table;
        table.set_device(index)?;
        let attribute = |attribute| table.attribute(attribute, index);
        Ok(Arc::new(Gpu {
            ordinal: index,
            name: table.device_name(index)?,
            architecture: table.architecture(index)?,
            driver_version: table.driver_version()?,
            runtime_version: table.runtime_version()?,
            total_bytes: table.memory_info()?.1,
            multiprocessors: attribute(
                hipDeviceAttribute_t::hipDeviceAttributeMultiprocessorCount,
            )?,
            warp_width: attribute(hipDeviceAttribute_t::hipDeviceAttributeWarpSize)?,
            shared_bytes: attribute(
                hipDeviceAttribute_t::hipDeviceAttributeMaxSharedMemoryPerBlock,
            )?,
            library: library.clone(),
        }))
    }

    /// The library's functions, after making this the calling thread's GPU. What a thread creates lives on its own GPU, and threads begin with the first one.
    pub(super) fn table(&self) -> Result<&Table, HipError> {
        self.library.table.set_device(self.ordinal)?;
        Ok(&self.library.table)
    }

    /// The library's functions, for calls whose handle says which GPU is meant.
    pub(super) fn any_thread(&self) -> &Table {
        &self.library.table
    }

    /// The library that it was opened with.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Its index, as `--device hip:INDEX` spells it.
    #[must_use]
    pub fn ordinal(&self) -> usize {
        // Made from a `usize` when it was opened.
        usize::try_from(self.ordinal).unwrap_or(0)
    }

    /// The maker's name of it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What code it runs: `gfx…` with features behind colons on AMD, `sm_…` through the forwarding library, `cpu` on the stand-in of CI.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The driver's version, in HIP's or CUDA's own counting.
    #[must_use]
    pub fn driver_version(&self) -> i32 {
        self.driver_version
    }

    /// The HIP library's version, in HIP's own counting.
    #[must_use]
    pub fn runtime_version(&self) -> i32 {
        self.runtime_version
    }

    /// Its memory, used or not.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Memory that nobody has taken at this moment. Others may take it the next.
    ///
    /// # Errors
    /// The call that failed.
    pub fn free_bytes(&self) -> Result<usize, HipError> {
        Ok(self.table()?.memory_info()?.0)
    }

    /// Compute units (AMD) or streaming multiprocessors (NVIDIA).
    #[must_use]
    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// Lanes of a hardware warp: 32 or 64. Kernels use logical warps of 32 on both.
    #[must_use]
    pub fn warp_width(&self) -> usize {
        self.warp_width
    }

    /// Shared memory that a block may ask for without more ado.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Whether both are the same GPU.
    #[must_use]
    pub fn same_as(&self, other: &Gpu) -> bool {
        self.ordinal == other.ordinal && Arc::ptr_eq(&self.library, &other.library)
    }
}
