//! What has to hold for any bytes: one check for each thing that reads what somebody hostile wrote.
//!
//! A check takes an input, does with it what the program would do, and panics if something does not
//! hold. Who makes the inputs is not its business: libFuzzer through the targets in `fuzz/targets`, the
//! program `fuzz-corpus` from the corpus, or the test that tries the corpus as it is. No check ever
//! talks to a real driver: requests reach the simulated one, in this process.
//!
//! Checks may run one after the other in a process, and not at the same time, because some count the
//! process's descriptors.

#![forbid(unsafe_code)]

mod descriptors;
mod handshake;
mod input;
mod messages;
mod note;
pub mod plan;
pub mod recording;
pub mod requests;
mod rings;
mod sandbox;
mod tables;
mod version;

/// One fuzz target.
pub struct Target {
    /// The name of the target, and of the folder of its corpus in `fuzz/corpus`.
    pub name: &'static str,
    pub check: fn(&[u8]),
}

/// All of them, with what each takes for its input.
pub const TARGETS: &[Target] = &[
    target("ring_submissions", rings::submissions),
    target("ring_completions", rings::completions),
    target("handshake", handshake::check),
    target("messages", messages::check),
    target("requests", requests::check),
    target("plan", plan::check),
    target("recording", recording::check),
    target("version", version::check),
];

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

/// Runs the check of one target, for those that are one target each.
pub fn check(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("the name of a target").check)(input);
}
