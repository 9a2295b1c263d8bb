//! `ringfence demo`: what a newcomer runs first.
//!
//! The demonstration is this executable run once more, inside a sandbox, as a program that asks the driver for what
//! every GPU program asks for. It prints each step, what it came to, and what it cost.

mod guest;

pub use guest::run;
