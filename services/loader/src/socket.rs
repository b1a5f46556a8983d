//! The daemon's own socket: taken over from a dead daemon, never from a live one.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{
            DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
            PermissionsExt as _,
        },
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon serves on it.
    #[error("{}: another daemon is alive and serves on it", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else of that name.
    #[error("{} exists and is no socket; it is left alone", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Its directory belongs to somebody else, who could put another socket in its place.
    #[error("{} belongs to user {owner}", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path in question.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket's file; removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Locked as long as we live. The file stays behind: removing it would let two daemons lock two files of one name.
    _lock: File,
}

/// Binds the socket, in place of one that nobody serves on any more. Mode 0660; a missing directory is made, for the user alone.
///
/// Runs inside a tokio runtime.
///
/// # Errors
/// [`SocketError`]; an existing file is untouched then.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    make_directory(path)?;
    let lock = lock(path)?;
    check_free(path)?;

    // Bound under another name and renamed: at no moment is there a socket with wider permissions than it should have, and a dead socket is replaced in one step.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{}", std::process::id()));
    tracing::debug!(socket = %name, "binding");
    let _left_behind = fs::remove_file(&temporary);
    let listener = StdListener::bind(&temporary).map_err(failed)?;
    let finished = fs::set_permissions(&temporary, Permissions::from_mode(0o660))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = finished {
        let _best_effort = fs::remove_file(&temporary);
        return Err(failed(source));
    }
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok((
        listener,
        SocketFile {
            path: path.to_owned(),
            inode,
            _lock: lock,
        },
    ))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

fn make_directory(path: &Path) -> Result<(), SocketError> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(());
    };
    let failed = |source| SocketError::Io {
        path: dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let owner = fs::metadata(dir).map_err(failed)?.uid();
    let ours = fs::metadata("/proc/self").map_err(failed)?.uid();
    let trusted = owner == ours || owner == 0 || ours == 0;
    if trusted {
        Ok(())
    } else {
        Err(SocketError::ForeignDirectory {
            path: dir.to_owned(),
            owner,
        })
    }
}

/// Excludes other daemons of ours, also one that is just starting.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name);
    let file = file.map_err(|source| SocketError::Io {
        path: name.clone(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(SocketError::Io { path: name, source }),
    }
}

/// Makes sure that nobody serves there.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/loader.sock");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(StdListener::bind(&path).unwrap());
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let (client, server) =
            tokio::join!(tokio::net::UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_daemon_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        let (_listener, _file) = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::InUse { .. })));
        // Also one that does not know our lock file.
        let foreign = dir.path().join("foreign.sock");
        let _foreign = StdListener::bind(&foreign).unwrap();
        assert!(matches!(bind(&foreign), Err(SocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_successor_s_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.sock");
        let (listener, file) = bind(&path).unwrap();
        fs::rename(&path, dir.path().join("kept")).unwrap();
        let _successor = StdListener::bind(&path).unwrap();
        drop((listener, file));
        assert!(path.exists());
    }
}
