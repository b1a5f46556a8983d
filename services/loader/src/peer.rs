//! Who is at the other end of a connection.

use std::{fmt, net::IpAddr};

/// A client, as far as the kernel tells; what caps per peer are counted by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Peer {
    /// A process on this node.
    Process {
        /// Its user id.
        uid: u32,
        /// Its process id; 0 if it lives in a pid namespace that we do not see.
        pid: i32,
    },
    /// A host, over TCP.
    Host(IpAddr),
    /// The connection ended before it could be asked.
    Unknown,
}

// === impl Peer ===

impl Peer {
    /// Whether a process of user `uid` may take up a lease that this peer acquired.
    ///
    /// A token that leaked to another user must not be worth anything to them. Over TCP there is no user to compare with.
    pub(crate) fn may_pass_to(self, uid: u32) -> bool {
        match self {
            Peer::Process { uid: owner, .. } => owner == uid,
            Peer::Host(_) => true,
            Peer::Unknown => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process { uid, pid } => write!(f, "uid {uid} pid {pid}"),
            Peer::Host(address) => address.fmt(f),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}
