//! Where io_uring is refused, as it is in many containers: everything is as it is elsewhere.

use std::process::Command;

use userland_tests::conversation::Conversation;
use userland_tests::linux::{self, Feature};
use userland_tests::{Ended, finish, guest, guest_with, ringfence_program};

/// Has a command run without io_uring, and all that it starts.
fn without_io_uring(command: &mut Command) -> &mut Command {
    linux::without(command, &[Feature::RingFutexes])
}

#[test]
fn a_program_runs_as_it_does_elsewhere() {
    for scenario in ["walk", "pin-private"] {
        let elsewhere = finish(&mut guest(&[scenario]));
        assert_eq!(elsewhere.status, 0, "{elsewhere:?}");
        let ended = finish(without_io_uring(&mut guest(&[scenario])));
        assert_eq!(ended, elsewhere);
    }
}

#[test]
fn requests_are_served_after_a_sleep_and_by_whichever_server_there_is() {
    let mut command = guest_with(&[], &["converse"]);
    without_io_uring(&mut command);
    let mut conversation = Conversation::of(command);
    for upgraded in [false, true] {
        if upgraded {
            let mut upgrade = Command::new(ringfence_program());
            let sandbox = conversation.launcher().to_string();
            let ended = finish(upgrade.args(["server-upgrade", &sandbox]));
            assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
        }
        for line in ["use", "open", "start over", "use second"] {
            // Longer than any server looks for work before it sleeps.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(conversation.ask(line), "ok", "{line}");
        }
    }
    let tree = conversation.tree();
    assert_eq!(conversation.end(), Ended::printing(""));
    tree.expect_gone();
}

#[test]
fn the_server_ends_with_its_sentry() {
    let mut command = guest_with(&[], &["converse"]);
    without_io_uring(&mut command);
    let mut conversation = Conversation::of(command);
    assert_eq!(conversation.ask("use"), "ok");
    let tree = conversation.tree();
    tree.kill(|tree| tree.sentry);
    tree.expect_gone();
}

#[test]
fn doctor_says_which_way_the_server_waits() {
    let mut doctor = Command::new(ringfence_program());
    doctor.arg("doctor");
    let line = |ended: &Ended| {
        let lines = ended.stdout.lines();
        let mut found = lines.filter(|line| line.contains("io_uring"));
        found.next().unwrap_or_default().to_owned()
    };
    let elsewhere = line(&finish(&mut doctor));
    assert!(
        elsewhere.contains("in which the server waits"),
        "{elsewhere}"
    );
    let here = line(&finish(without_io_uring(&mut doctor)));
    assert!(
        here.contains("waits for its doorbell with futex(2)"),
        "{here}"
    );
}
