//! What one sandbox takes of what the kernel counts by user, it does not take from the user's other sandboxes.

use std::path::PathBuf;
use std::process::Stdio;

use nix::unistd::geteuid;
use userland_tests::{
    Ended, Reachable, ringfence_program, ringfence_with_faults, started, wait_for,
};

/// What becomes of a sandbox that opens a node while a task of another has as many descriptors on their way as it can.
/// Both are `user`'s, who runs nothing else, so that nobody else is harmed where the harm is shown.
fn beside_descriptors_in_flight(ringfence: PathBuf, rules: &str, user: u32) -> Option<Ended> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can become a user who runs nothing else");
        return None;
    }
    let executables = Reachable::of(ringfence);
    let guest = executables.guest.to_str().expect("a path in UTF-8");
    let mut flood = executables.command_as(user, &[], &[guest, "in-flight"]);
    flood.env("RINGFENCE_FAULTS", rules).stdin(Stdio::piped());
    let (flood, _output) = started(&mut flood);
    let ended = executables.run_as(user, &[], &[guest, "close"]);
    assert_eq!(wait_for(flood).status, 0);
    Some(ended)
}

#[test]
fn descriptors_that_a_task_has_on_their_way_are_in_nobodys_way() {
    if let Some(ended) = beside_descriptors_in_flight(ringfence_program(), "", 64_123) {
        assert_eq!(ended, Ended::printing("freed 50 times\n"));
    }
}

#[test]
fn they_are_if_tasks_may_have_as_many_as_ringfence_itself() {
    if let Some(ended) =
        beside_descriptors_in_flight(ringfence_with_faults(), "sentry.in-flight=drop", 64_124)
    {
        assert_eq!(ended.status, 125, "{ended:?}");
        assert!(ended.stderr.contains("Too many references"), "{ended:?}");
    }
}
