//! Whether any task was made in the meantime.
//!
//! The kernel gives out the numbers of tasks in turn, and the last field of `/proc/loadavg` is the last one that it gave
//! out (fs/proc/loadavg.c in Linux), in the process namespace of whoever reads. Each task of the sandbox gets a number in
//! the sentry's, too. So as long as the field is the same, no process and no thread was made.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

/// The numbers of tasks that the sentry's process namespace gives out.
pub struct Numbers {
    load: File,
}

impl AsFd for Numbers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.load.as_fd()
    }
}

impl Numbers {
    /// To be opened before the sentry gets a `/proc` of its own, which has processes only. Whose `/proc` this one is does
    /// not matter.
    pub fn open() -> std::io::Result<Numbers> {
        let load = File::open("/proc/loadavg")?;
        Ok(Numbers { load })
    }

    /// The same, of a file that is open already.
    pub fn of(load: File) -> Numbers {
        Numbers { load }
    }

    /// The last number that was given out.
    pub fn last(&self) -> Result<u32, Errno> {
        let mut text = [0; 128];
        let length = self
            .load
            .read_at(&mut text, 0)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let text = text.get(..length).unwrap_or_default();
        let field = text.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
        field
            .and_then(|field| std::str::from_utf8(field).ok()?.parse().ok())
            .ok_or(Errno::EIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other processes of the machine may make tasks, too; but one made here is never missed.
    #[test]
    fn a_thread_is_noticed() {
        let numbers = Numbers::open().expect("the file");
        let before = numbers.last().expect("a number");
        std::thread::spawn(|| {}).join().expect("a thread");
        assert_ne!(numbers.last().expect("a number"), before);
    }
}
