//! What a round trip over the rings costs between two processes, and how many entries pass a second.
//!
//! The other process is this executable again ([`crate::guest::peer`]), on a processor of its own. It serves the ring
//! and, in the other turns, a socket. Nothing of NVIDIA's is involved, and no sandbox: this is the channel alone.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use ringfence_ipc::{ClientChannel, Geometry, Socket, Spin, Submission, Wake, handshake};
use ringfence_programs::leftovers;

use super::{Attempt, Bar, Claim, Curve, Line, Measurement, NotMeasured, Session, Unit};
use crate::guest::peer::{Message, Order, TAKEN, receive, spinning};
use crate::measure::{Side, in_turns, median};
use crate::processors::{self, Confined};

/// Both sides look at the ring all the time.
pub const HOT: Claim = Claim {
    name: "ring-hot",
    title: "the round trip of an entry of 64 bytes over the rings between two processes, both looking",
    beside: "a message of 64 bytes over a Unix SOCK_SEQPACKET socket between the same two",
    how: "Each process is confined to a processor of its own. One publishes an entry and looks at the other ring until \
          the answer is there; the other looks at the first ring and answers. In other turns they send and receive a \
          message on the socket, asleep in the kernel while they wait: once on the same processors, and once on those \
          that the kernel chooses of the two. The bar is about the faster of these. The second value is beside a socket \
          that both look at without sleeping. The plot of throughput has so many entries, or messages, sent before the \
          first answer is awaited.",
    bars: &[
        Bar::ratio("median", 0.2),
        Bar::shown("median, the socket looked at as well", Unit::Ratio),
    ],
    ways: &[],
    needs_gpu: false,
    measure: hot,
};

/// Both sides sleep whenever they wait.
pub const ASLEEP: Claim = Claim {
    name: "ring-asleep",
    title: "the round trip of an entry of 64 bytes over the rings between two processes, both asleep",
    beside: "a message of 64 bytes over a Unix SOCK_SEQPACKET socket between the same two",
    how: "As ring-hot, but the client sleeps on its futex as the sentry does, and the other in io_uring as the server \
          does, and neither looks at a ring before it sleeps. Before each round trip, of either kind, the client idles \
          for 50 µs, so that the other process is asleep by then. The second value is of both where the kernel puts \
          them, of the same two processors.",
    bars: &[
        Bar::ratio("median, each on its processor", 1.0),
        Bar::shown("median, where the kernel puts them", Unit::Ratio),
    ],
    ways: &[],
    needs_gpu: false,
    measure: asleep,
};

/// How long the other process has to fall asleep.
const IDLE: Duration = Duration::from_micros(50);
/// How long an answer may take before something is wrong.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));
/// As many entries as the sentry's rings have.
const GEOMETRY: Geometry = Geometry {
    ring_entries: 256,
    arena_bytes: 32 << 10,
};
/// How many entries are under way in the plot of throughput.
const DEPTHS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

fn hot(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let pair = RefCell::new(Pair::start(session)?);
    let mut sides = [
        Side::new("ring, both looking", |count| {
            pair.borrow_mut()
                .over_ring(Order::Spin, count, Placed::Apart)
        }),
        Side::new("socket, each on its processor", |count| {
            pair.borrow()
                .over_socket(Waiting::Asleep, count, Placed::Apart)
        }),
        Side::new("socket, where the kernel puts them", |count| {
            pair.borrow()
                .over_socket(Waiting::Asleep, count, Placed::Freely)
        }),
        Side::new("socket, both looking", |count| {
            pair.borrow()
                .over_socket(Waiting::Looking, count, Placed::Apart)
        }),
    ];
    let samples = in_turns(session.effort.prompt, &session.progress, &mut sides)?;
    drop(sides);
    let curve = throughput(&mut pair.borrow_mut(), session.effort.requests as u32)?;
    let [ring, apart, free, looking] = &samples[..] else {
        return Err(NotMeasured::failed("the rings", "not four sides"));
    };
    let faster = if apart.quantile(0.5) < free.quantile(0.5) {
        apart
    } else {
        free
    };
    Ok(Measurement {
        values: vec![
            Ok(ring.ratio_to(faster, 0.5)),
            Ok(ring.ratio_to(looking, 0.5)),
        ],
        samples,
        curves: vec![curve],
        notes: Vec::new(),
    })
}

fn asleep(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let pair = RefCell::new(Pair::start(session)?);
    let ring = |label: &str, placed| {
        let pair = &pair;
        Side::new(label, move |count| {
            pair.borrow_mut().over_ring(Order::Sleep, count, placed)
        })
    };
    let socket = |label: &str, placed| {
        let pair = &pair;
        Side::new(label, move |count| {
            pair.borrow()
                .over_socket(Waiting::AsleepForSure, count, placed)
        })
    };
    let mut sides = [
        ring("ring, each on its processor", Placed::Apart),
        socket("socket, each on its processor", Placed::Apart),
        ring("ring, where the kernel puts them", Placed::Freely),
        socket("socket, where the kernel puts them", Placed::Freely),
    ];
    let samples = in_turns(session.effort.prompt, &session.progress, &mut sides)?;
    drop(sides);
    let [ring, socket, free_ring, free_socket] = &samples[..] else {
        return Err(NotMeasured::failed("the rings", "not four sides"));
    };
    Ok(Measurement {
        values: vec![
            Ok(ring.ratio_to(socket, 0.5)),
            Ok(free_ring.ratio_to(free_socket, 0.5)),
        ],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// How many entries pass a second, by how many are under way at once.
fn throughput(pair: &mut Pair, entries: u32) -> Result<Curve, NotMeasured> {
    const ROUNDS: usize = 5;
    let (mut ring, mut socket) = (Vec::new(), Vec::new());
    for depth in DEPTHS {
        let count = (entries / depth).max(1) * depth;
        let (mut by_ring, mut by_socket) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let per_second = |elapsed: Duration| f64::from(count) / elapsed.as_secs_f64();
            by_ring.push(per_second(pair.batches_over_ring(count, depth)?));
            by_socket.push(per_second(pair.batches_over_socket(count, depth)?));
        }
        let point = |of: Vec<f64>| (f64::from(depth), median(of).unwrap_or_default());
        ring.push(point(by_ring));
        socket.push(point(by_socket));
    }
    let line = |label: &str, points| Line {
        label: label.to_owned(),
        points,
    };
    Ok(Curve {
        title: "throughput over depth".to_owned(),
        over: "entries or messages under way".to_owned(),
        shown: "answers a second".to_owned(),
        lines: vec![line("ring, both looking", ring), line("socket", socket)],
    })
}

/// On which processors the two are.
#[derive(Clone, Copy)]
enum Placed {
    Apart,
    Freely,
}

/// How the two wait for a message on the socket.
#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    Asleep,
    /// With a pause before each message, so that there is no doubt.
    AsleepForSure,
    Looking,
}

/// The two processes' two ways to talk.
struct Pair {
    channel: ClientChannel,
    orders: OwnedFd,
    child: Child,
    own: usize,
    other: usize,
    _confined: Confined,
}

impl Pair {
    /// Starts the other process.
    fn start(session: &Session) -> Result<Pair, NotMeasured> {
        let available = processors::available().attempt("the processors")?;
        let [own, other] = processors::two(&available)[..] else {
            return Err(NotMeasured::lacking(
                "two processes cannot be busy at once on one processor",
                "use a machine, or a cpuset, with two processors",
            ));
        };
        let (ours, theirs) = Socket::pair().attempt("a socket")?;
        let (orders, ordered) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .attempt("a socket")?;
        let complaints = File::create(session.fresh_file("complaints")).attempt("a file")?;
        let child = session
            .guest(&["peer"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(ordered))
            .stderr(complaints)
            .spawn()
            .attempt("the other process")?;
        leftovers::note_process(child.id());
        let channel = handshake::offer(ours, GEOMETRY).attempt("the handshake")?;
        let pair = Pair {
            channel,
            orders,
            child,
            own,
            other,
            _confined: Confined::to_two().attempt("the processors")?,
        };
        pair.place(Placed::Apart)?;
        Ok(pair)
    }

    fn place(&self, placed: Placed) -> Result<(), NotMeasured> {
        let (own, other) = match placed {
            Placed::Apart => (vec![self.own], vec![self.other]),
            Placed::Freely => (vec![self.own, self.other], vec![self.own, self.other]),
        };
        processors::confine_to(&own)
            .and_then(|()| processors::confine_thread(self.child.id(), &other))
            .attempt("the processors")
    }

    /// How long so many round trips over the ring take each.
    fn over_ring(
        &mut self,
        order: Order,
        count: usize,
        placed: Placed,
    ) -> Result<Vec<u64>, NotMeasured> {
        self.place(placed)?;
        self.order(order, count as u32)?;
        let (spin, pause) = match order {
            Order::Spin => (spinning(), Duration::ZERO),
            _ => (Spin::NONE, IDLE),
        };
        let mut times = Vec::with_capacity(count);
        for cookie in 0..count as u64 {
            idle(pause);
            let entry = Submission {
                cookie,
                ..Submission::default()
            };
            let started = Instant::now();
            self.channel.submissions.push(&entry).attempt("the ring")?;
            self.channel.submissions.ring();
            self.answered(spin, cookie)?;
            times.push(started.elapsed().as_nanos() as u64);
        }
        Ok(times)
    }

    /// Takes the answer to this entry.
    fn answered(&mut self, spin: Spin, cookie: u64) -> Result<(), NotMeasured> {
        let completions = &mut self.channel.completions;
        match completions.wait(spin, PATIENCE).attempt("the ring")? {
            Wake::Ready => {}
            Wake::TimedOut => return Err(NotMeasured::failed("the ring", "no answer")),
        }
        match completions.pop().attempt("the ring")? {
            Some(answer) if answer.cookie == cookie => Ok(()),
            _ => Err(NotMeasured::failed("the ring", "another answer")),
        }
    }

    /// The same over the socket.
    fn over_socket(
        &self,
        waiting: Waiting,
        count: usize,
        placed: Placed,
    ) -> Result<Vec<u64>, NotMeasured> {
        self.place(placed)?;
        let looking = waiting == Waiting::Looking;
        let pause = match waiting {
            Waiting::AsleepForSure => IDLE,
            _ => Duration::ZERO,
        };
        let message = Order::Echo.message(looking.into());
        let times: Result<Vec<u64>, _> = (0..count)
            .map(|_| {
                idle(pause);
                let started = Instant::now();
                self.send(&message)?;
                self.receive(&message, looking)?;
                Ok(started.elapsed().as_nanos() as u64)
            })
            .collect();
        if looking {
            // So that it sleeps while it is not measured.
            self.send(&Order::Echo.message(0))?;
            self.receive(&Order::Echo.message(0), false)?;
        }
        times
    }

    /// How long `count` entries take, of which `depth` at a time are on their way.
    fn batches_over_ring(&mut self, count: u32, depth: u32) -> Result<Duration, NotMeasured> {
        self.place(Placed::Apart)?;
        self.order(Order::Spin, count)?;
        let started = Instant::now();
        for _ in 0..count / depth {
            for cookie in 0..u64::from(depth) {
                let entry = Submission {
                    cookie,
                    ..Submission::default()
                };
                self.channel.submissions.stage(&entry).attempt("the ring")?;
            }
            self.channel.submissions.publish();
            self.channel.submissions.ring();
            for cookie in 0..u64::from(depth) {
                self.answered(spinning(), cookie)?;
            }
        }
        Ok(started.elapsed())
    }

    /// The same with messages on the socket.
    fn batches_over_socket(&self, count: u32, depth: u32) -> Result<Duration, NotMeasured> {
        let message = Order::Echo.message(0);
        let started = Instant::now();
        for _ in 0..count / depth {
            (0..depth).try_for_each(|_| self.send(&message))?;
            (0..depth).try_for_each(|_| self.receive(&message, false))?;
        }
        Ok(started.elapsed())
    }

    fn order(&self, order: Order, entries: u32) -> Result<(), NotMeasured> {
        self.send(&order.message(entries))?;
        self.receive(&TAKEN, false)
    }

    fn send(&self, message: &Message) -> Result<(), NotMeasured> {
        let sent = send(self.orders.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL);
        sent.map(drop).attempt("the socket")
    }

    fn receive(&self, expected: &Message, looking: bool) -> Result<(), NotMeasured> {
        let mut message: Message = [0; 64];
        let received = receive(&self.orders, &mut message, looking).attempt("the socket")?;
        if received && message == *expected {
            Ok(())
        } else {
            Err(NotMeasured::failed("the socket", "the other process ended"))
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It may wait for entries that never come.
        let _ = self.child.kill();
        let _ = self.child.wait();
        leftovers::process_was_awaited(self.child.id());
    }
}

/// Does nothing for this long, and stays awake.
fn idle(pause: Duration) {
    let started = Instant::now();
    while started.elapsed() < pause {
        std::hint::spin_loop();
    }
}
