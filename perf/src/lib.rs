//! Measures what Ringfence costs: every claim that the project makes, each beside its floor or its alternative.
//!
//! The idea: a time by itself says as much about the machine as about Ringfence. So whatever is claimed is a ratio of
//! two things that this program measures in the same run, in turns, and the ratio holds on any machine. What cannot be
//! measured on a machine is shown with the reason and what to do about it, never left out.
//!
//! | module | subject |
//! |---|---|
//! | [`claims`] | the table of claims, and a module for how each is measured |
//! | [`claim`] | what a claim and its measurement are |
//! | [`value`] | what a value is, what it has to be, and why there is none |
//! | [`measure`] | measuring in turns, and what the samples come to |
//! | [`session`] | what a measurement works with: the options, Ringfence, a directory, the progress |
//! | [`subject`] | a program that is measured and answers questions about itself |
//! | [`sandbox`] | programs in a sandbox, and the sandbox's own processes |
//! | [`guest`] | what this executable does when it is the measured program |
//! | [`processors`] | on which processors all this happens |
//! | [`system_calls`] | how many system calls another process makes |
//! | [`turns`] | two programs that take turns of some milliseconds |
//! | [`machine`] | the machine, in words |
//! | [`report`] | the results as a table, as JSON and as a page |
//! | [`ways`] | the ways to run a program: natively, with Ringfence, with what one would use instead |
//! | [`comparison`] | measuring one program by each way in turns |
//! | [`launch`] | a program that is about to start, and its run to the end |
//! | [`mounts`] | a mount namespace with a root for containers |
//! | [`options`] | what every command takes |
//! | [`command_line`] | the command line |

pub mod claim;
pub mod claims;
pub mod command_line;
pub mod comparison;
pub mod guest;
pub mod launch;
pub mod machine;
pub mod measure;
pub mod mounts;
pub mod options;
pub mod processors;
pub mod report;
pub mod sandbox;
pub mod session;
pub mod subject;
pub mod system_calls;
pub mod turns;
pub mod value;
pub mod ways;
