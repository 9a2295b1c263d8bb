//! What the caller's paths lead to, where programs that may have run before can have put links.
//!
//! A sandbox's caller often names files in a directory that its programs can write to. There a link says what a program
//! wants, which may be a place that the caller can reach and the program cannot. So a path is followed here step by step, each
//! from a descriptor of the directory before it. A link in a directory that programs can write to is not followed, wherever on
//! the way it lies; elsewhere a path means what it says.
//!
//! Whether programs can write to a directory is decided by what it is and not by how it was come to: from the directory
//! itself its parents are gone through up to the root, and compared with what programs are given. So it does not matter
//! whether a path is relative, or leads through `/proc/self/cwd`.
//!
//! What is found is a descriptor, so nothing is looked up again that could be replaced meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Statx, StatxFlags, fstat, fstatfs,
    openat, readlinkat, statx,
};
use rustix::io::Errno;

use crate::binds::Bind;

/// To name a file or directory, and not to read it.
const NAMED: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// The same without following a link of that name.
const ITSELF: OFlags = NAMED.union(OFlags::NOFOLLOW);
/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

/// What programs can write to: directories, with all that lies below them, and files.
#[derive(Debug, Default)]
pub struct Reach(Vec<OwnedFd>);

/// Where a path leads.
#[derive(Debug)]
pub struct Found {
    pub directory: OwnedFd,
    /// A name in the directory, which nothing may have; a link has it only if that is the kernel's own, in `/proc`.
    /// `None` if the path leads to the directory itself and ends in no name.
    pub name: Option<OsString>,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub enum Problem {
    Kernel(Errno),
    /// There is a link on the way in this directory.
    Link(PathBuf),
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Kernel(errno) => std::io::Error::from(*errno).fmt(formatter),
            Problem::Link(directory) => write!(
                formatter,
                "a symbolic link in {}, where programs can put one, is not followed",
                directory.display()
            ),
        }
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Kernel(errno)
    }
}

/// What a name in a directory stands for.
enum Step {
    Directory(OwnedFd),
    Link(OwnedFd),
    Other(OwnedFd),
    /// Nothing yet.
    Nothing,
}

impl Reach {
    /// What is in reach of programs with these binds. (Links are followed here: one that a program has put leads to more
    /// than it is given, so that more is in reach and less is followed.)
    pub fn of(binds: &[Bind]) -> Reach {
        let written = binds.iter().filter(|bind| !bind.read_only);
        let directory = |path: &Path| openat(CWD, path, NAMED | OFlags::DIRECTORY, Mode::empty());
        let file = |path: &Path| openat(CWD, path, NAMED, Mode::empty());
        // As in `step`.
        let opened = written.map(|bind| directory(&bind.source).or_else(|_| file(&bind.source)));
        Reach(opened.flatten().collect())
    }

    /// Programs can write to this directory, too.
    pub fn add(&mut self, directory: OwnedFd) {
        self.0.push(directory);
    }

    /// Follows an absolute path, as path_resolution(7) says, but through links that programs can have put there.
    pub fn find(&self, path: &Path) -> Result<Found, Problem> {
        let mut here = root()?;
        let mut left: VecDeque<OsString> = names(path).collect();
        let mut followed = 0;
        while let Some(name) = left.pop_front() {
            if name == "/" {
                here = root()?;
                continue;
            }
            let is_last = left.is_empty();
            let link = match step(here.as_fd(), &name)? {
                Step::Link(link) => link,
                _ if is_last && name != ".." && name != "." => return Ok(Found::at(here, name)),
                Step::Directory(next) => {
                    here = next;
                    continue;
                }
                Step::Other(_) => return Err(Errno::NOTDIR.into()),
                Step::Nothing => return Err(Errno::NOENT.into()),
            };
            if self.has(here.as_fd())? {
                return Err(Problem::Link(name_of(here.as_fd())));
            }
            if fstatfs(&link)?.f_type == PROC_SUPER_MAGIC {
                // The kernel alone knows what it means, and programs put none there.
                if is_last {
                    return Ok(Found::at(here, name));
                }
                here = openat(&here, &name, NAMED | OFlags::DIRECTORY, Mode::empty())?;
                continue;
            }
            followed += 1;
            if followed > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(&link, "", Vec::new())?.into_bytes();
            let target = PathBuf::from(OsString::from_vec(target));
            left = names(&target).chain(left).collect();
        }
        let (directory, name) = (here, None);
        Ok(Found { directory, name })
    }

    /// Opens the file or directory that an absolute path leads to, to name it.
    pub fn open(&self, path: &Path) -> Result<OwnedFd, Problem> {
        let Found { directory, name } = self.find(path)?;
        let Some(name) = name else {
            return Ok(directory);
        };
        match step(directory.as_fd(), &name)? {
            Step::Directory(opened) | Step::Other(opened) => Ok(opened),
            Step::Link(link) if fstatfs(&link)?.f_type != PROC_SUPER_MAGIC => {
                // It was put there just now.
                Err(Problem::Link(name_of(directory.as_fd())))
            }
            Step::Link(_) => Ok(openat(&directory, &name, NAMED, Mode::empty())?),
            Step::Nothing => Err(Errno::NOENT.into()),
        }
    }

    /// Whether programs can write to this directory. Fails if that cannot be told.
    pub fn has(&self, directory: BorrowedFd<'_>) -> Result<bool, Errno> {
        self.within(directory).map(|within| within.is_some())
    }

    /// Those of this directory and its parents, the lowest first, that lie within a directory that programs are given, and are
    /// no mount points. `None` if it lies in none.
    pub fn within(&self, directory: BorrowedFd<'_>) -> Result<Option<Vec<OwnedFd>>, Errno> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let given: Vec<_> = self.0.iter().map(identity).collect::<Result<_, _>>()?;
        let mut within = Vec::new();
        let mut here = openat(directory, ".", NAMED, Mode::empty())?;
        let mut place = identity(&here)?;
        while !given.iter().any(|given| given.file == place.file) {
            let parent = openat(&here, "..", NAMED, Mode::empty())?;
            let above = identity(&parent)?;
            if above == place {
                return Ok(None);
            }
            if above.mount == place.mount {
                within.push(here);
            }
            (here, place) = (parent, above);
        }
        Ok(Some(within))
    }
}

impl Found {
    fn at(directory: OwnedFd, name: OsString) -> Found {
        let name = Some(name);
        Found { directory, name }
    }
}

/// Which file or directory a descriptor names.
#[derive(PartialEq, Eq)]
struct Identity {
    /// The file system's device, in two parts, and the number of the inode.
    file: (u32, u32, u64),
    /// The mount through which it was come to.
    mount: u64,
}

fn identity(descriptor: impl AsFd) -> Result<Identity, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let found: Statx = statx(descriptor, "", AtFlags::EMPTY_PATH, wanted)?;
    Ok(Identity {
        file: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        mount: found.stx_mnt_id,
    })
}

fn root() -> Result<OwnedFd, Errno> {
    openat(CWD, "/", NAMED | OFlags::DIRECTORY, Mode::empty())
}

/// Asks for a directory first: only who does has the kernel mount what is mounted on demand (open(2), `O_PATH`).
fn step(here: BorrowedFd<'_>, name: &OsStr) -> Result<Step, Errno> {
    match openat(here, name, ITSELF | OFlags::DIRECTORY, Mode::empty()) {
        Ok(directory) => return Ok(Step::Directory(directory)),
        Err(Errno::NOENT) => return Ok(Step::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Err(errno),
    }
    let opened = match openat(here, name, ITSELF, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Step::Nothing),
        opened => opened?,
    };
    Ok(match FileType::from_raw_mode(fstat(&opened)?.st_mode) {
        FileType::Symlink => Step::Link(opened),
        FileType::Directory => Step::Directory(opened),
        _ => Step::Other(opened),
    })
}

/// What the kernel calls an open directory.
pub fn name_of(directory: BorrowedFd<'_>) -> PathBuf {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fs::read_link(link).unwrap_or_default()
}

/// The parts of a path; `/` is one.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let names = path.components();
    names.map(|name| name.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with another in it that programs can write to.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let name = format!("ringfence-reach-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(path.join("own/below")).expect("directories");
            Tree(fs::canonicalize(path).expect("the directory"))
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn link(&self, target: &str, name: &str) {
            symlink(target, self.at(name)).expect("a link");
        }

        /// What a path leads to, and whether that is in reach. `Err` holds where a link is not followed.
        fn find(&self, path: &Path) -> Result<(PathBuf, bool), PathBuf> {
            let bind = Bind {
                source: self.at("own"),
                target: "/anywhere".into(),
                read_only: false,
            };
            let reach = Reach::of(&[bind]);
            match reach.find(path) {
                Ok(Found { directory, name }) => {
                    let is_reached = reach.has(directory.as_fd()).expect("an answer");
                    let directory = name_of(directory.as_fd());
                    let whole = name.map(|name| directory.join(name));
                    Ok((whole.unwrap_or(directory), is_reached))
                }
                Err(Problem::Link(directory)) => Err(directory),
                Err(problem) => panic!("{}: {problem}", path.display()),
            }
        }

        fn resolve(&self, name: &str) -> Result<(PathBuf, bool), PathBuf> {
            self.find(&self.at(name))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_are_followed_where_no_program_can_put_them() {
        let tree = Tree::new("followed");
        tree.link("own/below", "short");
        tree.link("file", "name");
        let of = |name, reached| Ok((tree.at(name), reached));
        assert_eq!(tree.resolve("file"), of("file", false));
        assert_eq!(tree.resolve("name"), of("file", false));
        assert_eq!(tree.resolve("own/file"), of("own/file", true));
        assert_eq!(tree.resolve("own/../file"), of("file", false));
        assert_eq!(tree.resolve("short/file"), of("own/below/file", true));
        assert_eq!(tree.resolve("short/../file"), of("own/file", true));
        // The kernel alone knows what this one means.
        tree.link("/proc/self/fd/1", "output");
        let number = std::process::id();
        let output = PathBuf::from(format!("/proc/{number}/fd/1"));
        assert_eq!(tree.resolve("output"), Ok((output, false)));
    }

    #[test]
    fn links_are_not_followed_where_programs_can_put_them() {
        let tree = Tree::new("not-followed");
        tree.link("/etc", "own/out");
        tree.link("/etc/passwd", "own/below/file");
        tree.link("own/out", "through");
        tree.link("own/below/file", "to");
        let at = |name| Err(tree.at(name));
        assert_eq!(tree.resolve("own/out/file"), at("own"));
        assert_eq!(tree.resolve("own/out"), at("own"));
        assert_eq!(tree.resolve("through/file"), at("own"));
        assert_eq!(tree.resolve("own/below/file"), at("own/below"));
        assert_eq!(tree.resolve("to"), at("own/below"));
    }

    #[test]
    fn a_directory_is_the_same_however_it_is_come_to() {
        let tree = Tree::new("the-same");
        tree.link("/etc", "own/below/out");
        let opened = fs::File::open(tree.at("own/below")).expect("a directory");
        let below = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let root = PathBuf::from("/proc/self/root");
        let by_root = root.join(tree.at("own/below").strip_prefix("/").expect("absolute"));
        for below in [below, by_root] {
            let at = |name| Ok((tree.at(name), true));
            assert_eq!(tree.find(&below.join("file")), at("own/below/file"));
            assert_eq!(tree.find(&below.join("out")), Err(tree.at("own/below")));
            assert_eq!(tree.find(&below.join("out/x")), Err(tree.at("own/below")));
            assert_eq!(tree.find(&below.join("../file")), at("own/file"));
            // Nothing is left to be told by its name.
            let out = Ok((tree.at("file"), false));
            assert_eq!(tree.find(&below.join("../../file")), out);
        }
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let tree = Tree::new("circle");
        tree.link("circle", "circle");
        let resolved = Reach::default().find(&tree.at("circle"));
        assert!(matches!(resolved, Err(Problem::Kernel(Errno::LOOP))));
    }
}
