//! Many sandboxes that do nothing: what they hold, and what they take.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_programs::leftovers;

use super::memory::memory;
use super::{Attempt, Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit, Value};
use crate::measure::{median, quartiles};
use crate::sandbox::Processes;

pub const IDLE: Claim = Claim {
    name: "idle",
    title: "200 sandboxes at once in which a program waits for input (20 with --quick)",
    beside: "nothing",
    how: "Each is `ringfence run --driver sim` of a shell that becomes cat. Once all wait, the kernel says how much \
          memory each sentry, server and launcher has (the proportional set size, in which what several share counts in \
          part), and, before and after some seconds in which nothing happens, how long the processors have worked for all \
          of these and for each sandbox's first process (/proc/PID/task/TID/schedstat). Where not as many can be started, a \
          note says how many were, and why.",
    bars: &[
        mebibytes("sentry, server and launcher, median", Limit::AtMost(4.0)),
        mebibytes("sentry, median", Limit::None),
        mebibytes("server, median", Limit::None),
        mebibytes("launcher, median", Limit::None),
        Bar {
            of: "processor time of all sandboxes",
            unit: Unit::MillisecondsPerSecond,
            limit: Limit::AtMost(1.0),
        },
    ],
    ways: &[],
    needs_gpu: false,
    measure,
};

const fn mebibytes(of: &'static str, limit: Limit) -> Bar {
    let unit = Unit::Mebibytes;
    Bar { of, unit, limit }
}

/// How long what was started settles before the time begins.
const SETTLING: Duration = Duration::from_secs(1);

/// A sandbox whose program waits for input. The program ends with its input when this is dropped, and the sandbox with it.
struct Sleeper {
    child: Child,
    input: Option<ChildStdin>,
    /// Where its stderr goes, for the reason if it fails.
    complaints: PathBuf,
}

impl Sleeper {
    fn start(session: &Session) -> Result<Sleeper, NotMeasured> {
        const NAME: &str = "a sandbox that waits";
        let complaints = session.fresh_file("complaints");
        let stderr = fs::File::create(&complaints).attempt(NAME)?;
        let mut command = session.sandbox(&["--driver", "sim"]);
        command
            .args(["sh", "-c", "echo waiting; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().attempt(NAME)?;
        leftovers::note_process(child.id());
        let input = child.stdin.take();
        Ok(Sleeper {
            child,
            input,
            complaints,
        })
    }

    /// Waits until its program is there.
    fn ready(&mut self) -> Result<(), NotMeasured> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut line);
            read.attempt("a sandbox that waits")?;
        }
        match &*line {
            "waiting\n" => Ok(()),
            _ => {
                let complaints = fs::read_to_string(&self.complaints).unwrap_or_default();
                let last = complaints.lines().last().unwrap_or("it ended at its start");
                Err(NotMeasured::failed("a sandbox that waits", last))
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
        leftovers::process_was_awaited(self.child.id());
    }
}

/// The sandboxes. All are told to end before the first is waited for.
struct Sleepers(Vec<Sleeper>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|sleeper| sleeper.input = None);
    }
}

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let (count, seconds) = session.effort.idle;
    session.progress.set_length(count as u64);
    let mut sleepers = Sleepers(Vec::new());
    for _ in 0..count {
        sleepers.0.push(Sleeper::start(session)?);
    }
    let mut sandboxes = Vec::new();
    let mut refusal = None;
    for sleeper in &mut sleepers.0 {
        match sleeper.ready() {
            Ok(()) => {
                let launcher = sleeper.child.id();
                sandboxes.push((launcher, Processes::of(launcher)?));
            }
            Err(reason) => refusal = Some(reason),
        }
        session.progress.inc(1);
    }
    // A machine may not have room for as many: what there are tells the same of each.
    let notes = match refusal {
        Some(reason) if sandboxes.is_empty() => return Err(reason),
        Some(reason) => vec![format!(
            "{} of {count} sandboxes could be started: {}",
            sandboxes.len(),
            reason.reason
        )],
        None => Vec::new(),
    };
    let held = held(&sandboxes);
    let mut values = match held {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(reason) => vec![Err(reason); 4],
    };
    values.push(taken(&sandboxes, seconds));
    Ok(Measurement {
        values,
        samples: Vec::new(),
        curves: Vec::new(),
        notes,
    })
}

/// How much memory a sandbox's processes have: all three, and each.
fn held(sandboxes: &[(u32, Processes)]) -> Result<Vec<Value>, NotMeasured> {
    let mut columns = [const { Vec::new() }; 4];
    for (launcher, of) in sandboxes {
        let each = [memory(of.sentry)?, memory(of.server)?, memory(*launcher)?];
        let all = [each.iter().sum()].into_iter().chain(each);
        for (column, value) in columns.iter_mut().zip(all) {
            column.push(value);
        }
    }
    let values = columns.map(|column: Vec<f64>| {
        let value = median(column.clone()).unwrap_or(f64::NAN);
        Value {
            quartiles: quartiles(column),
            ..Value::plain(value, format!("{value:.2} MiB each"))
        }
    });
    Ok(values.into())
}

/// How many milliseconds the processors work in a second for all of the sandboxes' own processes.
fn taken(sandboxes: &[(u32, Processes)], seconds: u64) -> Result<Value, NotMeasured> {
    let mut processes = Vec::new();
    for (launcher, of) in sandboxes {
        processes.extend([*launcher, of.sentry, of.server]);
        // The first process of the tasks' namespace is Ringfence's, too, and the tasks are below it.
        processes.extend(crate::sandbox::children(of.sentry).attempt("/proc")?);
    }
    thread::sleep(SETTLING);
    let before = worked(&processes)?;
    let started = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    let (after, elapsed) = (worked(&processes)?, started.elapsed());
    let milliseconds = (after - before) as f64 / 1e6;
    let measured = format!(
        "{milliseconds:.2} ms in {seconds} s, {} sandboxes",
        sandboxes.len()
    );
    Ok(Value::plain(milliseconds / elapsed.as_secs_f64(), measured))
}

/// How many nanoseconds the processors have worked for these, all threads together.
fn worked(processes: &[u32]) -> Result<u64, NotMeasured> {
    let mut sum = 0;
    for process in processes {
        let threads = fs::read_dir(format!("/proc/{process}/task")).attempt("/proc")?;
        for thread in threads.flatten() {
            // A thread that has ended meanwhile takes no more.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += nanoseconds(&text).unwrap_or_default();
        }
    }
    match sum {
        0 => Err(NotMeasured::lacking(
            "the kernel does not say how long threads have run",
            "run this on a kernel with CONFIG_SCHED_INFO",
        )),
        sum => Ok(sum),
    }
}

/// The first word of a thread's `schedstat` (sched-stats in the kernel's documentation).
fn nanoseconds(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_first_word() {
        assert_eq!(nanoseconds("1500 20 3\n"), Some(1500));
        assert_eq!(nanoseconds(""), None);
    }

    #[test]
    fn work_of_the_processors_is_seen() {
        let own = [std::process::id()];
        let before = worked(&own).expect("a time");
        let started = Instant::now();
        while worked(&own).expect("a time") == before {
            assert!(started.elapsed() < Duration::from_secs(30));
        }
    }
}
