//! A program that is about to start, and its run to the end.

use std::io;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use ringfence_programs::leftovers;

use crate::mounts::Mounts;
use crate::value::{Attempt, NotMeasured};

/// A command, and the mount namespace that it starts in if that is not the caller's.
pub struct Launch {
    pub command: Command,
    pub mounts: Option<Rc<Mounts>>,
}

impl From<Command> for Launch {
    fn from(command: Command) -> Launch {
        Launch {
            command,
            mounts: None,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub printed: String,
    /// From before its start until it has been waited for.
    pub nanoseconds: u64,
}

impl Launch {
    /// Starts it. Whoever calls this notes the process and waits for it.
    pub fn spawn(&mut self) -> io::Result<Child> {
        match &self.mounts {
            None => self.command.spawn(),
            Some(mounts) => mounts.spawn(&mut self.command),
        }
    }

    /// Runs it to its end, which has to be a good one. It has no input.
    pub fn run(self, name: &str) -> Result<Ran, NotMeasured> {
        let started = Instant::now();
        let printed = self.begin(name)?.end(name)?;
        Ok(Ran {
            printed,
            nanoseconds: started.elapsed().as_nanos() as u64,
        })
    }

    /// Starts it without input, and with output that [`Begun::end`] reads.
    pub fn begin(mut self, name: &str) -> Result<Begun, NotMeasured> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn().attempt(name)?;
        leftovers::note_process(child.id());
        Ok(Begun(child))
    }
}

/// A program that runs.
pub struct Begun(Child);

impl Begun {
    /// Waits for its end, and returns what it has printed.
    pub fn end(self, name: &str) -> Result<String, NotMeasured> {
        let number = self.0.id();
        let output = self.0.wait_with_output();
        leftovers::process_was_awaited(number);
        let output = output.attempt(name)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty());
        Err(match last {
            Some(last) => NotMeasured::failed(name, last),
            None => NotMeasured::failed(name, output.status),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.into()
    }

    #[test]
    fn a_run_has_what_was_printed_or_the_last_complaint() {
        let ran = shell("echo some; echo words").run("a shell");
        assert_eq!(ran.expect("an end").printed, "some\nwords\n");
        let failed = |script| shell(script).run("a shell").expect_err("a failure");
        let reason = NotMeasured::failed("a shell", "the reason");
        assert_eq!(failed("echo the reason >&2; echo >&2; exit 1"), reason);
        assert_eq!(failed("exit 3").reason, "a shell: exit status: 3");
    }
}
