//! Two programs that take turns of some milliseconds.
//!
//! A program that computes for ten seconds meets a machine that is faster at one time than at another, so two runs, one
//! after the other, differ by more than what is to be measured. Here both run at once, each in a control group, and all
//! the time but for a moment one of the two groups is frozen: both meet the same speeds. What a turn takes, until the
//! kernel says that the group is frozen, counts as its program's.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::claim::{Attempt, NotMeasured};
use crate::leftovers::{self, Group};

/// How long a turn is.
const TURN: Duration = Duration::from_millis(40);
/// How exactly the end of a program is noticed, and that a group is frozen.
const LOOK: Duration = Duration::from_micros(200);
/// How long a group usually takes to freeze at most.
const PROMPT: Duration = Duration::from_millis(10);
/// How long a group may take to freeze.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a failure is told of.
const NAME: &str = "a program that takes turns";

/// What a program came to.
#[derive(Debug)]
pub struct Ran {
    /// How long its turns were in all.
    pub time: Duration,
    /// What it printed.
    pub printed: String,
}

/// A place where this process can make control groups that can be frozen; `None` if there is none.
pub fn place() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    places.find(|place| {
        let trial = Group::new(place.join(fresh_name()));
        trial.is_ok_and(|trial| trial.path().join("cgroup.freeze").exists())
    })
}

/// A name that no other group has.
fn fresh_name() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    format!("ringfence-perf-{}-{number}", std::process::id())
}

/// Runs both to their ends, in turns, in groups below `place`. The first begins.
pub fn run(place: &Path, commands: [Command; 2]) -> Result<[Ran; 2], NotMeasured> {
    let [first, second] = commands;
    let mut players = [Player::start(place, first)?, Player::start(place, second)?];
    while players.iter().any(|player| !player.ended) {
        for player in &mut players {
            player.turn()?;
        }
    }
    let [first, second] = players;
    Ok([first.finish()?, second.finish()?])
}

/// A program and its group.
struct Player {
    child: Child,
    group: Group,
    time: Duration,
    ended: bool,
}

impl Player {
    /// Starts the program in a group that is frozen from the beginning.
    fn start(place: &Path, command: Command) -> Result<Player, NotMeasured> {
        let group = Group::new(place.join(fresh_name())).attempt("a control group")?;
        fs::write(group.path().join("cgroup.freeze"), "1").attempt("a control group")?;
        // The shell enters the group and becomes the program, so that all of the program is in it.
        let mut entering = Command::new("sh");
        entering
            .args(["-c", "echo 0 >\"$0\"/cgroup.procs && exec \"$@\""])
            .arg(group.path())
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = entering.spawn().attempt("sh")?;
        leftovers::note_process(child.id());
        Ok(Player {
            child,
            group,
            time: Duration::ZERO,
            ended: false,
        })
    }

    /// Lets it run for a turn, or until it ends.
    fn turn(&mut self) -> Result<(), NotMeasured> {
        if self.ended {
            return Ok(());
        }
        let started = Instant::now();
        self.set_frozen(false).attempt("thawing")?;
        while started.elapsed() < TURN {
            if self.has_ended()? {
                self.time += started.elapsed();
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        while !self.freezes()? {
            if started.elapsed() > PATIENCE {
                return Err(NotMeasured::failed("freezing", "the program does not stop"));
            }
            // A task that waits for a sentry that is frozen already does not freeze itself: they go on for a moment.
            self.set_frozen(false).attempt("thawing")?;
            thread::sleep(LOOK);
        }
        self.time += started.elapsed();
        Ok(())
    }

    /// Freezes it, if that comes to pass soon; it may also end meanwhile.
    fn freezes(&mut self) -> Result<bool, NotMeasured> {
        let asked = Instant::now();
        self.set_frozen(true).attempt("freezing")?;
        while !self.is_frozen().attempt("freezing")? {
            if self.has_ended()? {
                break;
            }
            if asked.elapsed() > PROMPT {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Whether it came to its end; an error if that was not a good one.
    fn has_ended(&mut self) -> Result<bool, NotMeasured> {
        match self.child.try_wait().attempt(NAME)? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.ended = true;
                Ok(true)
            }
            Some(status) => Err(NotMeasured::failed(NAME, status)),
        }
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let word = if frozen { "1" } else { "0" };
        fs::write(self.group.path().join("cgroup.freeze"), word)
    }

    fn is_frozen(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.group.path().join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "frozen 1"))
    }

    fn finish(mut self) -> Result<Ran, NotMeasured> {
        let mut printed = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut printed).attempt(NAME)?;
        }
        Ok(Ran {
            time: self.time,
            printed,
        })
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Killed, it ends although it is frozen.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        leftovers::process_was_awaited(self.child.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_come_to_their_ends_or_to_a_reason_and_nothing_is_left() {
        let Some(place) = place() else {
            // Nothing to be shown where no control group can be made.
            return;
        };
        let busy = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo";
        let ran = run(
            &place,
            [shell(&format!("{busy} one")), shell(&format!("{busy} two"))],
        );
        let [one, two] = ran.expect("both ended");
        assert_eq!((&*one.printed, &*two.printed), ("one\n", "two\n"));
        assert!(one.time > Duration::ZERO && two.time > Duration::ZERO);
        let ran = run(&place, [shell("exit 3"), shell("sleep 60")]).expect_err("a failure");
        assert!(ran.reason.contains("exit status: 3"), "{}", ran.reason);
        let left = fs::read_dir(&place).expect("groups").flatten();
        let own = format!("ringfence-perf-{}-", std::process::id());
        let left = left.filter(|group| group.file_name().to_string_lossy().starts_with(&own));
        assert_eq!(left.count(), 0);
    }
}
