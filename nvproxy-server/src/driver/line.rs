//! How a server has a keeper ([`super::keeper`]) do something: an order, and an answer to it.
//!
//! A line is a socket and a memory file, both of which the two processes have. Whoever gives an order writes the request's
//! payload and the order itself into the file and sends their lengths, and then the descriptors that the order says come
//! along. The other side does as it is told, leaves the payload in the file as the driver left it, and sends what the ioctl
//! returned. A line has one order at a time; orders that are to be carried out at the same time take a line each.
//!
//! Both sides are servers of the same sandbox, the one trusted as the other. What they say is checked all the same, for
//! they may be of different releases.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::MsgFlags;
use nvproxy_abi::plan::MAXIMUM_PAYLOAD;
use nvproxy_protocol::requests::{errno_of, number_of};
use ringfence_ipc::Socket;
use serde::{Deserialize, Serialize};

use crate::request::Buffer;

/// The longest order, in bytes. It lists a request's segments, in some 40 bytes each.
const MAXIMUM_ORDER: usize = 8 << 20;
/// Most descriptors that come along with an order: a target, and one for each descriptor field.
const MAXIMUM_SENT: u64 = 64;

/// A description that an order is about.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Named {
    /// The keeper's own, by the number that the server gave it that has become the keeper.
    Kept(u64),
    /// The next one of those that come along.
    Sent,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Order {
    /// Issue a request.
    Issue {
        target: Named,
        request: u32,
        /// Offset, length, and the offset of the pointer, as in [`nvproxy_abi::plan::Segment`].
        segments: Vec<(u32, u32, Option<u32>)>,
        /// The offsets in the payload of descriptor numbers, and whose are to stand there. Those that come along do so in
        /// this order, after the target.
        descriptors: Vec<(usize, Named)>,
    },
    /// Close a description that is kept: no task has it any more.
    Close { file: u64 },
    /// Hold the description of this GPU's node that comes along, so that the driver finds one in the keeper's table.
    HoldPresence { gpu: u8 },
}

/// One end of a line.
pub struct Line {
    socket: Socket,
    memory: File,
    /// An order on its way, kept for its allocation.
    text: Vec<u8>,
}

/// An order that was received.
pub struct Received {
    pub order: Order,
    pub payload: Buffer,
    pub sent: Vec<OwnedFd>,
}

impl Line {
    /// A new line to the process at the other end of `control`.
    pub fn connect(control: &Socket) -> Result<Line, Errno> {
        let memory = memfd_create(c"ringfence-line", MFdFlags::MFD_CLOEXEC)?;
        let (socket, other) = Socket::pair().map_err(|_| Errno::EMFILE)?;
        control
            .send(0, other.as_fd())
            .and_then(|()| control.send(1, memory.as_fd()))
            .map_err(|_| Errno::EIO)?;
        Ok(Line::new(socket, memory))
    }

    /// Waits for a line from the process at the other end of `control`. Fails with `EIO` if it is gone.
    pub fn accept(control: &Socket) -> Result<Line, Errno> {
        let parcel = |expected: u64| match control.receive() {
            Ok((tag, descriptor)) if tag == expected => Ok(descriptor),
            _ => Err(Errno::EIO),
        };
        Ok(Line::new(parcel(0)?.into(), parcel(1)?))
    }

    fn new(socket: Socket, memory: OwnedFd) -> Line {
        Line {
            socket,
            memory: memory.into(),
            text: Vec::new(),
        }
    }

    /// Has `order` carried out. Fails with `EIO` if that cannot be: then the line is of no more use, whereas any other
    /// outcome, which is the second value, is the order's own.
    pub fn ask(
        &mut self,
        order: &Order,
        sent: &[BorrowedFd<'_>],
        payload: &mut [u8],
    ) -> Result<Result<i32, Errno>, Errno> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, order).map_err(|_| Errno::EIO)?;
        let place = payload.len() as u64;
        self.memory.write_all_at(payload, 0).map_err(broken)?;
        let written = self.memory.write_all_at(&self.text, place);
        written.map_err(broken)?;
        let lengths = [sent.len(), payload.len(), self.text.len()];
        let message = lengths.map(|length| (length as u64).to_ne_bytes()).concat();
        let sending = self.socket.send_message(&message, None).and_then(|()| {
            let mut tagged = (0..).zip(sent);
            tagged.try_for_each(|(tag, descriptor)| self.socket.send(tag, *descriptor))
        });
        sending.map_err(broken)?;
        let mut answer = [0; 8];
        let (length, _) = self
            .socket
            .receive_message(&mut answer, MsgFlags::empty())
            .map_err(broken)?;
        let [a, b, c, d, e, f, g, h] = answer;
        if length != answer.len() {
            return Err(Errno::EIO);
        }
        self.memory.read_exact_at(payload, 0).map_err(broken)?;
        let errno = i32::from_ne_bytes([e, f, g, h]);
        Ok(match errno {
            0 => Ok(i32::from_ne_bytes([a, b, c, d])),
            errno => Err(errno_of(errno)),
        })
    }

    /// Waits for an order. Fails if none can come any more.
    pub fn receive(&mut self) -> Result<Received, Errno> {
        let mut message = [0; 24];
        let (length, _) = self
            .socket
            .receive_message(&mut message, MsgFlags::empty())
            .map_err(broken)?;
        let mut fields = message.chunks_exact(8).map(|field| {
            let field = field.try_into().map_or(u64::MAX, u64::from_ne_bytes);
            usize::try_from(field).unwrap_or(usize::MAX)
        });
        let (Some(count), Some(payload_length), Some(text_length)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(Errno::EIO);
        };
        if length != message.len()
            || count as u64 > MAXIMUM_SENT
            || payload_length > MAXIMUM_PAYLOAD
            || text_length > MAXIMUM_ORDER
        {
            return Err(Errno::EIO);
        }
        let parcels = (0..count).map(|_| self.socket.receive().map(|(_, descriptor)| descriptor));
        let sent = parcels.collect::<Result<_, _>>().map_err(broken)?;
        let mut payload = Buffer::default();
        payload.resize(payload_length)?;
        let read = self.memory.read_exact_at(payload.bytes_mut(), 0);
        read.map_err(broken)?;
        self.text.resize(text_length, 0);
        let read = self
            .memory
            .read_exact_at(&mut self.text, payload_length as u64);
        read.map_err(broken)?;
        let order = serde_json::from_slice(&self.text).map_err(|_| Errno::EIO)?;
        Ok(Received {
            order,
            payload,
            sent,
        })
    }

    /// Answers the order that was received last, with its payload.
    pub fn answer(&self, outcome: Result<i32, Errno>, payload: &[u8]) -> Result<(), Errno> {
        self.memory.write_all_at(payload, 0).map_err(broken)?;
        let (result, errno) = match outcome {
            Ok(result) => (result, 0),
            Err(errno) => (-1, number_of(errno)),
        };
        let answer = [result, errno].map(i32::to_ne_bytes).concat();
        self.socket.send_message(&answer, None).map_err(broken)
    }
}

/// The other side is gone, or does not keep to this.
fn broken<E>(_: E) -> Errno {
    Errno::EIO
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two ends of a line.
    fn line() -> (Line, Line) {
        let (control, other) = Socket::pair().expect("a pair");
        let one = Line::connect(&control).expect("a line");
        (one, Line::accept(&other).expect("its other end"))
    }

    fn order() -> Order {
        Order::Issue {
            target: Named::Sent,
            request: 7,
            segments: vec![(0, 64, None), (64, 8, Some(16))],
            descriptors: vec![(4, Named::Sent), (8, Named::Kept(3))],
        }
    }

    #[test]
    fn the_largest_payload_arrives_and_comes_back() {
        let (mut here, mut there) = line();
        let obeying = std::thread::spawn(move || {
            let received = there.receive().expect("an order");
            assert_eq!(received.order, order());
            assert_eq!(received.sent.len(), 2);
            let changed = received.payload.bytes().iter().map(|byte| !byte);
            let changed: Vec<u8> = changed.collect();
            there.answer(Err(Errno::ENOSPC), &changed).expect("sent");
            there.receive().map(|received| received.order)
        });
        let mut payload: Vec<u8> = (0..MAXIMUM_PAYLOAD).map(|at| at as u8).collect();
        let descriptor = File::open("/dev/null").expect("/dev/null");
        let sent = [descriptor.as_fd(); 2];
        let outcome = here.ask(&order(), &sent, &mut payload);
        assert_eq!(outcome, Ok(Err(Errno::ENOSPC)));
        let changed = |(at, byte): (usize, &u8)| *byte == !(at as u8);
        assert!(payload.iter().enumerate().all(changed));
        drop(here);
        assert_eq!(obeying.join().expect("its end"), Err(Errno::EIO));
    }

    #[test]
    fn what_is_no_order_is_refused() {
        for lengths in [
            vec![],
            vec![0, 0],
            vec![0, 0, 0],
            vec![0, 8, 8],
            vec![0, 0, u64::MAX],
            vec![0, MAXIMUM_PAYLOAD as u64 + 1, 0],
            vec![MAXIMUM_SENT + 1, 0, 0],
        ] {
            let (here, mut there) = line();
            let message: Vec<u8> = lengths
                .iter()
                .flat_map(|length: &u64| length.to_ne_bytes())
                .collect();
            here.socket.send_message(&message, None).expect("sent");
            let refused = there.receive().map(|received| received.order);
            assert_eq!(refused, Err(Errno::EIO), "{lengths:?}");
        }
    }
}
