//! System calls as the sentry and the launcher need them. Each function is its manual page's, with Rust's types.
//!
//! `unsafe` is here because neither nix nor rustix wraps kcmp(2), mount_setattr(2), the signal masks of ptrace(2), or a
//! going on or detaching with a real-time signal, or offers _exit(2): the kernel is given addresses, or a process ends at once.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{self, PidfdFlags, PidfdGetfdFlags};

/// `KCMP_EPOLL_TFD` of linux/kcmp.h.
const KCMP_EPOLL_TFD: libc::c_int = 7;
/// `KCMP_VM` of linux/kcmp.h.
const KCMP_VM: libc::c_int = 1;
/// `KCMP_FILES` of linux/kcmp.h.
const KCMP_FILES: libc::c_int = 2;
/// `PIDFD_THREAD` of linux/pidfd.h: the thread itself rather than its group (Linux 6.9).
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// `struct kcmp_epoll_slot` of linux/kcmp.h.
#[repr(C)]
struct EpollSlot {
    epoll: u32,
    registered: u32,
    offset: u32,
}

/// Compares the description behind `descriptor` of `task` with the one that was registered in `epoll` of this process
/// under the number `registered` (kcmp(2), `KCMP_EPOLL_TFD`). The kernel orders descriptions; the order does not
/// change while they live. Fails with `EBADF` if the task has no such descriptor, `ENOENT` if the registered
/// description is gone.
pub fn compare_with_registered(
    task: Pid,
    descriptor: RawFd,
    epoll: BorrowedFd<'_>,
    registered: RawFd,
) -> Result<std::cmp::Ordering, Errno> {
    let slot = EpollSlot {
        epoll: epoll.as_raw_fd() as u32,
        registered: registered as u32,
        offset: 0,
    };
    // SAFETY: the slot outlives the call, which reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            task.as_raw(),
            libc::getpid(),
            KCMP_EPOLL_TFD,
            descriptor,
            &raw const slot,
        )
    };
    // 3 means "not equal, no order", which the kernel gives for kinds without one only.
    match Errno::result(result)? {
        0 => Ok(std::cmp::Ordering::Equal),
        1 => Ok(std::cmp::Ordering::Less),
        _ => Ok(std::cmp::Ordering::Greater),
    }
}

/// Whether two threads share their memory (kcmp(2), `KCMP_VM`), as those of one process do. One that has ended shares
/// it with none.
pub fn share_memory(one: Pid, other: Pid) -> bool {
    one == other || share(one, other, KCMP_VM) == Ok(true)
}

/// Whether two threads share a descriptor table (kcmp(2), `KCMP_FILES`). Fails with `ESRCH` if one has ended.
pub fn share_descriptors(one: Pid, other: Pid) -> Result<bool, Errno> {
    share(one, other, KCMP_FILES)
}

fn share(one: Pid, other: Pid, what: libc::c_int) -> Result<bool, Errno> {
    // SAFETY: these kinds of comparison take no pointer.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one.as_raw(), other.as_raw(), what, 0, 0) };
    Errno::result(result).map(|order| order == 0)
}

/// A descriptor for the thread `task` itself (pidfd_open(2)). Fails with `EINVAL` before Linux 6.9.
pub fn pidfd_open_thread(task: Pid) -> Result<OwnedFd, Errno> {
    open_pidfd(task, PIDFD_THREAD)
}

/// A descriptor for a whole process, named by its leader (pidfd_open(2)): it becomes readable when all threads have ended.
pub fn pidfd_open_process(process: Pid) -> Result<OwnedFd, Errno> {
    open_pidfd(process, PidfdFlags::empty())
}

fn open_pidfd(task: Pid, flags: PidfdFlags) -> Result<OwnedFd, Errno> {
    let task = process::Pid::from_raw(task.as_raw()).ok_or(Errno::EINVAL)?;
    process::pidfd_open(task, flags).map_err(errno)
}

/// A duplicate of `descriptor` of the task behind `pidfd` (pidfd_getfd(2)).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, descriptor: RawFd) -> Result<OwnedFd, Errno> {
    process::pidfd_getfd(pidfd, descriptor, PidfdGetfdFlags::empty()).map_err(errno)
}

/// Sends `signal` to the process, or the thread, behind `pidfd` (pidfd_send_signal(2)).
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    let signal = process::Signal::from_named_raw(signal as i32).ok_or(Errno::EINVAL)?;
    process::pidfd_send_signal(pidfd, signal).map_err(errno)
}

/// rustix's errors as nix's, which the rest of the sentry has.
fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

/// Adds `attributes` (`MOUNT_ATTR_*`) to the mount whose root `mount` is, and to all below it, leaving their other
/// attributes alone (mount_setattr(2)).
pub fn add_mount_attributes(mount: BorrowedFd<'_>, attributes: u64) -> Result<(), Errno> {
    // SAFETY: an all-zero mount_attr is a valid one.
    let mut change: libc::mount_attr = unsafe { std::mem::zeroed() };
    change.attr_set = attributes;
    // SAFETY: the path and the change outlive the call, which reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// A file of memory that nobody reaches but by a mapping of his own: not the kernel on another's behalf either
/// (memfd_secret(2), Linux 5.14). nix and rustix do not wrap it.
pub fn memfd_secret() -> Result<OwnedFd, Errno> {
    // SAFETY: the flags are passed by value.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = Errno::result(file)? as RawFd;
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A thread's signal mask as the kernel keeps it: one bit a signal.
#[derive(Clone, Copy, Debug)]
pub struct SignalMask(u64);

impl SignalMask {
    /// Every signal that can be blocked.
    pub const ALL: SignalMask = SignalMask(u64::MAX);
}

/// The signal mask of a stopped thread that the caller traces (ptrace(2), `PTRACE_GETSIGMASK`).
pub fn signal_mask(thread: Pid) -> Result<SignalMask, Errno> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes as many bytes as it is told to the mask, which outlives the call.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGMASK,
            thread.as_raw(),
            size_of::<u64>(),
            &raw mut mask,
        )
    };
    Errno::result(result).map(|_| SignalMask(mask))
}

/// Sets the signal mask of a stopped thread that the caller traces (ptrace(2), `PTRACE_SETSIGMASK`).
pub fn set_signal_mask(thread: Pid, mask: &SignalMask) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes as it is told from the mask, which outlives the call.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SETSIGMASK,
            thread.as_raw(),
            size_of::<u64>(),
            &raw const mask.0,
        )
    };
    Errno::result(result).map(drop)
}

/// Where Syscall User Dispatch takes the calls of a thread: the kernel's `struct ptrace_sud_config` (include/uapi/linux/ptrace.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    mode: u64,
    selector: u64,
    offset: u64,
    length: u64,
}

impl Dispatch {
    /// Nowhere: every call is the kernel's.
    pub const OFF: Dispatch = Dispatch {
        mode: 0,
        selector: 0,
        offset: 0,
        length: 0,
    };
}

/// Where a stopped thread's calls are taken that the caller traces (`PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG`, from Linux 6.4
/// on). Fails with `EIO` before that.
pub fn dispatch(thread: Pid) -> Result<Dispatch, Errno> {
    const GET: libc::c_uint = 0x4211;
    let mut dispatch = Dispatch::OFF;
    // SAFETY: the kernel writes as many bytes as it is told to the struct, which outlives the call.
    let result = unsafe {
        libc::ptrace(
            GET,
            thread.as_raw(),
            size_of::<Dispatch>(),
            &raw mut dispatch,
        )
    };
    Errno::result(result).map(|_| dispatch)
}

/// Says where the calls of a stopped thread are to be taken that the caller traces
/// (`PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG`, from Linux 6.4 on).
pub fn set_dispatch(thread: Pid, dispatch: Dispatch) -> Result<(), Errno> {
    const SET: libc::c_uint = 0x4210;
    // SAFETY: the kernel reads as many bytes as it is told from the struct, which outlives the call.
    let result = unsafe {
        libc::ptrace(
            SET,
            thread.as_raw(),
            size_of::<Dispatch>(),
            &raw const dispatch,
        )
    };
    Errno::result(result).map(drop)
}

/// Where a traced thread has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStop {
    /// Before a call with these arguments, because its filter says so.
    Filtered([u64; 6]),
    /// Behind a call, which has returned this.
    Returned(Result<i64, Errno>),
    Elsewhere,
}

/// At which system call a stopped thread is that the caller traces (ptrace(2), `PTRACE_GET_SYSCALL_INFO`). nix's gives the
/// kernel no room for the answer.
pub fn call_stop(thread: Pid) -> Result<CallStop, Errno> {
    // SAFETY: it is made of numbers, each of which may be zero.
    let mut information: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes as many bytes as it is told to the struct, which outlives the call.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread.as_raw(),
            size_of::<libc::ptrace_syscall_info>(),
            &raw mut information,
        )
    };
    Errno::result(result)?;
    Ok(match information.op {
        libc::PTRACE_SYSCALL_INFO_SECCOMP => {
            // SAFETY: `op` says that the kernel has filled in this part of the union.
            CallStop::Filtered(unsafe { information.u.seccomp.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: `op` says that the kernel has filled in this part of the union.
            let exit = unsafe { information.u.exit };
            CallStop::Returned(match exit.is_error {
                0 => Ok(exit.sval),
                _ => Err(Errno::from_raw(-exit.sval as i32)),
            })
        }
        _ => CallStop::Elsewhere,
    })
}

/// Lets a stopped thread go on that the caller traces; `signal` is as of [`detach`] (ptrace(2), `PTRACE_CONT`).
pub fn resume(thread: Pid, signal: libc::c_int) -> Result<(), Errno> {
    let address = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the address is ignored, and the signal is passed by value.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_CONT,
            thread.as_raw(),
            address,
            libc::c_long::from(signal),
        )
    };
    Errno::result(result).map(drop)
}

/// Lets a stopped thread go that the caller traces; `signal` is the number of the one that it stopped for and is to get,
/// or 0 (ptrace(2), `PTRACE_DETACH`). nix's has no real-time signals.
pub fn detach(thread: Pid, signal: libc::c_int) -> Result<(), Errno> {
    let address = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the address is ignored, and the signal is passed by value.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            thread.as_raw(),
            address,
            libc::c_long::from(signal),
        )
    };
    Errno::result(result).map(drop)
}

/// Ends a forked child (_exit(2)) without what the C library does at the end of a program: that is its parent's to do, and
/// each page that it touches would be copied first.
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: it takes a number, and does not return.
    unsafe { libc::_exit(status) }
}
