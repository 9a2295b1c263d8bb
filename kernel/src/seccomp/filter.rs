//! The filter of a task, as a program for the kernel's packet filter machine.
//!
//! It notifies the sentry of the calls that can concern the driver and lets all others run natively:
//!
//! - `ioctl` with a request of type 'F', which is the driver's, or one of UVM's numbers, which have no type;
//! - `open` and `openat` for reading and writing, the only way in which programs open the driver's nodes
//!   (measured on CUDA programs and NVIDIA's tools), and `openat2`, whose flags a filter cannot see;
//! - `exit_group`, so that the driver can free what a program leaves while the kernel takes the program down.
//!
//! An open that this misses, or that a task changes behind the filter's back, fails in the kernel: the nodes in a
//! sandbox lie on a mount without devices.
//!
//! What would go around the filter is refused as by a kernel that lacks it: the system calls of other architectures,
//! whose numbers differ, and io_uring, whose operations no filter sees.
//!
//! The program is a list of blocks. Each block tests the accumulator and either skips itself or ends in a verdict, so
//! the only jumps are forward over one block, and nothing has to be numbered.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCHITECTURE: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT` of asm/unistd.h: the system calls of the x32 architecture.
const X32_CALLS: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` (linux/seccomp.h). Arguments are 64 bits wide, the low half first.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The type of the driver's ioctls (`NV_IOCTL_MAGIC`, kernel-open/common/inc/nv-ioctl-numbers.h, 580.142).
const DRIVER_TYPE: u32 = (b'F' as u32) << 8;
/// UVM's requests are numbers below this and the two of `UVM_LINUX_IOCTLS` (kernel-open/nvidia-uvm/uvm_ioctl.h and
/// uvm_linux_ioctl.h, 580.142).
const UVM_NUMBERS_END: u32 = 0x100;
const UVM_INITIALIZE: u32 = 0x3000_0001;
const UVM_DEINITIALIZE: u32 = 0x3000_0002;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The filter's program.
pub fn program() -> Vec<sock_filter> {
    let mut program = vec![load(MACHINE)];
    program.extend(unless_equal(ARCHITECTURE, vec![verdict(MISSING)]));
    program.push(load(NUMBER));
    program.extend(if_at_least(X32_CALLS, vec![verdict(MISSING)]));
    for call in [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ] {
        program.extend(if_equal(call as u32, vec![verdict(MISSING)]));
    }
    program.extend(if_equal(libc::SYS_ioctl as u32, ioctl()));
    program.extend(if_equal(libc::SYS_openat as u32, open(argument(2))));
    program.extend(if_equal(libc::SYS_open as u32, open(argument(1))));
    for call in [libc::SYS_openat2, libc::SYS_exit_group] {
        program.extend(if_equal(call as u32, vec![verdict(NOTIFY)]));
    }
    program.push(verdict(ALLOW));
    program
}

fn ioctl() -> Vec<sock_filter> {
    let mut block = vec![load(argument(1))];
    block.extend(if_equal(UVM_INITIALIZE, vec![verdict(NOTIFY)]));
    block.extend(if_equal(UVM_DEINITIALIZE, vec![verdict(NOTIFY)]));
    let mut typed = vec![statement(BPF_ALU | BPF_AND | BPF_K, 0xff00)];
    typed.extend(if_equal(DRIVER_TYPE, vec![verdict(NOTIFY)]));
    typed.push(verdict(ALLOW));
    block.extend(if_at_least(UVM_NUMBERS_END, typed));
    block.push(verdict(NOTIFY));
    block
}

/// An open whose flags are the argument at `flags`.
fn open(flags: u32) -> Vec<sock_filter> {
    let mut block = vec![
        load(flags),
        statement(BPF_ALU | BPF_AND | BPF_K, libc::O_ACCMODE as u32),
    ];
    block.extend(if_equal(libc::O_RDWR as u32, vec![verdict(NOTIFY)]));
    block.push(verdict(ALLOW));
    block
}

fn statement(code: u32, constant: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: constant,
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn verdict(verdict: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, verdict)
}

/// `block`, run only if the accumulator equals `constant`; it must end in a verdict.
fn if_equal(constant: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(BPF_JEQ, constant, block, false)
}

/// `block`, run only if the accumulator differs from `constant`; it must end in a verdict.
fn unless_equal(constant: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(BPF_JEQ, constant, block, true)
}

/// `block`, run only if the accumulator is `constant` or more; it must end in a verdict.
fn if_at_least(constant: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(BPF_JGE, constant, block, false)
}

fn guarded(test: u32, constant: u32, block: Vec<sock_filter>, inverted: bool) -> Vec<sock_filter> {
    let skip = u8::try_from(block.len()).unwrap_or(u8::MAX);
    let (jt, jf) = if inverted { (skip, 0) } else { (0, skip) };
    let mut guarded = vec![sock_filter {
        code: (BPF_JMP | test | BPF_K) as u16,
        jt,
        jf,
        k: constant,
    }];
    guarded.extend(block);
    guarded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program over a system call as the kernel's machine would.
    fn verdict_on(machine: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&machine.to_ne_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        let program = program();
        let mut accumulator = 0u32;
        let mut at = 0;
        loop {
            let instruction = program[at];
            let code = u32::from(instruction.code);
            at += 1;
            if code == BPF_LD | BPF_W | BPF_ABS {
                let offset = instruction.k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            } else if code == BPF_ALU | BPF_AND | BPF_K {
                accumulator &= instruction.k;
            } else if code == BPF_JMP | BPF_JEQ | BPF_K {
                at += usize::from(if accumulator == instruction.k {
                    instruction.jt
                } else {
                    instruction.jf
                });
            } else if code == BPF_JMP | BPF_JGE | BPF_K {
                at += usize::from(if accumulator >= instruction.k {
                    instruction.jt
                } else {
                    instruction.jf
                });
            } else {
                assert_eq!(code, BPF_RET | BPF_K);
                return instruction.k;
            }
        }
    }

    fn native(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        verdict_on(ARCHITECTURE, number as u32, arguments)
    }

    #[test]
    fn driver_ioctls_notify_and_others_run() {
        let ioctl = |request: u64| native(libc::SYS_ioctl, [3, request, 0x1000, 0, 0, 0]);
        // RM_CONTROL; the upper half of the register is not part of an ioctl's number.
        assert_eq!(ioctl(0xc020_462a), NOTIFY);
        assert_eq!(ioctl(0xffff_ffff_c020_462a), NOTIFY);
        assert_eq!(ioctl(0x3000_0001), NOTIFY);
        assert_eq!(ioctl(0x25), NOTIFY);
        assert_eq!(ioctl(libc::TCGETS), ALLOW);
        assert_eq!(ioctl(libc::FIONREAD), ALLOW);
    }

    #[test]
    fn opens_for_reading_and_writing_notify() {
        let openat = |flags: i32| native(libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
        assert_eq!(openat(libc::O_RDWR | libc::O_CLOEXEC), NOTIFY);
        assert_eq!(openat(libc::O_RDONLY), ALLOW);
        assert_eq!(openat(libc::O_WRONLY | libc::O_CREAT), ALLOW);
        assert_eq!(
            native(libc::SYS_open, [0, libc::O_RDWR as u64, 0, 0, 0, 0]),
            NOTIFY
        );
        assert_eq!(
            native(libc::SYS_open, [0, libc::O_RDONLY as u64, 0, 0, 0, 0]),
            ALLOW
        );
        assert_eq!(native(libc::SYS_openat2, [0; 6]), NOTIFY);
        assert_eq!(native(libc::SYS_exit_group, [0; 6]), NOTIFY);
        assert_eq!(native(libc::SYS_exit, [0; 6]), ALLOW);
    }

    #[test]
    fn ways_around_are_missing() {
        assert_eq!(native(libc::SYS_io_uring_setup, [0; 6]), MISSING);
        assert_eq!(native(libc::SYS_io_uring_enter, [0; 6]), MISSING);
        assert_eq!(verdict_on(0x4000_0003, 54, [0; 6]), MISSING, "i386 ioctl");
        assert_eq!(
            verdict_on(ARCHITECTURE, X32_CALLS | 514, [0; 6]),
            MISSING,
            "x32 ioctl"
        );
        assert_eq!(native(libc::SYS_getpid, [0; 6]), ALLOW);
    }
}
