//! The HIP library of this machine.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libloading::os::unix::{Library as Opened, RTLD_LOCAL, RTLD_NOW};

use crate::hip::HipError;
use crate::hip::sys::Table;

/// Names that are tried when none is given: newest first, then whatever the linker's path has, then ROCm's own folder.
const NAMES: [&str; 5] = [
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so.5",
    "libamdhip64.so",
    "/opt/rocm/lib/libamdhip64.so",
];

/// An opened HIP library that has at least one GPU.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    gpu_count: usize,
    pub(super) table: Table,
}

/// An opened HIP library whose driver has not been started.
#[derive(Debug)]
pub struct Unstarted {
    path: PathBuf,
    table: Table,
}

impl Library {
    /// Finds the library and starts its driver: [`Library::find`], then [`Unstarted::start`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn open(path: Option<&Path>) -> Result<Arc<Library>, HipError> {
        Library::find(path)?.start()
    }

    /// Opens the library at `path`, or the newest one that the dynamic linker finds. It stays open for the life of the process: drivers have threads and exit handlers in it.
    ///
    /// # Errors
    /// [`HipError::NoLibrary`] if there is none, [`HipError::MissingSymbol`] if it is not one that can be used.
    pub fn find(path: Option<&Path>) -> Result<Unstarted, HipError> {
        let names: Vec<PathBuf> = match path {
            Some(path) => vec![path.to_path_buf()],
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let (path, opened) = open_first(names)?;
        // SAFETY: it has the name of the HIP library, or was named as one by who started this program; a symbol that is missing is an error, and HIP has kept these signatures since ROCm 5.
        let found = unsafe { Table::find(&opened) };
        let table = found.map_err(|symbol| HipError::MissingSymbol {
            library: path.clone(),
            symbol,
        })?;
        mem::forget(opened);
        Ok(Unstarted { path, table })
    }

    /// What was opened: a path, or a name that the dynamic linker resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of GPUs, at least one.
    #[must_use]
    pub fn gpu_count(&self) -> usize {
        self.gpu_count
    }
}

impl Unstarted {
    /// Starts the driver and counts its GPUs.
    ///
    /// # Errors
    /// [`HipError::NoGpu`] if it has none: whatever it answers but success.
    pub fn start(self) -> Result<Arc<Library>, HipError> {
        let Unstarted { path, table } = self;
        let gpu_count = count_gpus(&path, &table)?;
        Ok(Arc::new(Library {
            path,
            gpu_count,
            table,
        }))
    }
}

fn open_first(names: Vec<PathBuf>) -> Result<(PathBuf, Opened), HipError> {
    let mut tried = Vec::new();
    for name in names {
        // SAFETY: opening runs the library's constructors. It is the HIP library by its name, or one that whoever started this program named: as trusted as the program itself.
        match unsafe { Opened::open(Some(&name), RTLD_NOW | RTLD_LOCAL) } {
            Ok(opened) => return Ok((name, opened)),
            Err(source) => tried.push((name, source.to_string())),
        }
    }
    Err(HipError::NoLibrary { tried })
}

fn count_gpus(path: &Path, table: &Table) -> Result<usize, HipError> {
    let no_gpu = |call, status| HipError::NoGpu {
        library: path.to_path_buf(),
        call,
        status,
    };
    // Libraries disagree on the code for "no device" and on which call says it first.
    let counted = table.init().and_then(|()| table.device_count());
    match counted {
        Ok(0) => Err(no_gpu("hipGetDeviceCount", 0)),
        Ok(count) => Ok(count),
        Err(HipError::Call { call, status }) => Err(no_gpu(call, status)),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = Library::open(Some(Path::new("/nowhere/libamdhip64.so")))
            .expect_err("nothing is there");
        assert!(error.is_no_gpu());
        let said = error.to_string();
        assert!(
            said.starts_with("no HIP library: /nowhere/libamdhip64.so: "),
            "{said}"
        );
    }

    #[test]
    fn a_library_of_something_else_is_refused_by_what_it_lacks() {
        let error = Library::open(Some(Path::new("libc.so.6"))).expect_err("not HIP");
        assert!(
            matches!(
                error,
                HipError::MissingSymbol {
                    symbol: "hipInit",
                    ..
                }
            ),
            "{error}"
        );
    }

    /// An executable that names the library among what it needs does not start where there is none, nor beside another version.
    #[test]
    fn this_executable_does_not_need_the_library() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a Linux process");
        let loaded = maps.lines().filter(|line| line.contains("libamdhip64"));
        assert_eq!(loaded.count(), 0);
    }
}
