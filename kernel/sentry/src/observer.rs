//! Whoever looks on while requests are handled: the statistics, the trace, and the log of what is refused.
//!
//! If nobody does, a request costs one look at whether it was measured.

use std::borrow::Cow;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use nvproxy_abi::refusal::{Refusal, What};
use nvproxy_abi::table::{Family, shown_name};

use super::marshalling::is_error;
use super::stats::Stats;
use super::times::Times;
use super::tracer::{Entry, Tracer};
use crate::failure::Failure;
use crate::tracer::Output;

/// A request that was passed on to the server, and what came of it.
pub struct Done {
    /// Groups requests of the same kind.
    pub kind: &'static str,
    pub name: &'static str,
    /// The number of what may have no name of its own.
    pub id: u32,
    /// What it was made on.
    pub node: Node,
    /// How many bytes of task memory it was copied from.
    pub payload: usize,
    pub outcome: Result<i64, Errno>,
    /// The NV_STATUS in the answer, if there is one.
    pub status: Option<u32>,
}

/// What is known of a request that the server does not answer.
pub enum Known {
    /// Its command word.
    Command(u32),
    Named {
        kind: &'static str,
        name: &'static str,
    },
    /// What the tables have against it.
    Refused(What),
}

/// Who looks on.
pub struct Observer {
    stats: Stats,
    tracer: Option<Tracer>,
}

impl Observer {
    /// Records for the table if there are to be `stats`, and for the trace if there is to be one.
    pub fn new(stats: bool, trace: Option<&Output<'_>>) -> Result<Observer, Failure> {
        Ok(Observer {
            stats: Stats::new(stats),
            tracer: trace.map(Tracer::start).transpose()?,
        })
    }

    /// Starts timing a request that was received, if anybody wants to know.
    pub fn start(&self) -> Times {
        Times::start(self.stats.is_enabled() || self.tracer.is_some())
    }

    /// Takes in a request of the thread `task`, before that goes on: once it does, it may end the sandbox.
    pub fn done(&self, task: Pid, times: Times, done: Done) {
        let Some(readings) = times.readings() else {
            return;
        };
        let Done {
            kind,
            name,
            id,
            node,
            payload,
            outcome,
            status,
        } = done;
        let refused = outcome.is_err() || status.is_some_and(is_error);
        self.stats.record(kind, name, &readings, refused);
        if let Some(tracer) = &self.tracer {
            let entry = Entry {
                kind: Some(kind),
                name: shown_name(name, id),
                node,
                payload: Some(payload),
                outcome,
                status,
                refusal: None,
                readings,
            };
            tracer.take(task, entry);
        }
    }

    /// Takes in a request that the tables refuse.
    pub fn refused(&self, refusal: &Refusal) {
        self.stats.refused(refusal);
    }

    /// Takes in a request that was made on `node` and that the server does not answer, before the thread `task` goes
    /// on. The table leaves these out.
    pub fn stopped(
        &self,
        task: Pid,
        times: Times,
        node: Node,
        known: Known,
        (outcome, status): (Result<i64, Errno>, Option<u32>),
    ) {
        let (Some(readings), Some(tracer)) = (times.readings(), &self.tracer) else {
            return;
        };
        let (kind, name, refusal) = match known {
            Known::Command(command) => (None, Cow::Owned(format!("ioctl {command:#x}")), None),
            Known::Named { kind, name } => (Some(kind), Cow::Borrowed(name), None),
            Known::Refused(what) => {
                let (kind, name) = meant(what);
                let text = what.to_string();
                let name = name.unwrap_or_else(|| Cow::Owned(text.clone()));
                (kind, name, Some(text))
            }
        };
        let entry = Entry {
            kind,
            name,
            node,
            payload: None,
            outcome,
            status,
            refusal,
            readings,
        };
        tracer.take(task, entry);
    }

    /// Ends the trace. Returns the table for the user, if there is to be one.
    pub fn finish(&self) -> Option<String> {
        if let Some(tracer) = &self.tracer {
            tracer.finish();
        }
        self.stats.table()
    }
}

/// The kind and the name of what was refused.
pub fn meant(what: What) -> (Option<&'static str>, Option<Cow<'static, str>>) {
    match what {
        What::Unknown { family, id, name } => {
            (Some(heading(family)), name.map(|name| shown_name(name, id)))
        }
        What::NotGranted {
            family, id, name, ..
        }
        | What::Reserved {
            family, id, name, ..
        }
        | What::BadSize {
            family, id, name, ..
        }
        | What::TooLarge {
            family, id, name, ..
        }
        | What::Flags {
            family, id, name, ..
        }
        | What::Value {
            family, id, name, ..
        } => (Some(heading(family)), Some(shown_name(name, id))),
        What::Malformed => (None, None),
    }
}

/// What requests of a family are called in the table and in the trace.
pub fn heading(family: Family) -> &'static str {
    match family {
        Family::Frontend => "frontend",
        Family::Control => "control",
        Family::Alloc => "alloc",
        Family::Uvm => "uvm",
    }
}
