//! Sandboxes for a long time, many tasks in them, and processes killed at random: nothing may be left over or pile up.
//!
//! Two things go on in turns. In one sandbox that lives as long as the soak, generations of tasks come, work, are
//! killed and go; after each, the descriptors and the memory of its sentry and its server are looked at. And sandboxes
//! are started whose programs do this and that; in most of them a process is killed at some moment; after each, every
//! process of its tree has to be gone.
//!
//! Which moments these are depends on the seed and on the machine, so a seed makes a run similar, not equal.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::processes::{Process, Tree};
use crate::{Directory, eventually, guest_program, ringfence_program, showing_the_guest};

/// What the programs of short-lived sandboxes do.
const SCENARIOS: [&str; 12] = [
    "walk",
    "threads",
    "shared-client",
    "uvm",
    "pin-private",
    "pin-among-threads",
    "fork",
    "spawn",
    "killed",
    "export",
    "busy",
    "idle",
];
/// What a sentry or a server may have open while its tasks have nothing. The sentry keeps descriptors of up to 256
/// processes at hand; both have some of their own.
const MOST_DESCRIPTORS: usize = 256 + 64;
/// By how many KiB the memory of the sentry or the server may grow after the first tenth of the time.
const MOST_GROWTH: u64 = 8 << 10;

/// What to do, and for how long.
pub struct Options {
    pub time: Duration,
    pub seed: u64,
    /// The driver of the short-lived sandboxes; the long-lived one has the simulated one.
    pub driver: String,
    /// Programs for the short-lived sandboxes, each with arguments separated by spaces, in place of the guest's.
    pub programs: Vec<String>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub generations: u32,
    pub sandboxes: u32,
    pub killed: u32,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            generations,
            sandboxes,
            killed,
        } = self;
        write!(
            formatter,
            "{generations} generations of tasks, {sandboxes} sandboxes, {killed} of them with a killed process"
        )
    }
}

/// A generator of numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ number >> 31) % limit
    }
}

/// Soaks; tells `progress` from time to time how far it is. Panics, saying what was left over, if anything was.
pub fn run(options: &Options, mut progress: impl FnMut(Summary, &str)) -> Summary {
    let mut random = Random(options.seed);
    let directory = Directory::new("soak");
    let (mounts, descriptors) = (mounts(), descriptors_of("self"));
    // This may have to be built first.
    let _ = ringfence_program();
    let started = Instant::now();
    let mut summary = Summary::default();
    let mut sandbox = LongLived::start(&directory);
    let mut early = None;
    while started.elapsed() < options.time {
        sandbox.generation(&mut random);
        summary.generations += 1;
        let usage = sandbox.usage();
        usage.check(early.as_ref());
        if early.is_none() && started.elapsed() * 10 >= options.time {
            early = Some(usage.clone());
        }
        let program = choose(options, &mut random);
        summary.killed += u32::from(short_lived(options, &program, &directory, &mut random));
        summary.sandboxes += 1;
        progress(summary, &usage.to_string());
    }
    sandbox.end();
    assert_eq!(self::mounts(), mounts, "a mount was left");
    let left = fs::read_dir(directory.path()).expect("the directory");
    assert_eq!(left.count(), 0, "files were left in {:?}", directory.path());
    assert_eq!(
        descriptors_of("self"),
        descriptors,
        "this process has descriptors left"
    );
    summary
}

fn choose(options: &Options, random: &mut Random) -> Vec<String> {
    if options.programs.is_empty() {
        let scenario = SCENARIOS[random.below(SCENARIOS.len() as u64) as usize];
        let guest = guest_program().to_string_lossy().into_owned();
        return vec![guest, scenario.to_owned()];
    }
    let chosen = random.below(options.programs.len() as u64) as usize;
    options.programs[chosen]
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Runs `program` in a sandbox of its own; returns whether a process was killed.
fn short_lived(
    options: &Options,
    program: &[String],
    directory: &Directory,
    random: &mut Random,
) -> bool {
    let mut launcher = start(&options.driver, program, directory, Stdio::null());
    // Two of the scenarios never end by themselves.
    let endless = program
        .last()
        .is_some_and(|last| last == "busy" || last == "idle");
    let is_to_be_killed = endless || random.below(3) > 0;
    let root = Process::find(nix::unistd::Pid::from_raw(launcher.id() as i32));
    let mut tree: Vec<Process> = Vec::new();
    if is_to_be_killed {
        std::thread::sleep(Duration::from_micros(random.below(300_000)));
        tree = root.iter().flat_map(Process::descendants).collect();
        if !tree.is_empty() {
            let victim = tree[random.below(tree.len() as u64) as usize];
            let _ = kill(victim.pid, Signal::SIGKILL);
        }
    }
    let output = launcher.stdout.take().map(BufReader::new);
    let killed = Instant::now();
    let deadline = killed + crate::LIMIT;
    let status = loop {
        if let Some(status) = launcher.try_wait().expect("the launcher") {
            break status;
        }
        // Programs outlive their server, and a task of several: some then go on for ever.
        let is_enough = endless && killed.elapsed() > Duration::from_millis(500);
        if is_enough || Instant::now() > deadline {
            let _ = launcher.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    drop(output);
    if !is_to_be_killed {
        assert!(status.success(), "{program:?} ended with {status}");
    }
    assert!(Instant::now() <= deadline, "{program:?} hung");
    for process in tree {
        eventually(&format!("{process:?} of {program:?} is gone"), || {
            !process.is_alive()
        });
    }
    is_to_be_killed
}

fn start(driver: &str, program: &[String], directory: &Directory, input: Stdio) -> Child {
    let mut command = Command::new(ringfence_program());
    command
        .args(["run", "--driver", driver])
        .args(showing_the_guest())
        .arg("--")
        .args(program);
    command
        .env("TMPDIR", directory.path())
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("ringfence")
}

/// The sandbox that lives as long as the soak.
struct LongLived {
    launcher: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    tree: Tree,
}

impl LongLived {
    fn start(directory: &Directory) -> LongLived {
        let guest = [
            guest_program().to_string_lossy().into_owned(),
            "generations-on-demand".to_owned(),
        ];
        let mut launcher = start("sim", &guest, directory, Stdio::piped());
        let input = launcher.stdin.take().expect("a pipe");
        let mut output = BufReader::new(launcher.stdout.take().expect("a pipe"));
        expect_line(&mut output, "ready");
        let tree = Tree::of(launcher.id());
        LongLived {
            launcher,
            input,
            output,
            tree,
        }
    }

    /// Has tasks come and go, and waits until what they held was let go of.
    fn generation(&mut self, random: &mut Random) {
        let seed = random.below(u64::MAX);
        writeln!(self.input, "{seed}").expect("the program");
        expect_line(&mut self.output, "gone");
    }

    fn usage(&self) -> Usage {
        let of = |process: Process| {
            let pid = process.pid.to_string();
            (descriptors_of(&pid), memory_of(&pid))
        };
        Usage {
            sentry: of(self.tree.sentry),
            server: of(self.tree.server),
        }
    }

    fn end(mut self) {
        drop(self.input);
        let status = self.launcher.wait().expect("the launcher");
        assert!(
            status.success(),
            "the long-lived sandbox ended with {status}"
        );
        self.tree.expect_gone();
    }
}

fn expect_line(output: &mut impl BufRead, expected: &str) {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line.trim_end(), expected);
}

/// Descriptors, if they may be counted, and KiB of memory of its own, of two processes.
#[derive(Clone, Debug)]
struct Usage {
    sentry: (Option<usize>, u64),
    server: (Option<usize>, u64),
}

impl Usage {
    fn check(&self, early: Option<&Usage>) {
        for ((descriptors, _), name) in [(self.sentry, "sentry"), (self.server, "server")] {
            let descriptors = descriptors.unwrap_or(0);
            assert!(
                descriptors <= MOST_DESCRIPTORS,
                "the {name} has {descriptors} descriptors"
            );
        }
        let Some(early) = early else { return };
        for (before, now, name) in [
            (early.sentry.1, self.sentry.1, "sentry"),
            (early.server.1, self.server.1, "server"),
        ] {
            let growth = now.saturating_sub(before);
            assert!(
                growth <= MOST_GROWTH,
                "the {name}'s memory grew from {before} to {now} KiB"
            );
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((descriptors, memory), name) in [(self.sentry, "sentry"), (self.server, "server")] {
            let descriptors = descriptors.map_or("?".to_owned(), |count| count.to_string());
            write!(
                formatter,
                " {name}: {descriptors} descriptors, {memory} KiB;"
            )?;
        }
        Ok(())
    }
}

/// How many descriptors a process has; `None` if only root may look.
fn descriptors_of(pid: &str) -> Option<usize> {
    Some(
        fs::read_dir(PathBuf::from("/proc").join(pid).join("fd"))
            .ok()?
            .count(),
    )
}

/// The memory that a process shares with none, in KiB (proc_pid_status(5)).
fn memory_of(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process's status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("RssAnon")
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo")
}
