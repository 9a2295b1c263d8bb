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
//! | [`first`] | the container's first process |
//! | `program` | the last steps before the program runs |
//! | `covering` | covering what is in the container's root |
//! | `nodes` | the nodes that a hook has put there |
//! | `rights` | the capabilities that are lent and given back |
//! | [`host`] | the launcher |

mod covering;
pub mod first;
pub mod host;
mod nodes;
pub mod profile;
mod program;
pub mod rights;
pub mod told;
