//! Pins beside programs that do what makes them hard to hold, and that each of these would be noticed.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use userland_tests::processes::Process;
use userland_tests::{Ended, finish, guest, guest_under};

/// What a program says whose pins all succeeded, beside a process that was not disturbed.
const UNDISTURBED: &str = "pins: ok\nbeside: exit status: 0\nthen: ok\n";

/// What the log says of a process that did not do as it was set to.
const DISOBEYED: &str = " WARN a process that pinned memory was killed, because it did not make the calls that it was set to: \
                         its code, a breakpoint, a seccomp filter of its own or Syscall User Dispatch was in the way\n";

/// What it says of one that did not do so in time.
const TOO_SLOW: &str = " WARN a process that pinned memory was killed, because the calls that it was set to took too long: \
                        its code or signals were in the way, or others kept the processors from it\n";

/// As where the kernel has no memory that others cannot reach: the thread of a pin is made to make each of its calls by itself.
const ONE_BY_ONE: &str = "sentry.pin-secret=drop";

/// A sandbox that printed this, and in which a process was killed for that.
fn with_one_killed(stdout: &str, why: &str) -> Ended {
    Ended {
        stderr: why.to_owned(),
        ..Ended::printing(stdout)
    }
}

/// A process executes itself so many times while another pins.
fn executing(times: u32, how: &str, rules: &str) -> Command {
    let scenario = ["pin-beside-executions", &times.to_string(), how];
    guest_under(rules, &scenario)
}

/// Time for a thread to execute a program between being seized and being interrupted: much where there are few.
const SLOWLY: &str = "sentry.seized=delay:1";
const MORE_SLOWLY: &str = "sentry.seized=delay:20";

/// Who executes a program waits for the other threads of its process to be gone, and these for the sentry if it traces
/// them; and the sentry would wait for the execution to be over before it can trace another.
#[test]
fn a_pin_and_an_execution_do_not_wait_for_each_other() {
    for rules in ["", SLOWLY] {
        let ended = finish(&mut executing(20, "among threads", rules));
        assert_eq!(ended, Ended::printing(UNDISTURBED), "{rules}");
    }
}

/// A process executes itself, from its last thread, while it is taken hold of thread by thread.
fn executing_slowly(rules: &str) -> String {
    finish(&mut executing(30, "with much to copy", rules)).stdout
}

/// Who executes a program waits for threads that this is not waiting for, too.
#[test]
fn an_execution_that_has_begun_does_not_have_a_pin_fail() {
    let expected = "pins: ok\ntime was short: false\nbeside: exit status: 0\nthen: ok\n";
    // Time may be short for other reasons, if others keep the processors.
    let mut attempts = (0..3).map(|_| executing_slowly(""));
    assert!(
        attempts.any(|printed| printed == expected),
        "time was short"
    );
}

/// The test above can fail: the two wait for each other until the time for a pin is over.
#[test]
fn an_execution_that_has_begun_has_a_pin_fail_if_others_are_not_looked_at() {
    let expected = "pins: ok\ntime was short: true\nbeside: exit status: 0\nthen: ok\n";
    for _ in 0..3 {
        assert_eq!(executing_slowly("sentry.sorted=drop"), expected);
    }
}

/// The test above can fail: without the alarm that ends a seizure, the two wait for each other.
#[test]
fn a_pin_and_an_execution_wait_for_each_other_without_an_alarm() {
    let rules = format!("{SLOWLY} sentry.alarm=drop");
    let mut child = executing(1000, "among threads", &rules)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ringfence");
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("the launcher");
    // It goes on for ever then. What is looked for is a wait that is longer than any that an execution takes.
    let mut looks_in_a_row = 0;
    while looks_in_a_row < 20 {
        assert_eq!(
            child.try_wait().expect("a status"),
            None,
            "it did not happen"
        );
        looks_in_a_row = match waits_in_ptrace(launcher) {
            true => looks_in_a_row + 1,
            false => 0,
        };
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("kill");
    child.wait().expect("a status");
}

/// Whether a thread below `launcher` is in ptrace(2). (The first thread of who executes the program has ended.)
fn waits_in_ptrace(launcher: Process) -> bool {
    let processes = launcher.descendants().into_iter();
    processes
        .filter_map(|process| fs::read_dir(format!("/proc/{}/task", process.pid)).ok())
        .flat_map(|threads| threads.filter_map(Result::ok))
        .filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok())
        .any(|call| call.starts_with(&format!("{} ", libc::SYS_ptrace)))
}

#[test]
fn a_pin_beside_an_execution_behind_a_request_succeeds() {
    for rules in ["", MORE_SLOWLY] {
        let ended = finish(&mut executing(20, "behind a request", rules));
        assert_eq!(ended, Ended::printing(UNDISTURBED), "{rules}");
    }
}

/// The test above can fail: a thread has another number once it has executed a program, and cannot be traced twice.
#[test]
fn a_pin_fails_beside_an_execution_if_it_is_not_known_who_executed() {
    let rules = format!("{MORE_SLOWLY} sentry.traced=drop");
    let ended = finish(&mut executing(100, "behind a request", &rules));
    assert!(ended.stdout.starts_with("pins: EPERM, ok"), "{ended:?}");
}

/// Pins in a restartable sequence, while a process is killed so many milliseconds later on whose behalf the kernel would
/// alter the limit if anybody knew where it lies.
fn restarted(attempts: u32, milliseconds: u32, rules: &str) -> Ended {
    let numbers = [attempts, milliseconds].map(|number| number.to_string());
    finish(&mut guest_under(
        rules,
        &["pin-restarted", &numbers[0], &numbers[1]],
    ))
}

/// The kernel takes the caller to code of the program's, which learns nothing there.
#[test]
fn a_thread_that_the_kernel_takes_elsewhere_does_not_learn_where_parameters_lie() {
    let expected = "taken elsewhere: true\nknown: false\naltered: false\n";
    assert_eq!(restarted(8, 20, ""), Ended::printing(expected));
}

/// The test above can fail: the caller is taken elsewhere when it is about to map the page, and a word there is altered.
#[test]
fn parameters_are_altered_if_the_caller_maps_their_page() {
    let rules = format!("{ONE_BY_ONE} sentry.pin-maker=drop sentry.pin-checked=delay:700");
    let expected = "taken elsewhere: true\nknown: true\naltered: true\n";
    assert_eq!(restarted(20, 350, &rules), Ended::printing(expected));
}

/// The same, with the place that the kernel would choose for the parameters.
fn foreseen(attempts: u32, milliseconds: u32, rules: &str) -> Ended {
    let numbers = [attempts, milliseconds].map(|number| number.to_string());
    let scenario = ["pin-restarted", &numbers[0], &numbers[1], "foreseen"];
    finish(&mut guest_under(rules, &scenario))
}

#[test]
fn where_parameters_lie_cannot_be_foreseen() {
    let expected = "taken elsewhere: false\nknown: false\naltered: false\n";
    for further in ["", ONE_BY_ONE] {
        let ended = foreseen(2, 350, &format!("{further} sentry.pin-checked=delay:700"));
        assert_eq!(ended, Ended::printing(expected), "{further}");
    }
}

/// The test above can fail.
#[test]
fn parameters_are_altered_if_the_kernel_chooses_their_place() {
    let rules = format!("{ONE_BY_ONE} sentry.pin-page=drop sentry.pin-checked=delay:700");
    let expected = "taken elsewhere: false\nknown: false\naltered: true\n";
    assert_eq!(foreseen(20, 350, &rules), Ended::printing(expected));
}

/// What a filter answers in the driver's place is not taken for its answer.
#[test]
fn a_filter_pins_nothing_by_answering_with_success() {
    let expected = Ended {
        stderr: " WARN a request that pins was not finished: EPERM: Operation not permitted\n"
            .to_owned(),
        ..Ended::printing("pinned: EPERM\npinned: EPERM\n")
    };
    assert_eq!(finish(&mut guest_under("", &["pin-answered"])), expected);
}

/// The test above can fail: nothing was pinned, and the program is told that it was.
#[test]
fn a_filter_is_believed_to_have_pinned_if_nobody_asks_what_was_let_through() {
    let rules = "sentry.pin-believed=drop";
    let ended = finish(&mut guest_under(rules, &["pin-answered"]));
    assert_eq!(ended, Ended::printing("pinned: ok\npinned: ok\n"));
}

/// Pins so many times beside processes that make one another.
fn beside_a_chain(times: u32, rules: &str) -> Ended {
    let scenario = ["pin-beside-a-chain", &times.to_string(), "20"];
    finish(&mut guest_under(
        &format!("sentry.pin-issued=delay:20 {rules}"),
        &scenario,
    ))
}

#[test]
fn processes_that_make_one_another_are_held() {
    let expected = "pins: ok\nstood still: true\n";
    assert_eq!(beside_a_chain(20, ""), Ended::printing(expected));
}

/// The test above can fail: a pass over all tasks that finds nothing new has missed one.
#[test]
fn processes_that_make_one_another_are_missed_if_a_pass_is_enough() {
    let ended = beside_a_chain(2000, "sentry.settled=drop");
    assert!(ended.stdout.ends_with("stood still: false\n"), "{ended:?}");
}

/// Pins once beside processes that make one another, of which none is there any more when a pass over all tasks comes to
/// them: each pass takes as long as in a sandbox of thousands of idle processes, or where others keep the processors. The
/// sentry dies if it begins more passes than the time of a pin suffices for.
fn beside_chains(milliseconds: u32, rules: &str) -> Ended {
    let passes = 2000 / milliseconds;
    let rules = format!(
        "sentry.pass@{}=kill sentry.pass=busy:{milliseconds} {rules}",
        passes + 1
    );
    finish(&mut guest_under(&rules, &["pin-beside-chains"]))
}

#[test]
fn passes_over_all_tasks_are_part_of_what_a_pin_may_take() {
    for milliseconds in [50, 500] {
        // It succeeds if others keep the processors from all of them at once.
        let ended = beside_chains(milliseconds, "");
        let outcomes = ["EAGAIN", "ok"].map(|word| Ended::printing(&format!("pinned: {word}\n")));
        assert!(outcomes.contains(&ended), "{milliseconds}: {ended:?}");
    }
}

/// The test above can fail: all others stand still for as many passes as there may be, however long each is.
#[test]
fn passes_over_all_tasks_go_on_if_nobody_counts_what_they_take() {
    let dead = Ended {
        status: 125,
        stdout: String::new(),
        stderr: "ringfence: the sentry was ended by SIGILL, and the sandbox with it\n".to_owned(),
    };
    for milliseconds in [50, 500] {
        let mut attempts = (0..10).map(|_| beside_chains(milliseconds, "sentry.passed=drop"));
        assert!(attempts.any(|ended| ended == dead), "it did not happen");
    }
}

/// The processes that share the memory are held, and one is killed while a pin is at this point.
fn altered(point: &str, rules: &str) -> Ended {
    let rules = format!("sentry.{point}=delay:1500 {rules}");
    finish(&mut guest_under(&rules, &["pin-altered"]))
}

/// It is about to be chosen where the parameters are to lie.
const BEFORE_THE_PARAMETERS: &str = "pin-page";
/// Between the ioctl and the end of the thread that made it.
const AFTER_THE_REQUEST: &str = "pin-issued";

#[test]
fn the_code_of_a_pin_is_not_the_programs() {
    let expected = "in place of: nothing\nchild: status 0\n";
    for point in [BEFORE_THE_PARAMETERS, AFTER_THE_REQUEST] {
        for further in ["", ONE_BY_ONE] {
            let ended = altered(point, further);
            assert_eq!(ended, Ended::printing(expected), "{point} {further}");
        }
    }
}

/// The test above can fail: the program's own instruction is altered, and what it executes then knows where the parameters
/// are about to lie, or has what was lent.
#[test]
fn code_of_the_programs_is_executed_if_the_pin_uses_its_instruction() {
    for (point, call) in [
        (BEFORE_THE_PARAMETERS, libc::SYS_mmap),
        (AFTER_THE_REQUEST, libc::SYS_exit),
    ] {
        let ended = altered(point, &format!("{ONE_BY_ONE} sentry.pin-code=drop"));
        let expected = format!("in place of: {call}\nchild: SIGKILL\n");
        assert_eq!(ended.stdout, expected, "{ended:?}");
    }
}

/// A pin waits for all those before it no longer than it may take itself.
#[test]
fn pins_that_take_their_time_do_not_add_up() {
    let ended = finish(&mut guest_under("", &["pin-crowded"]));
    let eagain = format!("SIGKILL, status {}\n", libc::EAGAIN);
    assert_eq!(ended, with_one_killed(&eagain, TOO_SLOW));
}

/// The test above can fail: each has its time, one after the other.
#[test]
fn pins_that_take_their_time_add_up_if_nobody_counts() {
    let ended = finish(&mut guest_under("sentry.pin-queued=drop", &["pin-crowded"]));
    assert_eq!(ended, with_one_killed("SIGKILL\n", TOO_SLOW));
}

/// An instruction that there is none of, and a jump to itself; and what the log says of who puts it there.
const REPLACEMENTS: [([u8; 2], &str); 2] = [([0x0f, 0x0b], DISOBEYED), ([0xeb, 0xfe], TOO_SLOW)];

/// A process puts that in the place of the instruction that it pins by.
fn replaced(by: [u8; 2], rules: &str) -> Command {
    let [first, second] = by.map(|byte| byte.to_string());
    let rules = format!("sentry.pin-lent@1=delay:300 {rules}");
    guest_under(&rules, &["pin-replaced", &first, &second])
}

/// A thread that does not do as it is set to is the end of its process, and of nothing else.
#[test]
fn who_replaces_the_instruction_of_a_pin_is_killed() {
    for (by, why) in REPLACEMENTS {
        let expected = with_one_killed("child: SIGKILL\nthen: ok\n", why);
        assert_eq!(finish(&mut replaced(by, "")), expected);
    }
}

#[test]
fn a_program_whose_calls_are_dispatched_pins_and_has_them_dispatched_on() {
    let ended = finish(&mut guest(&["pin-dispatched"]));
    assert_eq!(ended, Ended::printing("pinned: ok\ntaken: true\n"));
}

/// The test above can fail: what the program is set to is taken to its handler.
#[test]
fn a_program_whose_calls_are_dispatched_is_killed_if_they_are_for_a_pin_too() {
    let mut guest = guest_under("sentry.dispatched=drop", &["pin-dispatched"]);
    let expected = Ended {
        status: 128 + libc::SIGKILL,
        ..with_one_killed("", DISOBEYED)
    };
    assert_eq!(finish(&mut guest), expected);
}

/// The test above can fail: the pin does not end, and the whole sandbox stands still.
#[test]
fn who_replaces_the_instruction_of_a_pin_keeps_all_others_held_if_it_is_not_killed() {
    for (by, _) in REPLACEMENTS {
        let mut child = replaced(by, "sentry.pin-obeyed=drop")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ringfence");
        expect_held_for_ever(&mut child);
    }
}

/// Waits until processes of this sandbox are held for longer than any pin is let be, and ends it.
fn expect_held_for_ever(child: &mut Child) {
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("the launcher");
    let mut looks_in_a_row = 0;
    while looks_in_a_row < 40 {
        assert_eq!(
            child.try_wait().expect("a status"),
            None,
            "it did not happen"
        );
        looks_in_a_row = match is_held(launcher) {
            true => looks_in_a_row + 1,
            false => 0,
        };
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("kill");
    child.wait().expect("a status");
}

/// The kernel tells of a stop once.
#[test]
fn who_waits_behind_a_child_that_is_killed_in_a_pin_goes_on() {
    let ended = finish(&mut guest(&["pin-killed-behind-vfork"]));
    assert_eq!(ended, Ended::printing("went on 40 times\n"));
}

/// The test above can fail: one that could not be let go when its stop was told stays stopped.
#[test]
fn who_waits_behind_a_child_that_is_killed_in_a_pin_is_held_if_its_stop_is_forgotten() {
    let mut child = guest_under("sentry.lagging=drop", &["pin-killed-behind-vfork"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ringfence");
    expect_held_for_ever(&mut child);
}

/// Whether a process below `launcher` is stopped by the one that traces it.
fn is_held(launcher: Process) -> bool {
    let mut processes = launcher.descendants().into_iter();
    processes.any(|process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
        // The name may have anything in it, and is in parentheses.
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with('t'))
    })
}

/// With very many descriptors and locks, of which the kernel looks through all for each descriptor that a process with them
/// closes. A pin's thread closes none.
#[test]
fn a_pin_takes_no_longer_for_what_its_program_has_open() {
    let ended = finish(&mut guest(&["pin-beside-locks"]));
    assert_eq!(ended, Ended::printing("pinned: ok\n"));
}

/// The test above can fail: a thread closes all if a filter of the program's does not let it leave them (close_range(2)).
#[test]
fn a_pin_takes_longer_for_what_its_program_lets_nobody_leave() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // With fewer it may be quick all the same.
    if hard < 20_000 {
        return;
    }
    let ended = finish(&mut guest(&["pin-beside-locks", "436", "1"]));
    let expected = Ended {
        status: 137,
        ..with_one_killed("", TOO_SLOW)
    };
    assert_eq!(ended, expected);
}

/// A thread that a filter of the program's kills in the middle leaves the page of the parameters mapped, and later pins have
/// theirs elsewhere; the caller unmaps it.
#[test]
fn no_parameters_are_left_by_a_thread_that_is_killed() {
    let ended = finish(&mut guest(&["pin-killed-thread"]));
    assert_eq!(ended, Ended::printing("pinned: ok\npinned: ok\nleft: 0\n"));
}

/// The test above can fail: they are, if it is not looked how the thread ended.
#[test]
fn parameters_are_left_by_a_thread_that_is_killed_if_it_counts_as_through() {
    let ended = finish(&mut guest_under(
        "sentry.pin-through=drop",
        &["pin-killed-thread"],
    ));
    assert_eq!(ended, Ended::printing("pinned: ok\npinned: ok\nleft: 2\n"));
}

/// The stops of a process that pins count, too.
#[test]
fn who_is_stopped_without_end_while_it_pins_is_killed() {
    let ended = finish(&mut guest_under(
        "sentry.pin-prepared=delay:50",
        &["pin-stopped-for-ever"],
    ));
    let expected = Ended {
        status: 137,
        ..with_one_killed("", TOO_SLOW)
    };
    assert_eq!(ended, expected);
}
