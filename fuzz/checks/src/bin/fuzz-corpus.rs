//! Tries every input of the corpus, then others made from them: fuzzing with no more than a stable
//! compiler.
//!
//!     fuzz-corpus CORPUS SECONDS [TARGET...]
//!
//! It sees no coverage, so that alone it would find little. But the corpus is what libFuzzer kept for
//! its coverage, and from there it finds what a change broke. One run tries what the other did, as far
//! as it gets. An input that fails is written to the folder `artifacts` beside the corpus.

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_ipc::locks::IgnorePoison;

use fuzz_checks::{TARGETS, Target};

/// The longest input that is made.
const MAXIMUM_INPUT: usize = 4096;
/// Changes of one input at most.
const MAXIMUM_CHANGES: u64 = 6;
/// After this long an input counts as one that never ends.
const HANGS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz-corpus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(corpus), Some(seconds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fuzz-corpus CORPUS SECONDS [TARGET...]".into());
    };
    let time = Duration::from_secs(seconds.parse()?);
    let names: Vec<String> = arguments.collect();
    if let Some(name) = names
        .iter()
        .find(|name| TARGETS.iter().all(|target| target.name != **name))
    {
        return Err(format!("there is no target {name}").into());
    }
    let corpus = Path::new(&corpus);
    let current = Current {
        artifacts: corpus.with_file_name("artifacts"),
        trial: Arc::default(),
    };
    current.watch();
    for target in TARGETS {
        if names.is_empty() || names.iter().any(|name| name == target.name) {
            let inputs = read(&corpus.join(target.name))?;
            let executions = fuzz(target, &inputs, time, &current)?;
            let inputs = inputs.len();
            println!(
                "{}: {executions} executions from {inputs} inputs",
                target.name
            );
        }
    }
    Ok(())
}

/// The inputs in a folder, in order of their names.
fn read(folder: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let named = |error| format!("{}: {error}", folder.display());
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(named)?.collect();
    let mut paths: Vec<_> = entries?.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    let inputs: Result<Vec<_>, _> = paths.iter().map(fs::read).collect();
    let inputs = inputs?;
    if inputs.is_empty() {
        return Err(format!("{}: no inputs", folder.display()).into());
    }
    Ok(inputs)
}

/// Tries the inputs as they are, then changed ones until `time` is over. Returns how many were tried.
fn fuzz(
    target: &'static Target,
    inputs: &[Vec<u8>],
    time: Duration,
    current: &Current,
) -> Result<u64, Box<dyn Error>> {
    let started = Instant::now();
    let mut random = Random(0x5eed);
    let mut executions = 0;
    for input in inputs {
        current.run(target, input)?;
        executions += 1;
    }
    while started.elapsed() < time {
        let input = random.changed(inputs);
        current.run(target, &input)?;
        executions += 1;
    }
    Ok(executions)
}

/// The input that is being tried, for the thread that looks for one that never ends.
#[derive(Clone)]
struct Current {
    /// Where inputs that failed are kept.
    artifacts: PathBuf,
    trial: Arc<Mutex<Option<Trial>>>,
}

struct Trial {
    target: &'static Target,
    input: Vec<u8>,
    since: Instant,
}

impl Current {
    fn run(&self, target: &'static Target, input: &[u8]) -> Result<(), Box<dyn Error>> {
        self.set(Some(Trial {
            target,
            input: input.to_vec(),
            since: Instant::now(),
        }));
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
        self.set(None);
        outcome.map_err(|_| self.failed(target, input, "panics").into())
    }

    fn set(&self, trial: Option<Trial>) {
        *self.trial.lock().ignore_poison() = trial;
    }

    fn watch(&self) {
        let watched = self.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                let trial = watched.trial.lock().ignore_poison();
                if let Some(trial) = &*trial
                    && trial.since.elapsed() > HANGS
                {
                    let what = format!("takes more than {HANGS:?}");
                    eprintln!("{}", watched.failed(trial.target, &trial.input, &what));
                    exit(1);
                }
            }
        });
    }

    /// Keeps an input that failed, and says so.
    fn failed(&self, target: &Target, input: &[u8], what: &str) -> String {
        let path = self.artifacts.join(format!("failed-{}", target.name));
        let kept = fs::create_dir_all(&self.artifacts).and_then(|()| fs::write(&path, input));
        let place = match kept {
            Ok(()) => format!("it is in {}", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        format!("{}: an input {what}: {place}", target.name)
    }
}

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, and 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    fn pick<'a>(&mut self, inputs: &'a [Vec<u8>]) -> &'a [u8] {
        let place = self.below(inputs.len());
        inputs.get(place).map_or(&[], Vec::as_slice)
    }

    /// One of the inputs with a few changes.
    fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(inputs).to_vec();
        for _ in 0..=self.next() % MAXIMUM_CHANGES {
            self.change(&mut input, inputs);
            input.truncate(MAXIMUM_INPUT);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        /// Numbers that lie where something ends or begins.
        const EDGES: [u32; 8] = [0, 1, 8, 0xff, 1 << 16, 1 << 20, i32::MAX as u32, u32::MAX];
        let at = self.below(input.len() + 1);
        let length = self.below(input.len() - at + 1).min(1 + self.below(64));
        let value = self.next() as u8;
        match self.below(7) {
            0 => input
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << (value % 8)),
            1 => input
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte = value),
            2 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = 1 << self.below(3);
                let part = input.iter_mut().skip(at).zip(&edge[..width]);
                part.for_each(|(byte, edge)| *byte = *edge);
            }
            3 => drop(input.drain(at..at + length)),
            4 => drop(input.splice(at..at, std::iter::repeat_n(value, length))),
            5 => {
                let copied = input[at..at + length].to_vec();
                let to = self.below(input.len() + 1);
                drop(input.splice(to..to, copied));
            }
            _ => {
                let other = self.pick(inputs);
                let from = self.below(other.len());
                let end = (from + 1 + self.below(64)).min(other.len());
                drop(input.splice(at..at + length, other[from..end].iter().copied()));
            }
        }
    }
}
