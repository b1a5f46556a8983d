//! The two services in one executable, started as child processes by the tests of this package.
//!
//! They run the very functions that `hearth-loader` and `hearth-inference` run; cargo builds a package's own binaries before its tests, but not those of other packages.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let service = arguments.next().unwrap_or_default();
    let arguments = std::iter::once(program).chain(arguments);
    match service.to_str() {
        Some("loader") => loader::main_from(arguments),
        Some("inference") => inference::main_from(arguments),
        _ => ExitCode::from(64),
    }
}
