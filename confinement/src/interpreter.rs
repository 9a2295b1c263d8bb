//! The kernel's packet filter machine, as far as filters of system calls use it: for tests that ask what a program
//! says to a call.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use crate::arch::ARCHITECTURE;
use crate::policy::Verdict;

/// A system call, as a filter sees it (`struct seccomp_data`, linux/seccomp.h).
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The architecture, as in linux/audit.h.
    pub machine: u32,
    pub number: u32,
    pub arguments: [u64; 6],
}

impl Call {
    /// A call of this architecture.
    pub fn native(number: libc::c_long, arguments: [u64; 6]) -> Call {
        Call {
            machine: ARCHITECTURE,
            number: number as u32,
            arguments,
        }
    }

    /// The four bytes at `offset`.
    fn word(&self, offset: u32) -> Option<u32> {
        let mut bytes = [0u8; 64];
        bytes[0..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.machine.to_ne_bytes());
        for (place, argument) in bytes[16..].chunks_exact_mut(8).zip(self.arguments) {
            place.copy_from_slice(&argument.to_ne_bytes());
        }
        let word = bytes.get(offset as usize..offset as usize + 4)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?))
    }
}

/// What `program` says to `call`. `None` if it is no program that the kernel would accept.
pub fn run(program: &[sock_filter], call: &Call) -> Option<Verdict> {
    const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
    const MASK: u32 = BPF_ALU | BPF_AND | BPF_K;
    const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const AT_LEAST: u32 = BPF_JMP | BPF_JGE | BPF_K;
    const ALWAYS: u32 = BPF_JMP | BPF_JA;
    const RETURN: u32 = BPF_RET | BPF_K;
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let instruction = program.get(at)?;
        let branch = |holds: bool| {
            usize::from(if holds {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        at += 1;
        match u32::from(instruction.code) {
            LOAD => accumulator = call.word(instruction.k)?,
            MASK => accumulator &= instruction.k,
            EQUAL => at += branch(accumulator == instruction.k),
            AT_LEAST => at += branch(accumulator >= instruction.k),
            ALWAYS => at += instruction.k as usize,
            RETURN => return Verdict::from_kernel(instruction.k),
            _ => return None,
        }
    }
}
