//! Values that turn themselves into words of a command line, and back.
//!
//! [`options`] makes a struct of a list of options. Words are `--name=value`, or `--name` for what has no value. Every word has to
//! be known, and each option can be there once: what was said to a process that is trusted is not guessed at.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::num::{IntErrorKind, NonZeroU32, ParseIntError};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use nvproxy_abi::policy::{Capabilities, NeitherAllNorListed, UnknownCapability};
use nvproxy_abi::version::{DriverVersion, InvalidVersion};

use crate::size::{self, Size};

/// Makes a struct whose fields are options: each says its type, its name on the command line, and, if it is the user's, how its
/// value is called in the help.
macro_rules! options {
    (
        $(#[$about:meta])*
        $group:ident {
            $($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal $($value_name:literal)?,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $group {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl $crate::arguments::Group for $group {
            fn write(&self, words: &mut Vec<std::ffi::OsString>) {
                $($crate::arguments::Value::write(&self.$field, $name, words);)+
            }

            fn read(words: &mut $crate::arguments::Words) -> Result<$group, $crate::arguments::Wrong> {
                Ok($group {
                    $($field: words.take($name)?,)+
                })
            }
        }

        $crate::arguments::options!(@user $group $([$($help)+] $field $name $($value_name)?,)+);
    };
    // Of the user's options it is also known what there is.
    (@user $group:ident $([$($help:literal)+] $field:ident $name:literal $value_name:literal,)+) => {
        impl $group {
            /// What there is, in the order of the help.
            pub const ALL: &[$crate::arguments::UserOption<$group>] = &[
                $($crate::arguments::UserOption {
                    name: $name,
                    value_name: $value_name,
                    help: &[$($help),+],
                    set: |group, text| {
                        group.$field = Some(text.parse()?);
                        Ok(())
                    },
                },)+
            ];
        }
    };
    (@user $group:ident $([$($help:literal)+] $field:ident $name:literal,)+) => {};
}

pub(crate) use options;

/// One of the user's options.
pub struct UserOption<Group> {
    /// Without the dashes.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value_name: &'static str,
    /// Lines of paragraphs, with an empty one between two.
    pub help: &'static [&'static str],
    /// Reads it from text.
    pub set: fn(&mut Group, &str) -> Result<(), Reason>,
}

/// Options that belong together.
pub(crate) trait Group: Sized {
    /// Adds the words that say the same.
    fn write(&self, words: &mut Vec<OsString>);

    /// Takes from the words what it knows.
    fn read(words: &mut Words) -> Result<Self, Wrong>;
}

/// The words of a command line that nobody has taken yet: names of options, and their values if they have any.
pub(crate) struct Words(BTreeMap<String, Option<OsString>>);

impl Words {
    /// Words are `--name=value` or `--name`.
    pub(crate) fn new(arguments: impl IntoIterator<Item = OsString>) -> Result<Words, Wrong> {
        let mut words = BTreeMap::new();
        for argument in arguments {
            let unknown = || Wrong::Unknown(argument.to_string_lossy().into_owned());
            let bytes = argument.as_bytes();
            let bytes = bytes.strip_prefix(b"--").ok_or_else(unknown)?;
            let mut parts = bytes.splitn(2, |byte| *byte == b'=');
            let name = parts.next().and_then(|name| str::from_utf8(name).ok());
            let name = name.ok_or_else(unknown)?.to_owned();
            let value = parts.next().map(|value| OsString::from_vec(value.to_vec()));
            if words.insert(name.clone(), value).is_some() {
                return Err(Wrong::Twice(name));
            }
        }
        Ok(Words(words))
    }

    /// Takes the value of an option.
    pub(crate) fn take<T: Value>(&mut self, name: &str) -> Result<T, Wrong> {
        let value = match self.0.remove(name) {
            None => T::absent().ok_or(Reason::Absent),
            Some(None) => T::alone().ok_or(Reason::NeedsValue),
            Some(Some(value)) => T::parse(&value),
        };
        value.map_err(|reason| Wrong::Value(name.to_owned(), reason))
    }

    /// Fails if there are words that nobody has taken.
    pub(crate) fn finish(self) -> Result<(), Wrong> {
        match self.0.into_keys().next() {
            Some(unknown) => Err(Wrong::Unknown(unknown)),
            None => Ok(()),
        }
    }
}

/// What an option can be.
pub(crate) trait Value: Sized {
    /// Adds the word that says it, if there has to be one.
    fn write(&self, name: &str, words: &mut Vec<OsString>);

    /// What it is if its option is not there.
    fn absent() -> Option<Self> {
        None
    }

    /// What it is if its option is there without a value.
    fn alone() -> Option<Self> {
        None
    }

    /// What this value of its option means.
    fn parse(text: &OsStr) -> Result<Self, Reason>;
}

/// The word for an option with a value.
pub(crate) fn word(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

/// Reads a value that is text.
pub(crate) fn parse_text<T: FromStr<Err: Into<Reason>>>(text: &OsStr) -> Result<T, Reason> {
    let text = text.to_str().ok_or(Reason::NoText)?;
    text.parse().map_err(T::Err::into)
}

/// Makes values of types that can be written as text and read from it.
macro_rules! text {
    ($($type:ty),+) => {
        $(impl $crate::arguments::Value for $type {
            fn write(&self, name: &str, words: &mut Vec<std::ffi::OsString>) {
                words.push($crate::arguments::word(name, self.to_string()));
            }

            fn parse(text: &std::ffi::OsStr) -> Result<$type, $crate::arguments::Reason> {
                $crate::arguments::parse_text(text)
            }
        })+
    };
}

pub(crate) use text;

text!(
    DriverVersion,
    Capabilities,
    Size,
    RawFd,
    u32,
    u64,
    NonZeroU32
);

impl Value for PathBuf {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        words.push(word(name, self));
    }

    fn parse(text: &OsStr) -> Result<PathBuf, Reason> {
        Ok(PathBuf::from(text))
    }
}

impl Value for String {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        words.push(word(name, self));
    }

    fn parse(text: &OsStr) -> Result<String, Reason> {
        let text = text.to_str().ok_or(Reason::NoText)?;
        Ok(text.to_owned())
    }
}

impl Value for bool {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        if *self {
            words.push(OsString::from(format!("--{name}")));
        }
    }

    fn absent() -> Option<bool> {
        Some(false)
    }

    fn alone() -> Option<bool> {
        Some(true)
    }

    fn parse(_: &OsStr) -> Result<bool, Reason> {
        Err(Reason::HasNoValue)
    }
}

impl<T: Value> Value for Option<T> {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        if let Some(value) = self {
            value.write(name, words);
        }
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }

    fn parse(text: &OsStr) -> Result<Option<T>, Reason> {
        T::parse(text).map(Some)
    }
}

/// Why a command line does not say what a server has to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// This is none of its options.
    #[error("'{0}' is none of its options")]
    Unknown(String),
    /// This option is there twice.
    #[error("--{0} is there twice")]
    Twice(String),
    /// This option is not there, or what it says cannot be.
    #[error("--{0}: {1}")]
    Value(String, #[source] Reason),
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is not there.
    #[error("it has to be given")]
    Absent,
    /// It is there without a value.
    #[error("it needs a value")]
    NeedsValue,
    /// It is there with a value, and is one that has none.
    #[error("it has no value")]
    HasNoValue,
    /// Its value is not in UTF-8.
    #[error("it is no text")]
    NoText,
    /// Its value is none of a few words, which these are.
    #[error("none of {0}")]
    NoneOf(&'static str),
    /// Its value is no release.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// Its value is no list of capabilities.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// Its value does not say which of the firmware's commands there are.
    #[error(transparent)]
    FirmwareCommands(#[from] NeitherAllNorListed),
    /// Its value is no node of a sandbox's.
    #[error("'{0}' is no node of the driver's")]
    Node(String),
    /// Its value is no number of bytes.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// Its value is no number.
    #[error("it has to be a whole number")]
    NoNumber,
    /// Its value is 0, and has to be more.
    #[error("it has to be more than 0")]
    Zero,
    /// Its value is a number that its type cannot be.
    #[error("it is too large a number")]
    TooLarge,
}

impl From<ParseIntError> for Reason {
    fn from(error: ParseIntError) -> Reason {
        match error.kind() {
            IntErrorKind::Zero => Reason::Zero,
            IntErrorKind::PosOverflow => Reason::TooLarge,
            _ => Reason::NoNumber,
        }
    }
}
