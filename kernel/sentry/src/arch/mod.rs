//! What the sentry knows of a processor architecture: each has a file here, with the same items.
//!
//! To add one, write its file after the model of `x86_64.rs` and choose it below.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "missing.rs")]
mod chosen;

pub use chosen::{
    ADDRESSES, INSTRUCTIONS, OPEN, PAGE, RESULT_AT, Registers, SEQUENCE, SEQUENCE_AT, SYSTEM_CALL,
    VFORK, call_of, next_of, pass_call,
};
