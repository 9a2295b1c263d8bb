//! Many programs that make requests at once.
//!
//! Each is a process of its own, as tasks are. This one starts them, tells them when to begin, and reads the clock from
//! before the first has begun until the last has said that it is done.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::requests::VERSION;
use super::{Outcome, answer};

/// Answers the question `TASKS REQUESTS`: how many nanoseconds so many tasks take for so many requests in all.
pub fn serve(tasks: &str) -> Outcome {
    let count: usize = tasks.parse()?;
    let mut tasks: Vec<Task> = (0..count).map(|_| Task::start()).collect::<Outcome<_>>()?;
    // The first request opens what is needed on the way.
    tasks.iter_mut().try_for_each(|task| task.begin(1))?;
    tasks.iter_mut().try_for_each(Task::finish)?;
    answer(|question| match *question {
        [used, requests] => {
            let used = tasks.get_mut(..used).filter(|used| !used.is_empty());
            let used = used.ok_or("so many tasks there are not")?;
            let each = requests / used.len();
            let started = Instant::now();
            used.iter_mut().try_for_each(|task| task.begin(each))?;
            used.iter_mut().try_for_each(Task::finish)?;
            Ok(vec![started.elapsed().as_nanos() as u64])
        }
        _ => Err("a question is two numbers".into()),
    })
}

/// One process.
struct Task {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Task {
    fn start() -> Outcome<Task> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["guest", "requests", VERSION])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (questions, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Task {
            child,
            questions,
            answers: BufReader::new(answers.ok_or("a task without a pipe")?),
        })
    }

    fn begin(&mut self, requests: usize) -> Outcome {
        let questions = self.questions.as_mut().ok_or("a task without a pipe")?;
        Ok(writeln!(questions, "{requests}")?)
    }

    fn finish(&mut self) -> Outcome {
        match self.answers.read_line(&mut String::new())? {
            0 => Err("a task ended early".into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.child.wait();
    }
}
