//! What this executable does when it is the measured program.
//!
//! Each guest waits for questions on its standard input, as `subject` asks them, and ends with it. It reads the clock
//! itself, so that a time is of the call and of nothing around it.
//!
//! | module | is |
//! |---|---|
//! | [`requests`] | a program that makes requests of the driver, one at a time |
//! | [`crowd`] | many such programs at once |
//! | [`files`] | a program that opens and looks up files |
//! | [`notification`] | a program whose system calls an empty supervisor answers, or a naive one |
//! | [`pins`] | a program of several threads that pins memory |
//! | [`peer`] | the other side of a channel |

pub mod crowd;
pub mod files;
pub mod naive;
pub mod notification;
pub mod peer;
pub mod pins;
pub mod requests;

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::Instant;

/// What a guest comes to. An error is its last line on stderr.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Does what the arguments say.
pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["requests", kind] => requests::serve(kind),
        ["crowd", tasks] => crowd::serve(tasks),
        ["pins", threads] => pins::serve(threads),
        ["files", directory] => files::work(directory.as_ref()),
        ["filtered-files", directory] => files::work_filtered(directory.as_ref()),
        ["bare"] => notification::serve(),
        ["naive", kind] => naive::serve(kind),
        ["peer"] => peer::serve(),
        _ => Err(format!("no guest is called {arguments:?}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers each question, which is numbers, until there are no more.
fn answer(mut answer: impl FnMut(&[usize]) -> Outcome<Vec<u64>>) -> Outcome {
    for question in stdin().lock().lines() {
        let question = question?;
        let numbers: Result<Vec<usize>, _> = question.split_whitespace().map(str::parse).collect();
        let answer: Vec<String> = answer(&numbers?)?.iter().map(u64::to_string).collect();
        let mut stdout = stdout().lock();
        writeln!(stdout, "{}", answer.join(" "))?;
        stdout.flush()?;
    }
    Ok(())
}

/// How many nanoseconds each of `count` calls takes.
fn times(count: usize, mut call: impl FnMut() -> Outcome) -> Outcome<Vec<u64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        call()?;
        times.push(started.elapsed().as_nanos() as u64);
    }
    Ok(times)
}
