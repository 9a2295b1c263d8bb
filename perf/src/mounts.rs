//! A mount namespace in which the host's files are the root of containers.
//!
//! The idea: a container needs a root of its own, and here it is to be the host's, so that each way runs the very same
//! files. `/` itself cannot be named, since a container's own mounts would go there. So it is mounted again in a directory
//! of this tool's, in a namespace of this tool's. Neither the host nor this process's other threads have that namespace:
//! a thread enters it, starts a program, and ends. That has a second reason. This tool removes its directory with all that
//! it holds, and must never find the host's files there.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// The namespace. It is gone once this and the programs in it are.
#[derive(Debug)]
pub struct Mounts(File);

const NOTHING: Option<&str> = None;

impl Mounts {
    /// One in which everything is to be found at `place` as well, an empty directory.
    pub fn with_root_at(place: &Path) -> io::Result<Mounts> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
            // From here on nothing that is mounted here is on the host, nor the other way round.
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(NOTHING, "/", NOTHING, flags, NOTHING)?;
            let flags = MsFlags::MS_REC | MsFlags::MS_BIND;
            mount(Some("/"), place, NOTHING, flags, NOTHING)?;
            File::open("/proc/thread-self/ns/mnt").map(Mounts)
        })
    }

    /// Starts a program in it.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        in_thread(|| {
            // Nobody who shares a root and a working directory with others can change namespaces.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.0, CloneFlags::CLONE_NEWNS)?;
            command.spawn()
        })
    }
}

/// Does it in a thread that ends with it. The thread has the caller's processors.
fn in_thread<T: Send>(does: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let ended = thread::Builder::new().spawn_scoped(scope, does)?.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ringfence_programs::leftovers::Directory;

    use super::*;

    fn own_mounts() -> String {
        fs::read_to_string("/proc/self/mounts").expect("mounts")
    }

    #[test]
    fn who_is_started_there_sees_the_root_and_nobody_else_does() {
        if !nix::unistd::geteuid().is_root() {
            // Nobody but root makes a mount namespace.
            return;
        }
        let directory = Directory::new().expect("a directory");
        let place = directory.path().join("root");
        fs::create_dir(&place).expect("a directory");
        let before = own_mounts();
        let mounts = Mounts::with_root_at(&place).expect("a namespace");
        assert_eq!(fs::read_dir(&place).expect("the place").count(), 0);
        let mut inside = Command::new("test");
        inside.arg("-e").arg(place.join("proc/self/mounts"));
        let status = mounts.spawn(&mut inside).and_then(|mut child| child.wait());
        assert!(status.expect("an end").success());
        // The calling thread is where it was, and so is what it starts.
        assert!(!inside.status().expect("an end").success());
        assert_eq!(own_mounts(), before);
        drop(mounts);
        drop(directory);
        assert!(!place.exists() && Path::new("/proc/self/mounts").exists());
    }
}
