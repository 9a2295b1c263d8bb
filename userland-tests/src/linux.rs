//! What the kernel that runs the tests has, by the table of what versions of Linux brought; and how to run a command as on a
//! kernel that has less. Some promises rest on what not every kernel has, and docs/THREAT_MODEL.md says what is left of them
//! without: a test of such a promise asks here and asserts what is said of a kernel like this one.
//!
//! `unsafe` is here for system calls that have no wrapper, and for what happens between fork and exec.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, sock_filter, sock_fprog};
use nix::sys::prctl;
pub use ringfence_confinement::linux::{Feature, Row, TABLE, Version, Without};

/// Whether the kernel that runs this has it. The table decides; but Landlock can be left out when a kernel is started, and
/// secret memory turned on, or forbidden.
pub fn has(feature: Feature) -> bool {
    match feature {
        Feature::LandlockTruncate
        | Feature::LandlockTcp
        | Feature::LandlockIoctlDev
        | Feature::LandlockScopes => has_landlock() && is_new_enough(feature),
        Feature::SecretMemory => has_secret_memory(),
        _ => is_new_enough(feature),
    }
}

/// The line that a sandbox with NVIDIA's driver says of the walls that a kernel lacks; none if it lacks none.
pub fn warning(lacks: impl Fn(&Row) -> bool) -> String {
    let walls = TABLE
        .iter()
        .filter(|row| matches!(row.without, Without::AWallLess(_)));
    let missing: Vec<String> = walls
        .filter(|row| lacks(row))
        .map(|row| format!("{} (Linux {})", row.name, row.since))
        .collect();
    match missing.is_empty() {
        true => String::new(),
        false => format!(
            " WARN walls are missing that this kernel lacks or does not permit: {}; `ringfence doctor` says what each keeps out\n",
            missing.join(", ")
        ),
    }
}

fn is_new_enough(feature: Feature) -> bool {
    version_of(&release()).expect("a version") >= feature.row().since
}

/// The release of the kernel that runs this.
pub fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the release");
    release.trim().to_owned()
}

/// The version of a release, as `6.1.0-57-cloud-amd64`.
fn version_of(release: &str) -> Option<Version> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some(Version {
        major: next()?,
        minor: next()?,
    })
}

/// Whether this kernel has any Landlock, and was started with it.
pub fn has_landlock() -> bool {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: asked for the version, the call takes no pointer.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version > 0
}

fn has_secret_memory() -> bool {
    // SAFETY: the flags are passed by value.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if file < 0 {
        return false;
    }
    // SAFETY: it was just made, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(file as RawFd) });
    true
}

/// Has a command run as on a kernel that lacks this, and all that it starts. To withhold a part of Landlock takes all of it: a
/// filter cannot answer with another version.
pub fn without<'a>(command: &'a mut Command, features: &[Feature]) -> &'a mut Command {
    let refused: Vec<Refused> = features.iter().flat_map(|f| refused_without(*f)).collect();
    let filter = filter(&refused);
    let refuse = move || {
        prctl::set_no_new_privs()?;
        let program = sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which outlives the call, and writes nothing.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec this makes two system calls and touches no memory but its own.
    unsafe { command.pre_exec(refuse) }
}

/// Has a command run as on a kernel of this version, and all that it starts.
pub fn as_of(command: &mut Command, version: Version) -> &mut Command {
    let newer = TABLE.iter().filter(|row| row.since > version);
    let lacking: Vec<Feature> = newer.map(|row| row.feature).collect();
    without(command, &lacking)
}

/// A call that is refused, with this error: if its argument of an index has, of these bits, those.
struct Refused {
    call: c_long,
    argument: usize,
    bits: u32,
    value: u32,
    errno: i32,
}

/// How a kernel without the feature answers those who try to use it.
fn refused_without(feature: Feature) -> Vec<Refused> {
    const GET_DISPATCH: u32 = 0x4211;
    const MFD_NOEXEC_SEAL: u32 = 8;
    let all = |call, errno| Refused {
        call,
        argument: 0,
        bits: 0,
        value: 0,
        errno,
    };
    let flag = |call, argument, flag, errno| Refused {
        call,
        argument,
        bits: flag,
        value: flag,
        errno,
    };
    let one = |call, argument, value, errno| Refused {
        call,
        argument,
        bits: u32::MAX,
        value,
        errno,
    };
    match feature {
        Feature::KillableWaits => {
            let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
            vec![flag(libc::SYS_seccomp, 1, killable, libc::EINVAL)]
        }
        Feature::LandlockTruncate
        | Feature::LandlockTcp
        | Feature::LandlockIoctlDev
        | Feature::LandlockScopes => {
            vec![all(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP)]
        }
        Feature::RefusedExecution => vec![
            one(libc::SYS_prctl, 0, libc::PR_SET_MDWE as u32, libc::EINVAL),
            one(libc::SYS_prctl, 0, libc::PR_GET_MDWE as u32, libc::EINVAL),
            // It came in the same version.
            flag(libc::SYS_memfd_create, 1, MFD_NOEXEC_SEAL, libc::EINVAL),
        ],
        Feature::TracedDispatch => vec![one(libc::SYS_ptrace, 0, GET_DISPATCH, libc::EIO)],
        Feature::PeerDescriptors => {
            const SO_PEERPIDFD: u32 = 77;
            vec![one(
                libc::SYS_getsockopt,
                2,
                SO_PEERPIDFD,
                libc::ENOPROTOOPT,
            )]
        }
        Feature::SecretMemory => vec![all(libc::SYS_memfd_secret, libc::ENOSYS)],
        Feature::RingFutexes => vec![all(libc::SYS_io_uring_setup, libc::EPERM)],
        Feature::ThreadDescriptors => {
            vec![flag(
                libc::SYS_pidfd_open,
                1,
                libc::PIDFD_THREAD,
                libc::EINVAL,
            )]
        }
    }
}

/// A filter that lets everything pass but these (linux/seccomp.h, linux/filter.h).
fn filter(refused: &[Refused]) -> Vec<sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let instruction = |code: u32, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let each = refused.iter().flat_map(|refused| {
        let argument = 16 + 8 * refused.argument as u32;
        [
            instruction(LOAD, 0, 0),
            instruction(EQUAL, 4, refused.call as u32),
            instruction(LOAD, 0, argument),
            instruction(AND, 0, refused.bits),
            instruction(EQUAL, 1, refused.value),
            instruction(RETURN, 0, libc::SECCOMP_RET_ERRNO | refused.errno as u32),
        ]
    });
    let rest = instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW);
    each.chain([rest]).collect()
}
