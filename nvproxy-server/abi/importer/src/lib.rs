//! Derives the catalogue of driver releases from the driver's published source.
//!
//! The authority is always the one that the driver itself relies on. Layouts and values of constants come from a C
//! compiler, through the debug information that it writes ([`layout`]); lists that the driver keeps in macros
//! ([`classes`], [`copies`]) are read after the preprocessor has expanded them. Text is read in two places only: the
//! tables of exported control commands, which a generator wrote and whose form is checked strictly ([`exports`]), and
//! the macros that name control commands, whose values the compiler then confirms ([`names`]).
//!
//! It is a development tool: it runs `git`, `tar` and `cc`, and trusts the clone that it is given.

#![forbid(unsafe_code)]

pub mod classes;
pub mod compiler;
pub mod copies;
pub mod error;
pub mod exports;
pub mod import;
pub mod layout;
pub mod names;
pub mod release;
pub mod source;
