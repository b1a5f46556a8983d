//! `hearth-inference`: the gRPC face of one device.

use std::process::ExitCode;

fn main() -> ExitCode {
    inference::main_from(std::env::args_os())
}
