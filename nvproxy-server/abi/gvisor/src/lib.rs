//! Lists what gVisor's nvproxy serves and Ringfence refuses, release by release.
//!
//! gVisor keeps its requests in Go source. This reads that source as text, strictly ([`tokens`]): names, numbers and
//! capabilities are facts, and no code of gVisor's is run or copied. What it meets that it does not understand ends it,
//! with file and line, so that nothing is left out in silence. [`table`] reads which requests each release serves to
//! which capabilities, [`doors`] what else gets past that table, [`compare`] holds both against our own tables, and
//! [`known`] has the differences that are meant, each with its reason.
//!
//! It is a development tool, and trusts the source that it is given.

#![forbid(unsafe_code)]

pub mod compare;
pub mod constants;
pub mod doors;
pub mod error;
pub mod known;
pub mod module;
pub mod request;
pub mod table;
pub mod tokens;
