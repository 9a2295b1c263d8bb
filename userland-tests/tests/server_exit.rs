//! A server that ends before its sandbox: what the program sees, by policy, whatever it was doing.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use userland_tests::conversation::Conversation;
use userland_tests::processes::Process;
use userland_tests::{
    Directory, Ended, eventually, finish, guest_under_with, ringfence_with_faults,
};

const FAIL: &str =
    " WARN the server ended unexpectedly: every request to the driver fails with EIO from now on\n";
const RESTART: &str = " WARN the server ended unexpectedly: what is open fails with EIO from now on, and another server is asked for\n";
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
    tree.server.stop();
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
fn a_pin_that_is_under_way_fails() {
    for _ in 0..3 {
        let mut conversation = Conversation::with("pin-until-lost", &[]);
        conversation.tree().kill(|tree| tree.server);
        assert_eq!(conversation.hear(), "EIO: I/O error");
        assert_eq!(conversation.end(), by_itself(FAIL));
    }
}

#[test]
fn servers_that_end_again_and_again_are_given_up() {
    let directory = Directory::new("given-up");
    let log = directory.path().join("log");
    let options = ["--log", log.to_str().expect("a path in UTF-8")];
    let mut conversation =
        Conversation::begin(&[&["--on-server-exit", "restart"][..], &options[..]].concat());
    for _ in 0..5 {
        conversation.tree().kill(|tree| tree.server);
        assert_eq!(conversation.ask("start over"), "ok");
    }
    conversation.tree().kill(|tree| tree.server);
    let logged = |line: &str| {
        let log = std::fs::read_to_string(&log).expect("the log");
        log.matches(line).count()
    };
    let given_up = "no further server is started (5 servers were started within 60s): every request to the driver \
                    fails with EIO from now on";
    eventually("it is given up", || logged(given_up) == 1);
    assert_eq!(logged(RESTART.trim()), 6);
    for line in ["use", "use second", "open"] {
        assert_eq!(conversation.ask(line), EIO, "{line}");
    }
    assert_eq!(conversation.end(), by_itself(""));
}

/// A sandbox whose server only seems to have ended, when its sentry looks for the twentieth time; it gets another one. Those
/// of its servers that were there before, and that live on beside that one.
fn living_on(rules: &str, is_upgraded: bool) -> Vec<Process> {
    let rules = format!("sentry.ended@20=garbage {rules}");
    let options = ["--on-server-exit", "restart"];
    let mut conversation = Conversation::of(guest_under_with(&rules, &options, &["converse"]));
    let tree = conversation.tree();
    if is_upgraded {
        let sandbox = conversation.launcher().to_string();
        let mut upgrade = Command::new(ringfence_with_faults());
        assert_eq!(finish(upgrade.args(["server-upgrade", &sandbox])).status, 0);
    }
    let servers = || {
        let children = tree.launcher.children().into_iter();
        children.filter(|child| *child != tree.sentry)
    };
    let before: Vec<Process> = servers().collect();
    assert_eq!(before.len(), if is_upgraded { 2 } else { 1 });
    // They do not end by themselves, as honest ones would without a sentry.
    before.iter().for_each(Process::stop);
    eventually("there is another server", || {
        // The sentry looks whenever something happens.
        kill(tree.sentry.pid, Signal::SIGCHLD).expect("kill");
        servers().any(|server| !before.contains(&server))
    });
    assert_eq!(conversation.ask("start over"), "ok");
    assert_eq!(conversation.ask("use second"), "ok");
    if !rules.contains("sentry.predecessor=drop") {
        eventually("one server is left", || servers().count() == 1);
    }
    let living: Vec<Process> = before
        .iter()
        .filter(|old| old.is_alive())
        .copied()
        .collect();
    assert_eq!(servers().count(), living.len() + 1);
    assert_eq!(conversation.end(), by_itself(RESTART));
    living
}

/// What a server that was taken over could do: it seems to be gone, and goes on.
#[test]
fn a_server_that_only_seems_to_have_ended_does_not_live_on_beside_the_next_one() {
    assert_eq!(living_on("", false), []);
}

/// That the test above can fail.
#[test]
fn a_server_that_only_seems_to_have_ended_lives_on_if_nobody_ends_it() {
    assert_eq!(living_on("sentry.predecessor=drop", false).len(), 1);
}

/// It stayed for the sake of one that is lost now.
const STAYING: &str = "server.departure=drop sentry.departure=drop";

#[test]
fn a_server_that_was_replaced_and_stayed_does_not_live_on_beside_the_next_one() {
    assert_eq!(living_on(STAYING, true), []);
}

/// That the test above can fail.
#[test]
fn a_server_that_was_replaced_and_stayed_lives_on_if_nobody_ends_it() {
    let rules = format!("{STAYING} sentry.predecessor=drop");
    assert_eq!(living_on(&rules, true).len(), 2);
}
