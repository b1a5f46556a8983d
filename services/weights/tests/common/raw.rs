//! Peers that keep to no protocol.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, connect, listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use weights::handoff::frame::{FileEntry, Frame};
use weights::{FileIdentity, Weights};

/// A connected socket of the hand-off's type.
pub struct Raw(OwnedFd);

fn seqpacket() -> OwnedFd {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    socket
}

pub fn listen_at(path: &Path) -> UnixListener {
    let socket = seqpacket();
    bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&socket, Backlog::new(8).unwrap()).unwrap();
    UnixListener::from(socket)
}

impl Raw {
    pub fn connect(path: &Path) -> Raw {
        let socket = seqpacket();
        connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        Raw(socket)
    }

    pub fn accept(listener: &UnixListener) -> Raw {
        let socket = OwnedFd::from(listener.accept().unwrap().0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
        Raw(socket)
    }

    pub fn send(&self, message: &[u8], files: &[&File]) {
        let numbers: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() {
            &[]
        } else {
            &control[..]
        };
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(message)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .unwrap();
    }

    pub fn send_frame(&self, frame: &Frame) {
        self.send(&frame.encode(), &[]);
    }

    /// The next message and its descriptors; `None` when the peer has closed.
    pub fn receive(&self) -> Option<(Vec<u8>, Vec<File>)> {
        let mut data = [0; 4096];
        let mut control = nix::cmsg_space!([RawFd; 64]);
        let mut slices = [IoSliceMut::new(&mut data)];
        let received = match recvmsg::<()>(
            self.0.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::ECONNRESET) => return None,
            received => received.unwrap(),
        };
        let mut files = Vec::new();
        for message in received.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                files.extend(numbers.into_iter().map(own));
            }
        }
        let len = received.bytes;
        if len == 0 {
            None
        } else {
            Some((data[..len].to_vec(), files))
        }
    }

    pub fn receive_frame(&self) -> Option<Frame> {
        self.receive()
            .map(|(message, _)| Frame::decode(&message).unwrap())
    }
}

fn own(number: RawFd) -> File {
    use std::os::fd::FromRawFd;
    // SAFETY: the kernel has just installed this descriptor for us.
    #[expect(unsafe_code, reason = "nix gives descriptors as numbers")]
    unsafe {
        File::from_raw_fd(number)
    }
}

/// What an honest daemon says of a model of one file.
pub fn entry(weights: &Weights) -> FileEntry {
    FileEntry {
        identity: weights.identity()[0],
        header_bytes: weights.directory().header_len(0),
    }
}

/// Entry of a file that may be no model.
pub fn entry_of(file: &File) -> FileEntry {
    FileEntry {
        identity: FileIdentity::of(file).unwrap(),
        header_bytes: 64,
    }
}

pub fn offer(weights: &Weights) -> Frame {
    Frame::Offer {
        generation: 1,
        directory_hash: weights.directory_hash(),
        file_count: 1,
    }
}

/// Plays the daemon up to the lease.
pub fn grant(listener: &UnixListener, weights: &Weights, path: &Path) -> Raw {
    let peer = Raw::accept(listener);
    assert!(matches!(peer.receive_frame(), Some(Frame::Hello { .. })));
    peer.send_frame(&offer(weights));
    peer.send(
        &Frame::Files(vec![entry(weights)]).encode(),
        &[&File::open(path).unwrap()],
    );
    peer
}

/// What a client says first.
pub fn hello() -> Frame {
    Frame::Hello {
        token: b"token".to_vec(),
    }
}

/// A frame of another version, otherwise right.
pub fn of_version(version: u16, frame: &Frame) -> Vec<u8> {
    let mut message = frame.encode();
    message[..2].copy_from_slice(&version.to_le_bytes());
    message
}
