//! `hearth-loader`: the node's loader daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    loader::main_from(std::env::args_os())
}
