//! The sandbox's own `/proc`, `/sys`, `/dev` and directories in memory, each made complete before anybody else could reach it.
//!
//! Names in the root of a sandbox can change while it is made: whoever owns the directory, a sandbox that was given it, exchanges
//! them. So nothing is made there. It is made in a file system in memory that is the root of the calling process for as
//! long. There all names are its own, and a path is what it says. Then each tree is moved as a whole to where it belongs, with all
//! that covers parts of it. Who exchanges names then moves a finished tree, or has it attached somewhere else.
//!
//! The calling process is process 1 of the tasks' namespace, and the only one that has its mount namespace and its root.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MntFlags, umount2};
use nix::unistd::{chroot, fchdir};
use nvproxy_protocol::size::Size;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::devices::Devices;
use super::kernel_mounts::{self, Cover, Kept};
use super::mounts::{READ_ONLY, RESTRICTED, Tree, directory_at};
use super::{kernel_files, namespaces};

/// Directories of the sandbox's own, empty at first, with their permissions. Where the last is a link it leads to the
/// one before.
pub const OWN: [(&str, u32); 4] = [
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/run", 0o755),
    ("/var/run", 0o755),
];
/// Another one, which is placed with the devices.
const SHARED: (&str, u32) = ("/dev/shm", 0o1777);
/// One file for as many bytes is allowed: each takes memory of its own, of which tmpfs counts nothing.
const BYTES_OF_A_FILE: u64 = 8 << 10;
/// At least as many files, however little memory they have.
const FILES: u64 = 1 << 10;
const PROC: &str = "/proc";
const SYS: &str = "/sys";
const DEV: &str = "/dev";
const NULL: &str = "/dev/null";
/// What belongs to `/sys`. Others that the host has mounted there are of no use to programs.
const OF_SYS: &[&str] = &["sysfs", "cgroup", "cgroup2"];

/// The kernel's own files, as they are.
#[derive(Debug)]
pub struct Kernels {
    proc: Tree,
    /// The host's, which may have none.
    sys: Option<Tree>,
}

impl Kernels {
    /// Takes them, while the host's are in sight: the kernel lets a process mount `/proc` only where it sees one.
    pub fn take() -> Result<Kernels, Failure> {
        let proc = namespaces::processes()?;
        let sys = match Tree::copy(Path::new(SYS)) {
            Err(nix::Error::ENOENT) => None,
            sys => Some(
                sys.and_then(|sys| sys.with_attributes(READ_ONLY))
                    .attempt(SYS)?,
            ),
        };
        Ok(Kernels { proc, sys })
    }

    /// Covers file systems of the kernel's in the host's tree, but for those that Ringfence will cover, and those that `sources`
    /// lie on, because the caller has named them. What covers what.
    pub fn cover_others<'a>(
        &self,
        sources: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> Result<HashMap<u64, Cover>, Failure> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Early) == Some(Act::Drop) {
            return Ok(HashMap::new());
        }
        // Nobody is kept from seeing what another mount hides: that is looked at in the end.
        let mut kept = Kept {
            paths_are_own: true,
            ..Kept::default()
        };
        for source in sources {
            kept.ask_for(source).attempt("--bind")?;
        }
        let named = |path| openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        for path in [PROC, SYS, DEV] {
            if let Ok(host) = named(path) {
                kept.place(host.as_fd()).attempt(path)?;
            }
        }
        let null = named(NULL).attempt(NULL)?;
        kernel_mounts::cover(self.proc.as_fd(), null.as_fd(), &mut kept)?;
        Ok(kept.covered)
    }
}

/// What was made, in the place where it was.
#[derive(Debug)]
pub struct Staging {
    /// The file system in memory.
    itself: Tree,
    proc: Tree,
    sys: Option<Tree>,
    dev: Tree,
    null: OwnedFd,
    /// In the order of [`OWN`].
    own: Vec<Tree>,
    network: bool,
}

impl Staging {
    /// Makes it all. `root` is the calling process's root directory, and is so again afterwards. The directories in memory take
    /// up to `size` together. `network` says whether the sandbox has the caller's.
    pub fn make(
        root: BorrowedFd<'_>,
        kernels: Kernels,
        devices: &Devices,
        size: Size,
        network: bool,
    ) -> Result<Staging, Failure> {
        let itself = enter(root, size)?;
        let (own, shared) = in_memory()?;
        let Kernels { proc, sys } = kernels;
        for (path, tree) in [(PROC, Some(&proc)), (SYS, sys.as_ref()), (DEV, None)] {
            fs::create_dir(path).attempt(path)?;
            tree.map_or(Ok(()), |tree| tree.attach(Path::new(path)))
                .attempt(path)?;
        }
        devices.place(&shared)?;
        let made = Staging {
            itself,
            proc,
            sys,
            dev: Tree::at(Path::new(DEV)).attempt(DEV)?,
            null: openat(CWD, NULL, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).attempt(NULL)?,
            own,
            network,
        };
        if !is_left_out() && kernel_files::restrict(network)? {
            made.cover_in_sys()?;
        }
        enter_again(root)?;
        Ok(made)
    }

    /// Covers what the host has mounted in its `/sys` and is of another kind.
    fn cover_in_sys(&self) -> Result<(), Failure> {
        let mut kept = Kept {
            kinds: OF_SYS,
            paths_are_own: true,
            ..Kept::default()
        };
        for placed in [&self.proc, &self.dev] {
            kept.place(placed.as_fd()).attempt(SYS)?;
        }
        kernel_mounts::cover(self.proc.as_fd(), self.null.as_fd(), &mut kept)
    }

    /// Moves each tree to its place below `root`, the calling process's root directory, and notes in `kept` what is where. The
    /// root may lack `/sys` and directories in memory.
    pub fn place(&self, root: BorrowedFd<'_>, kept: &mut Kept) -> Result<(), Failure> {
        let kernels = [(PROC, Some(&self.proc)), (SYS, self.sys.as_ref())];
        for (path, tree) in kernels.into_iter().chain([(DEV, Some(&self.dev))]) {
            let Some(tree) = tree else {
                continue;
            };
            // A link would lead elsewhere by the time that something is mounted there.
            let place = match directory_at(root, path.trim_start_matches('/')) {
                Err(_) if path == SYS => continue,
                place => place.attempt(path)?,
            };
            kept.cover(place.as_fd(), tree.as_fd())
                .and_then(|()| kept.place(tree.as_fd()))
                .attempt(path)?;
            tree.attach_to(place.as_fd()).attempt(path)?;
        }
        for ((path, _), tree) in OWN.into_iter().zip(&self.own) {
            let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(place) = openat(CWD, path, how, Mode::empty()) {
                kept.cover(place.as_fd(), tree.as_fd()).attempt(path)?;
                tree.attach_to(place.as_fd()).attempt(path)?;
            }
        }
        ringfence_faults::at(Point::Placed);
        if is_left_out() {
            kernel_files::restrict(self.network)?;
        }
        self.leave(root)
    }

    /// Takes the file system in memory away. The directories that were placed keep it.
    fn leave(&self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        fchdir(&self.itself)
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| fchdir(root))
            .attempt("leaving what the root was made in")
    }

    /// Covers file systems of the kernel's that are placed nowhere, below the root.
    pub fn cover_others(&self, kept: &mut Kept) -> Result<(), Failure> {
        kernel_mounts::cover(self.proc.as_fd(), self.null.as_fd(), kept)
    }
}

/// For the test of what happens if the kernel's files are restricted after they were placed.
fn is_left_out() -> bool {
    ringfence_faults::at(Point::Staged) == Some(Act::Drop)
}

/// Makes a file system in memory the calling process's root.
fn enter(root: BorrowedFd<'_>, size: Size) -> Result<Tree, Failure> {
    let files = (size.bytes() / BYTES_OF_A_FILE).max(FILES).to_string();
    let options = [
        ("mode", "755"),
        ("size", &size.bytes().to_string()),
        ("nr_inodes", &files),
    ];
    // Somewhere in the mount namespace it has to be, since nothing is mounted on what is nowhere. No path leads to what
    // covers the root, but from above it.
    Tree::in_memory(&options, RESTRICTED)
        .and_then(|itself| {
            itself.attach_to(root)?;
            fchdir(&itself)?;
            chroot(".")?;
            Ok(itself)
        })
        .attempt("a file system in memory to make the root in")
}

fn enter_again(root: BorrowedFd<'_>) -> Result<(), Failure> {
    fchdir(root)
        .and_then(|()| chroot("."))
        .attempt("returning to the root")
}

/// The directories of [`OWN`], in their order, and that of [`SHARED`]: parts of the file system that is the root.
fn in_memory() -> Result<(Vec<Tree>, Tree), Failure> {
    let part = |index: usize, (path, mode): (&str, u32), attributes| {
        let made = Path::new("/").join(index.to_string());
        fs::create_dir(&made)
            .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(mode)))
            .attempt(path)?;
        let tree = Tree::copy(&made).and_then(|tree| tree.with_attributes(attributes));
        tree.attempt(path)
    };
    let own = OWN.into_iter().enumerate();
    let own = own.map(|(index, directory)| part(index, directory, RESTRICTED));
    let own = own.collect::<Result<_, _>>()?;
    let shared = part(OWN.len(), SHARED, RESTRICTED | libc::MOUNT_ATTR_NOEXEC)?;
    Ok((own, shared))
}
