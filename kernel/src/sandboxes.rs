//! Running sandboxes, and how commands reach them: `ringfence ps` and `ringfence server-upgrade`.
//!
//! The launcher of a sandbox has a *door*: a socket, called after the sandbox, in a directory of the user's own. A
//! command connects, makes one request and gets one reply. Only who may do anything with the launcher anyway is let in:
//! processes of the same user, or root, that do not live in a sandbox. A task has the same user id, and may even see the
//! socket; it is told from others by its user namespace. The command looks at the launcher likewise. What a launcher does not
//! know it says so of: command and launcher may be of different releases, so both say what they say in JSON.

mod asking;
mod door;
mod peer;

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use nvproxy_abi::version::DriverVersion;
use ringfence_ipc::typed::Format;
use ringfence_ipc::{Message, Socket};
use serde::{Deserialize, Serialize};

pub use self::asking::{Listed, Running, list, upgrade};
pub use self::door::{Door, Visitor};

/// The longest request or reply, in bytes.
const MAXIMUM_MESSAGE: usize = 64 << 10;

/// What a sandbox is called: up to 64 letters, digits, `-`, `_` and `.`, the first of them a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(String);

/// The text is no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "a name has up to 64 letters, digits, '-', '_' and '.', and starts with a letter or a digit"
)]
pub struct UnfitName;

impl FromStr for Name {
    type Err = UnfitName;

    fn from_str(text: &str) -> Result<Name, UnfitName> {
        let is_fit =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.chars().all(is_fit) {
            Ok(Name(text.to_owned()))
        } else {
            Err(UnfitName)
        }
    }
}

/// How long engines' ids of containers are, and how much of one is shown, and taken for it: `docker ps`, `podman ps`, `crictl ps`.
const ID: usize = 64;
const SHORT_ID: usize = 12;

impl Name {
    /// Whether this is a container's id that an engine has chosen, and begins with `text`.
    fn is_id_beginning(&self, text: &str) -> bool {
        let Name(name) = self;
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        let is_id = name.len() == ID && name.bytes().all(is_digit);
        is_id && text.len() >= SHORT_ID && name.starts_with(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A sandbox, as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub name: Name,
    /// The launcher's number.
    pub process: i32,
    pub driver: String,
    pub command: Vec<String>,
}

impl About {
    /// The sandbox that the calling process launches, called after its number if it has no name.
    pub fn new(name: Option<&Name>, driver: &DriverVersion, command: &[OsString]) -> About {
        let process = std::process::id();
        About {
            name: name.cloned().unwrap_or(Name(process.to_string())),
            process: process as i32,
            driver: driver.to_string(),
            command: command
                .iter()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
        }
    }
}

/// A replacement of a server, by the processes' numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Upgrade {
    pub from: i32,
    pub to: i32,
    pub microseconds: u64,
}

/// What a command asks for.
pub enum Request {
    Describe,
    /// Replaces the server by one of this executable.
    Upgrade(OwnedFd),
}

/// A request as it travels; the executable travels beside it. The command may be of a newer release than the launcher, or of an
/// older one.
#[derive(Serialize, Deserialize)]
enum Wish {
    Describe,
    Upgrade,
}

impl Message for Wish {
    const MAXIMUM_BYTES: usize = MAXIMUM_MESSAGE;
    const FORMAT: Format = Format::Json;

    fn has_descriptor(&self) -> bool {
        matches!(self, Wish::Upgrade)
    }
}

/// What a launcher answers.
#[derive(Serialize, Deserialize)]
pub enum Reply {
    Description(About),
    Upgraded(Upgrade),
    Failed(String),
}

impl Message for Reply {
    const MAXIMUM_BYTES: usize = MAXIMUM_MESSAGE;
    const FORMAT: Format = Format::Json;
}

impl Reply {
    /// Sends the reply; a command that is gone needs none.
    pub fn send(&self, socket: &Socket) {
        let _ = socket.say(self, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_by_its_beginning_and_other_names_are_not() {
        let begins = |name: &str, text: &str| Name(name.to_owned()).is_id_beginning(text);
        let id = "0123456789abcdef".repeat(4);
        assert!(begins(&id, &id[..12]) && begins(&id, &id));
        assert!(!begins(&id, &id[..11]) && !begins(&id, "1123456789ab"));
        assert!(!begins(&id[..63], &id[..12]) && !begins(&"x".repeat(64), &"x".repeat(12)));
    }

    #[test]
    fn names_are_fit_for_a_file() {
        let is_name = |text: &str| text.parse::<Name>().is_ok();
        assert!(is_name("a") && is_name("Train-7_b.2") && is_name(&"x".repeat(64)));
        for wrong in ["", ".", "..", "a/b", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
