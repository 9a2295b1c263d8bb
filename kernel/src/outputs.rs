//! Where the launcher writes what the caller asked for: a log, a trace, a recording.
//!
//! The caller often names a file in a directory that programs can write, since it works there (`--bind .`). A program that
//! ran there before, or runs there in another sandbox, can have put something in the file's place: a link to a file that
//! the caller may write and the program may not, or a named pipe that nobody reads. So in a directory that the program of
//! this sandbox can write to no link is followed, wherever on the way to the file it lies (`reach.rs`), and nothing is
//! written to but ordinary files. Elsewhere a path means what it says, `/dev/stderr` for one.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::Failure;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::binds::Bind;
use crate::reach::{self, Found, Reach, name_of};

/// Whoever may read and write a new file, if the caller's mask lets them.
const EVERYBODY: Mode = Mode::from_raw_mode(0o666);

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
    Path(reach::Problem),
    /// It is in this directory, and no ordinary file.
    NotOrdinary(PathBuf),
    /// The path does not end in a file's name.
    NoName,
    /// It is `-`, by which people mean stdout.
    Dash,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Path(link @ reach::Problem::Link(_)) => {
                write!(formatter, "{link}: remove it, or name another file")
            }
            Problem::Path(problem) => problem.fmt(formatter),
            Problem::NotOrdinary(directory) => write!(
                formatter,
                "it is no ordinary file, and in {}, where programs can put one: remove it, or name another file",
                directory.display()
            ),
            Problem::NoName => {
                formatter.write_str("it is a directory's name, and a file is wanted")
            }
            Problem::Dash => formatter.write_str("stdout is the program's, and a file is wanted"),
        }
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Path(errno.into())
    }
}

impl From<reach::Problem> for Problem {
    fn from(problem: reach::Problem) -> Problem {
        Problem::Path(problem)
    }
}

impl Place {
    /// Finds the place that `path` means to the caller of a sandbox with these binds.
    pub fn find(path: &Path, binds: &[Bind]) -> Result<Place, Problem> {
        if path == Path::new("-") {
            return Err(Problem::Dash);
        }
        // What is read of it from here on leaves that out.
        let bytes = path.as_os_str().as_bytes();
        if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return Err(Problem::NoName);
        }
        // It fails where the caller's directory is gone, or by itself for a path without anything.
        let path = absolute(path).map_err(|error| match error.raw_os_error() {
            Some(errno) => Errno::from_raw_os_error(errno).into(),
            None => Problem::NoName,
        })?;
        let reach = match is_left_out() {
            true => Reach::default(),
            false => Reach::of(binds),
        };
        let Found { directory, name } = reach.find(&path)?;
        let name = name.ok_or(Problem::NoName)?;
        let reached = reach.has(directory.as_fd())?;
        let reached = reached.then(|| name_of(directory.as_fd()));
        Ok(Place {
            directory,
            name,
            reached,
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
            // Another link may be there by now.
            Err(Errno::LOOP) => return Err(reach::Problem::Link(reached.clone()).into()),
            opened => File::from(opened?),
        };
        match file.metadata() {
            Ok(status) if status.is_file() => Ok(file),
            _ => Err(Problem::NotOrdinary(reached.clone())),
        }
    }

    /// What makes it the same place as another, if writing to both would lose something.
    fn identity(&self) -> Option<Identity> {
        let flags = match self.reached {
            Some(_) => AtFlags::SYMLINK_NOFOLLOW,
            None => AtFlags::empty(),
        };
        match rustix::fs::statat(&self.directory, &self.name, flags) {
            Ok(found) => rustix::fs::FileType::from_raw_mode(found.st_mode)
                .is_file()
                .then_some(Identity::File(found.st_dev, found.st_ino)),
            Err(_) => {
                let directory = rustix::fs::fstat(&self.directory).ok()?;
                let (device, number) = (directory.st_dev, directory.st_ino);
                Some(Identity::Name(device, number, self.name.clone()))
            }
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

/// The file that a place has, by its device and number, or the name that is free in a directory.
#[derive(PartialEq)]
enum Identity {
    File(u64, u64),
    Name(u64, u64, OsString),
}

/// Fails if two of these are the same file, before either is written. Each is given with what its path is for.
pub fn expect_different(files: &[(&str, Option<&Path>)], binds: &[Bind]) -> Result<(), Failure> {
    let named = files
        .iter()
        .filter_map(|(what, path)| Some((what, (*path)?)));
    // Whoever opens what cannot be found says why.
    let found = named.filter_map(|(what, path)| {
        let place = Place::find(path, binds).ok()?;
        Some((format!("{what} {}", path.display()), place.identity()?))
    });
    let found: Vec<(String, Identity)> = found.collect();
    for (index, (other, identity)) in found.iter().enumerate() {
        let same = found.iter().take(index).find(|(_, it)| it == identity);
        if let Some((one, _)) = same {
            return Err(Failure::setup(format!(
                "{one} and {other} are the same file: name two"
            )));
        }
    }
    Ok(())
}

/// Opens the file at `path` for the log, for the run of a program with these binds.
pub fn open_log(path: &Path, binds: &[Bind]) -> Result<OwnedFd, Failure> {
    let opened = Place::find(path, binds).and_then(|place| place.open(OFlags::APPEND));
    opened
        .map(OwnedFd::from)
        .map_err(|problem| Failure::setup(format!("--log {}: {problem}", path.display())))
}
