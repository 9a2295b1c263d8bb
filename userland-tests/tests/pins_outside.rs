//! Pins, and what reaches the process that pins from outside of its sandbox, where nobody is held: writes by a process that it
//! has given its memory to, and signals; and that each of these would be noticed.
//!
//! `unsafe` is here for descriptors that a guest has sent.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use userland_tests::linux::{self, Feature};
use userland_tests::{Directory, Ended, finish, guest_under, guest_under_with, wait_for};

/// A page of memory that another process writes to.
#[derive(Clone, Copy)]
enum Target {
    /// That of the parameters, where the limit is.
    Limit,
    /// That of the instruction.
    Code,
}

impl Target {
    /// What `/proc/PID/maps` says of what may be done with it.
    fn protection(self) -> &'static str {
        match self {
            Target::Limit => "rw-",
            Target::Code => "r-x",
        }
    }

    /// Where in the page something is written, and what.
    fn write(self) -> (u64, &'static [u8]) {
        match self {
            // Where it is altered, it is one that the sandbox may pin, too.
            Target::Limit => (32, &[0xff, 0x1f]),
            // An instruction that there is none of.
            Target::Code => (0, &[0x0f, 0x0b]),
        }
    }
}

/// The memory of a process, and what lies where in it, as it has sent them.
struct Memory {
    memory: File,
    maps: File,
}

impl Memory {
    fn receive(socket: &UnixStream) -> Memory {
        let (mut byte, mut space) = ([0], cmsg_space!([i32; 2]));
        let mut data = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), flags);
        let received = received.expect("a message");
        let mut rights = received.cmsgs().expect("what came with it");
        let Some(ControlMessageOwned::ScmRights(descriptors)) = rights.next() else {
            panic!("no descriptors");
        };
        let files = descriptors.into_iter().map(owned).map(File::from);
        let [memory, maps] = files.collect::<Vec<File>>().try_into().expect("two files");
        Memory { memory, maps }
    }

    /// Where pages of this protection lie alone.
    fn pages(&self, protection: &str) -> Vec<u64> {
        let mut text = vec![0; 1 << 20];
        // A process that has ended has none.
        let length = self.maps.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        let page = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16));
            let (start, end) = (start.ok()?, end.ok()?);
            (end - start == 4096 && rest.starts_with(protection)).then_some(start)
        };
        text.lines().filter_map(page).collect()
    }

    /// Writes to such a page that was not there `before`, so many milliseconds after it has appeared. What came of it; `None`
    /// if there was none.
    fn attack(&self, target: Target, before: &[u64], delay: u64) -> Option<Result<usize, Errno>> {
        let new = || {
            let pages = self.pages(target.protection());
            // There is nothing any more when the process has ended.
            let is_over = pages.is_empty() && self.pages("").is_empty();
            let page = pages.into_iter().find(|page| !before.contains(page));
            (page, is_over)
        };
        let page = loop {
            match new() {
                (Some(page), _) => break page,
                (None, true) => return None,
                (None, false) => {}
            }
        };
        std::thread::sleep(Duration::from_millis(delay));
        let (at, bytes) = target.write();
        let written = self.memory.write_at(bytes, page + at);
        Some(written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))))
    }
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just put it into this process's table.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

type Attack = JoinHandle<Option<Result<usize, Errno>>>;

/// Waits for the process that pins and then, while it does, writes to its memory.
fn attack(listener: UnixListener, target: Target, delay: u64) -> Attack {
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let memory = Memory::receive(&socket);
        let before = memory.pages(target.protection());
        socket.write_all(&[0]).expect("the socket");
        memory.attack(target, &before, delay)
    })
}

/// Pins once while a process outside writes to its memory; what came of the pin and of the write.
fn attacked(target: Target, delay: u64, rules: &str) -> (Ended, Option<Result<usize, Errno>>) {
    let directory = Directory::new("outside");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let shown = directory.path().to_str().expect("a path of text");
    let scenario = ["pin-handed-out", path.to_str().expect("a path of text")];
    let mut command = guest_under_with(rules, &["--bind", shown], &scenario);
    let pinning = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ringfence");
    let attack = attack(listener, target, delay);
    let ended = wait_for(pinning);
    (ended, attack.join().expect("the attack"))
}

/// What the kernel says to who reaches for what it lets nobody reach.
const REFUSED: Option<Result<usize, Errno>> = Some(Err(Errno::EIO));

#[test]
fn what_is_pinned_cannot_be_altered_from_outside_of_the_sandbox() {
    if !linux::has(Feature::SecretMemory) {
        return;
    }
    let pinned = Ended::printing("pinned: ok\naltered: false\n");
    let attacked = attacked(Target::Limit, 500, "sentry.pin-checked=delay:1000");
    assert_eq!(attacked, (pinned, REFUSED));
}

/// The test above can fail: in memory like any other the limit is altered after it was looked at.
#[test]
fn what_is_pinned_is_altered_from_outside_of_the_sandbox_in_memory_like_any_other() {
    let altered = Ended::printing("pinned: ok\naltered: true\n");
    let mut attempts = [500, 1000, 2000, 4000].into_iter().map(|delay| {
        let rules = format!(
            "sentry.pin-secret=drop sentry.pin-checked=delay:{}",
            2 * delay
        );
        attacked(Target::Limit, delay, &rules)
    });
    let attempt = attempts.find(|(ended, written)| *ended == altered && *written == Some(Ok(2)));
    assert!(attempt.is_some(), "it did not happen");
}

/// Whatever the kernel has for the parameters.
#[test]
fn the_code_of_a_pin_cannot_be_altered_from_outside_of_the_sandbox() {
    for further in ["", "sentry.pin-secret=drop"] {
        let pinned = Ended::printing("pinned: ok\naltered: false\n");
        let rules = format!("sentry.pin-checked=delay:1000 {further}");
        let attacked = attacked(Target::Code, 500, &rules);
        assert_eq!(attacked, (pinned, REFUSED), "{further}");
    }
}

/// The test above can fail: the thread with the lent descriptor executes what was written.
#[test]
fn the_code_of_a_pin_is_altered_from_outside_of_the_sandbox_if_it_is_a_copy() {
    let rules = "sentry.pin-shared=drop sentry.pin-checked=delay:1000";
    let (ended, written) = attacked(Target::Code, 500, rules);
    assert_eq!((ended.status, written), (137, Some(Ok(2))), "{ended:?}");
}

/// A process is stopped while it pins, and, if there is a second number, continued; by which signals is for the caller to say.
fn stopped(milliseconds: &[&str], rules: &str) -> Ended {
    // The first when nobody but the thread that issues the request can take a signal; the second once it has.
    let rules = format!("sentry.pin-checked=delay:1000 sentry.pin-issued=delay:1500 {rules}");
    finish(&mut guest_under(
        &rules,
        &[&["pin-stopped"], milliseconds].concat(),
    ))
}

#[test]
fn who_is_stopped_while_it_pins_stops() {
    let expected = "stopped: SIGSTOP\npinned: ok\ntrue\n";
    assert_eq!(stopped(&["500"], ""), Ended::printing(expected));
}

/// The kernel knows what came last.
#[test]
fn who_is_stopped_and_continued_while_it_pins_goes_on() {
    let expected = Ended::printing("pinned: ok\ntrue\n");
    let mut attempts = (0..3).map(|_| stopped(&["500", "1800"], ""));
    assert!(attempts.any(|ended| ended == expected), "it did not happen");
}

/// The first of the two tests above can fail.
#[test]
fn who_is_stopped_while_it_pins_goes_on_if_the_signal_is_lost() {
    let expected = Ended::printing("pinned: ok\ntrue\n");
    let mut attempts = (0..3).map(|_| stopped(&["500"], "sentry.pin-stop=drop"));
    assert!(attempts.any(|ended| ended == expected), "it did not happen");
}
