//! Programs that the tools for developers start: the measurements (`perf/`) and the table of what runs (`compatibility/`).
//!
//! The idea: a tool that runs what others wrote says in one line what came of it, and leaves nothing of it behind, whatever
//! becomes of the program or of the tool itself.
//!
//! | module | subject |
//! |---|---|
//! | [`finding`] | where a program is |
//! | [`running`] | a program that is run to its end, or to its limit |
//! | [`below`] | all processes that came of this one, and their end |
//! | [`leftovers`] | what must not outlive this program if a signal ends it |

#![forbid(unsafe_code)]

pub mod below;
pub mod finding;
pub mod leftovers;
pub mod running;
