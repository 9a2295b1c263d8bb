//! Descriptors that the caller left open.
//!
//! Whoever starts Ringfence may hold anything: sockets, directories of the host, files opened for writing. Whatever
//! is inherited without having been asked for is closed before Ringfence opens anything of its own, so that no process
//! of the sandbox has it.
//!
//! What was asked for, or is a standard stream, can be more than bytes. By a directory all files of the host are reached, by an
//! internet socket its network, as one that is connected can be connected anew; by the memory of an io_uring the kernel does
//! in the caller's name what is written there, and no filter sees a call. So the kinds are listed that a program can have,
//! and the others are refused.
//!
//! `unsafe` is here because descriptors are inherited as bare numbers. By hand are dup2(2), where rustix wants to own the
//! number and nix takes a failure for a descriptor, and close_range(2), which neither has.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::fstat;
use ringfence_faults::{Act, Point};
use ringfence_sentry::confinement;
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{FsWord, fstatfs};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use super::grants::Grants;

/// The first number behind the standard streams.
const FIRST: RawFd = 3;

/// What /proc/PID/fd shows of those files without a name by which nothing can be had but what is read from and written to
/// them (eventfd(2), timerfd_create(2)).
const HARMLESS: [&str; 2] = ["anon_inode:[eventfd]", "anon_inode:[timerfd]"];
const WITHOUT_NAME: &str = "anon_inode:";
/// File systems of which each file is an object of the kernel, whatever it is called: memory that is hidden from the kernel
/// itself (memfd_secret(2)), message queues, namespaces, processes, and buffers of devices (`SECRETMEM_MAGIC`, `NSFS_MAGIC`,
/// `PID_FS_MAGIC` and `DMA_BUF_MAGIC` of linux/magic.h, `MQUEUE_MAGIC` of ipc/mqueue.c).
const OF_OBJECTS: [FsWord; 5] = [
    0x5345_434d,
    0x1980_0202,
    0x6e73_6673,
    0x5049_4446,
    0x444d_4142,
];

/// How many descriptors the caller has allowed itself, which the program gets.
static CALLERS: OnceLock<rlim_t> = OnceLock::new();

/// Takes over the descriptors from 3 on that the program is granted, and closes all behind them. None of them is inherited
/// further until [`pass_on`] is called with it.
///
/// # Safety
///
/// Nothing in this process owns a descriptor but the standard streams.
pub unsafe fn take(grants: &Grants) -> Result<Vec<OwnedFd>, Failure> {
    let count = grants.preserve_fds;
    let end = FIRST + RawFd::from(count);
    // SAFETY: nobody owns what is closed, as the caller promises.
    unsafe { close_range(end as libc::c_uint, libc::c_uint::MAX) }?;
    (0..end).try_for_each(|number| refuse(number, grants.network))?;
    (FIRST..end)
        .map(|number| {
            // SAFETY: it is only looked whether there is such a descriptor.
            let lent = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(lent, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| {
                Failure::setup(format!(
                    "--preserve-fds {count}: descriptor {number}: {errno}: open it, as with {number}<FILE in a shell"
                ))
            })?;
            // SAFETY: it exists, and nobody owns it, as the caller promises.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

/// Fails if the program would get more by this descriptor than its caller gave with it.
fn refuse(number: RawFd, has_network: bool) -> Result<(), Failure> {
    // SAFETY: it is only looked at, if there is such a descriptor.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    match reason_against(lent, has_network) {
        Some((reason, remedy)) => Err(Failure::setup(format!(
            "descriptor {number} is {reason}: close it, as with {number}<&- in a shell, and {remedy}"
        ))),
        None => Ok(()),
    }
}

/// Why something is not for a program, and what to do instead.
type Reason = (&'static str, &'static str);

/// Why what is open by a descriptor is not for a program, and what to do instead. There may be nothing.
fn reason_against(descriptor: BorrowedFd<'_>, has_network: bool) -> Option<Reason> {
    let status = fstat(descriptor).ok()?;
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).ok()?;
    // `..` leads from it through all of the host's files, past every mount of the sandbox.
    if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Some((
            "a directory, from which the program would reach all files of the host",
            "show the directory with --bind",
        ));
    }
    // For the tests of what happens without this.
    if ringfence_faults::at(Point::Given) == Some(Act::Drop) {
        return None;
    }
    // Both can be opened anew, and lie on the host's mounts, where modes and times can be changed.
    if flags & libc::O_PATH != 0 {
        return Some((
            "of a path only (O_PATH), by which the program could open or change what lies there",
            "open it to be read or written, or show it with --bind",
        ));
    }
    if flags & libc::O_ACCMODE == libc::O_ACCMODE {
        return Some((
            "open neither to be read nor to be written (access mode 3), and the program could write by it",
            "open it to be read or written",
        ));
    }
    match status.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => reason_against_socket(descriptor, has_network),
        _ => reason_against_nameless(descriptor),
    }
}

/// The same of a socket. One that is connected or bound can be connected or bound anew (connect(2), AF_UNSPEC), in the network
/// in which it was made.
fn reason_against_socket(socket: BorrowedFd<'_>, has_network: bool) -> Option<Reason> {
    match socket_domain(socket) {
        Ok(AddressFamily::UNIX) => None,
        Ok(AddressFamily::INET | AddressFamily::INET6) if has_network => None,
        Ok(AddressFamily::INET | AddressFamily::INET6) => Some((
            "an internet socket, by which the program would reach the host's network",
            "pass on what comes there by a pipe, or give --net",
        )),
        _ => Some((
            "a socket that is neither of this machine's files (AF_UNIX) nor of the internet, by which the program would \
             reach the host",
            "pass on what comes there by a pipe",
        )),
    }
}

/// The same of a file without a name, or of an object that only looks like a file.
fn reason_against_nameless(descriptor: BorrowedFd<'_>) -> Option<Reason> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).ok()?;
    let name = link.to_string_lossy();
    let is_nameless = name.starts_with(WITHOUT_NAME) && !HARMLESS.contains(&&*name);
    let is_object = fstatfs(descriptor).is_ok_and(|of| OF_OBJECTS.contains(&of.f_type));
    (is_nameless || is_object).then_some((
        "an object of the kernel (such as an io_uring or a pidfd), by which the program could act in its maker's name",
        "leave it out",
    ))
}

/// Lets the program that the calling process is about to execute inherit `descriptor`.
pub fn pass_on(descriptor: &OwnedFd) -> Result<(), Failure> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .attempt(format_args!("descriptor {}", descriptor.as_raw_fd()))
}

/// Puts a duplicate of `descriptor` in the place of `number`, for the program that the calling process is about to
/// execute (dup2(2)).
///
/// # Safety
///
/// Nobody who owns `number` may count on the description that it was of.
pub unsafe fn put_in_place(descriptor: &OwnedFd, number: RawFd) -> Result<(), Failure> {
    // SAFETY: as the caller promises.
    let duplicate = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
    Errno::result(duplicate)
        .map(drop)
        .attempt(format_args!("descriptor {number}"))
}

/// Closes every descriptor of the calling process but those of these numbers.
///
/// # Safety
///
/// Nobody in this process uses or closes any other from now on.
pub unsafe fn close_all_but(mut kept: Vec<RawFd>) -> Result<(), Failure> {
    kept.sort_unstable();
    let mut first: libc::c_uint = 0;
    for number in kept {
        let number = number as libc::c_uint;
        if first < number {
            // SAFETY: as the caller promises.
            unsafe { close_range(first, number - 1) }?;
        }
        first = number + 1;
    }
    // SAFETY: as the caller promises.
    unsafe { close_range(first, libc::c_uint::MAX) }
}

/// Closes the descriptors of these numbers and between (close_range(2)).
///
/// # Safety
///
/// Nobody owns them.
unsafe fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Failure> {
    // SAFETY: as the caller promises.
    let closed = unsafe { libc::close_range(first, last, 0) };
    Errno::result(closed)
        .map(drop)
        .attempt("closing inherited descriptors")
}

/// Lets the calling process, and all that it starts, have as many descriptors as it may have. They need more than many a
/// caller has use for: the launcher, the sentry and init pass descriptors on (see [`send_and_leave_some`]), and the sentry has
/// some for each that a task has.
pub fn raise_limit() -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).attempt("the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).attempt("the limit of descriptors")?;
    let _ = CALLERS.set(soft);
    Ok(())
}

/// Has `send` send descriptors, and then lets the calling process, and all that it starts, have an eighth fewer than
/// Ringfence's own processes.
///
/// The kernel counts how many descriptors a *user* has on their way through sockets, in all sandboxes and outside, and
/// lets nobody send a further one whose own limit is below that count (unix(7), ETOOMANYREFS). With the lower limit tasks
/// cannot get so many on their way that Ringfence's processes of the same user could send none.
pub fn send_and_leave_some(send: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    send()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).attempt("the limit of descriptors")?;
    let soft = CALLERS.get().copied().unwrap_or(hard);
    let own = hard.min(confinement::DESCRIPTORS);
    // For the test of what holds without it.
    let most = match ringfence_faults::at(Point::InFlight) {
        Some(Act::Drop) => hard,
        _ => own - own / 8,
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(most), most).attempt("the limit of descriptors")
}
