//! CUDA's answers as HIP's.

use std::cell::Cell;

use hip_runtime_sys::hipError_t;

use crate::cuda;

/// What a function does: nothing to say, or the status that it returns.
pub(crate) type Outcome = Result<(), hipError_t>;

thread_local! {
    static LAST_ERROR: Cell<hipError_t> = const { Cell::new(hipError_t::hipSuccess) };
}

/// The value that a function returns, kept as the thread's last error if it is one. "Not ready" is an answer, not an error.
pub(crate) fn returned(body: impl FnOnce() -> Outcome) -> hipError_t {
    let Err(error) = body() else {
        return hipError_t::hipSuccess;
    };
    if error != hipError_t::hipErrorNotReady {
        LAST_ERROR.set(error);
    }
    error
}

/// The last error of the calling thread; `forget` makes it success.
pub(crate) fn last_error(forget: bool) -> hipError_t {
    let error = LAST_ERROR.get();
    if forget {
        LAST_ERROR.set(hipError_t::hipSuccess);
    }
    error
}

/// Writes to a place that the caller named, unless it named none.
pub(crate) fn put<T>(place: *mut T, value: T) -> Outcome {
    if place.is_null() {
        return Err(hipError_t::hipErrorInvalidValue);
    }
    // SAFETY: the caller of the HIP function gave a place for a value of this type.
    unsafe { place.write(value) };
    Ok(())
}

/// CUDA's code as HIP's. Most have the same number; those that HIP lacks become the nearest one that it has.
pub(crate) fn check(result: cuda::Result) -> Outcome {
    use hipError_t::*;
    let error = match result {
        0 => return Ok(()),
        2 => hipErrorOutOfMemory,
        3 => hipErrorNotInitialized,
        4 => hipErrorDeinitialized,
        // A stub in the driver's place, a driver older than its kernel module, or a device that is there but may not be used.
        34 | 46 | 803 | 804 => hipErrorInsufficientDriver,
        100 => hipErrorNoDevice,
        101 | 102 => hipErrorInvalidDevice,
        200 => hipErrorInvalidImage,
        201 => hipErrorInvalidContext,
        205 => hipErrorMapFailed,
        206 => hipErrorUnmapFailed,
        208 => hipErrorAlreadyMapped,
        // No code for this device: compiled for another one, or PTX newer than the driver.
        209 | 222 => hipErrorNoBinaryForGpu,
        211 => hipErrorNotMapped,
        // Memory errors that no program caused: correctable by nobody, uncontained, poisoned.
        214 | 220 | 226 => hipErrorECCNotCorrectable,
        215 => hipErrorUnsupportedLimit,
        216 => hipErrorContextAlreadyInUse,
        217 => hipErrorPeerAccessUnsupported,
        218 => hipErrorInvalidKernelFile,
        300 => hipErrorInvalidSource,
        301 => hipErrorFileNotFound,
        302 => hipErrorSharedObjectSymbolNotFound,
        // The driver's own parts did not come up, its compiler for PTX among them.
        221 | 303 => hipErrorSharedObjectInitFailed,
        304 => hipErrorOperatingSystem,
        400 => hipErrorInvalidHandle,
        401 => hipErrorIllegalState,
        500 => hipErrorNotFound,
        600 => hipErrorNotReady,
        // Memory that is not there, or not where an instruction may reach it.
        700 | 716 | 717 => hipErrorIllegalAddress,
        701 => hipErrorLaunchOutOfResources,
        702 => hipErrorLaunchTimeOut,
        704 => hipErrorPeerAccessAlreadyEnabled,
        705 => hipErrorPeerAccessNotEnabled,
        708 => hipErrorSetOnActiveProcess,
        709 => hipErrorContextIsDestroyed,
        710 => hipErrorAssert,
        712 => hipErrorHostMemoryAlreadyRegistered,
        713 => hipErrorHostMemoryNotRegistered,
        // The kernel ran into something: an instruction, a stack, a program counter that cannot be.
        714 | 715 | 718 | 719 => hipErrorLaunchFailure,
        720 => hipErrorCooperativeLaunchTooLarge,
        800 | 801 => hipErrorNotSupported,
        900 => hipErrorStreamCaptureUnsupported,
        901 => hipErrorStreamCaptureInvalidated,
        902 => hipErrorStreamCaptureMerge,
        903 => hipErrorStreamCaptureUnmatched,
        904 => hipErrorStreamCaptureUnjoined,
        905 => hipErrorStreamCaptureIsolation,
        906 => hipErrorStreamCaptureImplicit,
        907 => hipErrorCapturedEvent,
        908 => hipErrorStreamCaptureWrongThread,
        910 => hipErrorGraphExecUpdateFailure,
        1 => hipErrorInvalidValue,
        _ => hipErrorUnknown,
    };
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that mean the same in both have the same number, but for those that HIP lacks.
    #[test]
    fn known_codes_keep_their_number() {
        let lacking = [
            34, 46, 102, 220, 221, 222, 226, 714, 715, 716, 717, 718, 800, 803, 804,
        ];
        for code in 0..1100 {
            let Err(error) = check(code) else {
                assert_eq!(code, 0);
                continue;
            };
            if error != hipError_t::hipErrorUnknown && !lacking.contains(&code) {
                assert_eq!(error as u32, code, "{error:?}");
            }
        }
    }

    #[test]
    fn not_ready_is_not_kept_as_an_error() {
        let _ = last_error(true);
        assert_eq!(returned(|| check(600)), hipError_t::hipErrorNotReady);
        assert_eq!(last_error(false), hipError_t::hipSuccess);
        assert_eq!(returned(|| check(700)), hipError_t::hipErrorIllegalAddress);
        assert_eq!(last_error(true), hipError_t::hipErrorIllegalAddress);
        assert_eq!(last_error(true), hipError_t::hipSuccess);
    }
}
