//! A cgroup whose processes are frozen and thawed again and again.
//!
//! The freezer of cgroups (version 2; what `docker pause` uses) takes every process out of its wait in the kernel, in
//! the middle of any system call. Once thawed, calls begin anew or fail, without a signal. No program can block that.
//!
//! `unsafe` is here for what happens between fork and exec.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::LIMIT;

/// So long a cgroup stays thawed for its processes to get a processor. They may have nothing to do.
const UNTIL_THEY_RUN: Duration = Duration::from_millis(20);

/// A cgroup that is removed, with all processes in it, when this is dropped.
pub struct Freezer {
    cgroup: PathBuf,
    /// Keeps the hierarchy mounted, if this mounted it.
    _mount: Option<OwnedFd>,
}

impl Freezer {
    /// Makes a cgroup below this process's own, or else, in a mount that only this process sees, below the hierarchy's
    /// root. Fails where the user may do neither.
    pub fn new() -> io::Result<Freezer> {
        if let Some(cgroup) = own_cgroup().and_then(|own| child_of(&own).ok()) {
            return Ok(Freezer {
                cgroup,
                _mount: None,
            });
        }
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(&context, flags, MountAttrFlags::empty())?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Freezer {
            cgroup: child_of(&root)?,
            _mount: Some(mount),
        })
    }

    /// Lets `command` run in the cgroup.
    pub fn contain(&self, command: &mut Command) -> io::Result<()> {
        let mut processes = File::create(self.cgroup.join("cgroup.procs"))?;
        // SAFETY: between fork and exec this makes one system call, on a descriptor that is open, and allocates nothing.
        unsafe { command.pre_exec(move || processes.write_all(b"0")) };
        Ok(())
    }

    /// Does `work` while the cgroup is frozen and thawed every few milliseconds.
    pub fn freezing_while<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let moments = (0..4).map(|step| Duration::from_micros(400 + 800 * step));
                for moment in moments.cycle() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    self.write("cgroup.freeze", "1").expect("freezing");
                    std::thread::sleep(moment);
                    let had = self.processor_time();
                    self.write("cgroup.freeze", "0").expect("thawing");
                    std::thread::sleep(moment / 2);
                    // Where others keep the processors nothing would ever get on.
                    let deadline = Instant::now() + UNTIL_THEY_RUN;
                    while self.processor_time() == had && Instant::now() < deadline {
                        std::thread::sleep(moment / 2);
                    }
                }
            });
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            over.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How long its processes have had a processor, in microseconds (cgroup-v2.rst).
    fn processor_time(&self) -> Option<u64> {
        let text = fs::read_to_string(self.cgroup.join("cpu.stat")).ok()?;
        let usage = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?;
        usage.parse().ok()
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.cgroup.join(file), value)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // What a failed test leaves behind must not hide why it failed.
        let _ = self.write("cgroup.freeze", "0");
        let _ = self.write("cgroup.kill", "1");
        let deadline = Instant::now() + LIMIT;
        // It cannot be removed before the last process has ended.
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The directory of this process's cgroup, if the hierarchy is mounted (cgroups(7), proc_pid_mountinfo(5)).
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let place = mount.split(' ').nth(4)?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(place).join(own))
}

/// Makes a cgroup below `parent`, which the user must be allowed to move processes in.
fn child_of(parent: &Path) -> io::Result<PathBuf> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    File::options()
        .write(true)
        .open(parent.join("cgroup.procs"))?;
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringfence-test-{}-{number}", std::process::id());
    let cgroup = parent.join(name);
    fs::create_dir(&cgroup)?;
    Ok(cgroup)
}
