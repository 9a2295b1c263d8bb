//! A task's number that has come to mean another task while the sentry works for the first.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;
use userland_tests::processes::{Process, Tree};
use userland_tests::{
    Ended, eventually, finish, guest_program, ringfence_with_faults, showing_the_guest, started,
    wait_for,
};

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

/// What became of the memory of a task that got the number of one that was killed in a request, while a rule held up the
/// sentry. `None` if this cannot be tried here.
fn heir(rules: &str) -> Option<String> {
    if !geteuid().is_root() || fs::metadata(LAST_NUMBER).is_err() {
        eprintln!("skipped: only root can choose the next number, where {LAST_NUMBER} exists");
        return None;
    }
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "sim"])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .arg("reused")
        .env("RINGFENCE_FAULTS", rules)
        .stdin(Stdio::piped());
    let (mut child, output) = started(&mut command);
    let tree = Tree::of(child.id());
    let input = child.stdin.take().expect("a pipe");
    let mut guest = Guest { input, output };
    let victim = tree.program.children()[0];
    let number = number_for_the_sentry(victim);
    eventually("the sentry has the call", || {
        is_in_an_ioctl(&format!("/proc/{}", victim.pid)) && !receives(tree.sentry)
    });
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
    assert!(!receives(tree.sentry), "the sentry was not held up enough");
    eventually("the sentry is done", || receives(tree.sentry));
    // An answer may be written yet, by another of its threads.
    std::thread::sleep(Duration::from_millis(500));
    guest.tell("look");
    let found = guest.said();
    guest.tell("end");
    assert_eq!(wait_for(child), Ended::printing(""));
    Some(found)
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

/// Whether a thread of the sentry waits for the next notification.
fn receives(sentry: Process) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", sentry.pid)).expect("its threads");
    threads
        .filter_map(|thread| thread.ok()?.path().to_str().map(str::to_owned))
        .any(|thread| is_in_an_ioctl(&thread))
}

#[test]
fn nothing_is_read_from_a_task_that_got_the_number_of_another() {
    let found = heir("sentry.received@1=delay:5000");
    assert!(found.is_none_or(|found| found == "untouched"));
}

/// The test above can fail: without the look whether the task still waits, another is taken for it.
#[test]
fn without_a_look_another_task_is_taken_for_the_one_that_had_its_number() {
    let found = heir("sentry.received@1=delay:5000 sentry.waiting=drop");
    assert!(found.is_none_or(|found| found == "altered"));
}
