//! Runs sandboxes and kills processes of theirs for so long. Exit status 1, and a line that says what was left over, if
//! anything was.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use userland_tests::soak::{Options, run};

/// Run sandboxes, kill processes of theirs at random, and see that nothing is left over
#[derive(Parser)]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What decides who is killed when; by default, the number of this process
    #[arg(long)]
    seed: Option<u64>,
    /// The driver of the sandboxes: sim or host
    #[arg(long, default_value = "sim")]
    driver: String,
    /// What to run in them instead of the tests' own program
    programs: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        time: Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0),
        seed: arguments.seed.unwrap_or(std::process::id().into()),
        driver: arguments.driver,
        programs: arguments.programs,
    };
    println!("{} s, seed {}", options.time.as_secs(), options.seed);
    let mut told = Instant::now();
    let progress = |summary: userland_tests::soak::Summary, usage: &str| {
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{summary};{usage}");
        }
    };
    // What was left over is told by a panic.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&options, progress))) {
        Ok(summary) => {
            println!("nothing was left over: {summary}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}
