//! The file system of a sandbox: the host's, or another root directory, to be read only; in it `/proc`, `/dev`, `/tmp`
//! and the like of the sandbox's own; and what the caller binds.
//!
//! `/run` is among the sandbox's own because sockets lie there: whoever may write to a socket can connect to it, on a
//! read-only mount too, and behind some of them a service of the host does whatever it is asked.
//!
//! What comes from the host is taken first, while it is in sight. Then the root is entered and made read-only. Then the
//! rest is put over it, in the order in which it has to lie.
//!
//! What the caller names may lie where programs before have put links: `reach.rs` finds it.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use nvproxy_protocol::size::Size;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::devices::Devices;
use super::grants::Grants;
use super::mounts::{self, READ_ONLY, RESTRICTED, Tree, cover_with_memory, forbid_writing};
use super::{kernel_files, namespaces};
use crate::binds::Bind;
use crate::driver::Driver;
use crate::memory;
use crate::reach::{Found, Problem, Reach};

/// Directories of the sandbox's own, empty at first, with their permissions. Where the last is a link it leads to the
/// one before.
const OWN: [(&str, u32); 4] = [
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/run", 0o755),
    ("/var/run", 0o755),
];
/// Another one, which is placed with the devices.
const SHARED: (&str, u32) = ("/dev/shm", 0o1777);
/// Where the file system of all these is made, before it is taken apart: a root directory must have it.
const MADE_AT: &str = "/tmp";
/// One file for as many bytes is allowed: each takes memory of its own, of which tmpfs counts nothing.
const BYTES_OF_A_FILE: u64 = 8 << 10;
/// At least as many files, however little memory they have.
const FILES: u64 = 1 << 10;
/// What a root directory must have, so that something can be mounted there.
const NEEDED: [&str; 3] = ["proc", "dev", "tmp"];
const SYS: &str = "/sys";
const PROC: &str = "/proc";
/// Who answers for names on the network, often a link to a file below `/run`.
const RESOLVER: &str = "/etc/resolv.conf";

/// Whether `path` lies in a directory of the sandbox's own, where nothing of the host's is.
pub fn is_own(path: &Path) -> bool {
    OWN.iter().any(|(own, _)| path.starts_with(own))
}

/// What can be written in the sandbox.
pub fn writable_places(grants: &Grants) -> Vec<PathBuf> {
    let own = OWN.iter().map(|(path, _)| PathBuf::from(path));
    let kernel = ["/dev", "/proc"].map(PathBuf::from);
    let binds = grants.binds.iter().filter(|bind| !bind.read_only);
    own.chain(kernel)
        .chain(binds.map(|bind| bind.target.clone()))
        .collect()
}

/// Makes the file system of the calling process's mount namespace that of a sandbox. The caller is process 1 of the
/// tasks' process namespace, and its mounts are cut off from the host's.
pub fn build(grants: &Grants, driver: &Driver) -> Result<(), Failure> {
    let mut reach = reach_of(grants);
    let binds = take(grants, &reach)?;
    let devices = Devices::take(driver)?;
    let rootfs = grants.rootfs.as_deref();
    let kernels = rootfs
        .map(|directory| leave_host_for(directory, &mut reach))
        .transpose()?;
    let size = grants.tmp_size.unwrap_or_else(memory::default_for_files);
    forbid_writing()?;
    let (own, shared) = in_memory(size)?;
    match kernels {
        Some(kernels) => kernels.place()?,
        None => namespaces::mount_proc()?,
    }
    devices.place(&shared)?;
    kernel_files::restrict(grants.network)?;
    for ((path, _), tree) in OWN.into_iter().zip(own) {
        if fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
            tree.attach(Path::new(path)).attempt(path)?;
        }
    }
    place(&binds, &reach)
}

/// The directories of [`OWN`], in their order, and that of [`SHARED`]: parts of one file system in memory, which take up to
/// `size` together.
fn in_memory(size: Size) -> Result<(Vec<Tree>, Tree), Failure> {
    let files = (size.bytes() / BYTES_OF_A_FILE).max(FILES);
    let options = format!("mode=755,size={size},nr_inodes={files}");
    cover_with_memory(Path::new(MADE_AT), MsFlags::empty(), &options)?;
    let part = |index: usize, (path, mode): (&str, u32), attributes| {
        let made = Path::new(MADE_AT).join(index.to_string());
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
    // The parts keep it.
    umount2(MADE_AT, MntFlags::empty()).attempt(MADE_AT)?;
    Ok((own, shared))
}

/// What of the host the program can write to, and others before it could.
fn reach_of(grants: &Grants) -> Reach {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Sources) == Some(Act::Drop) {
        return Reach::default();
    }
    Reach::of(&grants.binds)
}

/// Opens what an option names, whatever programs have put in its place.
fn open(option: &str, path: &Path, reach: &Reach) -> Result<OwnedFd, Failure> {
    let named = |what: String| Failure::setup(format!("{option} {}: {what}", path.display()));
    let whole = absolute(path).map_err(|error| named(error.to_string()))?;
    reach.open(&whole).map_err(|problem| {
        named(match problem {
            Problem::Link(_) => format!("{problem}: remove it, or name what it leads to"),
            Problem::Kernel(_) => format!("{problem}: name a file or directory that is there"),
        })
    })
}

/// The binds and what is to be bound.
fn take(grants: &Grants, reach: &Reach) -> Result<Vec<(Bind, Tree)>, Failure> {
    let resolver = (grants.network && grants.rootfs.is_none())
        .then(resolver)
        .flatten();
    let binds = resolver.into_iter().chain(grants.binds.iter().cloned());
    binds
        .map(|bind| {
            let attributes = if bind.read_only {
                READ_ONLY
            } else {
                RESTRICTED
            };
            let source = open("--bind", &bind.source, reach)?;
            let tree = Tree::copy_named(source.as_fd())
                .and_then(|tree| tree.with_attributes(attributes))
                .attempt(format_args!("--bind {}", bind.source.display()))?;
            Ok((bind, tree))
        })
        .collect()
}

/// A program that has the network finds names, even where the file that says how is hidden.
fn resolver() -> Option<Bind> {
    let file = fs::canonicalize(RESOLVER).ok()?;
    is_own(&file).then(|| Bind {
        source: file.clone(),
        target: file,
        read_only: true,
    })
}

/// A directory, to name it. A link on the way would lead elsewhere by the time that something is mounted there.
fn directory_at(from: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(from, path, how, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// The kernel's own files, for another root than the host's.
struct Kernels {
    proc: Tree,
    sys: Tree,
}

/// Makes `directory` the root. The host's root is gone then, before any path is followed in this one: programs may have made it,
/// and have put links wherever they like.
fn leave_host_for(directory: &Path, reach: &mut Reach) -> Result<Kernels, Failure> {
    let named = |what: &str| format!("--rootfs {}{what}", directory.display());
    let opened = open("--rootfs", directory, reach)?;
    let is_missing = |name: &&str| directory_at(opened.as_fd(), name).is_err();
    if let Some(missing) = NEEDED.into_iter().find(is_missing) {
        return Err(Failure::setup(named(&format!(
            ": it has no directory '{missing}': create one, empty, to mount the sandbox's own there"
        ))));
    }
    // The kernel lets a process mount it only where it has one.
    namespaces::mount_proc()?;
    let proc = Tree::copy(Path::new(PROC)).attempt(PROC)?;
    let sys = Tree::copy(Path::new(SYS)).and_then(|sys| sys.with_attributes(READ_ONLY));
    let sys = sys.attempt(SYS)?;
    let tree = Tree::copy_named(opened.as_fd()).attempt(named(""))?;
    // What is the root of the sandbox is in reach of programs if it lies in what they are given.
    if reach.has(opened.as_fd()).attempt(named(""))? {
        reach.add(opened.try_clone().attempt(named(""))?);
    }
    tree.attach_to(opened.as_fd())
        .and_then(|()| fchdir(&tree))
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .attempt(named(": entering it"))?;
    Ok(Kernels { proc, sys })
}

impl Kernels {
    /// Shows them: what they say of processes, and of the machine, which CUDA reads, where the root has a place for that.
    fn place(&self) -> Result<(), Failure> {
        for (path, tree) in [(PROC, &self.proc), (SYS, &self.sys)] {
            match directory_at(CWD, path) {
                Ok(place) => tree.attach_to(place.as_fd()).attempt(path)?,
                Err(_) if path == SYS => {}
                Err(errno) => return Err(errno).attempt(path),
            }
        }
        Ok(())
    }
}

/// Places what was taken, in its order. What it is to cover can lie in what was placed before. What is nowhere is created
/// first, and so only in the directories of the sandbox's own: nothing else can be written yet.
fn place(binds: &[(Bind, Tree)], reach: &Reach) -> Result<(), Failure> {
    let mut created = Vec::with_capacity(binds.len());
    for (bind, tree) in binds {
        let is_directory = tree.is_directory().attempt("fstat")?;
        created.push((is_directory, create(&bind.target, is_directory)));
    }
    for ((bind, tree), (is_directory, created)) in binds.iter().zip(created) {
        let problem = |problem: Problem| match (problem, &created) {
            (problem @ Problem::Link(_), _) => refused(
                bind,
                format_args!("{problem}: remove it, or choose another place"),
            ),
            (Problem::Kernel(_), Err(error)) => refused(
                bind,
                format_args!("{error}: create it, or choose a place in /tmp"),
            ),
            (problem, Ok(())) => refused(bind, problem),
        };
        if bind.read_only {
            hold(&bind.target, reach).map_err(problem)?;
        }
        let target = reach.open(&bind.target).map_err(problem)?;
        if mounts::is_directory(target.as_fd()).attempt("fstat")? != is_directory {
            let what = "a directory can cover only a directory, and a file only a file";
            return Err(refused(bind, what));
        }
        tree.attach_to(target.as_fd())
            .map_err(|errno| refused(bind, errno.desc()))?;
    }
    Ok(())
}

/// Has the path of a place stay what it is, though the program can write above it: the directories between become mount
/// points, which nobody in the sandbox can rename or remove. Otherwise the program could put something of its own under the
/// path of what it is to read only, and that would be there for everybody outside, too.
fn hold(target: &Path, reach: &Reach) -> Result<(), Problem> {
    let Found { directory, .. } = reach.find(target)?;
    for between in reach.within(directory.as_fd())?.unwrap_or_default() {
        Tree::copy_named(between.as_fd())
            .and_then(|tree| tree.attach_to(between.as_fd()))
            .map_err(|errno| rustix::io::Errno::from_raw_os_error(errno as i32))?;
    }
    Ok(())
}

fn create(target: &Path, directory: bool) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    if directory {
        return fs::create_dir_all(target);
    }
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).open(target).map(drop)
}

fn refused(bind: &Bind, reason: impl fmt::Display) -> Failure {
    let Bind { source, target, .. } = bind;
    Failure::setup(format!(
        "--bind {}:{}: in the sandbox, {reason}",
        source.display(),
        target.display()
    ))
}

/// Enters the directory in which the program is to start: `wanted`, or else where the caller is, or else the root.
pub fn enter_working_directory(
    wanted: Option<&Path>,
    of_the_caller: Option<&PathBuf>,
) -> Result<(), Failure> {
    if let Some(wanted) = wanted {
        return chdir(wanted).map_err(|errno| {
            Failure::setup(format!(
                "--workdir {}: {}: name a directory that the sandbox has",
                wanted.display(),
                errno.desc()
            ))
        });
    }
    if let Some(directory) = of_the_caller {
        match chdir(directory) {
            Ok(()) => return Ok(()),
            Err(errno) => tracing::warn!(
                "the program starts in /, because the sandbox has no {}: {}: use --bind . to show it",
                directory.display(),
                errno.desc()
            ),
        }
    }
    chdir("/").attempt("/")
}
