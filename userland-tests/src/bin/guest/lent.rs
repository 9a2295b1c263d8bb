//! What is left of what a pin lends: by whatever a program's own filters answer, and whoever is killed when.
//!
//! A process pins whose descriptor table another one has as well. The simulator's stand-in for a command descriptor is
//! known by its name.
//!
//! `unsafe` is here for a process that shares a descriptor table, and for a filter.

#![allow(unsafe_code)]

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::number::NV_ESC_RM_ALLOC_MEMORY;
use ringfence::guest::frontend;

use crate::Outcome;
use crate::children::end_of;
use crate::gpu::{Gpu, MEMORY, word};
use crate::pinning::{Pages, pin, request};

/// A child that has this process's descriptor table pins, if there are arguments with a filter of its own that answers the
/// call of that number with that errno. Then this process looks what is in the table.
pub fn beside_another(arguments: &[String]) -> Outcome {
    // SAFETY: it is fork(2) but for the table, and this process has one thread.
    let child = unsafe {
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0)
    };
    let child = Errno::result(child)?;
    if child == 0 {
        let status = match pin_under_a_filter(arguments) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("guest: in a child: {error}");
                1
            }
        };
        std::process::exit(status);
    }
    println!("child: {}", end_of(Pid::from_raw(child as i32))?);
    println!("left: {}", lent()?);
    Ok(())
}

fn pin_under_a_filter(arguments: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    if let [call, errno] = arguments {
        answer(call.parse()?, errno.parse()?)?;
    }
    println!("pinned: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// How many descriptors of this process were lent for a pin.
fn lent() -> Result<usize, std::io::Error> {
    let mut lent = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        lent += usize::from(is_lent(&entry?.path()));
    }
    Ok(lent)
}

/// Whether a descriptor, by its path in `/proc`, was lent for a pin.
pub fn is_lent(descriptor: &Path) -> bool {
    let link = fs::read_link(descriptor).unwrap_or_default();
    link.to_str().is_some_and(|name| name.contains("lent"))
}

/// Pins under a filter of its own that answers every ioctl with success, but for those on its own argument and on none.
pub fn under_an_answering_filter(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let mut request = request(&gpu, &pages, 0xfff);
    // The number and the lower half of the third argument of struct seccomp_data.
    let (number, third) = (0, 32);
    install(&mut [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0),
        statement(EQUALS, libc::SYS_ioctl as u32, 4),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, third, 0),
        statement(EQUALS, &raw const request as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        statement(EQUALS, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO, 0),
    ])?;
    for _ in 0..2 {
        let outcome = frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request);
        println!("pinned: {}", word(outcome));
    }
    Ok(())
}

/// Pins twice under a filter of its own that kills the thread of a pin when it is about to put an empty page in the place of the
/// parameters. Says what came of the pins, and how many pages of parameters are left.
pub fn under_a_killing_filter(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    // The number and the lower half of the fourth argument of struct seccomp_data.
    let (number, fourth) = (0, 40);
    let empty = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    install(&mut [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0),
        statement(EQUALS, libc::SYS_mmap as u32, 3),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, fourth, 0),
        statement(EQUALS, empty as u32, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_KILL_THREAD,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ])?;
    for memory in [MEMORY, MEMORY + 1] {
        println!("pinned: {}", word(pin(&gpu, memory, &pages)));
    }
    let maps = fs::read_to_string("/proc/self/maps")?;
    println!("left: {}", maps.matches("secretmem").count());
    Ok(())
}

const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;

fn statement(code: u32, k: u32, jump_if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_false,
        k,
    }
}

/// From now on the kernel answers the calling thread's calls of this number with this errno, as those of the threads that
/// it makes.
pub fn answer(call: u32, errno: u32) -> nix::Result<()> {
    // The call's number is the first word of struct seccomp_data.
    install(&mut [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(EQUALS, call, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ])
}

fn install(program: &mut [libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which outlives the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}
