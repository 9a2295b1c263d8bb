//! What of the host a program is given: the options by which a caller widens the sandbox or dresses it up.
//!
//! The default of each is the narrowest.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use nix::unistd::{Gid, Uid};
use nvproxy_protocol::size::Size;

use super::environment::Variable;
use crate::arguments;
use crate::binds::{Bind, absolute_path};

// The options. (No documentation comment: that would be taken for what the command does that has them.)
#[derive(Args, Clone, Debug, Default)]
pub struct Grants {
    /// Show the file or directory SRC of the host as DST, by default under the same path; with :ro, to be read only
    ///
    /// May be repeated. All else is read-only, and /tmp, /var/tmp and /run are the sandbox's own.
    #[arg(long = "bind", value_name = "SRC[:DST[:ro]]", value_parser = OsStringValueParser::new().try_map(Bind::parse))]
    pub binds: Vec<Bind>,
    /// Start without the caller's environment
    #[arg(long)]
    pub clear_env: bool,
    /// Set a variable of the environment, or pass on the caller's; may be repeated
    #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(Variable::parse))]
    pub variables: Vec<Variable>,
    /// Give the program the caller's network
    #[arg(long = "net")]
    pub network: bool,
    /// Let the program inherit N descriptors besides the standard streams: 3, 4, and so on
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true, value_parser = arguments::number_of_descriptors())]
    pub preserve_fds: u16,
    /// Use this directory as the root of the file system
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// How much memory the files in /tmp, /var/tmp, /run and /dev/shm may take together, by default an eighth
    ///
    /// It is an eighth of the machine's memory, or of the caller's control group if that has less.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = arguments::text::<Size>())]
    pub tmp_size: Option<Size>,
    /// Run as this user and group; GID is by default the same number as UID
    ///
    /// An ordinary user gets these numbers inside and stays the same outside.
    #[arg(long = "uid", value_name = "UID[:GID]", allow_negative_numbers = true, value_parser = arguments::text::<Identity>())]
    pub identity: Option<Identity>,
    /// Start in this directory of the sandbox instead of the caller's, or of / if the sandbox does not have that
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().try_map(absolute_path))]
    pub workdir: Option<PathBuf>,
}

/// Who a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: Uid,
    pub group: Gid,
}

/// This is nobody's number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no number of a user or group: write UID or UID:GID, as in 1000:100")]
pub struct NoNumber(String);

impl FromStr for Identity {
    type Err = NoNumber;

    fn from_str(text: &str) -> Result<Identity, NoNumber> {
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        // The last number means "no one" to the kernel (credentials(7)).
        let number = |text: &str| match text.parse() {
            Ok(u32::MAX) | Err(_) => Err(NoNumber(text.to_owned())),
            Ok(number) => Ok(number),
        };
        Ok(Identity {
            user: Uid::from_raw(number(user)?),
            group: Gid::from_raw(number(group)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read() {
        let identity = |user, group| {
            Ok(Identity {
                user: Uid::from_raw(user),
                group: Gid::from_raw(group),
            })
        };
        assert_eq!("7".parse(), identity(7, 7));
        assert_eq!("7:8".parse(), identity(7, 8));
        for text in ["", "7:", "root", "-1", "4294967295", "7:8:9"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
