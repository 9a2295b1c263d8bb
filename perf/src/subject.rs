//! A program that is measured and answers questions about itself.
//!
//! The idea: what is compared has to be measured in turns, so a measured program is started once and then asked, again
//! and again, through its standard input: each question is a line, and so is its answer, which is numbers. Between two
//! questions it waits, and costs the others nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_programs::leftovers;

use crate::launch::Launch;
use crate::value::{Attempt, NotMeasured};

/// How long a program has to end once nobody asks it any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that answers.
pub struct Subject {
    name: String,
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Where its stderr goes, for the reason if it fails.
    complaints: PathBuf,
}

impl Subject {
    /// Starts a program; what it complains of goes to the file `complaints`.
    pub fn start(
        name: &str,
        mut launch: Launch,
        complaints: PathBuf,
    ) -> Result<Subject, NotMeasured> {
        let stderr = File::create(&complaints).attempt(name)?;
        launch
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = launch.spawn().attempt(name)?;
        leftovers::note_process(child.id());
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(NotMeasured::failed(name, "started without pipes"));
        };
        Ok(Subject {
            name: name.to_owned(),
            child,
            questions: Some(questions),
            answers: BufReader::new(answers),
            complaints,
        })
    }

    /// The process that was started: of a sandbox, the launcher.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and returns the numbers of the answer.
    pub fn ask(&mut self, question: &str) -> Result<Vec<u64>, NotMeasured> {
        let answer = self.exchange(question).attempt(&self.name)?;
        let numbers: Result<Vec<u64>, _> = answer.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if !answer.is_empty() => Ok(numbers),
            _ => Err(NotMeasured::failed(&self.name, self.complaint(&answer))),
        }
    }

    fn exchange(&mut self, question: &str) -> std::io::Result<String> {
        let mut answer = String::new();
        if let Some(questions) = &mut self.questions {
            // Who has ended is not there to read it. Then there is no answer either, which is noticed below.
            let _ = writeln!(questions, "{question}").and_then(|()| questions.flush());
        }
        self.answers.read_line(&mut answer)?;
        Ok(answer)
    }

    /// Why there was no answer, as the program says; or what the answer was.
    fn complaint(&self, answer: &str) -> String {
        let complaints = std::fs::read_to_string(&self.complaints).unwrap_or_default();
        match complaints.lines().last() {
            Some(last) => last.to_owned(),
            None if answer.is_empty() => "it ended without an answer".to_owned(),
            None => format!("no numbers: {}", answer.trim_end()),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.questions = None;
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        leftovers::process_was_awaited(self.child.id());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A shell that runs `script`, and the directory that its complaints are in.
    fn shell(script: &str) -> (Subject, leftovers::Directory) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let directory = leftovers::Directory::new().expect("a directory");
        let complaints = directory.path().join("complaints");
        let subject = Subject::start("a shell", command.into(), complaints).expect("sh");
        (subject, directory)
    }

    #[test]
    fn each_question_gets_its_answer() {
        let (mut subject, _directory) =
            shell("while read number; do echo $number $((number * 2)); done");
        assert_eq!(subject.ask("3"), Ok(vec![3, 6]));
        assert_eq!(subject.ask("7"), Ok(vec![7, 14]));
    }

    #[test]
    fn what_a_program_complains_of_is_the_reason() {
        let (mut subject, _directory) = shell("echo first >&2; echo the reason >&2");
        assert_eq!(
            subject.ask("1"),
            Err(NotMeasured::failed("a shell", "the reason"))
        );
    }

    #[test]
    fn an_answer_that_is_none_is_shown() {
        let (mut subject, _directory) = shell("echo hello");
        assert_eq!(
            subject.ask("1"),
            Err(NotMeasured::failed("a shell", "no numbers: hello"))
        );
    }
}
