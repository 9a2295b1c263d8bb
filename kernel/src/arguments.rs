//! Arguments that are text: read so that one that is not is named, with its option, as any other wrong one is.
//!
//! The parser alone says of such an argument only that there is one.

use std::error::Error;
use std::ffi::OsString;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Why an argument does not mean anything.
type Reason = Box<dyn Error + Send + Sync>;

/// What an argument is that is a `T` as text.
pub fn text<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(|argument| read(argument)?.parse().map_err(Reason::from))
}

/// What an argument is that is a number of descriptors.
pub fn number_of_descriptors() -> impl TypedValueParser<Value = u16> {
    OsStringValueParser::new().try_map(|argument| {
        let text = read(argument)?;
        let wrong = format!("write a number from 0 to {}", u16::MAX);
        text.parse().map_err(|_| Reason::from(wrong))
    })
}

fn read(argument: OsString) -> Result<String, Reason> {
    let text = argument.into_string();
    text.map_err(|_| Reason::from("it is not text: write it in UTF-8"))
}
