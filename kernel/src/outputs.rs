//! Where the launcher writes what the caller asked for: a log, a trace, a recording.
//!
//! The caller often names a file in a directory that programs can write, since it works there (`--bind .`). A program that
//! ran there before, or runs there in another sandbox, can have put something in the file's place: a link to a file that
//! the caller may write and the program may not, or a named pipe that nobody reads. So in a directory that the program of
//! this sandbox can write to no link is followed, wherever on the way to the file it lies, and nothing is written to but
//! ordinary files. Elsewhere a path means what it says, `/dev/stderr` for one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf, absolute};

use ringfence_faults::{Act, Point};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, renameat, unlinkat};
use rustix::io::Errno;

use crate::launch::grants::Bind;

/// Whoever may read and write a new file, if the caller's mask lets them.
const EVERYBODY: Mode = Mode::from_raw_mode(0o666);
/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

/// A place for a file: a name in a directory that stays the same, whatever its path comes to mean.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    /// The directory, if programs can write to it.
    reached: Option<PathBuf>,
}

/// Why a file cannot be written.
#[derive(Debug)]
pub enum Problem {
    Kernel(Errno),
    /// There is a link on the way in this directory.
    Link(PathBuf),
    /// It is in this directory, and no ordinary file.
    NotOrdinary(PathBuf),
    /// The path does not end in a name.
    NoName,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Kernel(errno) => std::io::Error::from(*errno).fmt(formatter),
            Problem::Link(directory) => write!(
                formatter,
                "a symbolic link in {}, where programs can put one, is not followed: remove it, or name another file",
                directory.display()
            ),
            Problem::NotOrdinary(directory) => write!(
                formatter,
                "it is no ordinary file, and in {}, where programs can put one: remove it, or name another file",
                directory.display()
            ),
            Problem::NoName => write!(formatter, "it is a directory: name a file"),
        }
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Kernel(errno)
    }
}

impl Place {
    /// Finds the place that `path` means to the caller of a sandbox with these binds.
    pub fn find(path: &Path, binds: &[Bind]) -> Result<Place, Problem> {
        let path = absolute(path).map_err(|_| Problem::NoName)?;
        let resolved = match is_left_out() {
            true => Resolved::to(path.clone()),
            false => Reach::of(binds).resolve(&path)?,
        };
        let end = &resolved.path;
        let (Some(name), Some(parent)) = (end.file_name(), end.parent()) else {
            return Err(Problem::NoName);
        };
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Another link may be there by now.
        let links = match resolved.reached {
            Some(_) => ResolveFlags::NO_SYMLINKS,
            None => ResolveFlags::empty(),
        };
        let directory = openat2(CWD, parent, how, Mode::empty(), links);
        let directory = directory.map_err(|errno| of_links(errno, parent))?;
        Ok(Place {
            directory,
            name: name.to_owned(),
            reached: resolved.reached,
        })
    }

    /// Opens the file that is there, or makes it. It is only written, with `further` flags.
    pub fn open(&self, further: OFlags) -> Result<File, Problem> {
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | further;
        let Some(reached) = &self.reached else {
            return Ok(openat(&self.directory, &self.name, flags, EVERYBODY)?.into());
        };
        // A named pipe that nobody reads is not waited for.
        flags |= OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&self.directory, &self.name, flags, EVERYBODY) {
            Err(Errno::NXIO) => return Err(Problem::NotOrdinary(reached.clone())),
            opened => File::from(opened.map_err(|errno| of_links(errno, reached))?),
        };
        match file.metadata() {
            Ok(status) if status.is_file() => Ok(file),
            _ => Err(Problem::NotOrdinary(reached.clone())),
        }
    }

    /// Whether there is a directory of that name.
    pub fn is_directory(&self) -> bool {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::empty()).is_ok_and(|status| {
            rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Directory
        })
    }

    /// Whether nothing has that name, or what can be replaced: an ordinary file, or a link.
    pub fn can_be_replaced(&self) -> bool {
        let found = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|status| rustix::fs::FileType::from_raw_mode(status.st_mode));
        use rustix::fs::FileType::{RegularFile, Symlink};
        matches!(found, Err(_) | Ok(RegularFile | Symlink))
    }

    /// Makes a file beside the place, under a name that nobody could foresee, and returns it with that name.
    pub fn make_part(&self) -> Result<(File, OsString), Problem> {
        let mut name = self.name.clone();
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        if is_left_out() {
            name.push(".part");
            flags |= OFlags::TRUNC;
        } else {
            let number = RandomState::new().hash_one(std::process::id());
            name.push(format!(".{number:016x}.part"));
            flags |= OFlags::EXCL | OFlags::NOFOLLOW;
        }
        let file = openat(&self.directory, &name, flags, EVERYBODY)?;
        Ok((file.into(), name))
    }

    /// Gives `file`, which was made beside the place as `part`, the place's name. A link of that name is replaced, not followed.
    /// Fails if anything else has one of the names by then: programs that can write to the directory can have moved the file
    /// away, and put a link there.
    pub fn put(&self, part: &OsStr, file: &File) -> std::io::Result<()> {
        self.expect(part, file)?;
        renameat(&self.directory, part, &self.directory, &self.name)?;
        self.expect(&self.name, file)
    }

    /// Fails if something else than `file` has this name.
    fn expect(&self, name: &OsStr, file: &File) -> std::io::Result<()> {
        let file = rustix::fs::fstat(file)?;
        let found = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_the_file = match found {
            Ok(found) => (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino),
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(errno.into()),
        };
        if is_the_file || is_left_out() {
            return Ok(());
        }
        Err(std::io::Error::other(format!(
            "{} was moved away or replaced while the program ran, as programs can that may write to its directory: name a file \
             elsewhere",
            name.display()
        )))
    }

    /// Removes what was made beside the place.
    pub fn remove(&self, part: &OsStr) {
        // It has its right name by now, perhaps.
        let _ = unlinkat(&self.directory, part, AtFlags::empty());
    }
}

/// For the tests of what happens otherwise.
fn is_left_out() -> bool {
    ringfence_faults::at(Point::Outputs) == Some(Act::Drop)
}

fn of_links(errno: Errno, reached: &Path) -> Problem {
    match errno {
        Errno::LOOP => Problem::Link(reached.to_owned()),
        errno => errno.into(),
    }
}

/// What programs can write to: directories, or files.
struct Reach(Vec<PathBuf>);

/// What a path leads to.
struct Resolved {
    /// Without links, but where the kernel alone knows what they mean.
    path: PathBuf,
    /// The directory that it lies in, if programs can write to that.
    reached: Option<PathBuf>,
}

impl Resolved {
    /// What leads to itself, and is out of reach.
    fn to(path: PathBuf) -> Resolved {
        let reached = None;
        Resolved { path, reached }
    }
}

impl Reach {
    /// What is in reach of programs with these binds.
    fn of(binds: &[Bind]) -> Reach {
        let written = binds.iter().filter(|bind| !bind.read_only);
        let real = written.filter_map(|bind| fs::canonicalize(&bind.source).ok());
        Reach(real.collect())
    }

    fn has(&self, directory: &Path) -> bool {
        self.0.iter().any(|written| directory.starts_with(written))
    }

    /// Follows the links in an absolute path, those out of reach, as path_resolution(7) says.
    fn resolve(&self, path: &Path) -> Result<Resolved, Problem> {
        let mut left: VecDeque<OsString> = path.components().map(owned).collect();
        let mut here = PathBuf::from("/");
        let mut followed = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            // What is not there may be made.
            let is_link = fs::symlink_metadata(&next).is_ok_and(|status| status.is_symlink());
            if !is_link {
                here = next;
                continue;
            }
            if self.has(&here) {
                return Err(Problem::Link(here));
            }
            if here.starts_with("/proc") {
                return Ok(Resolved::to(
                    left.iter().fold(next, |path, name| path.join(name)),
                ));
            }
            followed += 1;
            let target = fs::read_link(&next).ok().filter(|_| followed <= MOST_LINKS);
            let target = target.ok_or(Problem::Kernel(Errno::LOOP))?;
            for name in target.components().rev().map(owned) {
                left.push_front(name);
            }
        }
        let parent = here.parent().filter(|parent| self.has(parent));
        let reached = parent.map(Path::to_path_buf);
        let path = here;
        Ok(Resolved { path, reached })
    }
}

fn owned(component: Component<'_>) -> OsString {
    component.as_os_str().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with another in it that programs can write to.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let name = format!("ringfence-outputs-{}-{name}", std::process::id());
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
        fn resolve(&self, name: &str) -> Result<(PathBuf, bool), PathBuf> {
            let bind = Bind {
                source: self.at("own"),
                target: "/anywhere".into(),
                read_only: false,
            };
            match Reach::of(&[bind]).resolve(&self.at(name)) {
                Ok(Resolved { path, reached }) => Ok((path, reached.is_some())),
                Err(Problem::Link(directory)) => Err(directory),
                Err(problem) => panic!("{name}: {problem}"),
            }
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
        let output = PathBuf::from("/proc/self/fd/1");
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
    fn links_in_a_circle_come_to_an_end() {
        let tree = Tree::new("circle");
        tree.link("circle", "circle");
        let resolved = Reach::of(&[]).resolve(&tree.at("circle"));
        assert!(matches!(resolved, Err(Problem::Kernel(Errno::LOOP))));
    }
}
