//! The other side of a channel: what a server is to a sentry, with nothing behind it.
//!
//! Standard input is the channel's socket, standard output another socket of the same kind, by which this process is
//! told what to do and beside which the channel is measured. So both are measured between the same two processes.

use std::io::{stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use nvproxy_server::reactor::{Reactor, Ring, SleepWord};
use ringfence_ipc::{Completion, ServerChannel, Socket, Spin, handshake};

use super::Outcome;

/// A message on the second socket, as long as an entry of a ring.
pub type Message = [u8; 64];

/// What a message asks for, in its first word; the second word is how many entries follow in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Order {
    /// To send the message back. The second word is not 0 if the other side looks for the answer without sleeping, and
    /// this one is to look for the next message so, too.
    Echo = 0,
    /// To answer entries and look for the next without a pause.
    Spin = 1,
    /// To answer entries and to sleep, as the server sleeps, as soon as there is none.
    Sleep = 2,
}

impl Order {
    /// The message that asks for it.
    pub fn message(self, entries: u32) -> Message {
        let mut message = [0; 64];
        message[..4].copy_from_slice(&(self as u32).to_le_bytes());
        message[4..8].copy_from_slice(&entries.to_le_bytes());
        message
    }

    fn parse(message: &Message) -> (Option<Order>, u32) {
        let word = |at: usize| {
            let bytes = message.iter().skip(at).take(4).rev();
            bytes.fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let order = match word(0) {
            0 => Some(Order::Echo),
            1 => Some(Order::Spin),
            2 => Some(Order::Sleep),
            _ => None,
        };
        (order, word(4))
    }
}

/// What is sent back on the second socket once an order was taken.
pub const TAKEN: Message = [0xff; 64];

/// How long entries that were announced may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does as it is told until the second socket is closed.
pub fn serve() -> Outcome {
    let mut channel = handshake::accept(Socket::from(inherited(stdin())?), Ok(()))?;
    let orders = inherited(stdout())?;
    let (address, expected) = channel.submissions.sleep_word();
    let word = SleepWord { address, expected };
    let mut reactor = Reactor::new(Some(Ring::new()?), channel.socket.as_fd(), word)?;
    let mut message: Message = [0; 64];
    let mut looking = false;
    while receive(&orders, &mut message, looking)? {
        let (order, entries) = Order::parse(&message);
        let order = order.ok_or("an order that there is not")?;
        looking = order == Order::Echo && entries != 0;
        let reply = if order == Order::Echo {
            &message
        } else {
            &TAKEN
        };
        send(orders.as_raw_fd(), reply, MsgFlags::MSG_NOSIGNAL)?;
        match order {
            Order::Echo => {}
            Order::Spin => answer(&mut channel, entries, |channel| {
                channel.submissions.wait(spinning(), Some(PATIENCE))?;
                Ok(())
            })?,
            Order::Sleep => answer(&mut channel, entries, |channel| {
                if channel.submissions.announce_sleep() {
                    reactor.sleep()?;
                    channel.submissions.cancel_sleep();
                }
                Ok(())
            })?,
        }
    }
    Ok(())
}

/// Takes the next message, without sleeping if `looking`; false if there is none to come.
pub fn receive(socket: &OwnedFd, message: &mut Message, looking: bool) -> nix::Result<bool> {
    let flags = if looking {
        MsgFlags::MSG_DONTWAIT
    } else {
        MsgFlags::empty()
    };
    loop {
        match recv(socket.as_raw_fd(), message, flags) {
            Err(Errno::EAGAIN) => std::hint::spin_loop(),
            received => return Ok(received? == message.len()),
        }
    }
}

/// A spin that is never over before what is measured is.
pub fn spinning() -> Spin {
    Spin { duration: PATIENCE }
}

fn inherited(stream: impl AsFd) -> std::io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Answers so many entries, all that are ready at once, as the server does; `wait` when none is.
fn answer(
    channel: &mut ServerChannel,
    entries: u32,
    mut wait: impl FnMut(&mut ServerChannel) -> Outcome,
) -> Outcome {
    let mut answered = 0;
    while answered < entries {
        while let Some(asked) = channel.submissions.pop()? {
            let completion = Completion {
                cookie: asked.cookie,
                ..Completion::default()
            };
            channel.completions.stage(&completion)?;
            answered += 1;
        }
        channel.completions.publish();
        channel.completions.ring();
        if answered < entries {
            wait(channel)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for order in [Order::Echo, Order::Spin, Order::Sleep] {
            assert_eq!(Order::parse(&order.message(70_000)), (Some(order), 70_000));
        }
        assert_eq!(Order::parse(&[9; 64]).0, None);
    }
}
