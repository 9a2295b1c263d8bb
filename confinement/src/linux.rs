//! What versions of Linux brought of that on which Ringfence rests, and what is lost on a kernel that lacks it.
//!
//! This is the one place that knows: `ringfence doctor`, the warning with which a sandbox starts, the tables in README.md and
//! the tests go by it. A version only says which kernel to use. Whether a kernel has something is tried, because
//! distributions add to old kernels, and containers and settings take from new ones.
//!
//! `unsafe` is here because no library in use asks the kernel what it has in these ways.

#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Something that a version of Linux brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A call that waits for an answer is interrupted by fatal signals only (seccomp(2), `WAIT_KILLABLE_RECV`).
    KillableWaits,
    /// Emptying files can be withheld.
    LandlockTruncate,
    /// A process can refuse to make memory executable (PR_SET_MDWE(2const)).
    RefusedExecution,
    /// A tracer learns, and says, where a thread's calls are taken (`PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG`).
    TracedDispatch,
    /// A socket tells which process is at its other end by a descriptor (unix(7), `SO_PEERPIDFD`).
    PeerDescriptors,
    /// There is memory that nobody reaches but by a mapping (memfd_secret(2)), and nobody has to turn it on.
    SecretMemory,
    /// Connections by TCP can be withheld.
    LandlockTcp,
    /// An io_uring waits for a futex (`IORING_OP_FUTEX_WAIT`).
    RingFutexes,
    /// A descriptor can be for a thread (pidfd_open(2), `PIDFD_THREAD`).
    ThreadDescriptors,
    /// ioctl can be withheld on devices.
    LandlockIoctlDev,
    /// Signals and connections to abstract sockets can be kept in.
    LandlockScopes,
}

/// A version of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What Ringfence is without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// It does not work.
    Unusable,
    /// A wall is missing: this can be done.
    AWallLess(&'static str),
    /// This does not work, or takes more.
    Less(&'static str),
}

impl Without {
    /// What is lost, if Ringfence works.
    pub fn lost(self) -> Option<&'static str> {
        match self {
            Without::Unusable => None,
            Without::AWallLess(what) | Without::Less(what) => Some(what),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the row is about.
    pub feature: Feature,
    /// The first version that has it.
    pub since: Version,
    /// What `doctor` and the documents call it.
    pub name: &'static str,
    /// What is lost on a kernel that lacks it.
    pub without: Without,
}

/// All of it, oldest first.
pub static TABLE: [Row; 11] = [
    row(
        Feature::KillableWaits,
        (5, 19),
        "seccomp notification",
        Without::Unusable,
    ),
    row(
        Feature::LandlockTruncate,
        (6, 2),
        "Landlock TRUNCATE",
        Without::AWallLess(
            "a program can empty a file without a name that it inherited to be read, if the user may write it",
        ),
    ),
    row(
        Feature::RefusedExecution,
        (6, 3),
        "PR_SET_MDWE",
        Without::AWallLess(
            "their seccomp filters alone keep sentry, server and init from making memory executable",
        ),
    ),
    row(
        Feature::TracedDispatch,
        (6, 4),
        "ptrace of dispatched calls",
        Without::Less(
            "a program that has its calls dispatched (PR_SET_SYSCALL_USER_DISPATCH), as emulators do, is killed when it pins \
             memory",
        ),
    ),
    row(
        Feature::PeerDescriptors,
        (6, 5),
        "SO_PEERPIDFD",
        Without::Less(
            "ringfence server-upgrade fails; a program that was shown the sockets of ringfence ps is told what another sandbox \
             runs, if its number is another process's by the time it is looked at",
        ),
    ),
    row(
        Feature::SecretMemory,
        (6, 5),
        "secret memory",
        Without::AWallLess(
            "what a program pins can be altered by a process outside of its sandbox that the program gives its /proc/PID/mem to",
        ),
    ),
    row(
        Feature::LandlockTcp,
        (6, 7),
        "Landlock CONNECT_TCP",
        Without::AWallLess(
            "its network namespace and its seccomp filter alone keep the server from the network",
        ),
    ),
    row(
        Feature::RingFutexes,
        (6, 7),
        "io_uring with futexes",
        Without::Less(
            "the server waits for its doorbell with futex(2), and with a thread more for the sentry's end",
        ),
    ),
    row(
        Feature::ThreadDescriptors,
        (6, 9),
        "pidfd of a thread",
        Without::Less(
            "requests to nvidia-uvm, or to the simulated driver, fail with EOPNOTSUPP in threads that do not have the \
             descriptors of their process's first thread, or whose first thread has ended",
        ),
    ),
    row(
        Feature::LandlockIoctlDev,
        (6, 10),
        "Landlock IOCTL_DEV",
        Without::AWallLess(
            "a program's descriptors of GPU nodes could issue ioctls, which the seccomp filter alone then stops",
        ),
    ),
    row(
        Feature::LandlockScopes,
        (6, 12),
        "Landlock scopes",
        Without::AWallLess(
            "with --net a program reaches the caller's sockets with abstract names, and its signals are kept in by its process \
             namespace and process group alone",
        ),
    ),
];

const fn row(
    feature: Feature,
    (major, minor): (u32, u32),
    name: &'static str,
    without: Without,
) -> Row {
    Row {
        feature,
        since: Version { major, minor },
        name,
        without,
    }
}

impl Feature {
    /// What the table says of it.
    pub const fn row(self) -> &'static Row {
        // The table has a row for each, in the order in which they are listed above: a test looks.
        &TABLE[self as usize]
    }

    /// Whether this kernel has it, and lets this process have it. It is asked in ways that change nothing and take
    /// microseconds. What takes a child to be tried counts as there: `ringfence doctor` tries that.
    pub fn is_there(self) -> bool {
        match self {
            Feature::KillableWaits => has_killable_waits(),
            Feature::LandlockTruncate => landlock() >= 3,
            Feature::RefusedExecution => can_refuse_execution(),
            Feature::PeerDescriptors => has_peer_descriptors(),
            Feature::SecretMemory => has_secret_memory(),
            Feature::LandlockTcp => landlock() >= 4,
            Feature::LandlockIoctlDev => landlock() >= 5,
            Feature::LandlockScopes => landlock() >= 6,
            Feature::TracedDispatch | Feature::RingFutexes | Feature::ThreadDescriptors => true,
        }
    }
}

/// The rows of the walls that this kernel lacks.
pub fn missing_walls() -> impl Iterator<Item = &'static Row> {
    let is_wall = |row: &&Row| matches!(row.without, Without::AWallLess(_));
    let walls = TABLE.iter().filter(is_wall);
    walls.filter(|row| !row.feature.is_there())
}

/// The version of Landlock's interface, 0 if this kernel has none, or was started without (landlock(7)).
fn landlock() -> libc::c_long {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: asked for the version, the call takes no pointer.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}

/// The kernel looks at the flags before it looks at the filter, of which there is none here. Who forbids the call altogether
/// is heard of when it is made.
fn has_killable_waits() -> bool {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel takes no filter from no address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            none,
        )
    };
    Errno::result(result) != Err(Errno::EINVAL)
}

fn can_refuse_execution() -> bool {
    // SAFETY: the arguments are numbers.
    unsafe { libc::prctl(libc::PR_GET_MDWE, 0, 0, 0, 0) >= 0 }
}

fn has_peer_descriptors() -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
    let pair = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    );
    pair.is_ok_and(|(socket, _peer)| getsockopt(&socket, sockopt::PeerPidfd).is_ok())
}

fn has_secret_memory() -> bool {
    // SAFETY: the flags are passed by value.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let Ok(file) = Errno::result(file) else {
        return false;
    };
    // SAFETY: it was just made, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(file as RawFd) });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_its_row_and_the_oldest_is_first() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.feature as usize, index);
            assert_eq!(row.feature.row(), row);
        }
        assert!(TABLE.is_sorted_by_key(|row| row.since));
    }

    /// An answer like that of seccomp(2) to flags that it does not know shows what a kernel before 5.19 says.
    #[test]
    fn a_flag_that_the_kernel_does_not_know_is_noticed() {
        assert!(has_killable_waits());
        let unknown = 1 << 20;
        let none = std::ptr::null::<libc::sock_fprog>();
        // SAFETY: the kernel takes no filter from no address.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                unknown,
                none,
            )
        };
        assert_eq!(Errno::result(result), Err(Errno::EINVAL));
    }
}
