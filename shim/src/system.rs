//! System calls that leave `errno` alone.
//!
//! The C library's wrappers write a failure to `errno`, which belongs to the program. What fails here is nothing that it
//! asked for.

#![allow(unsafe_code)]

use std::arch::asm;
use std::sync::atomic::AtomicU32;

use libc::c_long;

/// Makes a system call; returns what the kernel returns, a negated errno for a failure.
///
/// # Safety
///
/// The call has to be one that is sound with these arguments.
pub unsafe fn call(number: c_long, arguments: [usize; 6]) -> isize {
    let result;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the kernel's convention on x86-64 (syscall(2)): these registers, and rcx and r11 are lost. What the call
    // does is the caller's to answer for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The number of this process.
pub fn process() -> i32 {
    // SAFETY: it takes no argument.
    unsafe { call(libc::SYS_getpid, [0; 6]) as i32 }
}

/// Issues one of the sentry's own ioctls whose argument is a number.
pub fn ioctl(descriptor: i32, command: u32, argument: u64) -> isize {
    let arguments = [descriptor as usize, command as usize, argument as usize];
    let [a, b, c] = arguments;
    // SAFETY: the commands that this is used for read and write no memory.
    unsafe { call(libc::SYS_ioctl, [a, b, c, 0, 0, 0]) }
}

/// Whether the program can write to the aligned word at `address`. The word keeps its value, whoever else writes to it.
pub fn is_writable(address: usize) -> bool {
    /// FUTEX_OP_OR with 0, and a comparison that does not matter (linux/futex.h).
    const LEAVE_AS_IT_IS: usize = 2 << 28;
    /// Nobody waits for it.
    static NOTHING: AtomicU32 = AtomicU32::new(0);
    let operation = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
    let word = NOTHING.as_ptr() as usize;
    // SAFETY: the kernel reads and writes the second word itself, atomically, and fails where it cannot. It wakes no
    // more than a waiter who looks again.
    let result = unsafe {
        let arguments = [word, operation as usize, 0, 0, address, LEAVE_AS_IT_IS];
        call(libc::SYS_futex, arguments)
    };
    result >= 0
}

/// All signals that can be are blocked for this thread, until this is dropped.
pub struct SignalsBlocked {
    before: u64,
}

impl SignalsBlocked {
    pub fn new() -> SignalsBlocked {
        SignalsBlocked {
            before: set_signal_mask(u64::MAX),
        }
    }

    /// Lets signals through while `wait` runs.
    pub fn except_in(&self, wait: impl FnOnce()) {
        set_signal_mask(self.before);
        wait();
        set_signal_mask(u64::MAX);
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        set_signal_mask(self.before);
    }
}

/// Sets the calling thread's signal mask as the kernel keeps it, one bit a signal; returns the one before.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = (&raw const mask as usize, &raw mut before as usize);
    let arguments = [libc::SIG_SETMASK as usize, new, old, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel reads one mask and writes the other, and both outlive the call.
    unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    before
}

/// How many processors this thread may use, at least 1.
pub fn processors() -> usize {
    let mut set = [0u64; 128];
    let (length, address) = (size_of_val(&set), set.as_mut_ptr() as usize);
    // SAFETY: the kernel writes at most `length` bytes to the set, which outlives the call.
    let written = unsafe { call(libc::SYS_sched_getaffinity, [0, length, address, 0, 0, 0]) };
    let bits = set.iter().map(|word| word.count_ones() as usize).sum();
    if written > 0 { usize::max(bits, 1) } else { 1 }
}
