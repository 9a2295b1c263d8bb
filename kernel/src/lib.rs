//! Ringfence: runs GPU programs that are not trusted.
//!
//! This crate is the sentry, which supervises a sandbox, and the launcher, which builds one. The server, which alone
//! talks to the driver, is the crate `nvproxy-server`.

pub mod demo;
pub mod doctor;
pub mod driver;
pub mod drivers;
pub mod failure;
pub mod guest;
pub mod launch;
pub mod log;
pub mod memory;
pub mod outputs;
pub mod reach;
pub mod record;
pub mod replay;
pub mod sandboxes;
pub mod seccomp;
pub mod sentry;
mod signals;
mod system_calls;
pub mod trace;
pub mod visible;
mod warnings;
