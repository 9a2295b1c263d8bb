//! A task's number that has come to mean another task while the sentry works for the first.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use userland_tests::processes::{Process, Tree};
use userland_tests::{Ended, eventually, finish, guest_under, started, wait_for};

/// Says which number the kernel gave last, and takes another for it: of the process namespace of whoever asks
/// (CONFIG_CHECKPOINT_RESTORE).
const LAST_NUMBER: &str = "/proc/sys/kernel/ns_last_pid";

/// The guest, which does as it is told.
struct Guest {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Guest {
    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("a line");
    }

    fn said(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

/// A sandbox in which a task was killed in a request, and another that has its number now waits for a line.
struct Heir {
    child: Child,
    guest: Guest,
    /// When the sandbox was started.
    begun: Instant,
}

/// How long a rule holds up the sentry, or the server.
const HELD_UP: Duration = Duration::from_secs(8);

/// Starts one, whose sentry `rules` hold up for [`HELD_UP`] when it works for the request. `None` if this cannot be tried
/// here.
fn heir(scenario: &[&str], rules: &str) -> Option<Heir> {
    if !geteuid().is_root() || fs::metadata(LAST_NUMBER).is_err() {
        eprintln!("skipped: only root can choose the next number, where {LAST_NUMBER} exists");
        return None;
    }
    let mut command = guest_under(rules, scenario);
    command.stdin(Stdio::piped());
    let begun = Instant::now();
    let (mut child, output) = started(&mut command);
    let tree = Tree::of(child.id());
    let input = child.stdin.take().expect("a pipe");
    let mut guest = Guest { input, output };
    let victim = tree.program.children()[0];
    let number = number_for_the_sentry(victim);
    eventually("the victim waits for its answer", || {
        is_in_an_ioctl(&format!("/proc/{}", victim.pid))
    });
    // Until the sentry, or the server, is where it is held up.
    std::thread::sleep(Duration::from_secs(1));
    guest.tell("kill");
    assert_eq!(guest.said(), "gone");
    loop {
        choose_next(tree.sentry, number);
        guest.tell("start");
        assert_eq!(guest.said(), "there");
        if number_for_the_sentry(tree.program.children()[0]) == number {
            break;
        }
        // A thread of the sentry's was faster.
        guest.tell("go");
    }
    assert!(
        begun.elapsed() < HELD_UP,
        "the sentry was not held up enough"
    );
    Some(Heir {
        child,
        guest,
        begun,
    })
}

impl Heir {
    /// What the heir says of its memory once the sentry is done: what the guest answers to "look", or nothing if the heir
    /// was made to do something else.
    fn found(mut self) -> String {
        let done = HELD_UP + Duration::from_secs(4);
        std::thread::sleep(done.saturating_sub(self.begun.elapsed()));
        // The guest has ended if its heir was made to do something else.
        let _ = writeln!(self.guest.input, "look");
        let found = self.guest.said();
        drop(self.guest.input);
        let ended = wait_for(self.child);
        if !found.is_empty() {
            assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
        }
        found
    }
}

/// What became of the memory of the heir of a task that was killed in a request.
fn memory_of_an_heir(scenario: &[&str], rules: &str) -> Option<String> {
    heir(scenario, rules).map(Heir::found)
}

/// The number of a task in the sentry's process namespace, which is the second of three.
fn number_for_the_sentry(task: Process) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", task.pid)).expect("its status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers: Vec<&str> = numbers.expect("numbers").split_whitespace().collect();
    let [.., number, _] = numbers[..] else {
        panic!("{numbers:?}");
    };
    number.parse().expect("a number")
}

/// Has the next process in the sentry's namespace get this number.
fn choose_next(sentry: Process, number: u32) {
    let namespace = |name: &str| format!("--{name}=/proc/{}/ns/{name}", sentry.pid);
    let mut command = Command::new("nsenter");
    command
        .args([namespace("user"), namespace("pid")])
        .args(["sh", "-c"])
        .arg(format!("echo {} > {LAST_NUMBER}", number - 1));
    assert_eq!(finish(&mut command), Ended::printing(""));
}

/// Whether a thread waits in an ioctl, by its directory in `/proc` (proc_pid_syscall(5)).
fn is_in_an_ioctl(thread: &str) -> bool {
    let call = fs::read_to_string(format!("{thread}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_ioctl.to_string())
}

/// Where the sentry is held up, with what it has read or is about to write.
const MOMENTS: [&str; 2] = [
    "sentry.received@1=delay:8000",
    "sentry.answered@1=delay:8000",
];

#[test]
fn nothing_is_read_from_a_task_that_got_the_number_of_another() {
    let found = memory_of_an_heir(&["reused"], MOMENTS[0]);
    assert!(found.is_none_or(|found| found == "untouched"));
}

#[test]
fn no_answer_is_written_to_a_task_that_got_the_number_of_another() {
    let found = memory_of_an_heir(&["reused"], MOMENTS[1]);
    assert!(found.is_none_or(|found| found == "untouched"));
}

/// The tests above can fail: without the look whether the task still waits, another is taken for it.
#[test]
fn without_a_look_another_task_is_taken_for_the_one_that_had_its_number() {
    for moment in MOMENTS {
        let found = memory_of_an_heir(&["reused"], &format!("{moment} sentry.waiting=drop"));
        assert!(found.is_none_or(|found| found == "altered"), "{moment}");
    }
}

/// Before anything is done to the caller of a pin but that it is traced.
const LENT: &str = "sentry.pin-lent@1=delay:8000";

#[test]
fn a_pin_is_not_issued_by_a_task_that_got_the_number_of_its_caller() {
    let found = memory_of_an_heir(&["reused", "pin"], LENT);
    assert!(found.is_none_or(|found| found == "untouched"));
}

/// The test above can fail: the heir is made to issue the pin, in place of the read that it is in.
#[test]
fn without_a_look_a_pin_is_issued_by_the_one_that_got_the_number_of_its_caller() {
    let found = memory_of_an_heir(&["reused", "pin"], &format!("{LENT} sentry.waiting=drop"));
    assert!(found.is_none_or(|found| found != "untouched"));
}
