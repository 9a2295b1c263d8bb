//! Runs programs outside and inside, and makes docs/COMPATIBILITY.md of what came of it.
//!
//! The idea: "whatever runs on the GPU outside runs inside" is a claim about every program, and each is a row of a table. A row
//! says what was run, what came of it outside and inside, and which requests were refused inside alone. The rows are data
//! (`programs.toml`), what came of them is data (`seen/`), and the document is made of both, so that there is nothing in it that
//! was not run.
//!
//! | module | subject |
//! |---|---|
//! | [`programs`] | the table of programs, and what of their output is compared |
//! | [`trial`] | one program: built, outside, inside, and under a survey |
//! | [`outside`] | a program outside, and what the driver refuses it there |
//! | [`stopped`] | traced processes that a signal has stopped |
//! | [`refusals`] | requests that were refused, and those that only inside were |
//! | [`surveys`] | what `ringfence survey` has found |
//! | [`scrub`] | what tells of a machine and is taken out |
//! | [`machine`] | the driver and the GPUs |
//! | [`seen`] | what came of the programs on one machine, as a file |
//! | [`reasons`] | why requests are refused, and whether that does harm |
//! | [`document`] | docs/COMPATIBILITY.md |
//! | [`summary`] | the short table at the end of a run |
//! | [`markdown`] | text in tables of Markdown |
//! | [`command_line`] | the command line |

#![forbid(unsafe_code)]

pub mod command_line;
pub mod document;
pub mod machine;
pub mod markdown;
pub mod outside;
pub mod programs;
pub mod reasons;
pub mod refusals;
pub mod scrub;
pub mod seen;
pub mod stopped;
pub mod summary;
pub mod surveys;
pub mod trial;
