//! The clock readings of one request.
//!
//! What nobody asked for is not measured: without `--stats` and `--trace` a request carries no reading, and costs no
//! look at a clock. The driver's time was measured by the server, by the same clock ([`clock`]).

use std::num::NonZeroU64;

use nvproxy_protocol::clock;
use nvproxy_protocol::requests::VALUE_ASKED;
use ringfence_ipc::Completion;

/// What a request goes through, in this order. Most skip some of it; those from `Lending` to `Releasing` are of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The sentry copies it and submits it. It may have to wait for its share, too.
    Sentry,
    /// The server lends the command descriptor.
    Lending,
    /// The other tasks are held, and the caller is prepared.
    Holding,
    /// The helper issues the ioctl, between two stops.
    Calling,
    /// The helper ends, and the other tasks go on.
    Releasing,
    /// On its way to the driver: through the ring, and through the server, which checks it.
    Asking,
    Driver,
    /// On its way back.
    Answering,
    /// The sentry writes the answer to where the task has it.
    WritingBack,
}

impl Phase {
    /// All of them, in order.
    const ALL: [Phase; 9] = [
        Phase::Sentry,
        Phase::Lending,
        Phase::Holding,
        Phase::Calling,
        Phase::Releasing,
        Phase::Asking,
        Phase::Driver,
        Phase::Answering,
        Phase::WritingBack,
    ];

    /// What a trace calls it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Sentry => "sentry",
            Phase::Lending | Phase::Asking | Phase::Answering => "ring",
            Phase::Holding => "hold",
            Phase::Calling => "own ioctl",
            Phase::Releasing => "release",
            Phase::Driver => "driver",
            Phase::WritingBack => "write-back",
        }
    }
}

/// When the driver was asked and how long it took, as the server says; the default if it was not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverTime {
    asked: u64,
    nanoseconds: u64,
}

impl DriverTime {
    /// What a completion says of it.
    pub fn of(completion: &Completion) -> DriverTime {
        DriverTime {
            asked: completion.values[VALUE_ASKED],
            nanoseconds: completion.driver_nanoseconds,
        }
    }
}

/// The clock readings of one request, if it is measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times(Option<Readings>);

/// Readings of [`clock::now`].
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    received: NonZeroU64,
    /// When each phase ended, in the order of [`Phase::ALL`]; 0 for those that were skipped.
    ends: [u64; Phase::ALL.len()],
}

impl Times {
    /// The times of a request that has just been received.
    pub fn start(is_measured: bool) -> Times {
        let received = || NonZeroU64::new(clock::now());
        Times(
            is_measured
                .then(received)
                .flatten()
                .map(|received| Readings {
                    received,
                    ends: [0; Phase::ALL.len()],
                }),
        )
    }

    /// A phase is over, and with it those before that were skipped.
    pub fn end(&mut self, phase: Phase) {
        if let Some(readings) = &mut self.0 {
            readings.ends[phase as usize] = clock::now();
        }
    }

    /// The server's answer is in.
    pub fn answered(&mut self, driver: DriverTime) {
        let Some(readings) = &mut self.0 else { return };
        let submitted = readings.end();
        let answered = clock::now();
        let end = driver.asked.saturating_add(driver.nanoseconds);
        // What lies outside the time that the request was away is nothing that the server has measured.
        if submitted <= driver.asked && end <= answered {
            readings.ends[Phase::Asking as usize] = driver.asked;
            readings.ends[Phase::Driver as usize] = end;
        }
        readings.ends[Phase::Answering as usize] = answered;
    }

    /// What was read, if anything was.
    pub fn readings(self) -> Option<Readings> {
        self.0
    }
}

impl Readings {
    /// When the request was received.
    pub fn start(&self) -> u64 {
        self.received.get()
    }

    /// When the last phase ended.
    pub fn end(&self) -> u64 {
        self.ends.iter().copied().fold(self.start(), u64::max)
    }

    /// Each phase that the request went through, when it began and when it ended.
    pub fn spans(&self) -> impl Iterator<Item = (Phase, u64, u64)> {
        let mut begin = self.start();
        let phases = Phase::ALL.into_iter().zip(self.ends);
        phases
            .filter(|(_, end)| *end != 0)
            .map(move |(phase, end)| {
                let span = (phase, begin, end.max(begin));
                begin = span.2;
                span
            })
    }
}
