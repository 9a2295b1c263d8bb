//! Ringfence: runs GPU programs that are not trusted.
//!
//! This crate is the launcher, which builds a sandbox, and the commands. The sentry, which supervises one, is the crate
//! `ringfence-sentry`; the server, which alone talks to the driver, is `nvproxy-server`.

// They panic where nobody reads, or where there is no room: `endings::print` and `log::print` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
pub mod binds;
pub mod cli;
pub mod demo;
pub mod doctor;
pub mod driver;
pub mod drivers;
pub mod endings;
pub mod guest;
pub mod launch;
pub mod memory;
pub mod mig;
pub mod outputs;
pub mod reach;
pub mod record;
pub mod replay;
pub mod runtime;
pub mod runtime_configuration;
pub mod sandboxes;
pub mod serve;
mod server_exit;
pub mod survey;
mod text;
pub mod trace;
pub mod withheld;
