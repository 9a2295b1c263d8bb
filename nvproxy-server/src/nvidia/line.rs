//! How a server has a keeper ([`super::keeper`]) do something: an order, and an answer to it.
//!
//! A line is a socket and a memory file, both of which the two processes have. Whoever gives an order writes the request's
//! payload and the order itself into the file and sends their lengths ([`Given`]), and then the descriptors that the order
//! says come along. The other side does as it is told, leaves the payload in the file as the driver left it, and sends what
//! the ioctl returned ([`Answer`]). A line has one order at a time; orders that are to be carried out at the same time take a line each.
//!
//! Both sides are servers of the same sandbox, the one trusted as the other. What they say is checked all the same, for
//! they may be of different releases.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::plan::MAXIMUM_PAYLOAD;
use nvproxy_protocol::requests::{errno_of, number_of};
use ringfence_ipc::{Message, Socket};
use serde::{Deserialize, Serialize};

use crate::request::Buffer;

/// The longest order, in bytes. It lists a request's segments, in some 40 bytes each.
const MAXIMUM_ORDER: u64 = 8 << 20;
/// Most descriptors that come along with an order: a target, and one for each descriptor field.
const MAXIMUM_SENT: u32 = 64;

/// That an order lies in the memory file.
#[derive(Serialize, Deserialize)]
struct Given {
    /// So many descriptors follow as parcels.
    sent: u32,
    /// What the payload has, which lies there first, in bytes.
    payload: u64,
    /// What the order has, which lies behind it as JSON, in bytes.
    order: u64,
}

/// What became of an order.
#[derive(Serialize, Deserialize)]
enum Answer {
    Returned(i32),
    /// An errno.
    Failed(i32),
}

/// What a line is made of; both are sent, in this order.
#[derive(Serialize, Deserialize)]
enum Part {
    Socket,
    Memory,
}

impl Message for Given {
    const MAXIMUM_BYTES: usize = 32;
}

impl Message for Answer {
    const MAXIMUM_BYTES: usize = 8;
}

impl Message for Part {
    const MAXIMUM_BYTES: usize = 1;

    fn has_descriptor(&self) -> bool {
        true
    }
}

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
            .say(&Part::Socket, Some(other.as_fd()))
            .and_then(|()| control.say(&Part::Memory, Some(memory.as_fd())))
            .map_err(|_| Errno::EIO)?;
        Ok(Line::new(socket, memory))
    }

    /// Waits for a line from the process at the other end of `control`. Fails with `EIO` if it is gone.
    pub fn accept(control: &Socket) -> Result<Line, Errno> {
        let part = || control.hear().map_err(broken);
        match (part()?, part()?) {
            ((Part::Socket, Some(socket)), (Part::Memory, Some(memory))) => {
                Ok(Line::new(socket.into(), memory))
            }
            _ => Err(Errno::EIO),
        }
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
        let given = Given {
            sent: sent.len() as u32,
            payload: place,
            order: self.text.len() as u64,
        };
        let sending = self.socket.say(&given, None).and_then(|()| {
            let mut tagged = (0..).zip(sent);
            tagged.try_for_each(|(tag, descriptor)| self.socket.send(tag, *descriptor))
        });
        sending.map_err(broken)?;
        let (answer, _) = self.socket.hear().map_err(broken)?;
        self.memory.read_exact_at(payload, 0).map_err(broken)?;
        Ok(match answer {
            Answer::Returned(result) => Ok(result),
            Answer::Failed(errno) => Err(errno_of(errno)),
        })
    }

    /// Waits for an order. Fails if none can come any more.
    pub fn receive(&mut self) -> Result<Received, Errno> {
        let (given, _) = self.socket.hear().map_err(broken)?;
        let Given {
            sent: count,
            payload: payload_length,
            order: text_length,
        } = given;
        if count > MAXIMUM_SENT
            || payload_length > MAXIMUM_PAYLOAD as u64
            || text_length > MAXIMUM_ORDER
        {
            return Err(Errno::EIO);
        }
        let parcels = (0..count).map(|_| self.socket.receive().map(|(_, descriptor)| descriptor));
        let sent = parcels.collect::<Result<_, _>>().map_err(broken)?;
        let mut payload = Buffer::default();
        payload.resize(payload_length as usize)?;
        let read = self.memory.read_exact_at(payload.bytes_mut(), 0);
        read.map_err(broken)?;
        self.text.resize(text_length as usize, 0);
        let read = self.memory.read_exact_at(&mut self.text, payload_length);
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
        let answer = match outcome {
            Ok(result) => Answer::Returned(result),
            Err(errno) => Answer::Failed(number_of(errno)),
        };
        self.socket.say(&answer, None).map_err(broken)
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
        for (sent, payload, order) in [
            (0, 0, 0),
            (0, 8, 8),
            (0, 0, u64::MAX),
            (0, MAXIMUM_PAYLOAD as u64 + 1, 0),
            (MAXIMUM_SENT + 1, 0, 0),
        ] {
            let (here, mut there) = line();
            let given = Given {
                sent,
                payload,
                order,
            };
            here.socket.say(&given, None).expect("sent");
            let refused = there.receive().map(|received| received.order);
            assert_eq!(refused, Err(Errno::EIO), "{sent} {payload} {order}");
        }
    }
}
