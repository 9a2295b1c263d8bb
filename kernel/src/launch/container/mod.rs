//! A container with GPUs: the sandbox that a low-level runtime builds, in place of `ringfence run`.
//!
//! ```text
//! launcher            on the host, started by the container runtime's front: starts servers, copies messages
//! ├─ server           as in every sandbox
//!
//! sentry              the container's first process, process 1 of the namespaces that the low-level runtime made
//! └─ program          process 1 of a process namespace below it, with a mount namespace of its own
//! ```
//!
//! The idea: the low-level runtime does all that makes a container, by a specification in which the first process is this
//! executable. It has some rights lent that the program does not get. It becomes the sentry, and starts the program below
//! it, as the specification's author meant it: with the capabilities, the profile, and the paths that are hidden. So
//! whoever ends the container ends the sentry, and the kernel with it all tasks.
//!
//! | module | subject |
//! |---|---|
//! | [`told`] | what the front tells the first process |
//! | [`profile`] | the engine's seccomp profile: what is opened for the sentry, and closed for the program |
//! | [`seat`] | from where the first process is executed |
//! | [`first`] | the container's first process |
//! | `program` | the last steps before the program runs |
//! | `further` | the process that starts a further program, and stands in for it |
//! | `domain` | the program's Landlock domain |
//! | `covering` | covering what is in the container's root |
//! | `nodes` | the nodes that a hook has put there |
//! | `rights` | the capabilities that are lent and given back |
//! | [`host`] | the launcher |

mod covering;
mod domain;
pub mod first;
mod further;
pub mod host;
mod needed;
mod nodes;
pub mod profile;
mod program;
pub mod rights;
pub mod seat;
pub mod told;

use std::ffi::OsString;
use std::os::fd::RawFd;

use ringfence_sentry::failure::Failure;
use ringfence_sentry::log;
use ringfence_sentry::system_calls::exit_at_once;

use self::told::{WORD, WORD_FURTHER};

/// Runs as a process of a container's, if this was started as one.
pub fn if_asked(words: impl Iterator<Item = OsString>) {
    let mut words = words.skip(1);
    let Some(word) = words.next() else { return };
    let known = [WORD, WORD_FURTHER, further::WORD_AGAIN];
    let Some(word) = known.into_iter().find(|known| word == *known) else {
        return;
    };
    let number = words.next();
    let number: Option<RawFd> = number.and_then(|number| number.to_str()?.parse().ok());
    let status = match (word, number) {
        (_, None) => Err(Failure::setup(format!("{word}: no number"))),
        (WORD, Some(number)) => first::start(number, &words.collect::<Vec<_>>()),
        (WORD_FURTHER, Some(number)) => further::forget(number),
        (_, Some(number)) => further::start(number),
    };
    let status = status.unwrap_or_else(|failure| {
        log::print(&log::failing(&failure));
        failure.status
    });
    exit_at_once(i32::from(status))
}
