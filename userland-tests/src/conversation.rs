//! Talking to a guest that follows the test's lines (its scenario `converse`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::processes::Tree;
use crate::{Ended, guest_with, started, wait_for};

/// A sandbox whose program waits for a line.
pub struct Conversation {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Conversation {
    /// Starts a sandbox, with these options, and waits until its program is ready.
    pub fn begin(options: &[&str]) -> Conversation {
        Conversation::with("converse", options)
    }

    /// The same with another scenario that says when it is ready.
    pub fn with(scenario: &str, options: &[&str]) -> Conversation {
        Conversation::of(guest_with(options, &[scenario]))
    }

    /// The same with a command that runs such a scenario.
    pub fn of(mut command: Command) -> Conversation {
        let (mut child, output) = started(command.stdin(Stdio::piped()));
        Conversation {
            input: child.stdin.take().expect("a pipe"),
            output,
            child,
        }
    }

    /// Says a line.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the program reads");
    }

    /// The program's next line.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Says a line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// The launcher's number.
    pub fn launcher(&self) -> u32 {
        self.child.id()
    }

    /// The sandbox's processes as they are now.
    pub fn tree(&self) -> Tree {
        Tree::of(self.launcher())
    }

    /// Has nothing more to say; waits for the end.
    pub fn end(self) -> Ended {
        drop(self.input);
        let mut child = self.child;
        child.stdout = Some(self.output.into_inner());
        wait_for(child)
    }
}
