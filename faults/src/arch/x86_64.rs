//! x86-64.
//!
//! `unsafe` is here for an instruction that kills.

#![allow(unsafe_code)]

/// Dies of SIGILL, which process 1 of a namespace is not spared, either.
pub fn execute_nothing_defined() -> ! {
    // SAFETY: the instruction is defined to be undefined; nothing runs after it.
    unsafe { std::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
