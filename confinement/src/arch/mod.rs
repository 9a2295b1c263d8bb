//! What filters know of a processor architecture: each has a file here, with the same items.
//!
//! To add one, write its file after the model of `x86_64.rs`, choose it below, add its name to `ARCHITECTURES` in
//! `confinement/src/text.rs`, and say in the policies under `on NAME:` which calls it has besides. `OLDER_CALLS` has
//! those that the C library makes there, and that newer architectures lack.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "missing.rs")]
mod chosen;

pub use chosen::OLDER_CALLS;
pub(crate) use chosen::{ARCHITECTURE, FIRST_FOREIGN};
