//! What a sandbox's launcher, sentry and servers say to one another. The processes trust each other with nothing, so here is
//! what a message may be, and no more: who receives one checks it.
//!
//! | module | between |
//! |---|---|
//! | [`requests`] | sentry and server, over the rings |
//! | [`supervision`] | launcher and servers, and one server and the next |
//! | [`driver`] | launcher, sentry and servers: which driver it is |
//! | [`options`] | launcher and servers: the command line of a server |
//! | [`clock`] | the clock that times in messages are of |
//! | [`size`] | how much memory a sandbox may have, as options say it |

#![forbid(unsafe_code)]

mod arguments;
pub mod clock;
pub mod driver;
pub mod options;
pub mod requests;
pub mod size;
pub mod supervision;
