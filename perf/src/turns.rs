//! Two programs that take turns of some milliseconds.
//!
//! A program that computes for ten seconds meets a machine that is faster at one time than at another, so two runs, one
//! after the other, differ by more than what is to be measured. Here both run at once, each in a control group, and all
//! the time but for a moment one of the two groups is frozen: both meet the same speeds. What a turn takes, until the
//! kernel says that the group is frozen, counts as its program's.
//!
//! Processors differ in speed as well, and a program stays on the one that it is on. So in each pair of turns both are
//! confined to the same few, and to others in the next. What serves a program, a sandbox's sentry and server, goes where
//! the kernel puts it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_programs::leftovers::{self, Group};

use crate::processors;
use crate::value::{Attempt, NotMeasured};

/// How long a turn is.
const TURN: Duration = Duration::from_millis(40);
/// How many processors a program has in a turn.
const PROCESSORS: usize = 4;
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

/// On which processors the turns are.
#[derive(Debug)]
pub struct Rotation {
    /// The executable whose processes are confined.
    program: PathBuf,
    /// Where to, one after the other. With fewer than two, nothing is confined.
    groups: Vec<Vec<usize>>,
}

impl Rotation {
    /// All processors that this process may use, a few at a time, for what executes `program`.
    pub fn of(program: &Path) -> Result<Rotation, NotMeasured> {
        let available = processors::available().attempt("the processors")?;
        Ok(Rotation {
            program: program.to_owned(),
            groups: available
                .chunks_exact(PROCESSORS)
                .map(<[usize]>::to_vec)
                .collect(),
        })
    }

    /// The processors of a pair of turns; `None` if it has all.
    fn group(&self, pair: usize) -> Option<&[usize]> {
        let count = self.groups.len();
        (count > 1).then(|| self.groups[pair % count].as_slice())
    }
}

/// Runs both to their ends, in turns, in groups below `place`. The first begins.
pub fn run(
    place: &Path,
    commands: [Command; 2],
    rotation: &Rotation,
) -> Result<[Ran; 2], NotMeasured> {
    let [first, second] = commands;
    let mut players = [Player::start(place, first)?, Player::start(place, second)?];
    let mut pair = 0;
    while players.iter().any(|player| !player.ended) {
        if let Some(processors) = rotation.group(pair) {
            for player in &mut players {
                player.was_confined |= player.confine(&rotation.program, processors);
            }
        }
        for player in &mut players {
            player.turn()?;
        }
        pair += 1;
    }
    if rotation.group(0).is_some() && players.iter().any(|player| !player.was_confined) {
        let reason = format!("nothing executed {}", rotation.program.display());
        return Err(NotMeasured::failed(NAME, reason));
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
    /// Whether a process of it was found that is to go from processor to processor.
    was_confined: bool,
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
            was_confined: false,
        })
    }

    /// Confines those of the group's processes that execute `program`, which has not begun at first; whether there were
    /// any. Whoever ends meanwhile needs no processors.
    fn confine(&self, program: &Path, processors: &[usize]) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let Ok(wanted) = identity(program) else {
            return false;
        };
        let mut any = false;
        let list = fs::read_to_string(self.group.path().join("cgroup.procs")).unwrap_or_default();
        for process in list.lines() {
            let process = Path::new("/proc").join(process);
            // The link leads to the file itself, whatever its path is in the process's namespace (proc_pid_exe(5)).
            if !identity(&process.join("exe")).is_ok_and(|executed| executed == wanted) {
                continue;
            }
            any = true;
            let threads = fs::read_dir(process.join("task")).into_iter().flatten();
            for thread in threads.flatten() {
                if let Some(Ok(number)) = thread.file_name().to_str().map(str::parse) {
                    let _ = processors::confine_thread(number, processors);
                }
            }
        }
        any
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

    fn everywhere() -> Rotation {
        Rotation {
            program: PathBuf::new(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_program_is_confined_to_one_group_of_processors_after_the_other() {
        let available = processors::available().expect("processors");
        let (Some(place), [first, second, ..]) = (place(), &available[..]) else {
            // Nothing to be shown where no control group can be made, or there is one processor.
            return;
        };
        let script = format!(
            "for wanted in {first} {second}; do \
             until grep -qx \"Cpus_allowed_list:[[:space:]]*$wanted\" /proc/$$/status; do :; done; \
             echo $wanted; \
             done"
        );
        let rotation = Rotation {
            program: fs::canonicalize("/bin/sh").expect("a shell"),
            groups: vec![vec![*first], vec![*second]],
        };
        let ran = run(&place, [shell(&script), shell(&script)], &rotation);
        let expected = format!("{first}\n{second}\n");
        for ran in ran.expect("both ended") {
            assert_eq!(ran.printed, expected);
        }
        // A program that is never found would stay where it is, and nobody would know.
        let elsewhere = Rotation {
            program: fs::canonicalize("/bin/ls").expect("ls"),
            ..rotation
        };
        let script = "echo over";
        let ran = run(&place, [shell(script), shell(script)], &elsewhere);
        let reason = ran.expect_err("a failure").reason;
        assert!(reason.contains("nothing executed"), "{reason}");
    }

    #[test]
    fn both_come_to_their_ends_or_to_a_reason_and_nothing_is_left() {
        let Some(place) = place() else {
            // Nothing to be shown where no control group can be made.
            return;
        };
        let own = Group::new(place.join(fresh_name())).expect("a control group");
        let place = own.path();
        let busy = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo";
        let ran = run(
            place,
            [shell(&format!("{busy} one")), shell(&format!("{busy} two"))],
            &everywhere(),
        );
        let [one, two] = ran.expect("both ended");
        assert_eq!((&*one.printed, &*two.printed), ("one\n", "two\n"));
        assert!(one.time > Duration::ZERO && two.time > Duration::ZERO);
        let ran = run(place, [shell("exit 3"), shell("sleep 60")], &everywhere());
        let ran = ran.expect_err("a failure");
        assert!(ran.reason.contains("exit status: 3"), "{}", ran.reason);
        let left = fs::read_dir(place).expect("groups").flatten();
        assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
    }
}
