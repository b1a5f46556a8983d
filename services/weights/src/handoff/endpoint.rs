//! One end of a hand-off connection.
//!
//! The socket is `SOCK_SEQPACKET`: a message arrives whole, with its descriptors, or not at all. Whatever arrives is owned before it is looked at, so that every refusal closes it.
#![expect(
    unsafe_code,
    reason = "descriptors arrive as numbers in a control buffer"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect,
    getsockopt, sendmsg, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::book::PeerCredentials;
use super::frame::{FILES_PER_FRAME, FRAME_BYTES_MAX, Frame, FrameError};

/// A connected socket. Any thread may send; one at a time should receive.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: OwnedFd,
}

/// Why nothing usable was received. Every descriptor that came along has been closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the peer has gone")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a message longer than {FRAME_BYTES_MAX} bytes")]
    Oversized,
    #[error("control data was cut off")]
    ControlTruncated,
    #[error("control data of another kind than descriptors")]
    UnexpectedControl,
    #[error("{found} descriptors where {expected} belong")]
    DescriptorCount { found: usize, expected: usize },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Room for control data, aligned as its headers demand.
#[repr(C, align(8))]
struct ControlBuffer([u8; CONTROL_BYTES]);

/// `CMSG_SPACE` for the descriptors of one `Files` frame.
const CONTROL_BYTES: usize = (size_of::<libc::cmsghdr>() + FILES_PER_FRAME * size_of::<RawFd>())
    .next_multiple_of(align_of::<libc::cmsghdr>());

impl Endpoint {
    pub(crate) fn from_socket(socket: OwnedFd) -> Endpoint {
        Endpoint { socket }
    }

    /// Connects to a listening socket. `timeout` bounds this, and every later send and receive until it is set anew.
    pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<Endpoint> {
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let endpoint = Endpoint { socket };
        endpoint.set_receive_timeout(Some(timeout))?;
        endpoint.set_send_timeout(timeout)?;
        connect(endpoint.socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(endpoint)
    }

    /// How long a receive waits; `None`: until something comes or the connection ends.
    pub(crate) fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(setsockopt(
            &self.socket,
            sockopt::ReceiveTimeout,
            &to_timeval(timeout),
        )?)
    }

    /// How long a send waits for a peer that does not receive.
    pub(crate) fn set_send_timeout(&self, timeout: Duration) -> io::Result<()> {
        Ok(setsockopt(
            &self.socket,
            sockopt::SendTimeout,
            &to_timeval(Some(timeout)),
        )?)
    }

    /// Who connected, as the kernel noted then.
    pub(crate) fn peer(&self) -> io::Result<PeerCredentials> {
        let credentials = getsockopt(&self.socket, sockopt::PeerCredentials)?;
        Ok(PeerCredentials {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
        })
    }

    /// Ends the connection for both sides, and wakes threads that wait on this one.
    pub(crate) fn close(&self) {
        // It fails only if the peer was faster.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// Sends a frame, waiting at most the send timeout.
    pub(crate) fn send(&self, frame: &Frame, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(frame, descriptors, MsgFlags::empty())
    }

    /// Sends a frame if there is room for it now.
    pub(crate) fn send_now(&self, frame: &Frame) -> io::Result<()> {
        self.send_with(frame, &[], MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(
        &self,
        frame: &Frame,
        descriptors: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> io::Result<()> {
        let message = frame.encode();
        let numbers: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &[] } else { &rights[..] };
        let data = [io::IoSlice::new(&message)];
        loop {
            match sendmsg::<()>(
                self.socket.as_raw_fd(),
                &data,
                control,
                flags | MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                // A message of this kind of socket goes whole or not at all.
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Receives a frame that comes without descriptors.
    pub(crate) fn receive(&self) -> Result<Frame, ReceiveError> {
        let (frame, descriptors) = self.receive_with_descriptors()?;
        match descriptors.len() {
            0 => Ok(frame),
            found => Err(ReceiveError::DescriptorCount { found, expected: 0 }),
        }
    }

    /// Receives a frame with as many descriptors as it has file entries, mostly none.
    pub(crate) fn receive_with_descriptors(&self) -> Result<(Frame, Vec<OwnedFd>), ReceiveError> {
        let mut data = [0; FRAME_BYTES_MAX];
        let received = self.receive_message(&mut data)?;
        let Received {
            len,
            flags,
            descriptors,
            other_control,
        } = received;
        if flags & libc::MSG_CTRUNC != 0 {
            return Err(ReceiveError::ControlTruncated);
        }
        if flags & libc::MSG_TRUNC != 0 {
            return Err(ReceiveError::Oversized);
        }
        if other_control {
            return Err(ReceiveError::UnexpectedControl);
        }
        if len == 0 && descriptors.is_empty() {
            return Err(ReceiveError::Closed);
        }
        let frame = Frame::decode(&data[..len])?;
        let expected = if let Frame::Files(entries) = &frame {
            entries.len()
        } else {
            0
        };
        if descriptors.len() != expected {
            return Err(ReceiveError::DescriptorCount {
                found: descriptors.len(),
                expected,
            });
        }
        Ok((frame, descriptors))
    }

    fn receive_message(&self, data: &mut [u8]) -> Result<Received, ReceiveError> {
        let mut control = ControlBuffer([0; CONTROL_BYTES]);
        let mut slice = libc::iovec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: data.len(),
        };
        // nix's `recvmsg` gives no access to the descriptors of a message whose control data was cut off, which the kernel has installed all the same: they would leak.
        // SAFETY: all-zero is a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut slice;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES;
        let len = loop {
            // SAFETY: the header points to `slice` (which points to `data`) and to `control`, with their lengths; all three outlive the call.
            let result = unsafe {
                libc::recvmsg(
                    self.socket.as_raw_fd(),
                    &raw mut header,
                    libc::MSG_CMSG_CLOEXEC,
                )
            };
            match Errno::result(result) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Err(ReceiveError::Closed),
                Err(errno) => return Err(ReceiveError::Io(errno.into())),
                Ok(len) => break usize::try_from(len).unwrap_or(0),
            }
        };
        let (descriptors, other_control) = take_descriptors(&control, header.msg_controllen);
        Ok(Received {
            len,
            flags: header.msg_flags,
            descriptors,
            other_control,
        })
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

struct Received {
    len: usize,
    flags: libc::c_int,
    descriptors: Vec<OwnedFd>,
    other_control: bool,
}

/// Owns every descriptor in `len` bytes of control data that the kernel wrote, also where it ran out of room; says whether there was anything else.
fn take_descriptors(control: &ControlBuffer, len: usize) -> (Vec<OwnedFd>, bool) {
    const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
    let mut rest = &control.0[..len.min(CONTROL_BYTES)];
    let mut descriptors = Vec::new();
    let mut other = false;
    while let Some((len, level, kind)) = control_header(rest) {
        let body = &rest[HEADER_BYTES..len.clamp(HEADER_BYTES, rest.len())];
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for number in body.chunks_exact(size_of::<RawFd>()) {
                let number = RawFd::from_ne_bytes(number.try_into().expect("chunks of this size"));
                // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows of it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        } else {
            other = true;
        }
        let step = len
            .max(HEADER_BYTES)
            .next_multiple_of(align_of::<libc::cmsghdr>());
        rest = rest.get(step..).unwrap_or(&[]);
    }
    (descriptors, other)
}

/// Length (header included), level and type of the control message at the start of `bytes`. Source: `struct cmsghdr` of glibc and musl on 64 bits.
fn control_header(bytes: &[u8]) -> Option<(usize, libc::c_int, libc::c_int)> {
    let (len, bytes) = bytes.split_first_chunk()?;
    let (level, bytes) = bytes.split_first_chunk()?;
    let (kind, _) = bytes.split_first_chunk()?;
    Some((
        usize::from_ne_bytes(*len),
        libc::c_int::from_ne_bytes(*level),
        libc::c_int::from_ne_bytes(*kind),
    ))
}

/// Zero means no limit to the kernel, so the shortest limit is a microsecond.
fn to_timeval(timeout: Option<Duration>) -> TimeVal {
    let Some(timeout) = timeout else {
        return TimeVal::new(0, 0);
    };
    let timeout = timeout.max(Duration::from_micros(1));
    TimeVal::new(
        i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        i64::from(timeout.subsec_micros()),
    )
}
