//! A server that ends before its sandbox: what the program sees, by policy, whatever it was doing.

use nix::sys::signal::{Signal, kill};
use userland_tests::conversation::Conversation;
use userland_tests::processes::{Process, Tree};
use userland_tests::{Ended, eventually};

const FAIL: &str =
    " WARN the server ended unexpectedly: every request to the driver fails with EIO from now on\n";
const RESTART: &str = " WARN the server ended unexpectedly: what is open fails with EIO from now on, and another server is started\n";
const EIO: &str = "EIO";

/// The end of a program that ends by itself, with what Ringfence wrote to stderr.
fn by_itself(stderr: &str) -> Ended {
    Ended {
        status: 0,
        stdout: String::new(),
        stderr: stderr.to_owned(),
    }
}

/// Kills the server and waits until that is seen.
fn lose_server(conversation: &mut Conversation) {
    conversation.tree().kill(|tree| tree.server);
    while conversation.ask("use") == "ok" {}
}

/// The server that there is, once there is one.
fn server_after(conversation: &Conversation, before: &Tree) -> Process {
    let launcher = before.launcher;
    let servers = || {
        let children = launcher.children();
        let others = children.into_iter();
        others.filter(|child| *child != before.sentry && *child != before.server)
    };
    eventually("another server", || servers().count() == 1);
    let server = servers().next().expect("another server");
    eventually("it is executed", || {
        Tree::of(conversation.launcher()).server == server
    });
    server
}

#[test]
fn by_default_every_request_fails_and_the_program_goes_on() {
    for options in [&[][..], &["--on-server-exit", "fail"]] {
        let mut conversation = Conversation::begin(options);
        assert_eq!(conversation.ask("use"), "ok");
        lose_server(&mut conversation);
        assert_eq!(conversation.ask("use"), EIO);
        assert_eq!(conversation.ask("open"), EIO);
        assert_eq!(conversation.end(), by_itself(FAIL));
    }
}

#[test]
fn the_sandbox_can_end_with_its_server() {
    let conversation = Conversation::begin(&["--on-server-exit", "kill"]);
    let tree = conversation.tree();
    tree.kill(|tree| tree.server);
    let line = "ringfence: the server ended unexpectedly, and the sandbox with it";
    tree.expect_gone();
    assert_eq!(conversation.end(), Ended::failing(125, line));
}

#[test]
fn another_server_serves_what_is_opened_from_then_on() {
    let mut conversation = Conversation::begin(&["--on-server-exit", "restart"]);
    let before = conversation.tree();
    lose_server(&mut conversation);
    assert_eq!(conversation.ask("start over"), "ok");
    assert_eq!(conversation.ask("use second"), "ok");
    assert_eq!(
        conversation.ask("use"),
        EIO,
        "the handle is the old server's"
    );
    assert_eq!(conversation.ask("mix"), EIO);
    assert_eq!(conversation.ask("use second"), "ok");
    let after = conversation.tree();
    assert_ne!(after.server, before.server);
    assert_eq!(after.program, before.program);
    assert_eq!(conversation.end(), by_itself(RESTART));
    after.expect_gone();
}

/// A request that the server has and does not answer: it is stopped, and then killed.
fn unanswered(request: &str, options: &[&str], stderr: &str) {
    let mut conversation = Conversation::begin(options);
    let tree = conversation.tree();
    kill(tree.server.pid, Signal::SIGSTOP).expect("kill");
    for _ in 0..3 {
        assert_eq!(conversation.ask(request), "asked");
    }
    tree.kill(|tree| tree.server);
    for _ in 0..3 {
        assert_eq!(conversation.hear(), format!("answered: {EIO}"));
    }
    assert_eq!(conversation.end(), by_itself(stderr));
}

#[test]
fn requests_that_the_server_has_fail() {
    for request in ["request", "pin"] {
        unanswered(request, &[], FAIL);
        unanswered(request, &["--on-server-exit", "restart"], RESTART);
    }
}

#[test]
fn a_request_that_the_driver_has_fails() {
    for (options, stderr) in [(&[][..], FAIL), (&["--on-server-exit", "restart"], RESTART)] {
        let mut conversation = Conversation::begin(options);
        assert_eq!(conversation.ask("keep registering"), "asked");
        conversation.tree().kill(|tree| tree.server);
        assert_eq!(conversation.hear(), format!("answered: {EIO}"));
        assert_eq!(conversation.end(), by_itself(stderr));
    }
}

#[test]
fn servers_that_end_again_and_again_are_given_up() {
    let mut conversation = Conversation::begin(&["--on-server-exit", "restart"]);
    let mut stderr = String::new();
    for _ in 0..5 {
        let before = conversation.tree();
        before.kill(|tree| tree.server);
        server_after(&conversation, &before);
        assert_eq!(conversation.ask("start over"), "ok");
        stderr.push_str(RESTART);
    }
    conversation.tree().kill(|tree| tree.server);
    while conversation.ask("use second") == "ok" {}
    stderr.push_str(RESTART);
    stderr.push_str(" WARN no other server: 5 servers were started within 60s\n");
    stderr.push_str(" WARN no further server is started: every request to the driver fails with EIO from now on\n");
    assert_eq!(conversation.ask("open"), EIO);
    assert_eq!(conversation.ask("use"), EIO);
    assert_eq!(conversation.end(), by_itself(&stderr));
}
