//! Faults that a test asks for: a process kills itself, a driver call fails, a doorbell is lost.
//!
//! The code under test names [`Point`]s that it passes. In a test build (the feature `inject`) the environment variable
//! `RINGFENCE_FAULTS` holds rules that say what happens there; [`at`] does it, or says what the caller is to do wrong.
//! In every other build [`at`] is `None` for the compiler, too, and neither the variable's name nor what follows from
//! it is in the executable: `userland-tests/tests/faults.rs` looks.
//!
//! Rules are separated by spaces, and each is `ROLE.POINT=ACTION`, `ROLE.POINT@N=ACTION` or `ROLE.POINT@N+=ACTION`: each
//! time that a process of this role passes the point, only the Nth time (from 1), or from the Nth time on. [`Role`] has
//! the roles, and [`Point::name`] says what the points are called.
//!
//! | action | what happens |
//! |---|---|
//! | `kill` | the process dies at once, by an illegal instruction: as suddenly as by SIGKILL, but process 1 of a namespace can do it to itself, under any seccomp filter |
//! | `leave` | the thread that passes ends, and the others of its process go on |
//! | `kill-task` | the task that the sentry is working for is killed |
//! | `delay:MS` | it waits so many milliseconds |
//! | `busy:MS` | it runs for so many milliseconds by the clock, and does nothing |
//! | `block` | it waits for ever |
//! | `await-sigcont` | it waits until somebody sends it SIGCONT |
//! | `exhaust-descriptors:N` | it takes all descriptors that it may have, but N |
//! | `exhaust-memory` | it takes all memory that is to be had in pieces of 64 KiB or more |
//! | `errno:N`, `errno:each` | what is about to be done fails with this errno; with errno 1 the first time that the rule holds, then with 2, and so on |
//! | `value:N` | a number takes the place of another |
//! | `garbage` | the answer is filled with [`GARBAGE`] |
//! | `drop`, `duplicate`, `replay`, `reorder`, `torn`, `word:I:VALUE`, `skip:N` | wrongs of a ring's producer, see [`Act`] |
//!
//! Callers assume nothing: passing a point costs a test build a look at a list and has no effect unless a rule says so.
//! A rule that cannot be read ends the process with status 125.

#[cfg(feature = "inject")]
mod arch;
#[cfg(feature = "inject")]
mod clock;
mod points;
#[cfg(feature = "inject")]
mod process;
#[cfg(feature = "inject")]
mod rules;

pub use points::Point;

/// Whether this is a test build.
pub const ENABLED: bool = cfg!(feature = "inject");

/// The environment variables that this crate reads in a server.
#[cfg(feature = "inject")]
pub const VARIABLES: &[&str] = &[rules::VARIABLE];
/// The environment variables that this crate reads in a server: none.
#[cfg(not(feature = "inject"))]
pub const VARIABLES: &[&str] = &[];

/// What fills the answer of a driver call that is to answer with garbage.
pub const GARBAGE: u8 = 0xa5;

/// Text that a terminal would obey.
pub const CONTROLS: &str = "a\u{1b}]0;title\u{7}\u{9b}2Jb";

/// Whose rules a process obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// `launcher`, the default.
    Launcher,
    /// `sentry`. Rules for it hold for all but servers at every point but [`Point::Step`], which each process has many of.
    Sentry,
    /// `init`.
    Init,
    /// `program`: until the program is executed.
    Program,
    /// `server-start`: what is to be a server, until that is executed. For it hold rules for the sentry as well.
    ServerStart,
    /// `server`.
    Server,
}

impl Role {
    /// What rules call it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Launcher => "launcher",
            Role::Sentry => "sentry",
            Role::Init => "init",
            Role::Program => "program",
            Role::ServerStart => "server-start",
            Role::Server => "server",
        }
    }

    /// All of them.
    pub const ALL: &'static [Role] = &[
        Role::Launcher,
        Role::Sentry,
        Role::Init,
        Role::Program,
        Role::ServerStart,
        Role::Server,
    ];
}

/// What the caller of [`at`] is to do wrong. A caller for whom an act makes no sense ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Fail with this errno instead.
    Errno(i32),
    /// Use this number instead.
    Value(u64),
    /// Answer with [`GARBAGE`].
    Garbage,
    /// Leave it out.
    Drop,
    /// Do it twice.
    Duplicate,
    /// Write the entry before this one once more, then this one.
    Replay,
    /// Keep the entry back, and write it after the next one.
    Reorder,
    /// Write the first half of this entry and the second half of the one before.
    Torn,
    /// Write the entry with another word in this place.
    Word(usize, u64),
    /// Pass over so many slots as if they had been written.
    Skip(u32),
}

/// Passes a point: does what a rule says, and returns what the caller is to do.
#[inline(always)]
pub fn at(point: Point) -> Option<Act> {
    at_task(point, 0)
}

/// Passes a point of the work for the task whose number is `task`, which a rule may have killed.
#[cfg(feature = "inject")]
pub fn at_task(point: Point, task: i32) -> Option<Act> {
    rules::pass(point, task)
}

/// Passes a point of the work for the task whose number is `task`, which a rule may have killed.
#[cfg(not(feature = "inject"))]
#[inline(always)]
pub fn at_task(_point: Point, _task: i32) -> Option<Act> {
    None
}

/// Whether what was just attempted, or is about to be, is to fail, though it would not: why, in the kernel's words. Every
/// attempt whose failure ends a start passes here, so that a test can have each of them fail in turn.
#[inline(always)]
pub fn step() -> Option<std::io::Error> {
    match at(Point::Step) {
        Some(Act::Errno(errno)) => Some(std::io::Error::from_raw_os_error(errno)),
        _ => None,
    }
}

/// The number to use at a point: `ordinary`, unless a rule names another.
#[inline(always)]
pub fn number(point: Point, ordinary: u32) -> u32 {
    match at(point) {
        Some(Act::Value(value)) => value as u32,
        _ => ordinary,
    }
}

/// From now on this process obeys the rules of this role.
#[inline(always)]
pub fn act_as(role: Role) {
    #[cfg(feature = "inject")]
    rules::act_as(role);
    #[cfg(not(feature = "inject"))]
    let _ = role;
}

/// The variable with the rules that this process obeys, for one that gets no environment of this one's; nothing without rules.
pub fn environment() -> Vec<String> {
    #[cfg(feature = "inject")]
    return rules::environment();
    #[cfg(not(feature = "inject"))]
    Vec::new()
}

/// Whether this process, which is about to become the program under its filter, is to become it without. If a rule says
/// `duplicate`, it starts another, for which that is so: it has everything else that the program has, and
/// `RINGFENCE_UNFILTERED` in its environment. The calling process must have one thread.
#[inline(always)]
pub fn is_unfiltered() -> bool {
    #[cfg(feature = "inject")]
    return at(Point::Filter) == Some(Act::Duplicate) && process::start_unfiltered();
    #[cfg(not(feature = "inject"))]
    false
}

/// If a rule says `drop` at [`Point::Apart`], forks this process, which must have one thread: the child lives in the user
/// and the process namespace of the sentry with this number, with all rights there, and is this process's child all the
/// same. Returns the child's number, 0 in the child. Only root can do this.
#[inline(always)]
pub fn fork_beside(sentry: i32) -> Option<std::io::Result<i32>> {
    #[cfg(feature = "inject")]
    return (at(Point::Apart) == Some(Act::Drop))
        .then(|| process::fork_beside(sentry).map_err(Into::into));
    #[cfg(not(feature = "inject"))]
    {
        let _ = sentry;
        None
    }
}
