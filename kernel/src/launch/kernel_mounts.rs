//! File systems of the kernel's own (`proc`, `sysfs`, `debugfs`, …) that the host has mounted elsewhere than Ringfence
//! places them: in a directory that was prepared to be another root, say.
//!
//! In such a file system the kernel asks little more than who owns a file, and it tells of the host's processes. So a sandbox sees
//! one only where Ringfence places it, with all that is to be hidden there, or where the caller asks for it by name.
//! Every other is covered with an empty directory, or with the null device.
//!
//! **Which they are** is a rule: what lies on no block device, and is none of those that are known to keep files of users without
//! one ([`KEEP_FILES`]). So one that a later kernel brings is covered, too.
//!
//! **Where they are** the kernel lists by path (proc_pid_mountinfo(5)). Others may rename what such a path leads through, meanwhile. So
//! what a path leads to is opened first, to be named only, and covered by its descriptor if the kernel says that it is the root of
//! the mount that was listed. In this mount namespace nobody else mounts, so what was covered so stays covered, and all that is
//! mounted on it. What another mount hides needs no covering; where that can be told by paths alone, it
//! is looked at several times, and believed if it is so each time.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::mountinfo::{Mount, is_below};
use super::mounts::{MountOf, Tree, mount_of};

/// File systems that keep files of users, though they lie on no block device of their own. (What is mounted by FUSE has a
/// kind of its own behind a full stop.)
const KEEP_FILES: [&str; 39] = [
    "9p",
    "afs",
    "aufs",
    "autofs",
    "bcachefs",
    "beegfs",
    "btrfs",
    "ceph",
    "cifs",
    "coda",
    "drvfs",
    "ecryptfs",
    "erofs",
    "fuse",
    "fuseblk",
    "glusterfs",
    "gpfs",
    "hugetlbfs",
    "jffs2",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "orangefs",
    "overlay",
    "panfs",
    "prl_fs",
    "pvfs2",
    "ramfs",
    "rootfs",
    "shiftfs",
    "smb3",
    "tmpfs",
    "ubifs",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
    "wekafs",
    "zfs",
];
/// How often all mounts are listed at most.
const TRIES: usize = 16;
/// How often in a row it has to be so that what is hidden by paths alone is hidden.
const CONFIRMATIONS: usize = 3;

/// What is to be left as it is.
#[derive(Debug, Default)]
pub struct Kept {
    /// Mounts that Ringfence has placed, with all that is mounted below: each by its number.
    pub whole: HashSet<u64>,
    /// Mounts that the caller has asked for. What is mounted below is not kept.
    pub alone: HashSet<u64>,
    /// Kinds of file systems that are kept wherever they are.
    pub kinds: &'static [&'static str],
    /// Whether nobody else can rename what paths lead through.
    pub paths_are_own: bool,
    /// Mounts whose roots are covered, each by its number.
    pub covered: HashMap<u64, Cover>,
}

/// What covers the root of a mount. What is mounted on that mount is not seen any more, but for what covers it.
#[derive(Clone, Copy, Debug)]
pub struct Cover {
    /// The mount that covers it.
    by: u64,
    /// The mount to which `..` led from the root that is covered: past all that this covers in its turn. A file has none.
    above: Option<u64>,
}

impl Kept {
    /// Notes that `tree` is about to be placed over what `place` names.
    pub fn cover(&mut self, place: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> Result<(), Errno> {
        let MountOf { id, is_root, .. } = mount_of(place)?;
        if is_root {
            let by = mount_of(tree)?.id;
            let above = openat(place, "..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let above = above.and_then(|above| mount_of(above.as_fd())).ok();
            let above = above.map(|above| above.id);
            self.covered.insert(id, Cover { by, above });
        }
        Ok(())
    }

    /// Has the tree whose root is `tree` as the caller asks for it.
    pub fn ask_for(&mut self, tree: BorrowedFd<'_>) -> Result<(), Errno> {
        self.alone.insert(mount_of(tree)?.id);
        Ok(())
    }

    /// Has the tree whose root is `tree` as Ringfence places it.
    pub fn place(&mut self, tree: BorrowedFd<'_>) -> Result<(), Errno> {
        self.whole.insert(mount_of(tree)?.id);
        Ok(())
    }

    /// Whether the caller has asked for the very mount that `descriptor` is on.
    pub fn is_asked_for(&self, descriptor: BorrowedFd<'_>) -> Result<bool, Errno> {
        Ok(self.alone.contains(&mount_of(descriptor)?.id))
    }
}

/// Covers every file system of the kernel's below the root of the calling process that is not `kept`. `proc` is the root of
/// a `/proc` of the calling process's namespace, `null` the null device; both are attached in its mount namespace.
pub fn cover(proc: BorrowedFd<'_>, null: BorrowedFd<'_>, kept: &mut Kept) -> Result<(), Failure> {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Elsewhere) == Some(Act::Drop) {
        return Ok(());
    }
    let mut confirmed = 0;
    let mut left = None;
    for _ in 0..TRIES {
        let text = list(proc)?;
        let mounts = Mounts::of(&text).ok_or_else(not_understood)?;
        let (mut rests_on_paths, mut moves) = (false, None);
        for mount in mounts.of_the_kernel(kept) {
            match mounts.sight_of(mount, &mounts.covered(kept)) {
                Sight::Hidden => {}
                Sight::HiddenByPath => rests_on_paths |= !kept.paths_are_own,
                Sight::Seen if cover_one(mount, null, kept)? => {}
                Sight::Seen => moves = Some(named(mount)),
            }
        }
        confirmed = if moves.is_none() { confirmed + 1 } else { 0 };
        if moves.is_none() && (!rests_on_paths || confirmed == CONFIRMATIONS) {
            return Ok(());
        }
        left = moves.or(left);
    }
    Err(Failure::setup(format!(
        "{}, is to be hidden, and what its path leads to changes all the time: unmount it, or let nobody rename the directories \
         above it",
        left.unwrap_or_default()
    )))
}

fn not_understood() -> Failure {
    Failure::setup("/proc/self/mountinfo: this kernel writes it in a form that is not known")
}

/// The calling process's mounts.
fn list(proc: BorrowedFd<'_>) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::with_capacity(16 << 10);
    let file = openat(
        proc,
        "self/mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let read = file
        .map_err(std::io::Error::from)
        .and_then(|file| File::from(file).read_to_end(&mut text));
    read.attempt("/proc/self/mountinfo")?;
    Ok(text)
}

/// Covers a mount that is seen. Whether that, or what hides it, was found where it is said to be.
fn cover_one(mount: &Mount<'_>, null: BorrowedFd<'_>, kept: &mut Kept) -> Result<bool, Failure> {
    let path = mount.path();
    let name = named(mount);
    let place = match open(&path) {
        Ok(place) => place,
        // Who runs the sandbox may not enter a directory on the way, now. What could be seen there later is hidden with it.
        Err(Errno::ACCESS) => {
            let Some(closed) = closed_to_the_caller(&path) else {
                return Ok(false);
            };
            return attach_covering(closed.as_fd(), null, kept)
                .attempt(name)
                .map(|()| true);
        }
        Err(_) => return Ok(false),
    };
    let found = mount_of(place.as_fd()).attempt(&name)?;
    if found.id != mount.id || !found.is_root {
        return Ok(false);
    }
    attach_covering(place.as_fd(), null, kept).attempt(&name)?;
    tracing::debug!("hidden: {name}: name it with --bind to show it");
    Ok(true)
}

/// Covers what `place` names.
fn attach_covering(
    place: BorrowedFd<'_>,
    null: BorrowedFd<'_>,
    kept: &mut Kept,
) -> nix::Result<()> {
    let errno = |errno: Errno| nix::Error::from_raw(errno.raw_os_error());
    let covering = if mount_of(place).map_err(errno)?.is_directory {
        Tree::empty_directory()?
    } else {
        Tree::null_device(null)?
    };
    kept.cover(place, covering.as_fd()).map_err(errno)?;
    covering.attach_to(place)
}

/// Names what is at `path`, and follows no link.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(CWD, path, how, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// The directory on the way to `path` that the calling process may not enter.
fn closed_to_the_caller(path: &Path) -> Option<OwnedFd> {
    path.ancestors().skip(1).find_map(|above| open(above).ok())
}

/// Whether it is a file system of the kernel's own.
fn is_of_the_kernel(mount: &Mount<'_>) -> bool {
    let kind = mount.kind.split(|byte| *byte == b'.').next();
    let keeps_files = || {
        KEEP_FILES
            .iter()
            .any(|keeps| Some(keeps.as_bytes()) == kind)
    };
    !mount.is_on_a_block_device && !keeps_files()
}

/// What it is called in messages.
fn named(mount: &Mount<'_>) -> String {
    let kind = String::from_utf8_lossy(mount.kind);
    let path = mount.path();
    format!(
        "{}, a file system of the kernel's own ({kind})",
        path.display()
    )
}

/// Whether a mount is seen.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Seen,
    /// It, or what it is mounted on, is covered.
    Hidden,
    /// The same, as far as paths tell.
    HiddenByPath,
}

/// All mounts below the root.
struct Mounts<'a> {
    all: Vec<Mount<'a>>,
    by_id: HashMap<u64, usize>,
}

impl<'a> Mounts<'a> {
    /// `None` if it says anything that is not understood.
    fn of(text: &'a [u8]) -> Option<Mounts<'a>> {
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let all: Vec<Mount<'a>> = lines.map(Mount::of).collect::<Option<_>>()?;
        let by_id = all.iter().enumerate();
        let by_id = by_id.map(|(index, mount)| (mount.id, index)).collect();
        Some(Mounts { all, by_id })
    }

    /// The mount, then the one that it is mounted on, and so on.
    fn upwards<'b>(&'b self, mount: &'b Mount<'a>) -> impl Iterator<Item = &'b Mount<'a>> {
        let above = |mount: &&'b Mount<'a>| {
            let parent = self.get(mount.parent);
            parent.filter(|above| above.id != mount.id)
        };
        // There are no circles; but who says so is a text.
        std::iter::successors(Some(mount), above).take(self.all.len())
    }

    /// Those of the kernel's own that are not kept.
    fn of_the_kernel(&self, kept: &Kept) -> Vec<&Mount<'a>> {
        let is_kept = |mount: &Mount<'a>| {
            let kind = |kind: &&str| kind.as_bytes() == mount.kind;
            let marked = self
                .upwards(mount)
                .find(|above| kept.whole.contains(&above.id) || kept.alone.contains(&above.id));
            kept.kinds.iter().any(kind)
                || marked
                    .is_some_and(|marked| kept.whole.contains(&marked.id) || marked.id == mount.id)
        };
        let of_the_kernel = self.all.iter().filter(|mount| is_of_the_kernel(mount));
        of_the_kernel.filter(|mount| !is_kept(mount)).collect()
    }

    /// What is covered by what: what was covered so, and what lies below that. If `..` leads from the root of one past
    /// another below it, it is mounted on the root of that.
    fn covered(&self, kept: &Kept) -> HashMap<u64, u64> {
        let mut covered = HashMap::new();
        for (id, cover) in &kept.covered {
            covered.insert(*id, cover.by);
            let (Some(mount), Some(above)) = (self.get(*id), cover.above) else {
                continue;
            };
            // One that is listed no longer was on the root.
            let above = self.get(above).or_else(|| self.root());
            let seen: HashSet<u64> = above.map_or_else(HashSet::new, |above| {
                self.upwards(above).map(|mount| mount.id).collect()
            });
            let pairs = self.upwards(mount).zip(self.upwards(mount).skip(1));
            let pairs = pairs.map(|(by, mount)| (mount.id, by.id));
            covered.extend(pairs.filter(|(id, _)| !seen.contains(id)));
        }
        covered
    }

    fn root(&self) -> Option<&Mount<'a>> {
        self.all
            .iter()
            .find(|mount| self.upwards(mount).count() == 1)
    }

    fn get(&self, id: u64) -> Option<&Mount<'a>> {
        self.by_id.get(&id).and_then(|index| self.all.get(*index))
    }

    fn sight_of(&self, mount: &Mount<'a>, covered: &HashMap<u64, u64>) -> Sight {
        let way: Vec<&Mount<'a>> = self.upwards(mount).collect();
        let is_under_another = |level: usize| self.is_under_another(way[level], &way[..level]);
        let is_covered = |level: usize| {
            let on = level.checked_sub(1).map(|level| way[level].id);
            let by = covered.get(&way[level].id);
            by.is_some_and(|by| on != Some(*by))
        };
        if (0..way.len()).any(is_covered) {
            Sight::Hidden
        } else if (0..way.len()).any(is_under_another) {
            Sight::HiddenByPath
        } else {
            Sight::Seen
        }
    }

    /// Whether another is mounted on its root, or on a directory above it. `way` has those that are mounted on it, and
    /// are asked about.
    fn is_under_another(&self, mount: &Mount<'a>, way: &[&Mount<'a>]) -> bool {
        self.all.iter().any(|other| {
            let is_on_it = other.parent == mount.id && other.point == mount.point;
            let is_above = || other.parent == mount.parent && is_below(mount.point, other.point);
            let is_another = || other.id != mount.id && !way.iter().any(|on| on.id == other.id);
            (is_on_it || is_above()) && is_another()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[u8] = b"\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n\
        40 22 0:50 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n\
        23 27 0:22 / /srv/a\\040b/sys rw master:1 propagate_from:2 - sysfs sysfs rw\n\
        24 23 0:22 /fs /srv/a\\040b/sys rw - sysfs sysfs rw\n\
        25 27 0:40 / /home rw - fuse.sshfs host: rw\n\
        26 27 0:41 / /mnt/x/proc rw - proc proc rw\n\
        28 27 0:42 / /mnt rw - tmpfs tmpfs rw\n\
        29 27 0:43 / /new rw - somethingfs none rw\n\
        30 27 0:44 / /newer rw - nfs4 host:/ rw\n";

    fn seen(kept: &Kept) -> Vec<(u64, Sight)> {
        let mounts = Mounts::of(LISTED).expect("a list");
        let of_the_kernel = mounts.of_the_kernel(kept).into_iter();
        let covered = mounts.covered(kept);
        let each = of_the_kernel.map(|mount| (mount.id, mounts.sight_of(mount, &covered)));
        each.collect()
    }

    #[test]
    fn what_is_the_kernels_own_is_seen_where_nothing_covers_it() {
        use Sight::{Hidden, HiddenByPath, Seen};
        let mut kept = Kept::default();
        let listed = |sights: [Sight; 6]| [22, 40, 23, 24, 26, 29].into_iter().zip(sights);
        let all = [Seen, Seen, HiddenByPath, Seen, HiddenByPath, Seen];
        assert_eq!(seen(&kept), listed(all).collect::<Vec<_>>());
        let cover = |by, above| Cover { by, above };
        kept.covered = HashMap::from([(22, cover(98, None)), (24, cover(99, None))]);
        let all = [Hidden, Hidden, HiddenByPath, Hidden, HiddenByPath, Seen];
        assert_eq!(seen(&kept), listed(all).collect::<Vec<_>>());
        // By `..` the second is known to lie on the root of the first, and the first of them all lies on nothing's.
        kept.covered = HashMap::from([(22, cover(98, Some(97))), (24, cover(99, Some(27)))]);
        let all = [Hidden, Hidden, Hidden, Hidden, HiddenByPath, Seen];
        assert_eq!(seen(&kept), listed(all).collect::<Vec<_>>());
        kept.covered = HashMap::from([(40, cover(99, Some(22)))]);
        let all = [Seen, Hidden, HiddenByPath, Seen, HiddenByPath, Seen];
        assert_eq!(seen(&kept), listed(all).collect::<Vec<_>>());
        // What covers another is not hidden with it.
        kept.covered = HashMap::from([(22, cover(40, Some(27))), (23, cover(24, Some(27)))]);
        let all = [Hidden, Seen, Hidden, Seen, HiddenByPath, Seen];
        assert_eq!(seen(&kept), listed(all).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_placed_is_kept_with_all_below_and_what_is_asked_for_alone() {
        let left = |whole: &[u64], alone: &[u64], kinds| {
            let kept = Kept {
                whole: whole.iter().copied().collect(),
                alone: alone.iter().copied().collect(),
                kinds,
                ..Kept::default()
            };
            seen(&kept)
                .into_iter()
                .map(|(id, _)| id)
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&[], &[22, 27], &[]), [40, 23, 24, 26, 29]);
        assert_eq!(left(&[22], &[23, 27], &[]), [24, 26, 29]);
        assert_eq!(left(&[], &[27], &["proc"]), [40, 23, 24, 29]);
    }
}
