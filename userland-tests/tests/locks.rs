//! Locks of open file descriptions: programs have them, on all but the driver's nodes, where the server's own lie.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use userland_tests::{Ended, finish, guest_under_with, guest_with, prints, wait_for};

const LIMIT: [&str; 2] = ["--host-memory", "64MiB"];
/// No description is looked at.
const BLIND: &str = "sentry.locked=drop";

#[test]
fn descriptions_are_locked_as_outside() {
    let expected = "\
locked: Ok(())
by another: Err(EAGAIN)
by a duplicate: Ok(())
opened to be read: Err(EBADF)
a socket: Ok(())
a device: Err(EINVAL)
interrupted: Err(EINTR), true
interrupted among threads: Err(EINTR), true
after a while: true
begun anew: Ok(()), true
ended: SIGTERM
after all: Ok(())
";
    prints(&["locks"], expected);
}

const REFUSED: &str = "\
taken: Err(EINVAL)
unlocked: Err(EINVAL)
a duplicate: Err(EINVAL)
waiting for it: Err(EINVAL)
a process's: Ok(())
by flock: Ok(())
";
const DONE: &str = "\
taken: Ok(())
unlocked: Ok(())
a duplicate: Ok(())
waiting for it: Ok(())
a process's: Ok(())
by flock: Ok(())
";

/// What is left of 64 MiB when 48 are mapped, and when the mapping no longer counts.
fn left(between: &str, afterwards: &str) -> Ended {
    Ended::printing(&format!(
        "before: NV_ERR_NO_MEMORY\n{between}afterwards: {afterwards}\nunmapped: ok\n"
    ))
}

#[test]
fn no_program_takes_away_what_tells_that_its_description_is_there() {
    for way in ["here", "in another process"] {
        let ended = finish(&mut guest_with(&LIMIT, &["marked", way]));
        assert_eq!(ended, left(REFUSED, "NV_ERR_NO_MEMORY"), "{way}");
    }
}

/// The test above can fail: mapped memory no longer counts.
#[test]
fn a_program_takes_it_away_if_nobody_looks_what_it_locks() {
    for way in ["here", "in another process"] {
        let ended = finish(&mut guest_under_with(BLIND, &LIMIT, &["marked", way]));
        assert_eq!(ended, left(DONE, "ok"), "{way}");
    }
}

/// Has one sandbox send a description to another, which tries the same there. What each says.
fn elsewhere(other: Command) -> [Ended; 2] {
    let (one_end, other_end) = UnixStream::pair().expect("a pair of sockets");
    let start = |mut command: Command, end: UnixStream| {
        let command = command.stdin(OwnedFd::from(end));
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("ringfence")
    };
    let other = start(other, other_end);
    let one = start(guest_with(&LIMIT, &["marked", "elsewhere"]), one_end);
    [one, other].map(wait_for)
}

#[test]
fn no_program_of_another_sandbox_does() {
    let expected = [left("", "NV_ERR_NO_MEMORY"), Ended::printing(REFUSED)];
    assert_eq!(elsewhere(guest_with(&[], &["unmark"])), expected);
}

/// The test above can fail.
#[test]
fn a_program_of_another_sandbox_does_if_nobody_looks_what_it_locks() {
    let expected = [left("", "ok"), Ended::printing(DONE)];
    let other = guest_under_with(BLIND, &[], &["unmark"]);
    assert_eq!(elsewhere(other), expected);
}
