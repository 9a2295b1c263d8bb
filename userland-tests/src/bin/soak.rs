//! `soak --minutes N [--seed N] [--driver sim|host] [PROGRAM…]`: runs sandboxes and kills processes of theirs for so
//! long. Exit status 1, and a line that says what was left over, if anything was.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use userland_tests::soak::{Options, run};

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options {
        time: Duration::from_secs(60),
        seed: std::process::id().into(),
        driver: "sim".to_owned(),
        programs: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
        match argument.as_str() {
            "--minutes" => options.time = Duration::from_secs_f64(value()?.parse::<f64>()? * 60.0),
            "--seed" => options.seed = value()?.parse()?,
            "--driver" => options.driver = value()?,
            _ => options.programs.push(argument),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
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
