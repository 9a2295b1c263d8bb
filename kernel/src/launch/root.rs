//! The file system of a sandbox: the host's, or another root directory, to be read only; in it `/proc`, `/dev`, `/tmp`
//! and the like of the sandbox's own; and what the caller binds.
//!
//! `/run` is among the sandbox's own because sockets lie there: whoever may write to a socket can connect to it, on a
//! read-only mount too, and behind some of them a service of the host does whatever it is asked.
//!
//! What comes from the host is taken first, while it is in sight. Then the root is entered and made read-only. Then the
//! rest is put over it, in the order in which it has to lie: what is the sandbox's own is made elsewhere (`staging.rs`), and put
//! there when it is complete. What the kernel shows anywhere else is covered before anything is copied, so that each copy has what
//! covers it, wherever it comes to lie; and once more in the end (`kernel_mounts.rs`).
//!
//! What the caller names may lie where programs before have put links: `reach.rs` finds it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf, absolute};

use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::CWD;

use super::devices::{self, Devices};
use super::grants::Grants;
use super::kernel_mounts::Kept;
use super::mounts::{self, READ_ONLY, RESTRICTED, Tree, directory_at, forbid_writing};
use super::staging::{Kernels, OWN, Staging};
use crate::binds::Bind;
use crate::driver::Driver;
use crate::memory;
use crate::reach::{Found, Problem, Reach};

/// What a root directory must have, so that something can be mounted there.
const NEEDED: [&str; 3] = ["proc", "dev", "tmp"];
/// Who answers for names on the network, often a link to a file below `/run`.
const RESOLVER: &str = "/etc/resolv.conf";

/// Whether `path` lies in a directory of the sandbox's own, where nothing of the host's is.
pub fn is_own(path: &Path) -> bool {
    OWN.iter().any(|(own, _)| path.starts_with(own))
}

/// What can be written in the sandbox.
pub fn writable_places(grants: &Grants) -> Vec<PathBuf> {
    let own = OWN.iter().map(|(path, _)| PathBuf::from(path));
    // The kernel opens queues on a mount of its own, which is below no other: so they have to be named.
    let kernel = ["/dev", devices::QUEUES, "/proc"].map(PathBuf::from);
    let binds = grants.binds.iter().filter(|bind| !bind.read_only);
    own.chain(kernel)
        .chain(binds.map(|bind| bind.target.clone()))
        .collect()
}

/// Makes the file system of the calling process's mount namespace that of a sandbox. The caller is process 1 of the
/// tasks' process namespace, and its mounts are cut off from the host's.
pub fn build(grants: &Grants, driver: &Driver) -> Result<(), Failure> {
    let mut reach = reach_of(grants);
    let sources = sources(grants, &reach)?;
    let devices = Devices::take(driver)?;
    let kernels = Kernels::take()?;
    let covered = kernels.cover_others(sources.iter().map(|(_, source)| source.as_fd()))?;
    let binds = take(sources)?;
    if let Some(directory) = &grants.rootfs {
        leave_host_for(directory, &mut reach)?;
    }
    forbid_writing()?;
    let root = directory_at(CWD, "/").attempt("/")?;
    let mut kept = Kept {
        covered,
        ..Kept::default()
    };
    kept.ask_for(root.as_fd()).attempt("/")?;
    let size = grants.tmp_size.unwrap_or_else(memory::default_for_files);
    let staging = Staging::make(root.as_fd(), kernels, &devices, size, grants.network)?;
    staging.place(root.as_fd(), &mut kept)?;
    place(&binds, &reach, &mut kept)?;
    staging.cover_others(&mut kept)
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

/// The binds, and a descriptor of what is to be bound.
fn sources(grants: &Grants, reach: &Reach) -> Result<Vec<(Bind, OwnedFd)>, Failure> {
    let resolver = (grants.network && grants.rootfs.is_none())
        .then(resolver)
        .flatten();
    let binds = resolver.into_iter().chain(grants.binds.iter().cloned());
    binds
        .map(|bind| {
            let source = open("--bind", &bind.source, reach)?;
            Ok((bind, source))
        })
        .collect()
}

/// The binds, and a copy of what is to be bound, with all that is mounted there.
fn take(sources: Vec<(Bind, OwnedFd)>) -> Result<Vec<(Bind, Tree)>, Failure> {
    let sources = sources.into_iter();
    sources
        .map(|(bind, source)| {
            let attributes = if bind.read_only {
                READ_ONLY
            } else {
                RESTRICTED
            };
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

/// Makes `directory` the root. The host's root is gone then, before any path is followed in this one: programs may have made it,
/// and have put links wherever they like.
fn leave_host_for(directory: &Path, reach: &mut Reach) -> Result<(), Failure> {
    let named = |what: &str| format!("--rootfs {}{what}", directory.display());
    let opened = open("--rootfs", directory, reach)?;
    let is_missing = |name: &&str| directory_at(opened.as_fd(), name).is_err();
    if let Some(missing) = NEEDED.into_iter().find(is_missing) {
        return Err(Failure::setup(named(&format!(
            ": it has no directory '{missing}': create one, empty, to mount the sandbox's own there"
        ))));
    }
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
        .attempt(named(": entering it"))
}

/// Places what was taken, in its order. What it is to cover can lie in what was placed before. What is nowhere is created
/// first, and so only in the directories of the sandbox's own: nothing else can be written yet. `kept` is told of
/// what the caller asks for.
fn place(binds: &[(Bind, Tree)], reach: &Reach, kept: &mut Kept) -> Result<(), Failure> {
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
            hold(&bind.target, reach, kept).map_err(problem)?;
        }
        let target = reach.open(&bind.target).map_err(problem)?;
        if mounts::is_directory(target.as_fd()).attempt("fstat")? != is_directory {
            let what = "a directory can cover only a directory, and a file only a file";
            return Err(refused(bind, what));
        }
        kept.cover(target.as_fd(), tree.as_fd())
            .and_then(|()| kept.ask_for(tree.as_fd()))
            .map_err(|errno| refused(bind, errno))?;
        tree.attach_to(target.as_fd())
            .map_err(|errno| refused(bind, errno.desc()))?;
    }
    Ok(())
}

/// Has the path of a place stay what it is, though the program can write above it: the directories between become mount
/// points, which nobody in the sandbox can rename or remove. Otherwise the program could put something of its own under the
/// path of what it is to read only, and that would be there for everybody outside, too.
fn hold(target: &Path, reach: &Reach, kept: &mut Kept) -> Result<(), Problem> {
    let kernels = |errno| rustix::io::Errno::from_raw_os_error(errno as i32);
    let Found { directory, .. } = reach.find(target)?;
    for between in reach.within(directory.as_fd())?.unwrap_or_default() {
        let held = Tree::copy_named(between.as_fd()).map_err(kernels)?;
        if kept.is_asked_for(between.as_fd())? {
            kept.ask_for(held.as_fd())?;
        }
        held.attach_to(between.as_fd()).map_err(kernels)?;
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

/// Enters the directory in which the program is to start: the one that was asked for, or else where the caller is, or else
/// the root. Where the root is another, nobody expects the caller's directory in it.
pub fn enter_working_directory(
    grants: &Grants,
    of_the_caller: Option<&PathBuf>,
) -> Result<(), Failure> {
    if let Some(wanted) = &grants.workdir {
        return chdir(wanted).map_err(|errno| {
            Failure::setup(format!(
                "--workdir {}: {}: name a directory that the sandbox has",
                wanted.display(),
                errno.desc()
            ))
        });
    }
    let reason = match of_the_caller {
        None => "the caller's directory was removed: name another with --workdir".to_owned(),
        Some(directory) => match chdir(directory) {
            Ok(()) => return Ok(()),
            Err(errno) => {
                // Only there a bind makes the place that it is to be shown at.
                let remedy = match is_own(directory) {
                    true => "use --bind . to show it",
                    false => "name another with --workdir",
                };
                let (path, reason) = (directory.display(), errno.desc());
                format!("the sandbox has no {path}: {reason}: {remedy}")
            }
        },
    };
    if grants.rootfs.is_none() {
        tracing::warn!("the program starts in /, because {reason}");
    }
    chdir("/").attempt("/")
}
