//! How many requests a sandbox answers when several of its tasks make them at once, and what the server asks of the
//! kernel for each.

use super::{
    Attempt, Bar, Claim, Curve, Limit, Line, Measurement, NotMeasured, Session, Unit, Value,
};
use crate::measure::{Rounds, Samples, Side, in_turns, median, quartiles};
use crate::processors::Confined;
use crate::sandbox::Processes;
use crate::subject::Subject;
use crate::system_calls::SystemCalls;

pub const TASKS: Claim = Claim {
    name: "tasks",
    title: "eight tasks that make requests at once (NV_ESC_CHECK_VERSION_STR, simulated driver)",
    beside: "as many of the same requests, one at a time",
    how: "Eight processes of one sandbox make an equal part of the requests each; beside it one of them makes all. The \
          time is from before the first is told to begin until the last has said that it is done. The server's system \
          calls are counted by the kernel, at its tracepoint, in further rounds; the simulated driver makes none.",
    bars: &[
        Bar {
            of: "throughput",
            unit: Unit::Ratio,
            limit: Limit::AtLeast(1.6),
        },
        Bar {
            of: "the server's system calls",
            unit: Unit::CallsPerRequest,
            limit: Limit::AtMost(0.3),
        },
    ],
    ways: &[],
    needs_gpu: false,
    measure,
};

/// How many tasks are measured; the first and the last are what the bar is about.
const CROWDS: [usize; 4] = [1, 2, 4, 8];

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let command = session.sandboxed_guest(&[], &["crowd", "8"]);
    let mut crowd = session.subject("the tasks in the sandbox", command)?;
    let requests = session.effort.requests;
    let rounds = Rounds {
        warm_up: 0,
        samples: 1,
        ..session.effort.prompt
    };
    // Once each, for what is made at the first use.
    for tasks in CROWDS {
        elapsed(&mut crowd, tasks, requests / 10)?;
    }
    let samples = {
        let crowd = std::cell::RefCell::new(&mut crowd);
        let mut sides = CROWDS.map(|tasks| {
            let crowd = &crowd;
            Side::new(label(tasks), move |_| {
                elapsed(&mut crowd.borrow_mut(), tasks, requests).map(|time| vec![time])
            })
        });
        in_turns(rounds, &session.progress, &mut sides)?
    };
    let calls = counted(&mut crowd, requests, rounds.rounds);
    let (per_request, by_crowd) = match calls {
        Ok((value, line)) => (Ok(value), Some(line)),
        Err(reason) => (Err(reason), None),
    };
    Ok(Measurement {
        values: vec![compared(&samples, requests), per_request],
        curves: curves(&samples, requests, by_crowd),
        // These are times of many requests, not of one: the curve has what they say.
        samples: Vec::new(),
        notes: Vec::new(),
    })
}

fn label(tasks: usize) -> String {
    match tasks {
        1 => "one task".to_owned(),
        several => format!("{several} tasks"),
    }
}

/// How many nanoseconds so many tasks take for so many requests in all.
fn elapsed(crowd: &mut Subject, tasks: usize, requests: usize) -> Result<u64, NotMeasured> {
    let answer = crowd.ask(&format!("{tasks} {requests}"))?;
    let time = answer.first().copied();
    time.ok_or_else(|| NotMeasured::failed("the tasks", "an empty answer"))
}

fn compared(samples: &[Samples], requests: usize) -> Result<Value, NotMeasured> {
    let [one, .., many] = samples else {
        return Err(NotMeasured::failed("the tasks", "no sides"));
    };
    let rate = |of: &Samples| format!("{:.0} a second", per_second(of, requests));
    Ok(Value {
        measured: rate(many),
        beside: rate(one),
        // A throughput is the inverse of a time.
        ..one.paired_ratio_to(many)
    })
}

fn per_second(samples: &Samples, requests: usize) -> f64 {
    requests as f64 / (samples.quantile(0.5) / 1e9)
}

/// The server's system calls for each request of eight tasks; and how many requests it answers for each of its calls, by
/// tasks.
fn counted(
    crowd: &mut Subject,
    requests: usize,
    rounds: usize,
) -> Result<(Value, Line), NotMeasured> {
    let server = Processes::of(crowd.process())?.server;
    let mut calls = SystemCalls::of(server)?;
    let mut points = Vec::new();
    let mut of_last = Vec::new();
    for tasks in CROWDS {
        of_last.clear();
        for _ in 0..rounds {
            let before = calls.count().attempt("counting system calls")?;
            elapsed(crowd, tasks, requests)?;
            let after = calls.count().attempt("counting system calls")?;
            of_last.push((after - before) as f64 / requests as f64);
        }
        let typical = median(of_last.clone()).unwrap_or_default();
        points.push((tasks as f64, 1.0 / typical.max(1.0 / requests as f64)));
    }
    let value = median(of_last.clone()).unwrap_or_default();
    let value = Value {
        quartiles: quartiles(of_last),
        ..Value::plain(
            value,
            format!("{value:.3} at {} tasks", CROWDS[CROWDS.len() - 1]),
        )
    };
    let label = "requests for each system call of the server".to_owned();
    Ok((value, Line { label, points }))
}

fn curves(samples: &[Samples], requests: usize, by_crowd: Option<Line>) -> Vec<Curve> {
    let points = CROWDS.iter().zip(samples);
    let points = points.map(|(tasks, samples)| (*tasks as f64, per_second(samples, requests)));
    let throughput = Curve {
        title: "throughput over tasks".to_owned(),
        over: "tasks that make requests at once".to_owned(),
        shown: "requests a second".to_owned(),
        lines: vec![Line {
            label: "trapped requests".to_owned(),
            points: points.collect(),
        }],
    };
    let batching = by_crowd.map(|line| Curve {
        title: "how many requests the server answers for each of its system calls".to_owned(),
        over: "tasks that make requests at once".to_owned(),
        shown: "requests for each system call".to_owned(),
        lines: vec![line],
    });
    [throughput].into_iter().chain(batching).collect()
}
