//! Calls for which the kernel asks no capability where a process makes them on itself or its like.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ringfence_ipc::Socket;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use userland_tests::{Ended, finish, guest, prints};

/// As `numactl` and libraries that allocate near a GPU do it.
#[test]
fn a_program_says_on_which_node_its_memory_lies() {
    let expected = "\
get_mempolicy: ok
set_mempolicy: ok
set_mempolicy again: ok
mbind: ok
home node: ok
move_pages, its own: ok
migrate_pages, its own: ok
move_pages, by number: ok
migrate_pages, by number: ok
move_pages, init's: EPERM
migrate_pages, init's: EPERM
";
    prints(&["memory-policy"], expected);
}

#[test]
fn descriptors_are_fetched_from_whom_a_program_may_trace() {
    let expected = "\
itself: Ok(()), ok
a child: Ok(()), ok
one that is not dumpable: Err(EPERM), EPERM
init: Err(EPERM), EPERM
process_madvise: ok
unshare: ok
";
    prints(&["of-another"], expected);
}

/// As PyTorch shares memory between processes.
#[test]
fn a_node_that_was_fetched_is_used_as_one_that_was_sent() {
    let expected = "used: 79 GiB free\nfreed: 80 GiB free\nclosed: 80 GiB free\n";
    prints(&["fetched"], expected);
}

/// Of this very process, which somebody has sent into the sandbox.
#[test]
fn nothing_is_fetched_from_a_process_outside() {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let own = pidfd_open(getpid(), PidfdFlags::empty()).expect("a pidfd");
    let sent = Socket::from(OwnedFd::from(ours)).send(0, own.as_fd());
    sent.expect("sent");
    let mut command = guest(&["fetch-from-outside"]);
    command.stdin(OwnedFd::from(theirs));
    assert_eq!(
        finish(&mut command),
        Ended::printing("from outside: Err(EPERM)\n")
    );
}

#[test]
fn processes_have_message_queues() {
    prints(&["queue"], "a message\n[\"everyday\"]\n");
    // And none of the next sandbox.
    prints(&["queue"], "a message\n[\"everyday\"]\n");
}
