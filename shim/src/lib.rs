//! `libringfence_shim.so`: a program in a sandbox makes requests to the driver without being stopped for each.
//!
//! The idea: `ringfence run --fast` preloads this library into the program, and its `ioctl` takes the place of the C
//! library's. A request that is prompt and refers to nothing but memory is marshalled here, by the same tables that the
//! sentry has, and put into a lane ([`ringfence_ipc::lane`]), from which a thread of the server takes it. Everything else
//! is left to the system call, which is trapped as ever: whenever anything is not as it usually is, the answer here is to
//! take the trap, and so nothing has to be refused or reported here.
//!
//! The library is a convenience of the untrusted side. It has no right that the program does not have, and nobody
//! believes what it does; a program that goes around it, or writes what it likes into the lane, can make the requests
//! that it could make anyway.
//!
//! `ioctl` can be called anywhere: in many threads, in a signal handler that interrupts this very code, in a child made by
//! fork or vfork. So nothing here takes a lock, allocates memory, or panics, and `errno` is left alone:
//!
//! | module | subject |
//! |---|---|
//! | `interposed` | the functions that take the place of the C library's (`unsafe` lives here) |
//! | `request` | one request, from the program's memory into the lane and back |
//! | `registration` | how a process comes to have a lane, and loses it (`unsafe` lives here) |
//! | `state` | what is kept, in memory that a forked child finds empty (`unsafe` lives here) |
//! | `descriptors` | what descriptor numbers are called in the lane |
//! | `memory` | the program's memory, which may not be there (`unsafe` lives here) |
//! | `system` | system calls that leave `errno` alone (`unsafe` lives here) |

#![deny(unsafe_code)]

mod descriptors;
mod interposed;
mod memory;
mod registration;
mod request;
mod state;
mod system;
