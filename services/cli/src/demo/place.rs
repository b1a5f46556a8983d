//! Where the demo's model and sockets go.

use std::{
    env, fs,
    fs::{File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use tempfile::TempDir;

use crate::failure::Failure;

/// The model that ships with the repository.
pub(super) const MODEL: &[u8] = include_bytes!("../../models/demo.gguf");
/// Name of the model, by its file name.
pub(super) const MODEL_NAME: &str = "demo";
/// A run's folders begin like this.
const RUN_PREFIX: &str = "hearth-demo-";
/// Held locked while a run uses its folder; the kernel lets go of it however the run ends.
const LOCK_NAME: &str = "lock";
/// Where sockets go, whatever `TMPDIR` says: their names have to be short.
const SOCKETS_PARENT: &str = "/tmp";

/// The folders of one run. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Place {
    /// On a file system that keeps its files on a device, where there is one: only there can a file be cold.
    models: RunDir,
    sockets: RunDir,
}

/// A private folder, and the lock that tells other runs that it is in use.
#[derive(Debug)]
struct RunDir {
    dir: TempDir,
    _lock: File,
}

impl RunDir {
    /// Makes a folder below `parent`, where it removes what dead runs have left.
    fn make(parent: &Path) -> Result<RunDir, Failure> {
        sweep(parent);
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix(RUN_PREFIX).tempdir_in(parent);
        let dir = dir.map_err(Failure::file(parent))?;
        // Renamed once it is locked: no other run ever sees a lock of a living run that is not held.
        let path = dir.path().join(LOCK_NAME);
        let unnamed = path.with_extension("new");
        let locked = || {
            let file = File::create(&unnamed)?;
            file.lock()?;
            fs::rename(&unnamed, &path)?;
            Ok(file)
        };
        let lock = locked().map_err(Failure::file(&path))?;
        Ok(RunDir { dir, _lock: lock })
    }

    fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves the folder behind, for this and all later runs.
    fn keep(self) -> PathBuf {
        // Without a lock it is not swept; if that cannot be removed, it is kept until the next run at least.
        let _ = fs::remove_file(self.join(LOCK_NAME));
        self.dir.keep()
    }
}

impl Place {
    /// Makes private folders, unpacks the model and brings it down to the device.
    ///
    /// # Errors
    /// [`Failure::File`] if there is no folder to write to.
    pub(super) fn make() -> Result<Place, Failure> {
        let place = Place {
            models: RunDir::make(&parent(candidates())?)?,
            sockets: RunDir::make(Path::new(SOCKETS_PARENT))?,
        };
        let path = place.model();
        let unpack = || {
            fs::create_dir(place.models_dir())?;
            let mut file = File::create_new(&path)?;
            file.write_all(MODEL)?;
            file.sync_all()
        };
        unpack().map_err(Failure::file(&path))?;
        Ok(place)
    }

    /// What the daemon is told to publish.
    pub(super) fn models_dir(&self) -> PathBuf {
        self.models.join("models")
    }

    /// The model's file.
    pub(super) fn model(&self) -> PathBuf {
        self.models_dir().join(MODEL_NAME).with_extension("gguf")
    }

    /// A socket or log in the other folder.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(name)
    }

    /// Asks the kernel to forget the model's pages. What it forgot has to be asked of the daemon.
    pub(super) fn drop_page_cache(&self) -> Result<(), Failure> {
        let path = self.model();
        let forget = || {
            let file = File::open(&path)?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .map_err(io::Error::from)
        };
        forget().map_err(Failure::file(&path))
    }

    /// Leaves the folders behind and returns them.
    pub(super) fn keep(self) -> [PathBuf; 2] {
        [self.models.keep(), self.sockets.keep()]
    }
}

/// Folders that may hold the model, the most fitting first.
fn candidates() -> Vec<PathBuf> {
    let variable = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let cache = cache.map(|cache| cache.join("hearth").join("demo"));
    let temporary = [env::temp_dir(), PathBuf::from("/var/tmp")];
    cache.into_iter().chain(temporary).collect()
}

/// The first folder that can be made and lies on a device, else the first that can be made.
fn parent(candidates: Vec<PathBuf>) -> Result<PathBuf, Failure> {
    let mut in_memory = None;
    let mut refused = None;
    for path in candidates {
        match usable(&path) {
            Ok(true) => return Ok(path),
            Ok(false) => in_memory = in_memory.or(Some(path)),
            Err(error) => {
                refused = refused.or(Some(Failure::File {
                    path,
                    source: error,
                }))
            }
        }
    }
    match (in_memory, refused) {
        (Some(path), _) => Ok(path),
        (None, Some(failure)) => Err(failure),
        (None, None) => Err(Failure::Usage(
            "no folder for the demo's model: set XDG_CACHE_HOME".to_owned(),
        )),
    }
}

/// Makes `path` and tells whether files in it live on a device.
fn usable(path: &Path) -> io::Result<bool> {
    fs::create_dir_all(path)?;
    tempfile::tempfile_in(path)?;
    Ok(statfs(path)?.filesystem_type() != TMPFS_MAGIC)
}

/// Removes what this user's runs have left that were killed: folders whose lock nobody holds.
fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let named = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(RUN_PREFIX.as_bytes());
        if named && is_abandoned(&entry.path()) {
            // Whatever cannot be removed now is tried again by the next run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(dir: &Path) -> bool {
    let user = nix::unistd::getuid().as_raw();
    let is_ours = fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
    let lock = File::open(dir.join(LOCK_NAME));
    is_ours && lock.is_ok_and(|file| !matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_fits_the_repository_and_can_be_served() {
        assert!(MODEL.len() <= 8 << 20, "{} bytes", MODEL.len());
        let directory = gguf::Directory::parse(MODEL, MODEL.len() as u64).expect("a valid file");
        let architecture = directory.metadata().get_str("general.architecture");
        assert_eq!(architecture.expect("a string"), Some("llama"));
        assert!(directory.tensor("token_embd.weight").is_some());
    }

    #[test]
    fn killed_runs_are_swept_and_running_ones_are_not() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let live = RunDir::make(parent.path()).expect("a new folder");
        let dead = RunDir::make(parent.path()).expect("a new folder");
        let kept = RunDir::make(parent.path()).expect("a new folder").keep();
        fs::create_dir(parent.path().join("other")).expect("a new name");
        let dead = {
            // As a killed process leaves it: the folder stays, the lock is gone with its holder.
            let RunDir { dir, _lock } = dead;
            dir.keep()
        };
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(live.dir.path().exists() && kept.exists() && parent.path().join("other").exists());
    }

    #[test]
    fn memory_is_the_last_resort() {
        let disk = tempfile::tempdir().expect("a temporary directory");
        let missing = PathBuf::from("/proc/nowhere");
        assert_eq!(
            parent(vec![missing.clone(), disk.path().to_owned()]).expect("the second"),
            disk.path()
        );
        assert!(matches!(parent(vec![missing]), Err(Failure::File { .. })));
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            let chosen =
                parent(vec![memory.to_owned(), disk.path().to_owned()]).expect("one of both");
            assert_eq!(
                chosen == memory,
                usable(disk.path()).is_ok_and(|on_device| !on_device)
            );
        }
    }
}
