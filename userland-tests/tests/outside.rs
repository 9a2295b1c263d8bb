//! What a task does reaches no process outside, be it in the group that the caller started the sandbox from, or of the
//! same user.
//!
//! `unsafe` is here because of calls that have no wrapper.

#![allow(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::linux::{self, Feature};
use userland_tests::processes::Process;
use userland_tests::{
    Ended, finish, guest, guest_program, guest_under, ringfence_program, ringfence_with_faults,
    showing_the_guest,
};

/// What a process is to the scheduler, and what it may use.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    nice: i64,
    policy: String,
    io_priority: i64,
    processors: String,
    limits: String,
    state: String,
    group: String,
}

impl Standing {
    /// `None` if there is no such process.
    fn of(process: Pid) -> Option<Standing> {
        Process::find(process)?;
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).ok();
        let (stat, status) = (read("stat")?, read("status")?);
        let (_, rest) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let of_status = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.unwrap_or_default().to_owned()
        };
        // SAFETY: ioprio_get takes no pointer.
        let io_priority = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, process.as_raw()) };
        Some(Standing {
            nice: words.get(16)?.parse().ok()?,
            policy: (*words.get(38)?).to_owned(),
            io_priority: Errno::result(io_priority).ok()?,
            processors: of_status("Cpus_allowed_list:"),
            limits: read("limits")?,
            state: (*words.first()?).to_owned(),
            group: (*words.get(2)?).to_owned(),
        })
    }
}

/// What became of a script's other child while it ran a program.
struct Run {
    ended: Ended,
    before: Standing,
    /// `None` if it was ended.
    after: Option<Standing>,
}

/// Runs `command SCENARIO BYSTANDER GROUP` from a script without job control, which has another child in its group.
fn beside_a_bystander(command: &[&str]) -> Run {
    let mut bystander = Command::new("setsid");
    bystander
        .args([
            "sh",
            "-c",
            "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; read go; exec \"$@\" $! $$",
            "sh",
        ])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = bystander.spawn().expect("setsid");
    let number = {
        let output = child.stdout.as_mut().expect("a pipe");
        let mut line = String::new();
        let mut byte = [0];
        while output.read(&mut byte).expect("a line") == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        Pid::from_raw(line.parse().expect("a number"))
    };
    userland_tests::eventually("it sleeps", || {
        fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|name| name == "sleep\n")
            && Standing::of(number).is_some_and(|standing| standing.state == "S")
    });
    let before = Standing::of(number).expect("the bystander");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"go\n").expect("the script waits");
    drop(input);
    let ended = userland_tests::wait_for(child);
    let after = Standing::of(number);
    // It may have been ended.
    let _ = kill(number, Signal::SIGKILL);
    Run {
        ended,
        before,
        after,
    }
}

/// `ringfence run … guest SCENARIO` by this executable.
fn sandboxed(ringfence: &Path, scenario: &str) -> Vec<String> {
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let mut command = vec![text(ringfence), "run".to_owned(), "--driver=sim".to_owned()];
    let options = showing_the_guest();
    command.extend(options.iter().map(|option| text(Path::new(option))));
    command.extend(["--".to_owned(), text(&guest_program()), scenario.to_owned()]);
    command
}

fn run(command: &[String]) -> Run {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    beside_a_bystander(&command)
}

#[test]
fn groups_users_and_everybody_are_those_of_the_sandbox() {
    let Run {
        ended,
        before,
        after,
    } = run(&sandboxed(&ringfence_program(), "reach-groups"));
    let expected = "\
setpriority of the group: ok
setpriority of the user: ok
ioprio_set of the group: ok
ioprio_set of the user: ok
kill of everybody: ESRCH
kill of the group: ok
";
    assert_eq!(ended, Ended::printing(expected));
    assert_eq!(after, Some(before));
}

/// The test above can fail: a program that stays in its caller's group slows down and ends whoever is in it.
#[test]
fn a_program_in_its_callers_group_reaches_the_group() {
    let mut command = sandboxed(&ringfence_with_faults(), "reach-groups");
    command.insert(
        0,
        "RINGFENCE_FAULTS=sentry.session=drop sentry.scope=drop".to_owned(),
    );
    command.insert(0, "env".to_owned());
    let Run { after, .. } = run(&command);
    assert_eq!(after, None);
}

/// Landlock keeps signals in by itself, where the kernel has scopes: the test above leaves them out.
#[test]
fn a_program_in_its_callers_group_signals_nobody_outside_of_its_domain() {
    let mut command = sandboxed(&ringfence_with_faults(), "reach-groups");
    command.insert(0, "RINGFENCE_FAULTS=sentry.session=drop".to_owned());
    command.insert(0, "env".to_owned());
    let Run { before, after, .. } = run(&command);
    let state = |standing: Standing| (standing.state, standing.group);
    let expected = linux::has(Feature::LandlockScopes).then(|| state(before));
    assert_eq!(after.map(state), expected);
}

#[test]
fn a_group_that_is_killed_is_the_programs_own() {
    let mut command = sandboxed(&ringfence_program(), "");
    command.truncate(command.len() - 2);
    command.extend(["sh", "-c", "kill -KILL 0"].map(str::to_owned));
    let Run {
        ended,
        before,
        after,
    } = run(&command);
    assert_eq!(
        ended,
        Ended {
            status: 137,
            ..Ended::printing("")
        }
    );
    assert_eq!(after, Some(before));
}

#[test]
fn no_number_names_a_process_or_a_group_outside() {
    let Run {
        ended,
        before,
        after,
    } = run(&sandboxed(&ringfence_program(), "reach"));
    let expected = "\
leads its group: true, session: 1
kill: ESRCH
kill of a group: ESRCH
tkill: ESRCH
tgkill: ESRCH
rt_sigqueueinfo: ESRCH
pidfd_open: ESRCH
getpriority: ESRCH
getpriority of a group: ESRCH
setpriority: ESRCH
setpriority of a group: ESRCH
ioprio_get: ESRCH
ioprio_set: ESRCH
ioprio_set of a group: ESRCH
sched_setscheduler: ESRCH
sched_setparam: ESRCH
sched_setattr: ESRCH
sched_getscheduler: ESRCH
sched_setaffinity: ESRCH
sched_getaffinity: ESRCH
prlimit64: ESRCH
getpgid: ESRCH
getsid: ESRCH
setpgid into a group: EPERM
setpgid of a process: ESRCH
ptrace: ESRCH
get_robust_list: ESRCH
F_SETOWN: ESRCH
F_SETOWN of a group: ESRCH
F_SETOWN_EX of a group: ESRCH
setsid: EPERM
";
    assert_eq!(ended, Ended::printing(expected));
    assert_eq!(after, Some(before));
}

/// The test above can fail: outside of a sandbox the same calls name the bystander.
#[test]
fn outside_of_a_sandbox_the_same_numbers_name_the_bystander() {
    let guest = guest_program().to_str().expect("a path").to_owned();
    let Run { ended, .. } = run(&[guest, "reach".to_owned()]);
    // The first call ends it.
    assert!(ended.stdout.contains("\nkill: ok\n"), "{ended:?}");
    assert!(!ended.stdout.contains("\ngetsid: ESRCH\n"), "{ended:?}");
}

/// What a program said that has for its standard input a description which another process outside owns, and by which signal
/// that one ended when there was something to read: SIGKILL, by which it is ended then, if by no other.
fn with_the_description_of_another(command: &mut Command) -> (Ended, Option<i32>) {
    let mut sleep = Command::new("sleep");
    let mut owner = sleep.arg("1000").spawn().expect("sleep");
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    // SAFETY: no pointer is passed.
    let owned = unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETOWN, owner.id()) };
    Errno::result(owned).expect("an owner");
    let stdin = theirs.try_clone().expect("a duplicate");
    let ended = finish(command.stdin(OwnedFd::from(stdin)));
    // The kernel sends the signal, if one was asked for, within this call.
    ours.write_all(b"x").expect("it is open");
    owner.kill().expect("it was not waited for");
    (ended, owner.wait().expect("its status").signal())
}

#[test]
fn no_owner_of_a_description_is_sent_a_signal() {
    let (ended, signal) = with_the_description_of_another(&mut guest(&["signal-owner"]));
    let expected = "F_SETSIG: EINVAL\nO_ASYNC: EINVAL\nFIOASYNC: ENOTTY\n";
    assert_eq!(ended, Ended::printing(expected));
    assert_eq!(signal, Some(libc::SIGKILL));
}

/// The test above can fail: neither namespaces nor Landlock keep such a signal in.
#[test]
fn an_owner_of_a_description_is_sent_a_signal_without_the_filter() {
    let mut command = guest_under("sentry.filter=duplicate", &["signal-owner", "beside"]);
    let (ended, signal) = with_the_description_of_another(&mut command);
    assert_eq!(
        (ended.status, signal),
        (0, Some(libc::SIGUSR1)),
        "{ended:?}"
    );
}
