//! The fault matrix: something goes wrong at a named point, and what comes of it is exactly this.
//!
//! Each row is a test: rules for `RINGFENCE_FAULTS` (the crate `ringfence-faults` says how they read), options of
//! `ringfence run`, a scenario of the guest, and the exit status, stdout and stderr that the run has to have. That no
//! process is left shows by the run's coming to an end: every process of a sandbox holds the pipe that is read to its end.
//! Nothing may be left in the directory of temporary files, either.
//!
//! Passages are counted from 1. The scenario `requests` opens (submission 1), allocates a client (submission 2, ioctl
//! 1), and then makes numbered requests: request N is submission N + 2 and ioctl N + 1. `Gpu::open` takes two opens and
//! seven ioctls.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::{
    Directory, Ended, finish, guest_under_with, heed_interrupts, ringfence_program,
    ringfence_with_faults, started_until, wait_for,
};

fn check(rules: &str, options: &[&str], scenario: &[&str], expected: &Ended) {
    let directory = Directory::new("faults");
    let mut command = guest_under_with(rules, options, scenario);
    let ended = finish(command.env("TMPDIR", directory.path()));
    assert_eq!(ended, *expected, "with {rules}");
    let left = fs::read_dir(directory.path()).expect("the directory");
    assert_eq!(left.count(), 0);
}

/// One test for each row.
macro_rules! matrix {
    ($($name:ident: $rules:expr, $options:expr, $scenario:expr => $expected:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check($rules, &$options, &$scenario, &$expected);
            }
        )*
    };
}

/// What `requests` prints up to request `last`, all of which succeed but those in `failing`, each with a word.
fn up_to(last: usize, failing: &[(usize, &str)]) -> String {
    let mut printed = "open: ok\nclient: ok\n".to_owned();
    for request in 1..=last {
        let failed = failing.iter().find(|(failed, _)| *failed == request);
        let word = failed.map_or("ok", |(_, word)| word);
        printed.push_str(&format!("request {request}: {word}\n"));
    }
    printed
}

/// `requests` to its end, after `stderr`.
fn all_but(last: usize, failing: &[(usize, &str)], stderr: &str) -> Ended {
    Ended {
        status: 0,
        stdout: up_to(last, failing) + "open: ok\n",
        stderr: stderr.to_owned(),
    }
}

fn all(last: usize) -> Ended {
    all_but(last, &[], "")
}

/// The server dies, and the sandbox with it, after the program printed `stdout`.
fn sandbox_ends(stdout: &str) -> Ended {
    Ended {
        status: 125,
        stdout: stdout.to_owned(),
        stderr: "ringfence: the server ended unexpectedly, and the sandbox with it\n".to_owned(),
    }
}

/// `requests` to its end; from request `first` on all fail, since the server is gone, after `stderr`.
fn requests_fail(first: usize, last: usize, stderr: &str) -> Ended {
    let failing: Vec<(usize, &str)> = (first..=last).map(|request| (request, "EIO")).collect();
    Ended {
        status: 0,
        stdout: up_to(last, &failing) + "open: EIO\n",
        stderr: format!("{stderr}{SERVER_LOST}"),
    }
}

/// The sandbox ends with its sentry.
fn sentry_gone(stdout: &str) -> Ended {
    Ended {
        status: 125,
        stdout: stdout.to_owned(),
        stderr: "ringfence: the sentry was ended by SIGILL, and the sandbox with it\n".to_owned(),
    }
}

/// The server is gone before anything was pinned.
fn no_pin() -> Ended {
    Ended {
        status: 1,
        stdout: "pinned: EIO\nagain: EIO\nfreed: EIO\n".into(),
        stderr: format!("{SERVER_LOST}guest: pin-private: EIO: I/O error\n"),
    }
}

/// What the guest prints whose child was killed.
fn child_killed() -> Ended {
    Ended::printing("child: SIGKILL\nall is free\npinned\n")
}

/// A wrong answer breaks the channel after request `last`, and the server is ended for it.
fn broken(last: usize, reason: &str) -> Ended {
    requests_fail(last + 1, 5, &format!("ERROR the server: {reason}\n"))
}

/// The server ends after request `last` because the sentry does not keep to the protocol.
fn unserved(last: usize, reason: &str) -> Ended {
    requests_fail(
        last + 1,
        5,
        &format!("ERROR the server cannot go on: {reason}\n"),
    )
}

/// What is said where the server is lost and the sandbox goes on.
const SERVER_LOST: &str =
    " WARN the server ended unexpectedly: every request to the driver fails with EIO from now on\n";
/// The sandbox is to end with its server. The default is that it goes on.
const END: [&str; 2] = ["--on-server-exit", "kill"];
const CORRUPT: &str =
    "the ring is corrupt: the peer announced an index that it cannot have reached";
const NO_RULES: &str = "";
/// Where warnings go whose number depends on the moment.
const LOG: [&str; 2] = ["--log", "/dev/null"];
const LARGE_FAILS: &str = "before: ok\nlarge: ENOMEM\nafter: ok\n";
const HOARDED: &str =
    "more than 8: true, then EMFILE\nagain: EMFILE\nthe last: ok\nafter closing: ok\n";

// The server dies, and the sandbox with it.
matrix! {
    nothing_goes_wrong: NO_RULES, [], ["requests", "5"] => all(5);
    the_server_dies_before_a_request: "server.take@4=kill", END, ["requests", "5"] => sandbox_ends(&up_to(1, &[]));
    the_server_dies_when_it_has_copied_a_request: "server.prepared@3=kill", END, ["requests", "5"]
        => sandbox_ends(&up_to(1, &[]));
    the_server_dies_on_its_way_into_the_driver: "server.call@3=kill", END, ["requests", "5"]
        => sandbox_ends(&up_to(1, &[]));
    the_server_dies_on_its_way_out_of_the_driver: "server.called@3=kill", END, ["requests", "5"]
        => sandbox_ends(&up_to(1, &[]));
    the_server_dies_before_it_answers: "server.publish@4=kill", END, ["requests", "5"] => sandbox_ends(&up_to(1, &[]));
    the_server_dies_between_the_entries_of_a_batch: "server.call@8=delay:300 server.next@2=kill", END, ["batch"]
        => sandbox_ends("");
    the_server_dies_when_it_opens: "server.open@2=kill", END, ["requests", "5"] => sandbox_ends(&up_to(5, &[]));
    the_server_dies_when_it_closes: "server.work@1=kill", END, ["close"] => sandbox_ends("");
    the_server_dies_when_a_pin_begins: "server.prepared@8=kill", END, ["pin-private"] => sandbox_ends("");
    the_server_dies_when_a_pin_was_issued: "server.prepared@9=kill", END, ["pin-private"] => sandbox_ends("");
}

// The server dies, and requests fail.
matrix! {
    without_the_server_from_before_a_request: "server.take@4=kill", [], ["requests", "5"] => requests_fail(2, 5, "");
    without_the_server_from_a_copied_request: "server.prepared@3=kill", [], ["requests", "5"]
        => requests_fail(2, 5, "");
    without_the_server_from_the_way_into_the_driver: "server.call@3=kill", [], ["requests", "5"]
        => requests_fail(2, 5, "");
    without_the_server_from_the_way_out_of_the_driver: "server.called@3=kill", [], ["requests", "5"]
        => requests_fail(2, 5, "");
    without_the_server_from_before_an_answer: "server.publish@4=kill", [], ["requests", "5"]
        => requests_fail(2, 5, "");
    without_the_server_from_the_middle_of_a_batch: "server.call@8=delay:300 server.next@2=kill", [], ["batch"]
        => Ended {
            status: 0,
            stdout: "child 1: status 105\nchild 2: status 105\nchild 3: SIGKILL\nchild 4: status 105\nthen: EIO\n".into(),
            stderr: SERVER_LOST.into(),
        };
    without_the_server_from_an_open: "server.open@2=kill", [], ["requests", "5"] => requests_fail(6, 5, "");
    without_the_server_from_the_beginning_of_a_pin: "server.prepared@8=kill", [], ["pin-private"] => no_pin();
    without_the_server_from_an_issued_pin: "server.prepared@9=kill", [], ["pin-private"] => no_pin();
}

// The sentry dies, and everything with it.
matrix! {
    the_sentry_dies_when_a_request_comes: "sentry.received@3=kill", [], ["requests", "5"] => sentry_gone(&up_to(1, &[]));
    the_sentry_dies_before_it_submits: "sentry.submit@4=kill", [], ["requests", "5"] => sentry_gone(&up_to(1, &[]));
    the_sentry_dies_before_it_writes_back: "sentry.answered@3=kill", [], ["requests", "5"]
        => sentry_gone(&up_to(1, &[]));
    the_sentry_dies_with_all_tasks_held: "sentry.pin-held@1=kill", [], ["pin-private"] => sentry_gone("");
    the_sentry_dies_with_the_caller_stopped: "sentry.pin-stopped@1=kill", [], ["pin-private"] => sentry_gone("");
    the_sentry_dies_when_a_helper_was_made: "sentry.pin-helper@1=kill", [], ["pin-private"] => sentry_gone("");
    the_sentry_dies_with_a_descriptor_lent: "sentry.pin-checked@1=kill", [], ["pin-private"] => sentry_gone("");
    the_sentry_dies_when_a_pin_was_issued: "sentry.pin-issued@1=kill", [], ["pin-private"] => sentry_gone("");
}

// A task dies; the others go on, and what it held is freed.
matrix! {
    a_task_dies_before_its_request_is_read: "sentry.received@12=kill-task", [], ["doomed"] => child_killed();
    a_task_dies_before_its_answer_is_written: "sentry.answered@12=kill-task", [], ["doomed"] => child_killed();
    a_task_dies_while_the_driver_works_for_it: "server.call@8=delay:300", [], ["batch"]
        => Ended::printing("child 1: status 2\nchild 2: status 2\nchild 3: SIGKILL\nchild 4: status 2\nthen: ok\n");
    a_task_dies_when_a_descriptor_is_about_to_be_lent: "sentry.pin-lent@2=kill-task", [], ["doomed", "pins"]
        => child_killed();
    a_task_dies_when_the_others_are_held: "sentry.pin-held@2=kill-task", [], ["doomed", "pins"] => child_killed();
    a_task_dies_when_it_was_stopped_for_a_pin: "sentry.pin-stopped@2=kill-task", [], ["doomed", "pins"]
        => child_killed();
    a_task_dies_when_it_has_made_a_helper: "sentry.pin-helper@2=kill-task", [], ["doomed", "pins"] => child_killed();
    a_task_dies_with_a_descriptor_lent: "sentry.pin-checked@2=kill-task", [], ["doomed", "pins"] => child_killed();
    a_task_dies_on_its_way_into_a_pin: "sentry.pin-prepared@2=kill-task", [], ["doomed", "pins"] => child_killed();
    a_task_dies_on_its_way_out_of_a_pin: "sentry.pin-issued@2=kill-task", [], ["doomed", "pins"] => child_killed();
    a_task_dies_when_a_pin_is_over: "sentry.pin-ended@2=kill-task", [], ["doomed", "pins"] => child_killed();
    ten_thousand_tasks_die: NO_RULES, [], ["many", "10000"] => Ended::printing("10000 tasks\n");
}

// The channel is full, or its doorbells are lost or ring too often.
matrix! {
    the_rings_have_room_for_two: "sentry.entries=value:2", [], ["threads"] => Ended::printing("32 threads\n");
    the_rings_have_room_for_one: "sentry.entries=value:1", [], ["processes"] => Ended::printing("300 processes\n");
    the_arena_has_room_for_one: "sentry.slots=value:1", [], ["threads"] => Ended::printing("32 threads\n");
    the_servers_doorbell_is_lost: "sentry.doorbell=drop", [], ["requests", "1"] => all(1);
    the_sentrys_doorbell_is_lost: "server.doorbell=drop", [], ["requests", "1"] => all(1);
    both_doorbells_are_lost: "sentry.doorbell=drop server.doorbell=drop", [], ["requests", "1"] => all(1);
    doorbells_ring_twice: "sentry.doorbell=duplicate server.doorbell=duplicate", [], ["threads"]
        => Ended::printing("32 threads\n");
}

// What the sentry writes into its ring is wrong.
matrix! {
    a_submission_comes_twice: "sentry.stage@4=duplicate", [], ["requests", "5"]
        => broken(2, "an answer to a request that was not made");
    a_submission_is_replayed: "sentry.stage@4=replay", [], ["requests", "5"]
        => broken(1, "an answer to a request that was not made");
    submissions_change_places: "sentry.stage@40=reorder", [], ["threads"] => Ended::printing("32 threads\n");
    a_submission_is_torn: "sentry.stage@4=torn", [], ["walk"] => Ended {
        status: 1,
        stdout: String::new(),
        stderr: " WARN malformed message: a payload longer than its plan\nguest: walk: EPROTO: Protocol error\n".into(),
    };
    a_submission_is_of_no_kind: "sentry.stage@4=word:2:0xff", [], ["requests", "5"]
        => all_but(5, &[(2, "EPROTO")], " WARN malformed message: an unknown kind\n");
    a_submission_is_too_long: "sentry.stage@4=word:3:0xffffffff00000000", [], ["requests", "5"]
        => all_but(5, &[(2, "EPROTO")], " WARN malformed message: a payload larger than any request\n");
    a_submission_lies_outside_the_arena: "sentry.stage@4=word:3:0x28ffffffff", [], ["requests", "5"]
        => all_but(5, &[(2, "EPROTO")], " WARN malformed message: a payload outside the arena\n");
    a_submission_names_a_handle_of_nobodys: "sentry.stage@4=word:1:0x700000007", [], ["requests", "5"]
        => all_but(5, &[(2, "EBADF")], "");
    a_submission_is_garbage: "sentry.stage@4=garbage", [], ["requests", "5"]
        => unserved(1, "a submission with more descriptors than any has");
    a_descriptor_was_promised_to_the_server: "sentry.stage@4=word:6:1", [], ["requests", "5"]
        => unserved(1, "the control socket: the channel's socket is not ready");
    submissions_are_announced_that_cannot_be: "sentry.stage@4=skip:1000", [], ["requests", "5"]
        => unserved(1, &format!("submission ring: {CORRUPT}"));
}

// What the server writes into its ring is wrong.
matrix! {
    a_completion_is_replayed: "server.stage@4=replay", [], ["requests", "5"]
        => broken(1, "an answer to a request that was not made");
    a_completion_is_torn: "server.stage@1=torn", [], ["requests", "5"] => Ended {
        status: 1,
        stdout: "open: ok\nclient: ENOTTY\n".into(),
        stderr: "guest: requests: ENOTTY: Not a typewriter\n".into(),
    };
    a_completion_is_garbage: "server.stage@4=garbage", [], ["requests", "5"]
        => broken(1, "the control socket: the channel's socket is not ready");
    a_completion_is_too_long: "server.stage@4=word:2:0xffffffff00000000", [], ["requests", "5"] => all(5);
    a_completion_is_too_short: "server.stage@4=word:2:0", [], ["requests", "5"] => all_but(5, &[(2, "EIO")], "");
    a_completion_has_no_systems_result: "server.stage@4=word:1:0x8000000000000000", [], ["requests", "5"]
        => all_but(5, &[(2, "EIO")], "");
    a_descriptor_was_promised_to_the_sentry: "server.stage@4=word:2:1", [], ["requests", "5"]
        => broken(1, "the control socket: the channel's socket is not ready");
    completions_are_announced_that_cannot_be: "server.stage@4=skip:1000", [], ["requests", "5"]
        => broken(1, &format!("the completion ring: {CORRUPT}"));
}

// The driver does as it likes.
matrix! {
    the_driver_returns_each_errno: "server.call@2+=errno:each", [], ["requests", "133"] => {
        // Linux has no errno 41 and 58.
        let name = |errno| match Errno::from_raw(errno) {
            Errno::UnknownErrno => "EIO".to_owned(),
            known => format!("{known:?}"),
        };
        let names: Vec<String> = (1..=133).map(name).collect();
        let failing: Vec<(usize, &str)> = (1..).zip(names.iter().map(String::as_str)).collect();
        all_but(133, &failing, "")
    };
    the_driver_returns_a_number: "server.call@3=value:7", [], ["requests", "5"] => all(5);
    the_driver_answers_with_garbage: "server.call@8=garbage", [], ["questions"] => Ended::printing(
        "returned: Ok(0)\naround the argument: true\naround the buffer: true\nin the buffer: [a5, a5, a5, a5]\nthen: ok\n"
    );
    the_driver_never_answers_a_slow_request: "server.slow@4=block", [], ["beside-a-slow-one"]
        => Ended::printing("others went on\n");
    the_driver_does_not_open: "server.open@2=errno:19", [], ["requests", "1"]
        => Ended::printing("open: ok\nclient: ok\nrequest 1: ok\nopen: ENODEV\n");
}

// Something runs out.
matrix! {
    the_servers_descriptor_table_is_full: "server.take@2=exhaust-descriptors:40", LOG, ["hoard"] => Ended::printing(HOARDED);
    the_sentrys_descriptor_table_is_full: "sentry.answered@3=exhaust-descriptors:0", [], ["requests", "1"] => Ended {
        status: 0,
        stdout: up_to(1, &[]) + "open: ok\n",
        stderr: String::new(),
    };
    the_sentry_has_no_room_for_a_descriptor: "sentry.answered@2=exhaust-descriptors:0", [], ["requests", "1"] => Ended {
        status: 0,
        stdout: up_to(1, &[]) + "open: EMFILE\n",
        stderr: String::new(),
    };
    the_programs_descriptor_table_is_full: NO_RULES, [], ["hoard", "40"] => Ended::printing(HOARDED);
    the_server_has_no_memory: "server.take@11=exhaust-memory", LOG, ["large"] => Ended::printing(LARGE_FAILS);
    the_sentry_has_no_memory: "sentry.received@9=exhaust-memory", LOG, ["large"] => Ended::printing(LARGE_FAILS);
}

// Two that do not speak the same.
matrix! {
    the_server_speaks_another_version: "server.version=value:9", [], ["requests", "1"] => Ended::failing(
        125,
        "ringfence: the peer speaks version 9 of the channel protocol, this process version 1: both must come from the \
         same release",
    );
    the_sentry_speaks_another_version: "sentry.version=value:9", [], ["requests", "1"] => Ended::failing(
        125,
        "ringfence: the server refused the channel: the peer speaks version 9 of the channel protocol, this process \
         version 1: both must come from the same release",
    );
}

/// Waits until the program has printed `line`, sends a signal to the launcher, and says what comes of it.
fn signalled(rules: &str, line: &str, signal: Signal) -> Ended {
    let mut command = guest_under_with(rules, &[], &["requests", "5"]);
    heed_interrupts(&mut command);
    let (child, _output, _) = started_until(&mut command, line);
    kill(Pid::from_raw(child.id() as i32), signal).expect("kill");
    wait_for(child)
}

/// A server or a driver that keeps an answer for ever cannot be told from a slow one; the program is ended as ever.
#[test]
fn a_program_that_waits_for_ever_can_be_ended() {
    let silent = |status| Ended {
        status,
        stdout: String::new(),
        stderr: String::new(),
    };
    for rules in [
        "server.call@3=block",
        "server.stage@4=drop",
        "sentry.stage@4=drop",
        "sentry.submit@4=block",
    ] {
        for (signal, status) in [
            (Signal::SIGTERM, 143),
            (Signal::SIGINT, 130),
            (Signal::SIGKILL, 137),
        ] {
            let ended = signalled(rules, "request 1: ok\n", signal);
            assert_eq!(ended, silent(status), "{rules}, {signal}");
        }
    }
}

/// The time of day goes back and forth by a century between any two looks at it, which the log shows and nothing else.
#[test]
fn the_clock_jumps() {
    let directory = Directory::new("clock");
    let log = directory.path().join("log");
    let options = ["--log", log.to_str().expect("a path")];
    let rules = "sentry.clock=value:3000000000 server.clock=value:3000000000";
    let ended = finish(&mut guest_under_with(rules, &options, &["walk"]));
    let usual = finish(&mut guest_under_with(NO_RULES, &[], &["walk"]));
    assert_eq!(ended, usual);
    assert_eq!(usual.status, 0);
    let log = fs::read_to_string(log).expect("the log");
    let years: Vec<&str> = log.lines().filter_map(|line| line.get(..4)).collect();
    assert!(years.iter().any(|year| *year > "2100"), "{log}");
    assert!(years.iter().any(|year| *year < "1970"), "{log}");
}

/// The executable that is installed obeys no rules: it does not even know the variable's name.
#[test]
fn the_ordinary_executable_knows_no_faults() {
    let knows = |program| {
        let program = fs::read(program).expect("the executable");
        let name = b"RINGFENCE_FAULTS";
        program.windows(name.len()).any(|window| window == name)
    };
    assert!(knows(ringfence_with_faults()));
    assert!(!knows(ringfence_program()));
    let mut command = userland_tests::guest(&["requests", "5"]);
    let rules = "server.take=kill sentry.received=kill";
    assert_eq!(finish(command.env("RINGFENCE_FAULTS", rules)), all(5));
}

/// The second one may be looked at when the program has gone on by any number of requests, which others of the sentry's threads
/// have answered.
#[test]
fn a_completion_comes_twice() {
    let rules = "server.stage@4=duplicate";
    let mut command = guest_under_with(rules, &[], &["requests-until-one-fails"]);
    let expected = Ended {
        status: 0,
        stdout: "at last: EIO\n".to_owned(),
        stderr: format!(
            "ERROR the server: an answer to a request that was not made\n{SERVER_LOST}"
        ),
    };
    assert_eq!(finish(&mut command), expected);
}
