//! Where the service listens: a TCP address or a Unix socket.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// An address to listen on, written `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// A text that is not an address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither an IP address with a port nor `unix:PATH`.
    #[error("must be IP:PORT, such as 127.0.0.1:50051, or unix:PATH")]
    Unknown,
    /// A path that does not fit a socket's address.
    #[error("the socket's path must have 1 to 107 bytes")]
    PathLength,
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of a Unix socket.
    Unix(UnixListener),
}

/// Longest path that `sockaddr_un` holds, without its closing zero.
const PATH_BYTES_MAX: usize = 107;

// === impl Address ===

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Address::Tcp)
                .map_err(|_| AddressError::Unknown);
        };
        // `unix:///run/x` and `unix:/run/x` name the same socket.
        let path = path
            .strip_prefix("//")
            .filter(|path| path.starts_with('/'))
            .unwrap_or(path);
        if path.is_empty() || path.len() > PATH_BYTES_MAX {
            return Err(AddressError::PathLength);
        }
        Ok(Address::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Listens there. A socket file that a dead process left is replaced; one that somebody answers on is not.
    ///
    /// # Errors
    /// What the system gives.
    pub async fn bind(&self) -> io::Result<Listener> {
        match self {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Address::Unix(path) => {
                remove_stale(path).await?;
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if is_socket && UnixStream::connect(path).await.is_err() {
        return std::fs::remove_file(path);
    }
    // Whatever else is there is left alone; binding then says that the address is in use.
    Ok(())
}

// === impl Listener ===

impl Listener {
    /// The address in use, for people and for tests that bound port 0.
    ///
    /// # Errors
    /// What the system gives.
    pub fn address(&self) -> io::Result<String> {
        Ok(match self {
            Listener::Tcp(listener) => listener.local_addr()?.to_string(),
            Listener::Unix(listener) => match listener.local_addr()?.as_pathname() {
                Some(path) => Address::Unix(path.to_owned()).to_string(),
                None => "unix: (no name)".to_owned(),
            },
        })
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse::<Address>().ok().map(|a| a.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        };
        check("127.0.0.1:50051", Some("127.0.0.1:50051"));
        check("[::1]:0", Some("[::1]:0"));
        check("unix:/run/h.sock", Some("unix:/run/h.sock"));
        check("unix:///run/h.sock", Some("unix:/run/h.sock"));
        check("unix:h.sock", Some("unix:h.sock"));
        check("unix:", None);
        check("localhost", None);
        check("127.0.0.1", None);
        check(&format!("unix:/{}", "x".repeat(107)), None);
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("h.sock"));
        let first = address.bind().await.unwrap();
        assert!(address.bind().await.is_err(), "somebody listens");
        drop(first);
        address.bind().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "keep me").unwrap();
        assert!(Address::Unix(path.clone()).bind().await.is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "keep me");
    }
}
