//! What HIP refuses.

use std::path::PathBuf;

use hip_runtime_sys::hipError_t;

/// Why something did not happen on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HipError {
    /// No HIP library could be opened: there is no ROCm here, or the one that was asked for is not one.
    #[error("no HIP library: {}", join(tried))]
    NoLibrary {
        /// Each name that was tried, and what the dynamic linker said.
        tried: Vec<(PathBuf, String)>,
    },
    /// The library lacks a function that this program calls.
    #[error("{}: not a HIP library that can be used, it has no {symbol}", library.display())]
    MissingSymbol {
        /// The library.
        library: PathBuf,
        /// The function.
        symbol: &'static str,
    },
    /// The library was opened, and says that there is no GPU for it.
    #[error("no GPU: {} opened, but {call} says {}", library.display(), status_name(*status))]
    NoGpu {
        /// The library.
        library: PathBuf,
        /// The function that said so.
        call: &'static str,
        /// What it answered; 0 where it counted no device.
        status: u32,
    },
    /// There is no GPU of this index.
    #[error("no GPU {ordinal}: there are {count}")]
    NoSuchGpu {
        /// The index that was asked for.
        ordinal: usize,
        /// Number of GPUs.
        count: usize,
    },
    /// A function of the library failed.
    #[error("{call} failed: {} ({status})", status_name(*status))]
    Call {
        /// The function.
        call: &'static str,
        /// What it answered.
        status: u32,
    },
    /// The process was given no memory that HIP could lock.
    #[error("no {bytes} bytes of memory to lock")]
    HostMemory {
        /// How many were asked for.
        bytes: usize,
    },
    /// A range leaves the memory that it was asked of.
    #[error("{what}: bytes {start}..{end} of {len}")]
    Range {
        /// What was asked.
        what: &'static str,
        /// First byte.
        start: usize,
        /// The byte after the last.
        end: usize,
        /// Length of the memory in bytes.
        len: usize,
    },
    /// This build holds no kernels for the GPU: no clang that makes them was there when it was built, or they were made for others.
    #[error(
        "no kernels for {architecture} in this build: set HIP_CLANG to a clang of version 19 or newer and build again"
    )]
    NoImage {
        /// What the GPU runs.
        architecture: String,
    },
    /// There is no kernel for an operation.
    #[error("{op}: no kernel for this on a GPU")]
    NoKernel {
        /// The operation.
        op: &'static str,
    },
    /// A name that HIP cannot take: it holds a zero byte.
    #[error("{name:?} holds a zero byte")]
    Name {
        /// The name.
        name: String,
    },
}

impl HipError {
    /// Whether the device had no memory for it, so that giving some back may help.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, HipError::Call { status, .. } if *status == hipError_t::hipErrorOutOfMemory as u32)
    }

    /// Whether this machine has no GPU that HIP reaches, as opposed to a GPU that fails.
    #[must_use]
    pub fn is_no_gpu(&self) -> bool {
        matches!(
            self,
            HipError::NoLibrary { .. } | HipError::NoGpu { .. } | HipError::NoSuchGpu { .. }
        )
    }
}

/// A status as an error, unless it is success.
pub(super) fn check(call: &'static str, status: u32) -> Result<(), HipError> {
    if status == hipError_t::hipSuccess as u32 {
        return Ok(());
    }
    Err(HipError::Call { call, status })
}

/// A question that may be answered by "not yet": `true` once the work is done.
pub(super) fn check_ready(call: &'static str, status: u32) -> Result<bool, HipError> {
    if status == hipError_t::hipErrorNotReady as u32 {
        return Ok(false);
    }
    check(call, status).map(|()| true)
}

/// HIP's own name of a status. Newer libraries answer with codes that nobody here has heard of: those are unnamed, and their number stands beside them.
fn status_name(status: u32) -> String {
    NAMED
        .iter()
        .find(|&&named| named as u32 == status)
        .map_or_else(
            || "an unnamed status".to_owned(),
            |name| format!("{name:?}"),
        )
}

fn join(tried: &[(PathBuf, String)]) -> String {
    let each: Vec<String> = tried
        .iter()
        .map(|(path, why)| format!("{}: {why}", path.display()))
        .collect();
    each.join("; ")
}

/// The statuses that an engine meets.
const NAMED: [hipError_t; 46] = {
    use hipError_t::*;
    [
        hipSuccess,
        hipErrorInvalidValue,
        hipErrorOutOfMemory,
        hipErrorNotInitialized,
        hipErrorDeinitialized,
        hipErrorInvalidConfiguration,
        hipErrorInvalidSymbol,
        hipErrorInvalidDevicePointer,
        hipErrorInvalidMemcpyDirection,
        hipErrorInsufficientDriver,
        hipErrorPriorLaunchFailure,
        hipErrorInvalidDeviceFunction,
        hipErrorNoDevice,
        hipErrorInvalidDevice,
        hipErrorInvalidImage,
        hipErrorInvalidContext,
        hipErrorMapFailed,
        hipErrorNoBinaryForGpu,
        hipErrorECCNotCorrectable,
        hipErrorInvalidKernelFile,
        hipErrorInvalidSource,
        hipErrorFileNotFound,
        hipErrorSharedObjectSymbolNotFound,
        hipErrorSharedObjectInitFailed,
        hipErrorOperatingSystem,
        hipErrorInvalidHandle,
        hipErrorIllegalState,
        hipErrorNotFound,
        hipErrorNotReady,
        hipErrorIllegalAddress,
        hipErrorLaunchOutOfResources,
        hipErrorLaunchTimeOut,
        hipErrorContextIsDestroyed,
        hipErrorAssert,
        hipErrorHostMemoryAlreadyRegistered,
        hipErrorHostMemoryNotRegistered,
        hipErrorLaunchFailure,
        hipErrorNotSupported,
        hipErrorStreamCaptureUnsupported,
        hipErrorStreamCaptureInvalidated,
        hipErrorStreamCaptureImplicit,
        hipErrorStreamCaptureWrongThread,
        hipErrorGraphExecUpdateFailure,
        hipErrorUnknown,
        hipErrorRuntimeMemory,
        hipErrorRuntimeOther,
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_said_by_name_and_number() {
        let refused = check("hipMalloc", 2).expect_err("out of memory");
        assert_eq!(
            refused.to_string(),
            "hipMalloc failed: hipErrorOutOfMemory (2)"
        );
        assert!(refused.is_out_of_memory());
        let unheard = check("hipFree", 912).expect_err("a code of a newer library");
        assert_eq!(
            unheard.to_string(),
            "hipFree failed: an unnamed status (912)"
        );
        assert!(!unheard.is_out_of_memory());
    }

    #[test]
    fn not_ready_is_an_answer() {
        assert_eq!(check_ready("hipEventQuery", 600), Ok(false));
        assert_eq!(check_ready("hipEventQuery", 0), Ok(true));
        assert!(check_ready("hipEventQuery", 700).is_err());
    }
}
