//! Pipes that the program inherits to read from: it gets others, and the launcher fills them.
//!
//! Whoever has a pipe, be it to read, can open it anew to write, through `/proc/self/fd`, if it is the same user's. No mount and
//! no Landlock domain covers pipes without a name. So a program that was given its caller's could say something to
//! whoever else reads from it: commands to the shell that reads its script from there. What is done with the program's own
//! pipe concerns nobody else. A pipe that the program was given to be written as well is left as it is: a jobserver's, say.
//!
//! Others may go on reading where the program has stopped, as natively. So what is in the caller's pipe stays there until the
//! program has taken it: the launcher *lends* a copy of what comes next (tee(2)), at most a page at a time, and takes
//! as much out of the caller's pipe once the program has read it. The program's pipe has room for one page and so is
//! writable only when it is empty, which says that all was read. A program can make it larger. So what is in it is counted
//! before anything is taken; if there is anything, the pipe is made small again, as far as that can be. When nobody has its end
//! any more, or the sandbox ends, what is left in it was not read, and nothing of that is taken.
//!
//! Neither the launcher nor anybody else of Ringfence keeps the caller's pipe open for longer than that: who writes to it
//! gets SIGPIPE when the program reads no more, and the program finds the end when the last writer has closed it.
//!
//! A thread of the launcher for each pipe does it. It takes no memory and no lock from the moment at which [`Inputs::copy`]
//! returns, as those of `pipes.rs`.
//!
//! `unsafe` is here because descriptors are put in the place of others, which are inherited as bare numbers.

#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, fstat};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{A_THREAD, Attempt, Failure};
use rustix::io::ioctl_fionread;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice, tee};

use super::copying::STACK;
use super::descriptors;

/// At most so many bytes are lent at once: a page, also where the program has made its pipe larger.
const PIECE: usize = 4 << 10;
/// Room for one page, whatever a page is here: the kernel rounds up.
const ONE_PAGE: usize = 1;
/// How often it is looked whether a program has read all, where that it has does not wake whoever waits for it.
const LOOK: Duration = Duration::from_millis(10);

/// The launcher's ends of the program's pipes. Until they are dropped the program's input does not end.
pub struct Inputs(Vec<Input>);

struct Input {
    /// The inherited descriptors of the caller's pipe.
    numbers: Vec<RawFd>,
    to: PipeWriter,
}

/// The program's ends, and in the place of which descriptors they are to be.
pub struct ProgramEnds(Vec<(PipeReader, Vec<RawFd>)>);

/// Makes a pipe in the place of each that is one of `inherited` and was opened to be read only.
pub fn create(inherited: &[BorrowedFd<'_>]) -> Result<(Inputs, ProgramEnds), Failure> {
    let (mut inputs, mut ends) = (Inputs(Vec::new()), ProgramEnds(Vec::new()));
    // For the test of what happens without this.
    if ringfence_faults::at(Point::Inputs) == Some(Act::Drop) {
        return Ok((inputs, ends));
    }
    let pipes: Vec<Inherited> = inherited
        .iter()
        .filter_map(|descriptor| Inherited::look(*descriptor))
        .collect();
    for (place, pipe) in pipes.iter().enumerate() {
        let is_same = |other: &&Inherited| other.file == pipe.file;
        let is_written = pipes.iter().filter(is_same).any(Inherited::is_written);
        if is_written || pipes.iter().take(place).any(|other| is_same(&other)) {
            continue;
        }
        let numbers: Vec<RawFd> = pipes.iter().filter(is_same).map(|one| one.number).collect();
        let (end, to) = io::pipe().attempt("pipe")?;
        fcntl_setpipe_size(&to, ONE_PAGE).attempt("the size of a pipe")?;
        let kept = pipe.flags & OFlag::O_NONBLOCK;
        fcntl(&end, FcntlArg::F_SETFL(kept)).attempt("the flags of a pipe")?;
        ends.0.push((end, numbers.clone()));
        inputs.0.push(Input { numbers, to });
    }
    Ok((inputs, ends))
}

/// A pipe that was inherited.
struct Inherited {
    number: RawFd,
    file: (libc::dev_t, libc::ino_t),
    flags: OFlag,
}

impl Inherited {
    /// `None` if it is something else, or nothing.
    fn look(descriptor: BorrowedFd<'_>) -> Option<Inherited> {
        let FileStat {
            st_mode,
            st_dev,
            st_ino,
            ..
        } = fstat(descriptor).ok()?;
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).ok()?;
        (st_mode & libc::S_IFMT == libc::S_IFIFO).then_some(Inherited {
            number: descriptor.as_raw_fd(),
            file: (st_dev, st_ino),
            flags: OFlag::from_bits_retain(flags),
        })
    }

    fn is_written(&self) -> bool {
        self.flags & OFlag::O_ACCMODE != OFlag::O_RDONLY
    }
}

impl ProgramEnds {
    /// Puts them in the place of the caller's pipes, in a process of the sandbox.
    pub fn take_place(self) -> Result<(), Failure> {
        for (end, numbers) in self.0 {
            let end = OwnedFd::from(end);
            for number in numbers {
                // SAFETY: nothing reads the description by another number, or counts on it.
                unsafe { descriptors::put_in_place(&end, number) }?;
            }
        }
        Ok(())
    }
}

/// The threads that copy.
pub struct Copying {
    threads: Vec<JoinHandle<()>>,
    /// That it is closed says that the sandbox is gone.
    over: PipeWriter,
}

impl Inputs {
    /// Takes the caller's pipes from the numbers that this process has inherited them by, and starts to copy.
    pub fn copy(self) -> Result<Copying, Failure> {
        let (is_over, over) = io::pipe().attempt("pipe")?;
        let started = Arc::new(Barrier::new(1 + self.0.len()));
        // A test leaves this out, to show that it would notice.
        let counts_unread = ringfence_faults::at(Point::Unread) != Some(Act::Drop);
        let mut threads = Vec::new();
        for Input { numbers, to } in self.0 {
            let source = Source {
                from: take(&numbers)?,
                to,
                nowhere: nowhere()?,
                is_over: is_over.try_clone().attempt("pipe")?,
                counts_unread,
            };
            let started = Arc::clone(&started);
            let thread = thread::Builder::new()
                .name("input".to_owned())
                .stack_size(STACK)
                .spawn(move || {
                    started.wait();
                    source.copy();
                });
            threads.push(thread.attempt(A_THREAD)?);
        }
        started.wait();
        Ok(Copying { threads, over })
    }
}

impl Copying {
    /// Ends the copying, since the sandbox has ended. What its programs have read is out of the caller's pipes then, and
    /// nothing else.
    pub fn finish(self) {
        drop(self.over);
        for thread in self.threads {
            // These threads do not panic.
            let _ = thread.join();
        }
    }
}

/// Takes a pipe that was inherited by these numbers, which then are of nothing.
fn take(numbers: &[RawFd]) -> Result<OwnedFd, Failure> {
    let mut taken = None;
    for number in numbers {
        // SAFETY: it is inherited, and nothing closes it.
        let inherited = unsafe { BorrowedFd::borrow_raw(*number) };
        taken = Some(
            inherited
                .try_clone_to_owned()
                .attempt("an inherited pipe")?,
        );
        let flags = fcntl(inherited, FcntlArg::F_GETFD).attempt("an inherited pipe")?;
        // SAFETY: this process reads nothing by such a number.
        unsafe { descriptors::put_in_place(&nowhere()?, *number) }?;
        let flags = FcntlArg::F_SETFD(FdFlag::from_bits_retain(flags));
        fcntl(inherited, flags).attempt("an inherited pipe")?;
    }
    taken.ok_or_else(|| Failure::setup("an inherited pipe has no number"))
}

fn nowhere() -> Result<OwnedFd, Failure> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).attempt("/dev/null")
}

/// A caller's pipe that is copied from.
struct Source {
    from: OwnedFd,
    to: PipeWriter,
    /// Where goes what the program has read.
    nowhere: OwnedFd,
    is_over: PipeReader,
    /// Whether what the program has not read is counted.
    counts_unread: bool,
}

impl Source {
    /// Copies until nobody is left who could read or write.
    fn copy(self) {
        let mut lent = 0;
        // One after the other: what is awaited at both would be there at once again and again.
        while self.is_ready(self.to.as_fd(), PollFlags::POLLOUT, PollTimeout::NONE) {
            if !self.is_all_read() {
                // There is room all the same: the program has made its pipe larger. It fails as long as much is in it.
                let _ = fcntl_setpipe_size(&self.to, ONE_PAGE);
                let limit = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
                if !self.is_ready(self.to.as_fd(), PollFlags::empty(), limit) {
                    break;
                }
                continue;
            }
            self.take(std::mem::take(&mut lent));
            if !self.is_ready(self.from.as_fd(), PollFlags::POLLIN, PollTimeout::NONE) {
                break;
            }
            match tee(&self.from, &self.to, PIECE, SpliceFlags::NONBLOCK) {
                Ok(0) => break,
                Ok(length) => lent = length,
                // Somebody else has read it, or the program has written to its pipe itself.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let unread = ioctl_fionread(&self.to).map_or(lent, |unread| unread as usize);
        self.take(lent.saturating_sub(unread));
    }

    /// Whether nothing is left in the program's pipe.
    fn is_all_read(&self) -> bool {
        !self.counts_unread || ioctl_fionread(&self.to).is_ok_and(|unread| unread == 0)
    }

    /// Waits for this, at most for as long as `limit`; false if nobody can read any more, or the sandbox is gone.
    fn is_ready(&self, awaited: BorrowedFd<'_>, events: PollFlags, limit: PollTimeout) -> bool {
        let mut polled = [
            PollFd::new(awaited, events),
            PollFd::new(self.to.as_fd(), PollFlags::empty()),
            PollFd::new(self.is_over.as_fd(), PollFlags::empty()),
        ];
        loop {
            match poll(&mut polled, limit) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        let [_, to, is_over] = polled.map(|polled| polled.any() == Some(true));
        !to && !is_over
    }

    /// Takes so many bytes out of the caller's pipe, if nobody else has.
    fn take(&self, mut length: usize) {
        while length > 0 {
            let taken = splice(
                &self.from,
                None,
                &self.nowhere,
                None,
                length,
                SpliceFlags::NONBLOCK,
            );
            match taken {
                Ok(taken) if taken > 0 => length = length.saturating_sub(taken),
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }
}
