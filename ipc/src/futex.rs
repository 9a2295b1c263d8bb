//! The system call behind a doorbell.
//!
//! A futex word lies in the shared region, so the operations are the shared kind, never
//! `FUTEX_PRIVATE_FLAG`: the kernel finds sleepers by the page, not by the address. It reads the
//! word itself and compares it before it puts anyone to sleep; the callers in `ring` rely on that
//! and on nothing else. The peer may wake without cause or change the word at will, so a return
//! from [`wait`] never means more than "look again".

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::errno::Errno;
use rustix::thread::futex::{self, Flags, Timespec};

/// The `futex_flags` of an io_uring futex operation on a doorbell word: a shared 32-bit futex
/// (`FUTEX2_SIZE_U32` without `FUTEX2_PRIVATE`, linux/futex.h).
pub const FUTEX_SHARED_U32: u32 = libc::FUTEX2_SIZE_U32 as u32;

/// The `mask` of an io_uring futex operation on a doorbell word: any waiter
/// (`FUTEX_BITSET_MATCH_ANY`, linux/futex.h).
pub const FUTEX_BITSET_ANY: u64 = 0xffff_ffff;

/// Sleeps while `word` is `expected`, at most for `timeout`.
///
/// Errors are futex(2)'s: `EAGAIN` when the word has another value, `EINTR` on a signal,
/// `ETIMEDOUT` when the time is over.
pub(crate) fn wait(
    word: &AtomicU32,
    expected: u32,
    timeout: Option<Duration>,
) -> Result<(), Errno> {
    let timeout = timeout.map(|timeout| Timespec {
        // A time beyond what the kernel can count is as good as for ever.
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    futex::wait(word, Flags::empty(), expected, timeout.as_ref())
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// Wakes the one process that sleeps on `word`.
pub(crate) fn wake(word: &AtomicU32) {
    // A failure leaves nothing to do: the word is mapped, and a peer that is not woken looks again
    // when its patience ends.
    let _ = futex::wake(word, Flags::empty(), 1);
}
