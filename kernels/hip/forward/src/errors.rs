//! Last errors, and their names.
//!
//! The functions that take a status take it as a number: a C program may hand over any, and an enum with an unknown value is undefined behaviour.

use std::ffi::{CStr, c_char};

use hip_runtime_sys::hipError_t;

use crate::status::{last_error, put};

/// HIP's `hipGetLastError`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetLastError() -> hipError_t {
    last_error(true)
}

/// HIP's `hipPeekAtLastError`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipPeekAtLastError() -> hipError_t {
    last_error(false)
}

/// HIP's `hipGetErrorName`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetErrorName(status: u32) -> *const c_char {
    name(status).as_ptr()
}

/// HIP's `hipGetErrorString`: the name, which says as much as the sentence would.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetErrorString(status: u32) -> *const c_char {
    name(status).as_ptr()
}

/// HIP's `hipDrvGetErrorName`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipDrvGetErrorName(status: u32, text: *mut *const c_char) -> hipError_t {
    crate::status::returned(|| put(text, name(status).as_ptr()))
}

/// HIP's `hipDrvGetErrorString`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipDrvGetErrorString(status: u32, text: *mut *const c_char) -> hipError_t {
    crate::status::returned(|| put(text, name(status).as_ptr()))
}

macro_rules! names {
    ($($name:ident)*) => {
        fn name(status: u32) -> &'static CStr {
            $( if status == hipError_t::$name as u32 {
                const NAME: &str = concat!(stringify!($name), "\0");
                return CStr::from_bytes_with_nul(NAME.as_bytes()).unwrap_or(c"");
            } )*
            c"hipErrorUnknown"
        }
    };
}

names! {
    hipSuccess hipErrorInvalidValue hipErrorOutOfMemory hipErrorNotInitialized hipErrorDeinitialized hipErrorInvalidConfiguration hipErrorInvalidMemcpyDirection hipErrorInsufficientDriver
    hipErrorNoDevice hipErrorInvalidDevice hipErrorInvalidImage hipErrorInvalidContext hipErrorMapFailed hipErrorUnmapFailed hipErrorAlreadyMapped hipErrorNoBinaryForGpu hipErrorNotMapped
    hipErrorECCNotCorrectable hipErrorUnsupportedLimit hipErrorContextAlreadyInUse hipErrorPeerAccessUnsupported hipErrorInvalidKernelFile hipErrorInvalidSource hipErrorFileNotFound
    hipErrorSharedObjectSymbolNotFound hipErrorSharedObjectInitFailed hipErrorOperatingSystem hipErrorInvalidHandle hipErrorIllegalState hipErrorNotFound hipErrorNotReady hipErrorIllegalAddress
    hipErrorLaunchOutOfResources hipErrorLaunchTimeOut hipErrorPeerAccessAlreadyEnabled hipErrorPeerAccessNotEnabled hipErrorSetOnActiveProcess hipErrorContextIsDestroyed hipErrorAssert
    hipErrorHostMemoryAlreadyRegistered hipErrorHostMemoryNotRegistered hipErrorLaunchFailure hipErrorCooperativeLaunchTooLarge hipErrorNotSupported hipErrorStreamCaptureUnsupported
    hipErrorStreamCaptureInvalidated hipErrorStreamCaptureMerge hipErrorStreamCaptureUnmatched hipErrorStreamCaptureUnjoined hipErrorStreamCaptureIsolation hipErrorStreamCaptureImplicit
    hipErrorCapturedEvent hipErrorStreamCaptureWrongThread hipErrorGraphExecUpdateFailure
}
