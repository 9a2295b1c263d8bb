//! Computes the request tables of every driver release. It runs when `nvproxy-abi` is built, and in tests.
//!
//! Three things come together. The *catalogue* says what the driver's own source says of each release: numbers,
//! structures, privileges. The *rules* ([`rules`]) say the little that cannot be read off the source: which structure
//! an ioctl takes, what a descriptor field means, how long a buffer is where no table says it. The *policy*
//! ([`policy`]) says what each capability allows, by name. [`derive()`] makes rows of them, the same for releases that do
//! not differ, and fails, with everything that is wrong, if anything does not fit: a name that no release knows, a rule
//! that nothing uses, a pointer or a descriptor in an allowed request that nothing accounts for, a field of an effect that
//! some release lacks. So a release that brings something new cannot be taken in without somebody having looked at it.

#![forbid(unsafe_code)]

mod derive;
mod effects;
pub mod families;
mod fields;
mod parameters;
pub mod policy;
pub mod render;
pub mod rows;
pub mod rules;
mod tenants;
mod unlisted;
mod words;

pub use derive::derive;
