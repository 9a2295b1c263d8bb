//! A program that has its calls taken to a handler of its own by Syscall User Dispatch (prctl(2)), but for those that the C
//! library makes, as emulators do it.
//!
//! `unsafe` is here for what the C library has no function for: that, and a call that is not made by it.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::Outcome;
use crate::gpu::{Gpu, MEMORY, word};
use crate::pinning::{Pages, pin};

/// What the kernel looks at on each call from elsewhere.
static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

extern "C" fn take(_: libc::c_int) {
    IS_TAKEN.store(true, Ordering::SeqCst);
    SELECTOR.store(ALLOW, Ordering::SeqCst);
}

/// Pins, and says what came of it and whether calls are taken after that as before.
pub fn pins(_: &[String]) -> Outcome {
    const SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
    const ON: libc::c_ulong = 1;
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let action = SigAction::new(SigHandler::Handler(take), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but write to atomics.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    let (start, length) = code_of_the_library()?;
    let elsewhere = foreign_code()?;
    // SAFETY: the selector is there as long as the process.
    Errno::result(unsafe {
        libc::prctl(
            SET_SYSCALL_USER_DISPATCH,
            ON,
            start,
            length,
            SELECTOR.as_ptr(),
        )
    })?;
    SELECTOR.store(BLOCK, Ordering::SeqCst);
    let outcome = pin(&gpu, MEMORY, &pages);
    println!("pinned: {}", word(outcome));
    elsewhere();
    println!("taken: {}", IS_TAKEN.load(Ordering::SeqCst));
    Ok(())
}

/// A function that is in no part of the executable: it asks for this process's number, or is taken to the handler.
fn foreign_code() -> Result<extern "C" fn(), Errno> {
    // mov eax, 39 (getpid); syscall; ret
    const CODE: [u8; 8] = [0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3];
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the page is new, and nobody else knows of it.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, writable, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        std::ptr::copy_nonoverlapping(CODE.as_ptr(), page.cast(), CODE.len());
        Errno::result(libc::mprotect(
            page,
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
        ))?;
        Ok(std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(
            page,
        ))
    }
}

/// Where the C library's code lies, and how many bytes it has (proc_pid_maps(5)): in the executable, which is static.
fn code_of_the_library() -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut lines = maps.lines();
    let line = lines.find(|line| line.contains(" r-xp ") && line.contains("/guest"));
    let range = line.and_then(|line| line.split(' ').next()?.split_once('-'));
    let (start, end) = range.ok_or("no code")?;
    let (start, end) = (
        u64::from_str_radix(start, 16)?,
        u64::from_str_radix(end, 16)?,
    );
    Ok((start, end - start))
}
