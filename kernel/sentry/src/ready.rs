//! How the program's process learns that it may begin: one message without content, on the socket by which it has handed over
//! its listener.
//!
//! What the sentry and the server start for themselves, threads above all, they have started by then. Otherwise a program that
//! takes all processes which the user or the cgroup may have would leave none for them.

use nix::errno::Errno;
use nix::unistd::{read, write};
use ringfence_ipc::Socket;

const READY: [u8; 1] = [1];

/// Lets the program begin. It has ended, perhaps, which the caller is about to see.
pub fn say(listener: &Socket) {
    let _ = write(listener, &READY);
}

/// Waits until it may begin; `false` if there is no sentry any more.
pub fn wait(listener: &Socket) -> Result<bool, Errno> {
    loop {
        return match read(listener, &mut [0; READY.len()]) {
            Err(Errno::EINTR) => continue,
            outcome => Ok(outcome? == READY.len()),
        };
    }
}
