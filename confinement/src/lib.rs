//! What the processes of a sandbox may ask of the kernel: one readable file per role, and the seccomp filter that is
//! made of it. And the steps around it by which sentry and server lock themselves in: [`Confinement`].
//!
//! The files are `confinement/policies/ROLE.policy`; [`policies`] has each as a constant. The format is explained at the
//! top of each file and, in full, in `confinement/src/text.rs`. To confine a process:
//!
//! ```no_run
//! use ringfence_confinement::{Table, install, policies};
//!
//! let numbers = [0x2a, 0x2b];
//! let tables = [Table { name: "escapes", numbers: &numbers }];
//! let program = policies::TASK.compile(&tables)?;
//! install(&program)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A policy without a `table` statement is compiled with `&[]`; tables that it does not name are ignored. A filter that
//! notifies is installed by [`install_with_listener`]. What a filter says to a call can be asked in a test without
//! installing it: [`interpreter::run`].
//!
//! [`linux`] is the table of what versions of Linux brought of that on which Ringfence rests.
//!
//! This crate knows nothing of NVIDIA and nothing of what a role is for: that stands in the files. What it knows of
//! a processor architecture stands in `arch/` and, in the policies, under `on NAME:`.

mod arch;
mod confinement;
mod error;
mod install;
pub mod interpreter;
pub mod linux;
pub mod policy;
mod rights;
mod root;
#[cfg(test)]
mod text;

pub use arch::OLDER_CALLS;
pub use confinement::Confinement;
pub use error::Error;
pub use install::{install, install_with_listener};
pub use policy::{Case, Condition, Policy, Problem, Rule, Table, Test, Verdict};
pub use rights::pass_on;
pub use root::Kept;

/// The policies, by role.
#[allow(
    clippy::unnecessary_cast,
    reason = "libc's constants are of several types, and arguments are compared as one"
)]
pub mod policies {
    use crate::policy::{Case, Condition, Policy, Rule, Test, Verdict};

    include!(concat!(env!("OUT_DIR"), "/policies.rs"));
}
