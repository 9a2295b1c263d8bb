//! The socket beside the region: descriptors travel here, and death shows here.
//!
//! The idea: a `SOCK_SEQPACKET` pair keeps messages whole and in order, so that a *parcel* is one
//! message of eight bytes, the tag, with exactly one descriptor. What else arrives is an error,
//! after which the peer is not worth talking to; nothing of it stays behind in this process.
//!
//! Both ends of the pair were made by someone trusted, so the socket itself is what it claims to
//! be; only its messages are hostile.

use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage,
        getsockname, getsockopt, sendmsg, socketpair, sockopt,
    },
};

use crate::ancillary::{self, Received};

/// Why a message was not sent or not received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The peer closed its end, most likely by dying.
    #[error("the peer closed the channel's socket")]
    Closed,
    /// The socket is non-blocking and would have to wait.
    #[error("the channel's socket is not ready")]
    WouldBlock,
    /// The message carried no descriptor.
    #[error("the peer sent a message without the descriptor it needs")]
    NoDescriptor,
    /// The message carried more than one descriptor, or something else beside it.
    #[error("the peer sent a message with more than one descriptor")]
    SeveralDescriptors,
    /// The message carried a descriptor, and is one that has none.
    #[error("the peer sent a descriptor with a message that has none")]
    UnwantedDescriptor,
    /// The message carried a descriptor that could not be installed: this process has too many.
    #[error("a descriptor from the peer was lost: too many files are open in this process")]
    DescriptorLost,
    /// The message did not have the size of what was expected.
    #[error("the peer sent a message of the wrong size")]
    WrongSize,
    /// The message is none that can be said here; what is wrong with it.
    #[error("it does not keep to the protocol: {0}")]
    Malformed(String),
    /// The message that was to be sent is longer than any may be.
    #[error("the message is too long to be sent")]
    TooLong,
    /// The descriptor is no connected `AF_UNIX` socket of type `SOCK_SEQPACKET`.
    #[error("the channel's socket is not a connected AF_UNIX SOCK_SEQPACKET one")]
    WrongKind,
    /// A system call failed.
    #[error("the channel's socket: {0} failed: {1}")]
    System(&'static str, Errno),
}

/// One end of a connected `SOCK_SEQPACKET` pair, close-on-exec.
pub struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// A connected pair.
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| SocketError::System("socketpair", errno))?;
        Ok((Self { descriptor: one }, Self { descriptor: other }))
    }

    /// Makes sending and receiving return [`SocketError::WouldBlock`] instead of waiting. The
    /// setting belongs to the open file description.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<(), SocketError> {
        let flags = fcntl(&self.descriptor, FcntlArg::F_GETFL)
            .map_err(|errno| SocketError::System("fcntl(F_GETFL)", errno))?;
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_NONBLOCK, nonblocking);
        fcntl(&self.descriptor, FcntlArg::F_SETFL(flags))
            .map(drop)
            .map_err(|errno| SocketError::System("fcntl(F_SETFL)", errno))
    }

    /// Sends a parcel: a descriptor, and the tag to know it by. A peer that does not receive makes
    /// a blocking socket wait once the send buffer is full, so a server makes its end non-blocking.
    pub fn send(&self, tag: u64, descriptor: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.send_message(&tag.to_ne_bytes(), Some(descriptor))
    }

    /// Receives a parcel. After an error other than [`SocketError::WouldBlock`] the order of
    /// parcels is lost, and the peer is hostile, broken or gone.
    pub fn receive(&self) -> Result<(u64, OwnedFd), SocketError> {
        self.receive_parcel(MsgFlags::empty())
    }

    /// Receives a parcel that an entry of a ring announced. It was sent before the entry was
    /// published, so a peer that makes this wait is hostile or broken: [`SocketError::WouldBlock`].
    /// After [`SocketError::DescriptorLost`] the order of parcels still holds.
    pub fn receive_announced(&self) -> Result<(u64, OwnedFd), SocketError> {
        self.receive_parcel(MsgFlags::MSG_DONTWAIT)
    }

    fn receive_parcel(&self, flags: MsgFlags) -> Result<(u64, OwnedFd), SocketError> {
        let mut tag = [0; size_of::<u64>()];
        let (length, descriptor) = self.receive_message(&mut tag, flags)?;
        let descriptor = descriptor.ok_or(SocketError::NoDescriptor)?;
        if length != tag.len() {
            return Err(SocketError::WrongSize);
        }
        Ok((u64::from_ne_bytes(tag), descriptor))
    }

    /// Checks that this is the kind of socket that keeps messages whole, for the descriptor may
    /// have come from a parent process, and makes it close-on-exec.
    pub(crate) fn prepare(&self) -> Result<(), SocketError> {
        let kind = getsockopt(self, sockopt::SockType).map_err(|_| SocketError::WrongKind)?;
        let address = getsockname::<SockaddrStorage>(self.descriptor.as_raw_fd())
            .map_err(|_| SocketError::WrongKind)?;
        if kind != SockType::SeqPacket || address.family() != Some(AddressFamily::Unix) {
            return Err(SocketError::WrongKind);
        }
        fcntl(self, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map(drop)
            .map_err(|errno| SocketError::System("fcntl(F_SETFD)", errno))
    }

    /// Sends one message of any kind. A peer that is gone is an error and no signal.
    pub(crate) fn send_message(
        &self,
        bytes: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), SocketError> {
        let raw = descriptor.map(|descriptor| descriptor.as_raw_fd());
        let rights = raw
            .as_ref()
            .map(|raw| ControlMessage::ScmRights(std::slice::from_ref(raw)));
        loop {
            let sent = sendmsg::<()>(
                self.descriptor.as_raw_fd(),
                &[IoSlice::new(bytes)],
                rights.as_slice(),
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            return match sent {
                // A SOCK_SEQPACKET message is sent whole or not at all.
                Ok(_) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Err(SocketError::WouldBlock),
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(SocketError::Closed),
                Err(errno) => Err(SocketError::System("sendmsg", errno)),
            };
        }
    }

    /// Receives one message of at most the buffer's size, with at most one descriptor: its length
    /// and the descriptor. `flags` are those of recvmsg(2).
    pub(crate) fn receive_message(
        &self,
        buffer: &mut [u8],
        flags: MsgFlags,
    ) -> Result<(usize, Option<OwnedFd>), SocketError> {
        let received = loop {
            match ancillary::receive(self.as_fd(), buffer, flags) {
                Ok(received) => break received,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(SocketError::WouldBlock),
                Err(Errno::ECONNRESET) => return Err(SocketError::Closed),
                Err(errno) => return Err(SocketError::System("recvmsg", errno)),
            }
        };
        match received {
            Received {
                control_truncated: true,
                descriptor: Some(_),
                ..
            } => Err(SocketError::SeveralDescriptors),
            Received {
                control_truncated: true,
                descriptor: None,
                ..
            } => Err(SocketError::DescriptorLost),
            Received {
                data_truncated: true,
                ..
            } => Err(SocketError::WrongSize),
            Received {
                length: 0,
                descriptor: None,
                ..
            } => Err(SocketError::Closed),
            Received {
                length, descriptor, ..
            } => Ok((length, descriptor)),
        }
    }

    /// Waits until there is something to receive, the end of the connection included. False when
    /// the deadline passed first.
    pub fn wait_readable(&self, deadline: Instant) -> Result<bool, SocketError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent polling without a pause.
            let left = left.saturating_add(Duration::from_micros(999));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(SocketError::System("poll", errno)),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    /// The end of a pair that this process was given. The handshake checks what it is.
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }
}

impl From<Socket> for OwnedFd {
    /// The descriptor, to give to a child as its end. It is still close-on-exec.
    fn from(socket: Socket) -> Self {
        socket.descriptor
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{PipeReader, PipeWriter, Read, Write, pipe},
    };

    use super::*;

    /// Sends any message, as a hostile peer can.
    fn send_raw(socket: &Socket, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let raw: Vec<_> = descriptors
            .iter()
            .map(|descriptor| descriptor.as_raw_fd())
            .collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(bytes)];
        let flags = MsgFlags::empty();
        sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, rights, flags, None).unwrap();
    }

    /// Asserts that no copy of a pipe's writing end is left in this process: only then does
    /// reading end.
    fn assert_none_left(writer: PipeWriter, mut reader: PipeReader) {
        drop(writer);
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(&reader, flags).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "a descriptor was leaked");
    }

    #[test]
    fn parcels_arrive_in_order_with_their_descriptors() {
        let (one, other) = Socket::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        one.send(7, writer.as_fd()).unwrap();
        one.send(u64::MAX, reader.as_fd()).unwrap();
        drop((reader, writer));

        let (tag, writer) = other.receive().unwrap();
        assert_eq!(tag, 7);
        let (tag, reader) = other.receive().unwrap();
        assert_eq!(tag, u64::MAX);
        let close_on_exec = fcntl(&reader, FcntlArg::F_GETFD).unwrap();
        assert_eq!(close_on_exec, FdFlag::FD_CLOEXEC.bits());

        File::from(writer).write_all(b"through").unwrap();
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn several_descriptors_are_refused_and_none_is_kept() {
        for count in [2, 3, 253] {
            let (one, other) = Socket::pair().unwrap();
            let (reader, writer) = pipe().unwrap();
            send_raw(&one, &[0; 8], &vec![writer.as_fd(); count]);
            assert_eq!(
                other.receive().unwrap_err(),
                SocketError::SeveralDescriptors
            );
            assert_none_left(writer, reader);
        }
    }

    #[test]
    fn a_wrong_size_is_refused_and_the_descriptor_not_kept() {
        for size in [0, 1, 7, 9, 4096] {
            let (one, other) = Socket::pair().unwrap();
            let (reader, writer) = pipe().unwrap();
            send_raw(&one, &vec![0; size], &[writer.as_fd()]);
            assert_eq!(
                other.receive().unwrap_err(),
                SocketError::WrongSize,
                "{size} bytes"
            );
            assert_none_left(writer, reader);
        }
    }

    #[test]
    fn a_parcel_without_a_descriptor_is_refused() {
        let (one, other) = Socket::pair().unwrap();
        send_raw(&one, &[0; 8], &[]);
        assert_eq!(other.receive().unwrap_err(), SocketError::NoDescriptor);
    }

    #[test]
    fn the_end_of_the_peer_shows() {
        let (one, other) = Socket::pair().unwrap();
        let (reader, _writer) = pipe().unwrap();
        one.send(1, reader.as_fd()).unwrap();
        drop(one);
        // What was sent before still arrives.
        assert_eq!(other.receive().unwrap().0, 1);
        assert_eq!(other.receive().unwrap_err(), SocketError::Closed);
        assert_eq!(other.send(2, reader.as_fd()), Err(SocketError::Closed));
    }

    #[test]
    fn a_nonblocking_socket_does_not_wait() {
        let (one, other) = Socket::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert_eq!(one.receive().unwrap_err(), SocketError::WouldBlock);
        let (reader, _writer) = pipe().unwrap();
        let mut sent = 0;
        let error = loop {
            match one.send(sent, reader.as_fd()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, SocketError::WouldBlock);
        for tag in 0..sent {
            assert_eq!(other.receive().unwrap().0, tag);
        }
        other.send(5, reader.as_fd()).unwrap();
        assert_eq!(one.receive().unwrap().0, 5);
        one.set_nonblocking(false).unwrap();
        drop(other);
        assert_eq!(one.receive().unwrap_err(), SocketError::Closed);
    }

    #[test]
    fn only_a_seqpacket_socket_will_do() {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (reader, _writer) = pipe().unwrap();
        for descriptor in [OwnedFd::from(stream), listener.into(), reader.into()] {
            assert_eq!(
                Socket::from(descriptor).prepare(),
                Err(SocketError::WrongKind)
            );
        }
        let (one, _other) = Socket::pair().unwrap();
        fcntl(&one, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        assert_eq!(one.prepare(), Ok(()));
        let flags = fcntl(&one, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
    }
}
