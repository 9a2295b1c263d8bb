//! The environment that the program gets: the caller's or none, and what the caller sets besides.
//!
//! `unsafe` is here because the environment belongs to the whole process.

#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::env::clearenv;
use ringfence_sentry::failure::{Attempt, Failure};

/// One `--env`: `NAME=VALUE`, or `NAME` for the value that the caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: OsString,
    /// `None` if the caller has none either.
    value: Option<OsString>,
}

/// The argument of an option does not name a variable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a variable needs a name, as in NAME=VALUE")]
pub struct NoName;

impl Variable {
    /// Reads the argument of an option.
    pub fn parse(argument: OsString) -> Result<Variable, NoName> {
        let mut halves = argument.as_bytes().splitn(2, |byte| *byte == b'=');
        let name = OsStr::from_bytes(halves.next().unwrap_or_default()).to_owned();
        if name.is_empty() {
            return Err(NoName);
        }
        let value = match halves.next() {
            Some(value) => Some(OsStr::from_bytes(value).to_owned()),
            None => std::env::var_os(&name),
        };
        Ok(Variable { name, value })
    }
}

/// Changes the calling process's environment, which it is about to hand to a program.
///
/// # Safety
///
/// The process has one thread.
pub unsafe fn apply(clear: bool, variables: &[Variable]) -> Result<(), Failure> {
    if clear {
        // SAFETY: no other thread reads the environment meanwhile, as the caller promises.
        unsafe { clearenv() }.attempt("--clear-env")?;
    }
    for Variable { name, value } in variables {
        if let Some(value) = value {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read() {
        let variable = |argument: &str| Variable::parse(argument.into());
        let expected = |name: &str, value: Option<&str>| {
            Ok(Variable {
                name: name.into(),
                value: value.map(OsString::from),
            })
        };
        assert_eq!(variable("A=b=c"), expected("A", Some("b=c")));
        assert_eq!(variable("A="), expected("A", Some("")));
        assert_eq!(
            variable("SURELY_NOBODY_HAS_THIS"),
            expected("SURELY_NOBODY_HAS_THIS", None)
        );
        let path = std::env::var("PATH").ok();
        assert_eq!(variable("PATH"), expected("PATH", path.as_deref()));
        assert!(variable("=b").is_err() && variable("").is_err());
    }
}
