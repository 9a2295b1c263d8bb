//! What of the host's files is seen in the sandbox, and where.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

use ringfence_sentry::remedies;

use crate::withheld::{self, Withheld};

/// Where a process finds its own descriptors.
const DESCRIPTORS: [&str; 3] = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];

/// What says that it is to be read only.
const READ_ONLY: &str = "ro";

/// A file or directory of the host that is to be seen in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is seen in the sandbox.
    pub target: PathBuf,
    pub read_only: bool,
}

/// What is wrong with the argument of an option that names files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not known where this is.
    #[error("{}: {}", .path.display(), remedies::spelled(&.source.to_string()))]
    Source { path: PathBuf, source: io::Error },
    /// A path of the sandbox is relative.
    #[error("{} is not an absolute path: write the whole path in the sandbox, from / on", .0.display())]
    Relative(PathBuf),
    /// What is to follow the path in the sandbox stands in its place.
    #[error("ro is not an absolute path: write {}::ro, to be read only", .0.display())]
    NoTarget(PathBuf),
    /// There is no path.
    #[error("the path is empty: name a file or directory")]
    Empty,
    /// This is a descriptor of the caller's, which no process of the sandbox has.
    #[error("{}: descriptors other than the standard streams are closed by then: name what it is of by a path", .0.display())]
    Descriptor(PathBuf),
    /// This is a node that no sandbox has.
    #[error("{}: {}, so no sandbox has it: {}", .path.display(), .row.reason, .row.remedy)]
    Withheld {
        path: PathBuf,
        row: &'static Withheld,
    },
    /// Something is to be seen as the root.
    #[error("the root is chosen with --rootfs")]
    Root,
    /// There is more than the two paths, and something else than `ro`.
    #[error("only :ro may follow, as in SRC:DST:ro or SRC::ro")]
    More,
}

impl Bind {
    /// Reads the argument of an option.
    pub fn parse(argument: OsString) -> Result<Bind, Error> {
        let mut parts = argument
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(OsStr::from_bytes);
        let source = parts.next().unwrap_or_default();
        if source.is_empty() {
            return Err(Error::Empty);
        }
        let written = PathBuf::from(source);
        let source = absolute(source).map_err(|error| Error::Source {
            path: source.into(),
            source: error,
        })?;
        if names_descriptor(&source) {
            return Err(Error::Descriptor(source));
        }
        if let Some(row) = withheld::of(&source) {
            return Err(Error::Withheld { path: source, row });
        }
        let target = match parts.next() {
            None => source.clone(),
            Some(target) if target.is_empty() => source.clone(),
            Some(target) if target == READ_ONLY => return Err(Error::NoTarget(written)),
            Some(target) => absolute_path(target.to_owned())?,
        };
        if target == Path::new("/") {
            return Err(Error::Root);
        }
        let read_only = match (parts.next(), parts.next()) {
            (None, _) => false,
            (Some(option), None) if option == READ_ONLY => true,
            _ => return Err(Error::More),
        };
        Ok(Bind {
            source,
            target,
            read_only,
        })
    }
}

/// Whether a path leads through a descriptor of the calling process, other than the standard streams.
fn names_descriptor(path: &Path) -> bool {
    DESCRIPTORS.iter().any(|directory| {
        let number = path.strip_prefix(directory).map(|rest| rest.iter().next());
        let number = number.ok().flatten().and_then(OsStr::to_str);
        number.is_some_and(|number| number.parse().is_ok_and(|number: u32| number > 2))
    })
}

/// Reads a path of the sandbox, which has to be absolute.
pub fn absolute_path(argument: OsString) -> Result<PathBuf, Error> {
    let path = PathBuf::from(argument);
    if path.is_absolute() {
        Ok(path)
    } else if path.as_os_str().is_empty() {
        Err(Error::Empty)
    } else {
        Err(Error::Relative(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(argument: &str) -> Result<Bind, String> {
        Bind::parse(argument.into()).map_err(|error| error.to_string())
    }

    #[test]
    fn binds_are_read() {
        let expected = |source: &str, target: &str, read_only| {
            Ok(Bind {
                source: source.into(),
                target: target.into(),
                read_only,
            })
        };
        assert_eq!(bind("/a"), expected("/a", "/a", false));
        assert_eq!(bind("/a:/b"), expected("/a", "/b", false));
        assert_eq!(bind("/a:/b:ro"), expected("/a", "/b", true));
        assert_eq!(bind("/a::ro"), expected("/a", "/a", true));
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        assert_eq!(bind("."), expected(here, here, false));
    }

    #[test]
    fn binds_that_make_no_sense_are_refused() {
        for argument in ["", "/a:b", "/a:/b:rw", "/a:/b:ro:", "/a:ro", "/a:/", "/"] {
            assert!(bind(argument).is_err(), "{argument}");
        }
    }

    #[test]
    fn nodes_that_no_sandbox_has_are_refused_with_the_reason() {
        let expected = "/dev/dri/renderD128: its nodes take requests of other kernel modules (nvidia-drm and the kernel's own DRM) \
                        that no table has, so no sandbox has it: leave it out, and have EGL and Vulkan use NVIDIA's own nodes, \
                        without a display";
        for argument in ["/dev/dri/renderD128", "/dev/dri/renderD128:/tmp/node:ro"] {
            assert_eq!(bind(argument), Err(expected.to_owned()), "{argument}");
        }
        assert!(bind("/dev/nvidia-modeset").is_err());
        assert!(bind("/dev/nvidia-caps/nvidia-cap12").is_err());
    }

    #[test]
    fn descriptors_are_no_paths() {
        for path in ["/proc/self/fd/9/x", "/proc/thread-self/fd/3", "/dev/fd/63"] {
            let refused = format!(
                "{path}: descriptors other than the standard streams are closed by then: name what it is of by a path"
            );
            assert_eq!(bind(&format!("{path}:/tmp/x:ro")), Err(refused));
        }
        for path in [
            "/proc/self/fd/0",
            "/dev/fd",
            "/proc/self/cwd/3",
            "/dev/fdx/3",
        ] {
            assert!(bind(path).is_ok(), "{path}");
        }
    }
}
