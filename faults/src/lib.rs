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
#[cfg(feature = "inject")]
mod process;
#[cfg(feature = "inject")]
mod rules;

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

/// A place in the code where something can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Something was attempted that can fail, see [`step`].
    Step,
    /// The server has taken a submission from the ring, and looked at nothing of it.
    Take,
    /// The same, of a submission that is not the first of its wake.
    Next,
    /// The server has copied a request and validated it.
    Prepared,
    /// The server is about to issue a request.
    Call,
    /// The driver has answered a request.
    Called,
    /// The server is about to answer a request itself, instead of issuing it.
    Instead,
    /// The server is about to check which GPUs a request names.
    Named,
    /// The server is about to refuse a descriptor of an open-only node that the sandbox was not given.
    NotGiven,
    /// The server is about to refuse a client that is none of the sandbox's.
    Owned,
    /// The sentry has read which process and user makes a request.
    Issuer,
    /// The server is about to keep the description open of the client that a request relies on, and then to issue the request.
    Relied,
    /// The server is about to refuse what would have a device outlast the client whose address space it uses.
    Outlasted,
    /// The server has found a client that a request names, and is about to look whether it is of the same process or user.
    Related,
    /// The server is about to take out of an answer what the sandbox is not to be told.
    Told,
    /// The server is about to count an address space, a range group, what a request that failed has left, memory of which flags
    /// say where it is, or memory that lies in a dma-buf.
    Counted,
    /// The server is about to check whether what everybody is to be let copy is memory.
    Shared,
    /// The server is about to refuse to export what is no memory of a GPU's that it knows.
    Exported,
    /// The server is about to hand over a descriptor that the driver has made; garbage: another in its place.
    Made,
    /// The server is about to take out of a request what its answer is not to tell.
    Said,
    /// The server is about to set or clear bits of a request, whatever the program has there.
    ForcedBits,
    /// The server is about to look whether pins may hold what is mapped no longer.
    Kept,
    /// The server is about to note that a task can map memory of the host.
    Mapped,
    /// A value of a request is about to be refused that is not passed.
    Values,
    /// A command of the firmware's is about to be refused that is not passed, or one with parameters of a size that is not.
    Firmware,
    /// The server is about to refuse the end of a pin that was not begun.
    Begun,
    /// The server is about to look which pins, whose outcome it has not heard, something copied or closed may concern.
    Copied,
    /// The server is about to lend a descriptor for a pin; if that is left out, the simulated driver has carried it out by
    /// then, as the real one has before the server hears of it.
    Lend,
    /// The server is about to show the sentry what it completed.
    Publish,
    /// How many descriptions a sandbox may have open.
    Nodes,
    /// The server is about to open a node.
    Open,
    /// A worker of the server is about to do its job.
    Work,
    /// A thread of the server that led the loop is about to make a slow request.
    Slow,
    /// The sentry has received a task's ioctl.
    Received,
    /// The sentry is about to put a submission into the ring.
    Submit,
    /// The sentry has a request's answer and has not written it back.
    Answered,
    /// The sentry is about to look what a descriptor is of that the driver has made for a task.
    Handed,
    /// A task has a descriptor that the driver has made, and its number is about to be written for it.
    Installed,
    /// Of a pin: it is its turn, and it is about to be looked how long it has waited for that; if that is left out, it has not.
    PinQueued,
    /// Of a pin: the server has lent the command descriptor.
    PinLent,
    /// Of a pin: all other tasks are about to be held.
    Hold,
    /// Of a pin: an alarm is about to be set, lest a seizure waits for ever.
    Alarm,
    /// Of a pin: all tasks have been listed, and are about to be taken hold of one after the other.
    Pass,
    /// Of a pin: what a pass over all tasks took is about to be counted; if that is left out, it took no time.
    Passed,
    /// Of a pin: a thread has been seized, and is about to be interrupted.
    Seized,
    /// Of a pin: all that were interrupted are about to be looked at, beside the one that is waited for.
    Sorted,
    /// Of a pin: it is about to be looked whether a thread waits for a child, as after vfork.
    Vforked,
    /// Of a pin: a thread cannot be seized that this process traces already.
    Traced,
    /// Of a pin: it was looked whether a task may have escaped the last pass over all of them.
    Settled,
    /// A thread that is to be let go has not stopped since the last look, and it is about to be looked whether it had before;
    /// if that is left out, it had not.
    Lagging,
    /// Of a pin: all other tasks are held.
    PinHeld,
    /// Of a pin: the caller has stopped.
    PinStopped,
    /// Of a pin: Syscall User Dispatch is about to be turned off for the caller.
    Dispatched,
    /// Of a pin: an address is about to be chosen for the parameters; if that is left out, the kernel chooses it.
    PinPage,
    /// Of a pin: a descriptor table is about to be made that the command descriptor is put into; if that is left out, it
    /// is the caller's.
    PinTable,
    /// Of a pin: the kernel is about to be asked whether that table is one of its own; if that is left out, it is believed.
    PinTableOwn,
    /// Of a pin: it is about to be looked whether the thread was killed in the sequence that it was to execute; if that is left
    /// out, it was not.
    PinThrough,
    /// Of a pin: the thread that is to issue the request has been made.
    PinHelper,
    /// Of a pin: that thread is about to map the page of the parameters; if that is left out, the caller maps it.
    PinMaker,
    /// Of a pin: the page of the instruction is about to be mapped as the file that it is; if that is left out, as a private
    /// copy.
    PinShared,
    /// Of a pin: that thread is about to be set to an instruction of the sentry's; if that is left out, it makes its calls
    /// by the program's own.
    PinCode,
    /// Of a pin: memory for the parameters is about to be taken that others cannot reach; if that is left out, it is taken
    /// as where the kernel has none.
    PinSecret,
    /// Of a pin: a signal that stops a process has reached a thread which makes calls for it, and is about to be delivered; if
    /// that is left out, it is lost.
    PinStop,
    /// Of a pin: the validated parameters lie in the caller's page.
    PinPrepared,
    /// Of a pin: the descriptor is lent, the parameters were found to be the validated ones, and the driver is about to
    /// read them.
    PinChecked,
    /// Of a pin: the request is over, and the driver's answer is about to be read; if that is left out, it counts as one that
    /// was not let through.
    PinAnswer,
    /// Of a pin: the driver has answered; with an `errno`, by that.
    PinWritten,
    /// Of a pin: the driver says that it could not write its answer, and this is about to be taken for not knowing what it did.
    PinUnwritten,
    /// Of a pin: the request has been issued.
    PinIssued,
    /// Of a pin: a call has come back, and it is about to be looked whether it was let through; if that is left out, what
    /// came back counts as the driver's answer.
    PinBelieved,
    /// Of a pin: a thread has been set to a system call; if what follows is left out, it is not killed for making none.
    PinObeyed,
    /// Of a pin: the thread that issued the request has ended.
    PinEnded,
    /// Of a pin: the other tasks go on, and the server is about to be told.
    PinTold,
    /// Of a pin: the server has not answered to that, and it is about to be looked whether it has been silent for too long; if
    /// that is left out, it has not.
    PinUnanswered,
    /// The program's process is about to install its filter, see [`is_unfiltered`].
    Filter,
    /// The program's process is about to fill the driver's words into its filter.
    Words,
    /// The sentry is about to answer one of the driver's words on a descriptor that is not the driver's.
    Foreign,
    /// The sentry is about to look whether a description that a task wants to lock is one of the driver's nodes.
    Locked,
    /// The program's process is about to lower its limit of descriptors.
    InFlight,
    /// The launcher is about to start a server in namespaces of its own, see [`fork_beside`].
    Apart,
    /// The sentry is about to look whether the task that it has read from, or is to write to, still waits for it.
    Waiting,
    /// What the kernel shows root alone is about to be taken from a sandbox that root started.
    RootsFiles,
    /// The kernel's files are about to be restricted where nobody else reaches them; if that is left out, they are when they
    /// have been placed in the root.
    Staged,
    /// The sandbox's own `/proc`, `/sys` and `/dev` have been placed in the root.
    Placed,
    /// File systems of the kernel's own are about to be covered in the host's tree, before anything of it is copied.
    Early,
    /// File systems of the kernel's own are about to be covered that lie elsewhere.
    Elsewhere,
    /// What the caller left open to be read, or a device that it left open, is about to be opened anew for the program.
    Given,
    /// Pipes are about to be made in the place of those that the caller left open to be read.
    Inputs,
    /// The launcher is about to count what a program has not read of what it was lent; if that is left out, it has read all once
    /// there is room in its pipe.
    Unread,
    /// The launcher is about to open a file that it was asked to write.
    Outputs,
    /// It is about to be looked what of the host programs can write to, before what is to be bound and the root are opened; if
    /// that is left out, it is nothing.
    Sources,
    /// The launcher is about to stop with its program.
    Stop,
    /// The launcher is about to start a process that continues it with its program.
    Watch,
    /// The launcher has settings of a terminal to restore that was given to others meanwhile.
    Left,
    /// The launcher is about to keep what others have changed of the settings of a terminal that it puts back; if that is left
    /// out, it puts back all that it has found.
    Settings,
    /// The launcher is about to take the lines that were typed before a program has the terminal.
    Typed,
    /// A program's process is about to close the standard streams that the caller has left closed.
    Streams,
    /// A container's program is about to close what was opened in the engine's profile.
    Closed,
    /// A container's filter is about to be made with the calls in it that Ringfence itself refuses; if that is left out, the kernel
    /// decides about them.
    Refused,
    /// A container's hook is about to look that nothing is mounted over what `/proc` says of a process.
    Covered,
    /// The front is about to choose the name that this executable has in a container; if that is left out, anybody can guess it.
    Entrance,
    /// What starts a further program in a container is about to become what that is to be; if that is left out, it makes the process of
    /// the program before.
    Seen,
    /// A container's program is about to make the nodes inert that a hook has put there.
    Inert,
    /// A container's first process is about to be put where nothing of the container's can exchange it; if that is left out, it is
    /// put where the container decides about the way.
    Seat,
    /// The first process's executable is about to be made one that nobody can write to.
    Written,
    /// A container's program is about to take away the container's own view of processes.
    Outer,
    /// A container's program is about to enter a domain of Landlock's in which ioctls on few devices are let through.
    Domain,
    /// The front of a container's low-level runtime, which has started the launcher, is about to become that.
    Front,
    /// A container's program is about to look whether ioctls on what a path leads to are harmless.
    Harmless,
    /// A process that was just made is about to have itself killed when its parent ends.
    Born,
    /// A process that has made another, in a user namespace, is about to say who is who there.
    Ids,
    /// The launcher is about to put up what tells it that it was continued before it stopped.
    Guard,
    /// A process of a sandbox is about to leave its caller's session, or the program the process group that it is in.
    Session,
    /// A process of a sandbox is about to let go of what its caller has open.
    Descriptors,
    /// The launcher is about to set the limit with which nobody is told of crashes.
    Crash,
    /// The program's process is about to let neither signals nor connections to abstract sockets out of its domain.
    Scope,
    /// A server that is to be replaced is about to send its state to the next one.
    Handover,
    /// The launcher is about to end a server that was replaced, or that server itself to end.
    Departure,
    /// The first thread of a sentry is about to wait for what happens in its sandbox, or that of a server to serve.
    FirstThread,
    /// The sentry has started the threads that receive the program's calls, and not yet told the program's process.
    Receivers,
    /// The launcher is about to withhold nodes that no sandbox has.
    OpenOnly,
    /// The launcher is about to open a descriptor for a server: for all of it; if that is left out, for its first thread.
    Whole,
    /// The program's process is about to wait until the sentry has all that it needs.
    Ready,
    /// The program's process is about to hand a descriptor for itself to the launcher.
    Program,
    /// How many seconds a sandbox whose program has ended may take to end by itself.
    Over,
    /// The launcher is about to give up what nobody takes of what it writes; it waits without end if that is left out.
    Untaken,
    /// The sentry is about to look whether the server has ended; garbage: it takes it for one that has.
    Ended,
    /// The launcher is about to end what served before the server that it starts.
    Predecessor,
    /// The launcher is about to make its ends of sockets such that it never waits to send.
    Unwaiting,
    /// A server is about to say something to the launcher or to another server; garbage is a refusal, for the reason of
    /// [`CONTROLS`].
    Say,
    /// Text of another process is about to be made fit to be shown.
    Shown,
    /// A ring's producer is about to write an entry.
    Stage,
    /// A ring's producer is about to wake the consumer, which sleeps.
    Doorbell,
    /// The version of the protocol that is about to be named in the handshake.
    Version,
    /// How many entries the sentry's rings are to have.
    Entries,
    /// How many slots of each size the sentry's arena is to have.
    Slots,
    /// How many bytes a trace may have.
    Trace,
    /// A line of the log is about to be counted.
    Lines,
    /// How many bytes sentry and servers may have the launcher show, or add to the log.
    Messages,
    /// The process reads the time of day; a value is the seconds by which each reading jumps, to and fro.
    Clock,
}

impl Point {
    /// What rules call it.
    pub const fn name(self) -> &'static str {
        match self {
            Point::Step => "step",
            Point::Take => "take",
            Point::Next => "next",
            Point::Prepared => "prepared",
            Point::Call => "call",
            Point::Called => "called",
            Point::Instead => "instead",
            Point::Named => "named",
            Point::NotGiven => "not-given",
            Point::Owned => "owned",
            Point::Issuer => "issuer",
            Point::Relied => "relied",
            Point::Outlasted => "outlasted",
            Point::Related => "related",
            Point::Told => "told",
            Point::Counted => "counted",
            Point::Shared => "shared",
            Point::Exported => "exported",
            Point::Made => "made",
            Point::Said => "said",
            Point::ForcedBits => "forced-bits",
            Point::Kept => "kept",
            Point::Mapped => "mapped",
            Point::Values => "values",
            Point::Firmware => "firmware",
            Point::Begun => "begun",
            Point::Copied => "copied",
            Point::Lend => "lend",
            Point::Publish => "publish",
            Point::Nodes => "nodes",
            Point::Open => "open",
            Point::Work => "work",
            Point::Slow => "slow",
            Point::Received => "received",
            Point::Submit => "submit",
            Point::Answered => "answered",
            Point::Handed => "handed",
            Point::Installed => "installed",
            Point::PinQueued => "pin-queued",
            Point::PinLent => "pin-lent",
            Point::Hold => "hold",
            Point::Alarm => "alarm",
            Point::Pass => "pass",
            Point::Passed => "passed",
            Point::Seized => "seized",
            Point::Sorted => "sorted",
            Point::Vforked => "vforked",
            Point::Traced => "traced",
            Point::Settled => "settled",
            Point::Lagging => "lagging",
            Point::PinHeld => "pin-held",
            Point::PinStopped => "pin-stopped",
            Point::Dispatched => "dispatched",
            Point::PinPage => "pin-page",
            Point::PinTable => "pin-table",
            Point::PinTableOwn => "pin-table-own",
            Point::PinThrough => "pin-through",
            Point::PinHelper => "pin-helper",
            Point::PinMaker => "pin-maker",
            Point::PinShared => "pin-shared",
            Point::PinCode => "pin-code",
            Point::PinSecret => "pin-secret",
            Point::PinStop => "pin-stop",
            Point::PinPrepared => "pin-prepared",
            Point::PinChecked => "pin-checked",
            Point::PinAnswer => "pin-answer",
            Point::PinWritten => "pin-written",
            Point::PinUnwritten => "pin-unwritten",
            Point::PinIssued => "pin-issued",
            Point::PinBelieved => "pin-believed",
            Point::PinObeyed => "pin-obeyed",
            Point::PinTold => "pin-told",
            Point::PinUnanswered => "pin-unanswered",
            Point::PinEnded => "pin-ended",
            Point::Filter => "filter",
            Point::Words => "words",
            Point::Foreign => "foreign",
            Point::Locked => "locked",
            Point::InFlight => "in-flight",
            Point::Apart => "apart",
            Point::Waiting => "waiting",
            Point::RootsFiles => "roots-files",
            Point::Staged => "staged",
            Point::Placed => "placed",
            Point::Early => "early",
            Point::Elsewhere => "elsewhere",
            Point::Given => "given",
            Point::Inputs => "inputs",
            Point::Unread => "unread",
            Point::Outputs => "outputs",
            Point::Sources => "sources",
            Point::Stop => "stop",
            Point::Watch => "watch",
            Point::Left => "left",
            Point::Settings => "settings",
            Point::Typed => "typed",
            Point::Streams => "streams",
            Point::Closed => "closed",
            Point::Refused => "refused",
            Point::Covered => "covered",
            Point::Entrance => "entrance",
            Point::Seen => "seen",
            Point::Inert => "inert",
            Point::Seat => "seat",
            Point::Written => "written",
            Point::Outer => "outer",
            Point::Domain => "domain",
            Point::Front => "front",
            Point::Harmless => "harmless",
            Point::Born => "born",
            Point::Ids => "ids",
            Point::Guard => "guard",
            Point::Session => "session",
            Point::Descriptors => "descriptors",
            Point::Crash => "crash",
            Point::Scope => "scope",
            Point::Handover => "handover",
            Point::Departure => "departure",
            Point::FirstThread => "first-thread",
            Point::Receivers => "receivers",
            Point::OpenOnly => "open-only",
            Point::Whole => "whole",
            Point::Ready => "ready",
            Point::Program => "program",
            Point::Over => "over",
            Point::Untaken => "untaken",
            Point::Ended => "ended",
            Point::Predecessor => "predecessor",
            Point::Unwaiting => "unwaiting",
            Point::Say => "say",
            Point::Shown => "shown",
            Point::Stage => "stage",
            Point::Doorbell => "doorbell",
            Point::Version => "version",
            Point::Entries => "entries",
            Point::Slots => "slots",
            Point::Trace => "trace",
            Point::Lines => "lines",
            Point::Messages => "messages",
            Point::Clock => "clock",
        }
    }

    /// All of them.
    pub const ALL: &'static [Point] = &[
        Point::Step,
        Point::Take,
        Point::Next,
        Point::Prepared,
        Point::Call,
        Point::Called,
        Point::Instead,
        Point::Named,
        Point::NotGiven,
        Point::Owned,
        Point::Issuer,
        Point::Relied,
        Point::Outlasted,
        Point::Related,
        Point::Told,
        Point::Counted,
        Point::Shared,
        Point::Exported,
        Point::Made,
        Point::Said,
        Point::ForcedBits,
        Point::Kept,
        Point::Mapped,
        Point::Values,
        Point::Firmware,
        Point::Begun,
        Point::Copied,
        Point::Lend,
        Point::Publish,
        Point::Nodes,
        Point::Open,
        Point::Work,
        Point::Slow,
        Point::Received,
        Point::Submit,
        Point::Answered,
        Point::Handed,
        Point::Installed,
        Point::PinQueued,
        Point::PinLent,
        Point::Hold,
        Point::Alarm,
        Point::Pass,
        Point::Passed,
        Point::Seized,
        Point::Sorted,
        Point::Vforked,
        Point::Traced,
        Point::Settled,
        Point::Lagging,
        Point::PinHeld,
        Point::PinStopped,
        Point::Dispatched,
        Point::PinPage,
        Point::PinTable,
        Point::PinTableOwn,
        Point::PinThrough,
        Point::PinHelper,
        Point::PinMaker,
        Point::PinShared,
        Point::PinCode,
        Point::PinSecret,
        Point::PinStop,
        Point::PinPrepared,
        Point::PinChecked,
        Point::PinAnswer,
        Point::PinWritten,
        Point::PinUnwritten,
        Point::PinIssued,
        Point::PinBelieved,
        Point::PinObeyed,
        Point::PinEnded,
        Point::PinTold,
        Point::PinUnanswered,
        Point::Filter,
        Point::Words,
        Point::Foreign,
        Point::Locked,
        Point::InFlight,
        Point::Apart,
        Point::Waiting,
        Point::RootsFiles,
        Point::Staged,
        Point::Placed,
        Point::Early,
        Point::Elsewhere,
        Point::Given,
        Point::Inputs,
        Point::Unread,
        Point::Outputs,
        Point::Sources,
        Point::Stop,
        Point::Watch,
        Point::Left,
        Point::Settings,
        Point::Typed,
        Point::Streams,
        Point::Closed,
        Point::Refused,
        Point::Covered,
        Point::Entrance,
        Point::Seen,
        Point::Inert,
        Point::Seat,
        Point::Written,
        Point::Outer,
        Point::Domain,
        Point::Front,
        Point::Harmless,
        Point::Born,
        Point::Ids,
        Point::Guard,
        Point::Session,
        Point::Descriptors,
        Point::Crash,
        Point::Scope,
        Point::Handover,
        Point::Departure,
        Point::FirstThread,
        Point::Receivers,
        Point::OpenOnly,
        Point::Whole,
        Point::Ready,
        Point::Program,
        Point::Over,
        Point::Untaken,
        Point::Ended,
        Point::Predecessor,
        Point::Unwaiting,
        Point::Say,
        Point::Shown,
        Point::Stage,
        Point::Doorbell,
        Point::Version,
        Point::Entries,
        Point::Slots,
        Point::Trace,
        Point::Lines,
        Point::Messages,
        Point::Clock,
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
