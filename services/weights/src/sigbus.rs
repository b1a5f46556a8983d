//! The last line against files that shrink under a mapping.
//!
//! Touching a page that its file no longer has raises SIGBUS, which ends the process. [`crate::Weights::fetch`] finds that out beforehand; this is for a file that shrinks after it. The
//! handler looks the address up in a table of our mappings, marks the mapping poisoned, and maps zeros over the rest of it. The thread then goes on, on zeros, and whoever uses its result
//! looks at [`crate::Weights::poisoned`] first. Signals that are not about our mappings go to the handler that was there before.
//!
//! **Invariant:** the handler takes no lock and allocates nothing: the table is an array of atomics, claimed and freed without it. This table is the only global of the workspace.
#![expect(
    unsafe_code,
    reason = "signal handlers are installed and chained through raw pointers"
)]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use libc::{c_int, c_void, siginfo_t};

/// Mappings at once.
pub(crate) const SLOT_COUNT: usize = 4096;

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const LIVE: u8 = 2;

struct Slot {
    state: AtomicU8,
    poisoned: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
}

static TABLE: [Slot; SLOT_COUNT] = [const {
    Slot {
        state: AtomicU8::new(FREE),
        poisoned: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
    }
}; SLOT_COUNT];
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static INSTALL: Once = Once::new();

/// Installs the handler, once per process. Opening a model does it too; a program that sets a SIGBUS handler of its own should do so before, and will be called for what is not ours.
///
/// # Panics
/// If the system has no SIGBUS, which cannot be.
pub fn install() {
    INSTALL.call_once(|| {
        // The old handler is noted before ours can run.
        PREVIOUS.get_or_init(|| exchange_action(None));
        // SAFETY: all-zero is a valid `sigaction`: default handler, empty mask, no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
        action.sa_sigaction = handler as usize;
        // ONSTACK: the standard library gives its threads an alternate stack, and a thread may be short of its own.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        exchange_action(Some(&action));
    });
}

/// Sets the action of SIGBUS, if one is given, and returns the one that was set.
fn exchange_action(new: Option<&libc::sigaction>) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `new` is null or points to a `sigaction`, `old` to one that we own. `on_sigbus`, the only handler that is ever set, calls nothing that is not async-signal-safe.
    let result = unsafe {
        libc::sigaction(
            libc::SIGBUS,
            new.map_or(ptr::null(), ptr::from_ref),
            &raw mut old,
        )
    };
    assert_eq!(result, 0, "SIGBUS exists and can be handled");
    old
}

/// A mapping's place in the table. It must be dropped before the mapping is.
#[derive(Debug)]
pub(crate) struct Registration {
    index: usize,
}

impl Registration {
    /// Enters the mapping of `len` bytes at address `start`; `None` if the table is full.
    pub(crate) fn new(start: usize, len: usize) -> Option<Registration> {
        install();
        let claim = |slot: &Slot| {
            slot.state
                .compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        let index = TABLE.iter().position(claim)?;
        let slot = &TABLE[index];
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Relaxed);
        slot.poisoned.store(false, Ordering::Relaxed);
        slot.state.store(LIVE, Ordering::Release);
        Some(Registration { index })
    }

    /// Whether the mapping lost pages.
    pub(crate) fn poisoned(&self) -> bool {
        TABLE[self.index].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        TABLE[self.index].state.store(FREE, Ordering::Release);
    }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the location of this thread's errno, which the interrupted code may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo.
    let info_ref = unsafe { &*info };
    // SAFETY: SIGBUS that the kernel raises carries an address; for others it is some number, which is then only compared.
    let address = unsafe { info_ref.si_addr() }.addr();
    let raised_by_kernel = info_ref.si_code > 0;
    if !(raised_by_kernel && replace_with_zeros(address)) {
        forward(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Poisons the mapping that `address` lies in and maps zeros from its page on. False if it is in none of ours, or nothing could be mapped.
fn replace_with_zeros(address: usize) -> bool {
    let holds = |slot: &&Slot| {
        slot.state.load(Ordering::Acquire) == LIVE
            && slot.start.load(Ordering::Relaxed) <= address
            && address < slot.end.load(Ordering::Relaxed)
    };
    let Some(slot) = TABLE.iter().find(holds) else {
        return false;
    };
    // Before the zeros are there, so that nobody sees them without the mark.
    slot.poisoned.store(true, Ordering::Release);
    // SAFETY: sysconf is async-signal-safe.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let start = address & !(page - 1);
    let len = slot.end.load(Ordering::Relaxed) - start;
    // SAFETY: `start..start + len` is the rest of a mapping that is registered, so its `Mapping` has not been unmapped: whoever touched it holds a reference to it. Readers of the
    // replaced pages keep valid memory at the same address.
    let mapped = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(start),
            len,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

/// Hands a signal that is not ours to the handler that was there before.
fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().filter(|previous| {
        previous.sa_sigaction != libc::SIG_DFL && previous.sa_sigaction != libc::SIG_IGN
    });
    let Some(previous) = previous else {
        return die(signal);
    };
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with SA_SIGINFO the field holds a handler of this type.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO the field holds a handler of this type.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal);
    }
}

/// Ends the process as SIGBUS does by default: the signal is blocked now and strikes when the handler returns.
fn die(signal: c_int) {
    // SAFETY: all-zero is a valid `sigaction` with the default handler.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: sigaction is async-signal-safe and gets a valid action.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    // SAFETY: raise is async-signal-safe.
    unsafe { libc::raise(signal) };
}
