//! What must not outlive this program: its processes, its files, its control groups.
//!
//! The idea: whatever would stay is noted here when it is made and struck off when it is gone. A signal that is to end
//! this program arrives at a thread that waits for it, which takes down everything noted and then ends the process. So
//! there is no moment at which an interrupted tool leaves a process that runs on, or one that is frozen for good.
//! Guests also end by themselves when their standard input does.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_ipc::locks::IgnorePoison;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::below;

struct Noted {
    /// As kill(2) names them: groups by negative numbers.
    processes: BTreeSet<i32>,
    /// Control groups, each after those that it is in.
    groups: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

static NOTED: Mutex<Noted> = Mutex::new(Noted {
    processes: BTreeSet::new(),
    groups: Vec::new(),
    directories: Vec::new(),
});

fn noted() -> MutexGuard<'static, Noted> {
    NOTED.lock().ignore_poison()
}

/// From now on a signal that is to end this program takes down first what is noted. To be called once. The signals are handled and
/// not blocked: programs that are started would have them blocked, too.
pub fn heed_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Kept, so that nothing is made any more.
            let noted = noted();
            take_down(&noted);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn take_down(noted: &Noted) {
    for process in &noted.processes {
        // It may have ended, and nobody has waited for it: its number is still its own.
        let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
    }
    below::kill_all();
    for group in noted.groups.iter().rev() {
        end_group(group);
    }
    for directory in &noted.directories {
        let _ = fs::remove_dir_all(directory);
    }
}

/// Ends what is in a control group, frozen or not, and removes the group.
fn end_group(group: &PathBuf) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
    // Who was killed leaves the group a moment later.
    for _ in 0..1000 {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

/// A child process is noted; [`process_was_awaited`] strikes it off.
pub fn note_process(process: u32) {
    noted().processes.insert(process as i32);
}

/// A child was waited for, and its number may be another's.
pub fn process_was_awaited(process: u32) {
    noted().processes.remove(&(process as i32));
}

/// A process that leads its group is noted, and with it the group; [`group_has_ended`] strikes it off.
pub fn note_group(leader: u32) {
    noted().processes.insert(-(leader as i32));
}

/// Nobody is left in the group that this process has led.
pub fn group_has_ended(leader: u32) {
    noted().processes.remove(&-(leader as i32));
}

/// A directory that vanishes with all that it holds when this is dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one where temporary files belong.
    pub fn new() -> std::io::Result<Directory> {
        let mut noted = noted();
        let made = tempfile::Builder::new().prefix("ringfence-").tempdir()?;
        let path = made.keep();
        noted.directories.push(path.clone());
        Ok(Directory(path))
    }

    pub fn path(&self) -> &PathBuf {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        noted().directories.retain(|path| *path != self.0);
    }
}

/// A control group that vanishes, and all its processes with it, when this is dropped.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Makes the group `path`.
    pub fn new(path: PathBuf) -> std::io::Result<Group> {
        let mut noted = noted();
        fs::create_dir(&path)?;
        noted.groups.push(path.clone());
        Ok(Group(path))
    }

    pub fn path(&self) -> &PathBuf {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        end_group(&self.0);
        noted().groups.retain(|path| *path != self.0);
    }
}
