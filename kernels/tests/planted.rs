//! Faults that the stand-in must catch, each in a process of its own: a device that has failed stays so.
//!
//! Without an argument this program runs itself once for each fault and compares what is said with what must be; with one it commits that fault.

#![expect(unsafe_code, reason = "launches that break their contract on purpose")]

#[path = "hip/support.rs"]
#[allow(dead_code, reason = "shared with the tests of what works")]
mod support;

use std::error::Error;
use std::process::{Command, ExitCode};

use kernels::hip::{Args, Grid, Module, image_for};

use support::{downloaded, gpu, memory, stream};

/// A fault: its name, what commits it, and what must be said about it, without and with the address sanitizer.
struct Fault {
    name: &'static str,
    commit: fn() -> Result<(), Box<dyn Error>>,
    said: &'static str,
    said_by_sanitizer: &'static str,
}

const FAULTS: [Fault; 5] = [
    Fault {
        name: "overrun",
        commit: overrun,
        said: "kernel add with blocks [1, 1, 1] of [256, 1, 1] threads wrote behind the 1024 bytes",
        said_by_sanitizer: "AddressSanitizer: heap-buffer-overflow",
    },
    Fault {
        name: "missing barrier",
        commit: || planted("planted_missing_barrier"),
        said: "wrong numbers",
        said_by_sanitizer: "wrong numbers",
    },
    Fault {
        name: "divergent barrier",
        commit: || planted("planted_divergent_barrier"),
        said: "kernel emulation: divergent barrier: thread 0 waits",
        said_by_sanitizer: "kernel emulation: divergent barrier: thread 0 waits",
    },
    Fault {
        name: "shared overrun",
        commit: || planted("planted_shared_overrun"),
        said: "kernel emulation: shared memory was written past its end",
        said_by_sanitizer: "AddressSanitizer: use-after-poison",
    },
    Fault {
        name: "missing wait",
        commit: missing_wait,
        said: "wrong bytes: a copy did not wait",
        said_by_sanitizer: "wrong bytes: a copy did not wait",
    },
];

/// Runs a kernel of `kernels/hip/planted.hip`, in which each thread tells the number of the next.
fn planted(name: &str) -> Result<(), Box<dyn Error>> {
    let image = image_for(gpu().architecture()).expect("this build has an image for the device");
    // SAFETY: this build's own kernels.
    let module = unsafe { Module::load(&gpu(), image) }?;
    let (stream, out) = (stream(), memory(64 * 4));
    let grid = Grid {
        blocks: [1, 1, 1],
        threads: [64, 1, 1],
        shared_bytes: 0,
    };
    let function = module.function(name)?;
    // SAFETY: the kernel takes one address, of 64 numbers. What else it breaks is the emulation's to notice.
    unsafe { stream.launch(&function, grid, Args::new().view(&out)) }?;
    stream.synchronize()?;
    let numbers: Vec<u32> = downloaded(&stream, &out);
    let expected: Vec<u32> = (0..64).map(|thread| (thread + 1) % 64).collect();
    if numbers == expected {
        Ok(())
    } else {
        Err(format!("wrong numbers: {numbers:?}").into())
    }
}

/// As `add` takes them: `kernels/hip/rowwise.hip`.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct AddArgs {
    x: u64,
    y: u64,
    count: u64,
    n: u32,
    y_rows: u32,
    scale: f32,
    rest: u32,
}

/// Doubles 257 numbers where there are 256.
fn overrun() -> Result<(), Box<dyn Error>> {
    let image = image_for(gpu().architecture()).expect("this build has an image for the device");
    // SAFETY: this build's own kernels.
    let module = unsafe { Module::load(&gpu(), image) }?;
    let (stream, view) = (stream(), memory(256 * 4));
    let args = AddArgs {
        x: view.address() as u64,
        y: 0,
        count: 257,
        n: 257,
        y_rows: 1,
        scale: 2.0,
        rest: 0,
    };
    let grid = Grid {
        blocks: [1, 1, 1],
        threads: [256, 1, 1],
        shared_bytes: 0,
    };
    let add = module.function("add")?;
    // SAFETY: it is not. What it breaks is memory of the stand-in, which notices.
    unsafe { stream.launch(&add, grid, Args::new().value(args).holding(&view)) }?;
    stream.synchronize()?;
    Ok(())
}

/// Copies what another stream writes without waiting for it: the stand-in runs nothing before somebody waits, so the copy is of fresh memory's poison. In company a test beside this one might wait for
/// the whole device in between.
fn missing_wait() -> Result<(), Box<dyn Error>> {
    let (first, second) = (stream(), stream());
    let (from, to) = (memory(64), memory(64));
    first.fill(&from, 9)?;
    second.copy(&from, &to)?;
    match downloaded::<u8>(&second, &to) == [0xff; 64] {
        true => Err("wrong bytes: a copy did not wait".into()),
        false => Ok(()),
    }
}

fn main() -> ExitCode {
    let asked = std::env::args().nth(1).unwrap_or_default();
    if let Some(fault) = FAULTS.iter().find(|fault| fault.name == asked) {
        return match (fault.commit)() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(error) = planted("planted_nothing") {
        println!("the kernel without a fault fails: {error}");
        return ExitCode::FAILURE;
    }
    let missed = FAULTS.iter().filter(|fault| !is_caught(fault)).count();
    println!(
        "planted faults: {} of {} caught",
        FAULTS.len() - missed,
        FAULTS.len()
    );
    ExitCode::from(u8::from(missed > 0))
}

/// Whether a process that commits the fault fails, and says what it must.
fn is_caught(fault: &Fault) -> bool {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg(fault.name).output();
    let output = output.expect("this program runs");
    let under_sanitizer = std::env::var_os("HEARTH_ASAN_RUNTIME").is_some();
    let expected = if under_sanitizer {
        fault.said_by_sanitizer
    } else {
        fault.said
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let caught = !output.status.success() && said.contains(expected);
    if !caught {
        println!("{} was not caught: {}, {said}", fault.name, output.status);
    }
    caught
}
