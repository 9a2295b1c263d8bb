//! A server that falls silent while a program pins, when the program's thread is stopped for it: the sandbox can be ended all
//! the same.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use userland_tests::conversation::Conversation;
use userland_tests::processes::{Process, Tree};
use userland_tests::{eventually, guest_under_with};

/// Whether a thread below `launcher` is stopped by the one that traces it.
fn is_held(launcher: Process) -> bool {
    let threads = launcher.descendants().into_iter().flat_map(|process| {
        let list = fs::read_dir(format!("/proc/{}/task", process.pid));
        list.into_iter().flatten().flatten()
    });
    threads.into_iter().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name may have anything in it, and is in parentheses.
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with('t'))
    })
}

/// Has a program pin whose server falls silent about that when the driver has pinned; asks for the end of the sandbox then.
fn asked_to_end(rules: &str) -> (Conversation, Tree) {
    // Time to stop the server in.
    let rules = format!("sentry.pin-told@1=delay:5000 {rules}");
    let mut program = Conversation::of(guest_under_with(&rules, &[], &["converse"]));
    let tree = program.tree();
    program.say("pin");
    eventually("the caller is stopped", || is_held(tree.launcher));
    tree.server.stop();
    std::thread::sleep(Duration::from_secs(6));
    assert!(is_held(tree.launcher), "it does not wait for the server");
    kill(tree.launcher.pid, Signal::SIGTERM).expect("the launcher");
    (program, tree)
}

#[test]
fn a_sandbox_is_ended_by_a_signal_while_the_server_is_silent_about_a_pin() {
    let (program, tree) = asked_to_end("");
    // The end of its input would end it, too.
    eventually("it is gone", || !tree.program.is_alive());
    assert_eq!(program.end().status, 143);
    tree.expect_gone();
}

/// The test above can fail: the sandbox does not end for longer than it takes otherwise, until the server goes on.
#[test]
fn a_sandbox_does_not_end_while_the_server_is_silent_about_a_pin_if_nobody_looks() {
    let (program, tree) = asked_to_end("sentry.pin-unanswered=drop");
    for _ in 0..60 {
        assert!(tree.sentry.is_alive(), "it did not happen");
        std::thread::sleep(Duration::from_millis(100));
    }
    kill(tree.server.pid, Signal::SIGCONT).expect("the server");
    eventually("it is gone", || !tree.program.is_alive());
    assert_eq!(program.end().status, 143);
    tree.expect_gone();
}
