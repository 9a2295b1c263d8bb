//! The limit of core files, and what becomes of attempts to change it.
//!
//! `unsafe` is here for the calls themselves: the C library makes one of them of the other.

#![allow(unsafe_code)]

use std::ptr::null_mut;

use libc::{RLIM_INFINITY, rlimit};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

use crate::Outcome;
use crate::children::child;

/// Sets it in every way, for this process and for another, and says what it is before and after.
pub fn scenario(_: &[String]) -> Outcome {
    let other = child(|| {
        loop {
            nix::unistd::pause();
        }
    })?;
    println!("{:?}", getrlimit(Resource::RLIMIT_CORE)?);
    for value in [0, RLIM_INFINITY] {
        let new = rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: the limit outlives the call; so in those below.
        let set = unsafe { libc::syscall(libc::SYS_setrlimit, libc::RLIMIT_CORE, &raw const new) };
        println!("setrlimit: {:?}", Errno::result(set));
        for process in [0, std::process::id() as i32, other.as_raw()] {
            let with = |old: *mut rlimit| {
                let call = libc::SYS_prlimit64;
                // SAFETY: see above.
                let set =
                    unsafe { libc::syscall(call, process, libc::RLIMIT_CORE, &raw const new, old) };
                Errno::result(set)
            };
            let mut old = new;
            println!("prlimit: {:?} {:?}", with(null_mut()), with(&raw mut old));
        }
    }
    println!("{:?}", getrlimit(Resource::RLIMIT_CORE)?);
    let limits = std::fs::read_to_string(format!("/proc/{other}/limits"))?;
    let line = limits.lines().find(|line| line.contains("core file"));
    let words = line.unwrap_or_default().split_whitespace();
    println!("{}", words.collect::<Vec<_>>().join(" "));
    kill(other, Signal::SIGKILL)?;
    waitpid(other, None)?;
    Ok(())
}
