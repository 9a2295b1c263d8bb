//! What a process may do beyond its own: capabilities, and limits. With the limits goes what has to be arranged before there are
//! threads: one heap for all of them, and a table of descriptors that need not grow.
//!
//! `unsafe` is here because no library in use wraps some of these calls, and because a new descriptor comes as a bare number.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;

/// Lets a process that this one is about to execute hold `capabilities`, which an ordinary user loses on that occasion
/// (capabilities(7)).
pub fn pass_on(capabilities: &[Capability]) -> Result<(), Error> {
    let wanted: CapsHashSet = capabilities.iter().copied().collect();
    let pass_on = || {
        let mut inheritable = caps::read(None, CapSet::Inheritable)?;
        inheritable.extend(&wanted);
        caps::set(None, CapSet::Inheritable, &inheritable)?;
        for capability in &wanted {
            caps::raise(None, CapSet::Ambient, *capability)?;
        }
        Ok::<(), caps::errors::CapsError>(())
    };
    pass_on().map_err(Error::PassCapabilitiesOn)
}

/// Gives up every capability but `kept`, and the means to get any back: `CAP_SETPCAP` is needed for that.
pub(crate) fn keep(kept: &[Capability]) -> Result<(), Error> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    // The bounding set first: changing it takes a capability.
    let keep = || {
        for set in [CapSet::Bounding, CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set)?;
        }
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    keep().map_err(Error::DropCapabilities)?;
    nix::sys::prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)
}

/// Limits the address space to `bytes`, descriptors to numbers below `descriptors`, and files that are written to `file_size`
/// bytes, unless they are limited further already; and forbids core files. The process must have one thread.
///
/// All threads share one heap from then on. With glibc each would have one of its own, for which 64 MiB of addresses are
/// reserved. A thread that gets none has no memory at all, however much is free in the others' (malloc(3), mallopt(3)).
pub(crate) fn limit(bytes: u64, descriptors: u64, file_size: u64) -> Result<(), Error> {
    share_one_heap();
    for (resource, most) in [
        (Resource::RLIMIT_AS, bytes),
        (Resource::RLIMIT_NOFILE, descriptors),
        (Resource::RLIMIT_FSIZE, file_size),
        (Resource::RLIMIT_CORE, 0),
    ] {
        getrlimit(resource)
            .map(|(_, hard)| hard.min(most))
            .and_then(|limit| setrlimit(resource, limit, limit))
            .map_err(|errno| Error::Limit(resource, errno))?;
    }
    make_room_for_descriptors();
    Ok(())
}

/// So many descriptors fit into the table of descriptors from the start; it takes 8 KiB of the kernel's memory.
const DESCRIPTORS_AT_FIRST: u64 = 1024;

/// Has the kernel enlarge this process's table of descriptors now. Once there are threads, it waits for every processor whenever
/// it enlarges the table (`expand_fdtable`, fs/file.c), from 64 descriptors to 128 and so on: on an H200's machine for 10 to 25 ms.
fn make_room_for_descriptors() {
    let room = || {
        let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let last = most.min(DESCRIPTORS_AT_FIRST).saturating_sub(1);
        let any = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0;
        let high = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(last as RawFd))?;
        // SAFETY: the number is new, and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(high) });
        nix::Result::Ok(())
    };
    // Without it all is as it was, but slower.
    let _ = room();
}

#[cfg(target_env = "gnu")]
fn share_one_heap() {
    // SAFETY: the arguments are numbers. It fails for no value of this parameter.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other C libraries have one heap for all threads.
#[cfg(not(target_env = "gnu"))]
fn share_one_heap() {}

/// From now on no memory of this process becomes executable (PR_SET_MDWE(2const)). A kernel that cannot do that (before Linux
/// 6.3) leaves it to the filter, which lets through no call that would make any executable: `Feature::RefusedExecution` of
/// the table in `linux.rs`.
pub(crate) fn refuse_executable_memory() -> Result<(), Error> {
    // SAFETY: the arguments are numbers.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    match Errno::result(result) {
        Err(Errno::EINVAL) => Ok(()),
        result => result.map(drop).map_err(Error::ExecutableMemory),
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::process::Command;
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::limit;

    #[test]
    fn a_thread_has_memory_where_no_heap_of_its_own_fits() {
        let own = std::env::current_exe().expect("this executable");
        let output = Command::new(own)
            .args(["--ignored", "--exact", "rights::tests::in_few_addresses"])
            .output()
            .expect("this executable");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(printed.contains("1 passed"), "{printed}");
    }

    /// Without a heap that all share, the thread ends the process.
    #[test]
    #[ignore = "the second process of a_thread_has_memory_where_no_heap_of_its_own_fits"]
    fn in_few_addresses() {
        const LEFT: u64 = 16 << 20;
        const PAGE: u64 = 4096;
        const SIZE: usize = 1000;
        let sizes = std::fs::read_to_string("/proc/self/statm").expect("sizes");
        let pages = sizes.split(' ').next().map(str::parse::<u64>);
        let pages = pages.expect("a size").expect("a number");
        limit(pages * PAGE + LEFT, u64::MAX, u64::MAX).expect("limits");
        // The thread waits at both.
        let (started, exhausted) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let barriers = (Arc::clone(&started), Arc::clone(&exhausted));
        let thread = thread::Builder::new().stack_size(64 << 10);
        let allocate = move || {
            barriers.0.wait();
            barriers.1.wait();
            black_box(vec![1; SIZE]).len()
        };
        let thread = thread.spawn(allocate).expect("a thread");
        started.wait();
        // More than this thread keeps for itself of those that it frees.
        let kept: Vec<Vec<u8>> = (0..64).map(|_| Vec::with_capacity(SIZE)).collect();
        let mut size = 1 << 40;
        while size >= SIZE {
            let mut piece = Vec::<u8>::new();
            match piece.try_reserve_exact(size) {
                Ok(()) => std::mem::forget(piece),
                Err(_) => size /= 2,
            }
        }
        drop(kept);
        exhausted.wait();
        assert_eq!(thread.join().expect("memory"), SIZE);
    }
}
