//! A program whose system call an empty supervisor answers: what any supervisor by seccomp's user notification costs.
//!
//! Two processes, as task and sentry are two. The one has a filter that notifies of `getppid` and makes that call; the
//! other receives the notification, by the sentry's own listener and so in the same way, and answers it.
//!
//! `unsafe` is here because of fork.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SYS_getppid, sock_filter};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getppid};
use ringfence_confinement::install_with_listener;
use ringfence_ipc::Socket;
use ringfence_sentry::seccomp::listener::{Listener, Number};

use super::{Outcome, answer, times};

/// What the supervisor answers, which shows that it was the supervisor.
const ANSWER: i64 = 4711;

/// Answers the question how long N calls take each.
pub fn serve() -> Outcome {
    supervised(&notifying_of_getppid(), supervise, || {
        answer(|question| match question {
            [count] => times(*count, || {
                if i64::from(getppid().as_raw()) == ANSWER {
                    Ok(())
                } else {
                    Err("the kernel answered getppid itself".into())
                }
            }),
            _ => Err("a question is one number".into()),
        })
    })
}

/// Runs `program` in a child under `filter`, and `supervisor` here until it ends.
pub fn supervised(
    filter: &[sock_filter],
    supervisor: impl FnOnce(Listener) -> Outcome,
    program: impl FnOnce() -> Outcome,
) -> Outcome {
    let (ours, theirs) = Socket::pair()?;
    // SAFETY: this process has one thread, so that the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            let outcome = under(filter, &theirs).and_then(|()| program());
            if let Err(error) = &outcome {
                eprintln!("{error}");
            }
            std::process::exit(i32::from(outcome.is_err()));
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let (_, listener) = ours.receive()?;
            supervisor(Listener::new(listener))?;
            waitpid(child, None)?;
            Ok(())
        }
    }
}

/// Puts this process under the filter and sends the listener.
fn under(filter: &[sock_filter], supervisor: &Socket) -> Outcome {
    set_no_new_privs()?;
    let listener = install_with_listener(filter)?;
    Ok(supervisor.send(0, listener.as_fd())?)
}

fn supervise(listener: Listener) -> Outcome {
    while let Some(notification) = listener.receive(Number::FIRST).map_err(io::Error::from)? {
        listener.answer(&notification, Ok(ANSWER));
    }
    Ok(())
}

/// A filter that notifies of one call and allows all others.
fn notifying_of_getppid() -> [sock_filter; 4] {
    [
        // The call's number is the first word of what a filter sees (struct seccomp_data).
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            0,
            SYS_getppid as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF),
    ]
}

/// One statement of a filter; the jumps are how many statements it passes over if its condition holds, and if not.
pub fn statement(code: u32, jump_true: u8, jump_false: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    }
}
