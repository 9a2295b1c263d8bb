//! What of the host's files is seen in the sandbox, and where.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

/// A file or directory of the host that is to be seen in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is seen in the sandbox.
    pub target: PathBuf,
    pub read_only: bool,
}

impl Bind {
    /// Reads the argument of an option.
    pub fn parse(argument: OsString) -> Result<Bind, String> {
        let mut parts = argument
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(OsStr::from_bytes);
        let source = parts.next().unwrap_or_default();
        let source = absolute(source).map_err(|error| format!("{}: {error}", source.display()))?;
        let target = match parts.next() {
            None => source.clone(),
            Some(target) if target.is_empty() => source.clone(),
            Some(target) => absolute_path(target.to_owned())?,
        };
        if target == Path::new("/") {
            return Err("the root is chosen with --rootfs".to_owned());
        }
        let read_only = match (parts.next(), parts.next()) {
            (None, _) => false,
            (Some(option), None) if option == "ro" => true,
            _ => return Err("only :ro may follow, as in SRC:DST:ro or SRC::ro".to_owned()),
        };
        Ok(Bind {
            source,
            target,
            read_only,
        })
    }
}

/// Reads a path of the sandbox, which has to be absolute.
pub fn absolute_path(argument: OsString) -> Result<PathBuf, String> {
    let path = PathBuf::from(argument);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{} is not an absolute path", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(argument: &str) -> Result<Bind, String> {
        Bind::parse(argument.into())
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
}
