//! A process without a filter beside one that has it, in a test build: every request on every descriptor that it can
//! get.
//!
//! The filtered process opens and pins as programs do. The other, which nothing keeps from the kernel but its
//! credentials and its Landlock domain, tries to reach the driver's nodes: by what it is sent, by what it copies, opens
//! anew, inherits, opens by path and makes. A request that Landlock withholds fails with `EACCES`; any other outcome
//! means that it reached the device, which is all that there is to see where the kernel cannot withhold ioctl. What the nodes are does not matter, if only they are character devices.
//!
//! `unsafe` is here because an ioctl takes an address.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev, minor, mknod};
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::{Pid, getppid};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use ringfence::guest::{Client, open};
use ringfence_ipc::Socket;
use rustix::process::{self, PidfdFlags, PidfdGetfdFlags};

use crate::Outcome;
use crate::children::child;
use crate::gpu::DEVICE;
use crate::pinning::patiently;

const MEETING_POINT: &str = "/dev/shm/attack";
/// Where nodes of the attacker's own are made.
const OWN: &str = "/dev/shm/own";
const PINS: u32 = 50;
/// FIGETBSZ of linux/fs.h: among UVM's numbers, but answered by the kernel's file system layer for any file. Landlock
/// lets it pass, and no device sees it.
const BLOCK_SIZE: u32 = 2;
const NODES: [Node; 3] = [Node::Control, Node::Gpu(0), Node::Uvm];

/// Becomes the one or the other.
pub fn scenario(_: &[String]) -> Outcome {
    match std::env::var_os("RINGFENCE_UNFILTERED") {
        None => filtered(),
        Some(_) => unfiltered(),
    }
}

/// Opens, pins, and tells the other of it.
fn filtered() -> Outcome {
    let listener = UnixListener::bind(MEETING_POINT)?;
    let (stream, _) = listener.accept()?;
    let mut stream_end = stream.try_clone()?;
    let socket = Socket::from(OwnedFd::from(stream));
    let mut step = || stream_end.read_exact(&mut [0]);
    let files = NODES.map(open).into_iter().collect::<Result<Vec<_>, _>>()?;
    for file in &files {
        socket.send(file.as_raw_fd() as u64, file.as_fd())?;
    }
    step()?;
    let client = Client {
        control: files[0].try_clone()?,
        root: 1,
    };
    let memory = vec![0u8; 1 << 16];
    let mut outcomes = BTreeSet::new();
    for _ in 0..PINS {
        let pinned = patiently(|| client.pin(&files[1], DEVICE, 2, memory.as_ptr(), 4096));
        outcomes.insert(format!("{pinned:?}"));
    }
    println!("{PINS} pins: {outcomes:?}");
    socket.send(0, files[0].as_fd())?;
    step()?;
    match wait()? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(format!("the other ended with {other:?}").into()),
    }
}

/// Tries everything before, during and after the other's pins.
fn unfiltered() -> Outcome {
    let stream = meet()?;
    let mut stream_end = stream.try_clone()?;
    let socket = Socket::from(OwnedFd::from(stream));
    let mut step = || std::io::Write::write_all(&mut stream_end, &[0]);
    let attack = Attack::new(getppid())?;
    let received = NODES.map(|_| socket.receive());
    let received = received.into_iter().collect::<Result<Vec<_>, _>>()?;
    attack.everything(&received)?.print("before");
    step()?;
    // What the other sends when it is done can be received without waiting.
    socket.set_nonblocking(true)?;
    let mut during = Findings::default();
    while socket.receive().is_err() {
        attack.copies(&mut during);
    }
    during.print("during");
    attack.everything(&received)?.print("after");
    Ok(step()?)
}

fn meet() -> Result<UnixStream, Box<dyn std::error::Error>> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(MEETING_POINT) {
            Ok(stream) => return Ok(stream),
            Err(error) if started.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What requests came to.
#[derive(Debug, Default)]
struct Findings {
    /// Requests that Landlock withheld.
    withheld: u64,
    /// What others came to, on nodes that requests to the resource manager are made on.
    reached: BTreeSet<String>,
    /// What others came to on UVM's node.
    reached_uvm: BTreeSet<String>,
}

impl Findings {
    fn print(&self, when: &str) {
        let tried = self.withheld > 0 || !self.reached.is_empty();
        assert!(tried, "{when}: nothing was tried");
        let word = |reached: &BTreeSet<String>| match reached.len() {
            0 => "withheld".to_owned(),
            _ => format!("reached: {reached:?}"),
        };
        println!("{when}: {}", word(&self.reached));
        if !self.reached_uvm.is_empty() {
            println!("{when}, UVM: reached");
        }
    }

    /// Tries `requests` on `file`, if it is one of the driver's nodes.
    fn request(&mut self, attack: &Attack, file: &(impl AsFd + AsRawFd), requests: &[u32]) {
        let number = fstat(file).map(|status| status.st_rdev);
        let Some(number) = number.ok().filter(|number| attack.numbers.contains(number)) else {
            return;
        };
        let is_uvm = number == attack.uvm;
        let mut argument = [0u64; 2048];
        for request in requests {
            // SAFETY: the argument is larger than any that a request's 14 bits of size can mean.
            let result = unsafe {
                libc::ioctl(
                    file.as_raw_fd(),
                    libc::Ioctl::from(*request),
                    argument.as_mut_ptr(),
                )
            };
            match Errno::result(result) {
                Err(Errno::EACCES) => self.withheld += 1,
                outcome if is_uvm => drop(self.reached_uvm.insert(format!("{outcome:?}"))),
                outcome => drop(self.reached.insert(format!("{request:#x}: {outcome:?}"))),
            }
            argument.fill(0);
        }
    }
}

struct Attack {
    victim: Pid,
    pidfd: OwnedFd,
    /// The device numbers of the driver's nodes, and UVM's.
    numbers: Vec<u64>,
    uvm: u64,
    /// Every request number, with many sizes and in both directions.
    requests: Vec<u32>,
}

impl Attack {
    fn new(victim: Pid) -> Result<Attack, Box<dyn std::error::Error>> {
        let pidfd = pidfd_open(victim.as_raw(), 0).ok_or("no pidfd")?;
        let number = |node: Node| fs::metadata(path(node)).map(|status| status.rdev());
        let numbers = NODES
            .map(number)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let sizes = (0..=64).step_by(8).chain([4, 12, 128, 4096, 16383]);
        let of_the_driver =
            sizes.flat_map(|size| (0..256).map(move |number| ioctl_word(number, size)));
        let plain = (0..256).map(|number| u32::from(b'F') << 8 | number);
        let of_uvm = (0..256).chain([UVM_INITIALIZE, UVM_DEINITIALIZE]);
        let of_uvm = of_uvm.filter(|request| *request != BLOCK_SIZE);
        Ok(Attack {
            victim,
            pidfd,
            uvm: numbers[2],
            numbers,
            requests: of_the_driver.chain(plain).chain(of_uvm).collect(),
        })
    }

    /// Every request on whatever can be had.
    fn everything(
        &self,
        received: &[(u64, OwnedFd)],
    ) -> Result<Findings, Box<dyn std::error::Error>> {
        let mut findings = Findings::default();
        for (number, file) in received {
            self.all(&mut findings, file);
            self.all(&mut findings, &file.try_clone()?);
            self.own_and_others(&mut findings, file.as_raw_fd(), *number as RawFd);
        }
        self.by_path(&mut findings);
        self.made(&mut findings);
        for privileged in [false, true] {
            self.in_a_child(&mut findings, received, privileged)?;
        }
        Ok(findings)
    }

    fn all(&self, findings: &mut Findings, file: &(impl AsFd + AsRawFd)) {
        findings.request(self, file, &self.requests);
    }

    /// Opens anew what this process and the victim have, and copies what the victim has.
    fn own_and_others(&self, findings: &mut Findings, own: RawFd, other: RawFd) {
        for path in [
            format!("/proc/self/fd/{own}"),
            format!("/proc/{}/fd/{other}", self.victim),
        ] {
            self.opened(findings, &path);
        }
        if let Some(copy) = copy(&self.pidfd, other) {
            self.all(findings, &copy);
        }
    }

    /// Opens `path` in every mode, the one for ioctls alone (3, open(2)) included.
    fn opened(&self, findings: &mut Findings, path: &str) {
        for mode in [
            libc::O_RDONLY,
            libc::O_WRONLY,
            libc::O_RDWR,
            3,
            libc::O_PATH,
        ] {
            let flags = OFlag::from_bits_retain(mode | libc::O_CLOEXEC | libc::O_NONBLOCK);
            let Ok(file) = open_file(path, flags, Mode::empty()) else {
                continue;
            };
            if mode != libc::O_PATH {
                self.all(findings, &file);
                continue;
            }
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            for mode in [libc::O_RDONLY, libc::O_RDWR, 3] {
                let flags = OFlag::from_bits_retain(mode | libc::O_CLOEXEC);
                if let Ok(file) = open_file(again.as_str(), flags, Mode::empty()) {
                    self.all(findings, &file);
                }
            }
        }
    }

    fn by_path(&self, findings: &mut Findings) {
        for node in NODES {
            let name = node.file_name();
            let link = format!("{OWN}-link-{name}");
            let hard_link = format!("/dev/hard-link-{name}");
            let _ = std::os::unix::fs::symlink(path(node), &link);
            let _ = fs::hard_link(path(node), &hard_link);
            for path in [
                path(node),
                format!("/dev/shm/../{name}"),
                format!("/proc/self/root/dev/{name}"),
                format!("/proc/{}/root/dev/{name}", self.victim),
                format!("/proc/1/root/dev/{name}"),
                link,
                hard_link,
            ] {
                self.opened(findings, &path);
            }
        }
    }

    /// Nodes of its own with the driver's numbers.
    fn made(&self, findings: &mut Findings) {
        for (index, number) in self.numbers.iter().enumerate() {
            let path = format!("{OWN}-node-{index}");
            let device = makedev(major(*number), minor(*number));
            let _ = mknod(path.as_str(), SFlag::S_IFCHR, Mode::S_IRWXU, device);
            self.opened(findings, &path);
        }
    }

    /// The same from a child, which inherits the descriptors; if `privileged`, with every capability in namespaces of
    /// its own, in which it takes away the mounts that cover the nodes.
    fn in_a_child(
        &self,
        findings: &mut Findings,
        received: &[(u64, OwnedFd)],
        privileged: bool,
    ) -> Outcome {
        let (mut ours, theirs) = std::io::pipe()?;
        let child = child(|| {
            let mut findings = Findings::default();
            if privileged {
                privilege_and_uncover();
            }
            for (number, file) in received {
                self.all(&mut findings, file);
                self.own_and_others(&mut findings, file.as_raw_fd(), *number as RawFd);
            }
            self.by_path(&mut findings);
            self.made(&mut findings);
            std::io::Write::write_all(&mut &theirs, &findings.withheld.to_ne_bytes())?;
            for reached in findings.reached {
                std::io::Write::write_all(&mut &theirs, reached.as_bytes())?;
            }
            Ok(())
        })?;
        drop(theirs);
        let mut withheld = [0; 8];
        let mut reached = String::new();
        ours.read_exact(&mut withheld)?;
        ours.read_to_string(&mut reached)?;
        findings.withheld += u64::from_ne_bytes(withheld);
        if !reached.is_empty() {
            findings.reached.insert(reached);
        }
        match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("a child ended with {other:?}").into()),
        }
    }

    /// The one request that a pin is, on copies of whatever each thread of the victim has right now.
    fn copies(&self, findings: &mut Findings) {
        let pin = [ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56)];
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.victim)) else {
            return;
        };
        for thread in threads.filter_map(Result::ok) {
            let name = thread.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let pidfd = number.and_then(|number| pidfd_open(number, libc::PIDFD_THREAD));
            for number in 3..24 {
                if let Some(copy) = pidfd.as_ref().and_then(|pidfd| copy(pidfd, number)) {
                    findings.request(self, &copy, &pin);
                }
                let path = thread.path().join(format!("fd/{number}"));
                let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                if let Ok(file) = open_file(&path, flags, Mode::empty()) {
                    findings.request(self, &file, &pin);
                }
            }
        }
    }
}

/// A descriptor for a process, or for one of its threads (pidfd_open(2)).
fn pidfd_open(task: libc::pid_t, flags: libc::c_uint) -> Option<OwnedFd> {
    let task = process::Pid::from_raw(task)?;
    process::pidfd_open(task, PidfdFlags::from_bits_retain(flags)).ok()
}

/// A duplicate of another task's descriptor (pidfd_getfd(2)).
fn copy(pidfd: &OwnedFd, number: RawFd) -> Option<OwnedFd> {
    process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).ok()
}

/// Takes every capability that it can get, and tries to have the nodes on mounts that allow devices. What fails, fails:
/// what counts is what can be reached afterwards.
fn privilege_and_uncover() {
    const NONE: Option<&str> = None;
    let ids = format!("{0} {0} 1", nix::unistd::getuid());
    let _ = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    let _ = fs::write("/proc/self/uid_map", ids);
    let directory = format!("{OWN}-mounts");
    let _ = fs::create_dir(&directory);
    let _ = mount(
        Some("devtmpfs"),
        directory.as_str(),
        Some("devtmpfs"),
        MsFlags::empty(),
        NONE,
    );
    for node in NODES {
        let path = path(node);
        let _ = mount(
            NONE,
            path.as_str(),
            NONE,
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND,
            NONE,
        );
        let _ = umount2(path.as_str(), MntFlags::MNT_DETACH);
    }
    let _ = umount2("/dev", MntFlags::MNT_DETACH);
}

fn path(node: Node) -> String {
    format!("/dev/{}", node.file_name())
}
