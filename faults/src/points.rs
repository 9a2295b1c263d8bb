//! The places in the code where something can go wrong: each with what it means, and with what rules call it.

/// Makes [`Point`] of a table.
macro_rules! points {
    ($($(#[$meaning:meta])* $point:ident = $name:literal,)*) => {
        /// A place in the code where something can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$meaning])* $point,)*
        }

        impl Point {
            /// What rules call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)*
                }
            }

            /// All of them.
            pub const ALL: &'static [Point] = &[$(Point::$point,)*];
        }
    };
}

points! {
    /// Something was attempted that can fail, see [`step`](crate::step).
    Step = "step",
    /// The server has taken a submission from the ring, and looked at nothing of it.
    Take = "take",
    /// The same, of a submission that is not the first of its wake.
    Next = "next",
    /// The server has copied a request and validated it.
    Prepared = "prepared",
    /// The server is about to issue a request.
    Call = "call",
    /// The driver has answered a request.
    Called = "called",
    /// The server is about to answer a request itself, instead of issuing it.
    Instead = "instead",
    /// The server is about to check which GPUs a request names.
    Named = "named",
    /// The server is about to refuse a descriptor of an open-only node that the sandbox was not given.
    NotGiven = "not-given",
    /// The server is about to refuse a client that is none of the sandbox's.
    Owned = "owned",
    /// The sentry has read which process and user makes a request.
    Issuer = "issuer",
    /// The server is about to keep the description open of the client that a request relies on, and then to issue the request.
    Relied = "relied",
    /// The server is about to refuse what would have a device outlast the client whose address space it uses.
    Outlasted = "outlasted",
    /// The server has found a client that a request names, and is about to look whether it is of the same process or user.
    Related = "related",
    /// The server is about to take out of an answer what the sandbox is not to be told.
    Told = "told",
    /// The server is about to count an address space, a range group, what a request that failed has left, memory of which flags
    /// say where it is, or memory that lies in a dma-buf.
    Counted = "counted",
    /// The server is about to check whether what everybody is to be let copy is memory.
    Shared = "shared",
    /// The server is about to refuse to export what is no memory of a GPU's that it knows.
    Exported = "exported",
    /// The server is about to hand over a descriptor that the driver has made; garbage: another in its place.
    Made = "made",
    /// The server is about to take out of a request what its answer is not to tell.
    Said = "said",
    /// The server is about to set or clear bits of a request, whatever the program has there.
    ForcedBits = "forced-bits",
    /// The server is about to look whether pins may hold what is mapped no longer.
    Kept = "kept",
    /// The server is about to note that a task can map memory of the host.
    Mapped = "mapped",
    /// A value of a request is about to be refused that is not passed.
    Values = "values",
    /// A command of the firmware's is about to be refused that is not passed, or one with parameters of a size that is not.
    Firmware = "firmware",
    /// The server is about to refuse the end of a pin that was not begun.
    Begun = "begun",
    /// The server is about to look which pins, whose outcome it has not heard, something copied or closed may concern.
    Copied = "copied",
    /// The server is about to lend a descriptor for a pin; if that is left out, the simulated driver has carried it out by
    /// then, as the real one has before the server hears of it.
    Lend = "lend",
    /// The server is about to show the sentry what it completed.
    Publish = "publish",
    /// How many descriptions a sandbox may have open.
    Nodes = "nodes",
    /// The server is about to open a node.
    Open = "open",
    /// A worker of the server is about to do its job.
    Work = "work",
    /// A thread of the server that led the loop is about to make a slow request.
    Slow = "slow",
    /// The sentry has received a task's ioctl.
    Received = "received",
    /// The sentry is about to put a submission into the ring.
    Submit = "submit",
    /// The sentry has a request's answer and has not written it back.
    Answered = "answered",
    /// The sentry is about to look what a descriptor is of that the driver has made for a task.
    Handed = "handed",
    /// A task has a descriptor that the driver has made, and its number is about to be written for it.
    Installed = "installed",
    /// Of a pin: it is its turn, and it is about to be looked how long it has waited for that; if that is left out, it has not.
    PinQueued = "pin-queued",
    /// Of a pin: the server has lent the command descriptor.
    PinLent = "pin-lent",
    /// Of a pin: all other tasks are about to be held.
    Hold = "hold",
    /// Of a pin: an alarm is about to be set, lest a seizure waits for ever.
    Alarm = "alarm",
    /// Of a pin: all tasks have been listed, and are about to be taken hold of one after the other.
    Pass = "pass",
    /// Of a pin: what a pass over all tasks took is about to be counted; if that is left out, it took no time.
    Passed = "passed",
    /// Of a pin: a thread has been seized, and is about to be interrupted.
    Seized = "seized",
    /// Of a pin: all that were interrupted are about to be looked at, beside the one that is waited for.
    Sorted = "sorted",
    /// Of a pin: it is about to be looked whether a thread waits for a child, as after vfork.
    Vforked = "vforked",
    /// Of a pin: a thread cannot be seized that this process traces already.
    Traced = "traced",
    /// Of a pin: it was looked whether a task may have escaped the last pass over all of them.
    Settled = "settled",
    /// A thread that is to be let go has not stopped since the last look, and it is about to be looked whether it had before;
    /// if that is left out, it had not.
    Lagging = "lagging",
    /// Of a pin: all other tasks are held.
    PinHeld = "pin-held",
    /// Of a pin: the caller has stopped.
    PinStopped = "pin-stopped",
    /// Of a pin: Syscall User Dispatch is about to be turned off for the caller.
    Dispatched = "dispatched",
    /// Of a pin: an address is about to be chosen for the parameters; if that is left out, the kernel chooses it.
    PinPage = "pin-page",
    /// Of a pin: a descriptor table is about to be made that the command descriptor is put into; if that is left out, it
    /// is the caller's.
    PinTable = "pin-table",
    /// Of a pin: the kernel is about to be asked whether that table is one of its own; if that is left out, it is believed.
    PinTableOwn = "pin-table-own",
    /// Of a pin: it is about to be looked whether the thread was killed in the sequence that it was to execute; if that is left
    /// out, it was not.
    PinThrough = "pin-through",
    /// Of a pin: the thread that is to issue the request has been made.
    PinHelper = "pin-helper",
    /// Of a pin: that thread is about to map the page of the parameters; if that is left out, the caller maps it.
    PinMaker = "pin-maker",
    /// Of a pin: the page of the instruction is about to be mapped as the file that it is; if that is left out, as a private
    /// copy.
    PinShared = "pin-shared",
    /// Of a pin: that thread is about to be set to an instruction of the sentry's; if that is left out, it makes its calls
    /// by the program's own.
    PinCode = "pin-code",
    /// Of a pin: memory for the parameters is about to be taken that others cannot reach; if that is left out, it is taken
    /// as where the kernel has none.
    PinSecret = "pin-secret",
    /// Of a pin: a signal that stops a process has reached a thread which makes calls for it, and is about to be delivered; if
    /// that is left out, it is lost.
    PinStop = "pin-stop",
    /// Of a pin: the validated parameters lie in the caller's page.
    PinPrepared = "pin-prepared",
    /// Of a pin: the descriptor is lent, the parameters were found to be the validated ones, and the driver is about to
    /// read them.
    PinChecked = "pin-checked",
    /// Of a pin: the request is over, and the driver's answer is about to be read; if that is left out, it counts as one that
    /// was not let through.
    PinAnswer = "pin-answer",
    /// Of a pin: the driver has answered; with an `errno`, by that.
    PinWritten = "pin-written",
    /// Of a pin: the driver says that it could not write its answer, and this is about to be taken for not knowing what it did.
    PinUnwritten = "pin-unwritten",
    /// Of a pin: the request has been issued.
    PinIssued = "pin-issued",
    /// Of a pin: a call has come back, and it is about to be looked whether it was let through; if that is left out, what
    /// came back counts as the driver's answer.
    PinBelieved = "pin-believed",
    /// Of a pin: a thread has been set to a system call; if what follows is left out, it is not killed for making none.
    PinObeyed = "pin-obeyed",
    /// Of a pin: the thread that issued the request has ended.
    PinEnded = "pin-ended",
    /// Of a pin: the other tasks go on, and the server is about to be told.
    PinTold = "pin-told",
    /// Of a pin: the server has not answered to that, and it is about to be looked whether it has been silent for too long; if
    /// that is left out, it has not.
    PinUnanswered = "pin-unanswered",
    /// The program's process is about to install its filter, see [`is_unfiltered`](crate::is_unfiltered).
    Filter = "filter",
    /// The program's process is about to fill the driver's words into its filter.
    Words = "words",
    /// The sentry is about to answer one of the driver's words on a descriptor that is not the driver's.
    Foreign = "foreign",
    /// The sentry is about to look whether a description that a task wants to lock is one of the driver's nodes.
    Locked = "locked",
    /// The program's process is about to lower its limit of descriptors.
    InFlight = "in-flight",
    /// The launcher is about to start a server in namespaces of its own, see [`fork_beside`](crate::fork_beside).
    Apart = "apart",
    /// The sentry is about to look whether the task that it has read from, or is to write to, still waits for it.
    Waiting = "waiting",
    /// What the kernel shows root alone is about to be taken from a sandbox that root started.
    RootsFiles = "roots-files",
    /// The kernel's files are about to be restricted where nobody else reaches them; if that is left out, they are when they
    /// have been placed in the root.
    Staged = "staged",
    /// The sandbox's own `/proc`, `/sys` and `/dev` have been placed in the root.
    Placed = "placed",
    /// File systems of the kernel's own are about to be covered in the host's tree, before anything of it is copied.
    Early = "early",
    /// File systems of the kernel's own are about to be covered that lie elsewhere.
    Elsewhere = "elsewhere",
    /// What the caller left open to be read, or a device that it left open, is about to be opened anew for the program.
    Given = "given",
    /// Pipes are about to be made in the place of those that the caller left open to be read.
    Inputs = "inputs",
    /// The launcher is about to count what a program has not read of what it was lent; if that is left out, it has read all once
    /// there is room in its pipe.
    Unread = "unread",
    /// The launcher is about to open a file that it was asked to write.
    Outputs = "outputs",
    /// It is about to be looked what of the host programs can write to, before what is to be bound and the root are opened; if
    /// that is left out, it is nothing.
    Sources = "sources",
    /// The launcher is about to stop with its program.
    Stop = "stop",
    /// The launcher is about to start a process that continues it with its program.
    Watch = "watch",
    /// The launcher has settings of a terminal to restore that was given to others meanwhile.
    Left = "left",
    /// The launcher is about to keep what others have changed of the settings of a terminal that it puts back; if that is left
    /// out, it puts back all that it has found.
    Settings = "settings",
    /// The launcher is about to take the lines that were typed before a program has the terminal.
    Typed = "typed",
    /// A program's process is about to close the standard streams that the caller has left closed.
    Streams = "streams",
    /// A container's program is about to close what was opened in the engine's profile.
    Closed = "closed",
    /// A container's filter is about to be made with the calls in it that Ringfence itself refuses; if that is left out, the kernel
    /// decides about them.
    Refused = "refused",
    /// A container's hook is about to look that nothing is mounted over what `/proc` says of a process.
    Covered = "covered",
    /// The front is about to choose the name that this executable has in a container; if that is left out, anybody can guess it.
    Entrance = "entrance",
    /// What starts a further program in a container is about to become what that is to be; if that is left out, it makes the process of
    /// the program before.
    Seen = "seen",
    /// A container's program is about to make the nodes inert that a hook has put there.
    Inert = "inert",
    /// A container's first process is about to be put where nothing of the container's can exchange it; if that is left out, it is
    /// put where the container decides about the way.
    Seat = "seat",
    /// The first process's executable is about to be made one that nobody can write to.
    Written = "written",
    /// A container's program is about to take away the container's own view of processes.
    Outer = "outer",
    /// A container's program is about to enter a domain of Landlock's in which ioctls on few devices are let through.
    Domain = "domain",
    /// The front of a container's low-level runtime, which has started the launcher, is about to become that.
    Front = "front",
    /// A container's program is about to look whether ioctls on what a path leads to are harmless.
    Harmless = "harmless",
    /// A process that was just made is about to have itself killed when its parent ends.
    Born = "born",
    /// A process that has made another, in a user namespace, is about to say who is who there.
    Ids = "ids",
    /// The launcher is about to put up what tells it that it was continued before it stopped.
    Guard = "guard",
    /// A process of a sandbox is about to leave its caller's session, or the program the process group that it is in.
    Session = "session",
    /// A process of a sandbox is about to let go of what its caller has open.
    Descriptors = "descriptors",
    /// The launcher is about to set the limit with which nobody is told of crashes.
    Crash = "crash",
    /// The program's process is about to let neither signals nor connections to abstract sockets out of its domain.
    Scope = "scope",
    /// A server that is to be replaced is about to send its state to the next one.
    Handover = "handover",
    /// The launcher is about to end a server that was replaced, or that server itself to end.
    Departure = "departure",
    /// The first thread of a sentry is about to wait for what happens in its sandbox, or that of a server to serve.
    FirstThread = "first-thread",
    /// The sentry has started the threads that receive the program's calls, and not yet told the program's process.
    Receivers = "receivers",
    /// The launcher is about to withhold nodes that no sandbox has.
    OpenOnly = "open-only",
    /// The launcher is about to open a descriptor for a server: for all of it; if that is left out, for its first thread.
    Whole = "whole",
    /// The program's process is about to wait until the sentry has all that it needs.
    Ready = "ready",
    /// The program's process is about to hand a descriptor for itself to the launcher.
    Program = "program",
    /// How many seconds a sandbox whose program has ended may take to end by itself.
    Over = "over",
    /// The launcher is about to give up what nobody takes of what it writes; it waits without end if that is left out.
    Untaken = "untaken",
    /// The sentry is about to look whether the server has ended; garbage: it takes it for one that has.
    Ended = "ended",
    /// The launcher is about to end what served before the server that it starts.
    Predecessor = "predecessor",
    /// The launcher is about to make its ends of sockets such that it never waits to send.
    Unwaiting = "unwaiting",
    /// A server is about to say something to the launcher or to another server; garbage is a refusal, for the reason of
    /// [`CONTROLS`](crate::CONTROLS).
    Say = "say",
    /// Text of another process is about to be made fit to be shown.
    Shown = "shown",
    /// A ring's producer is about to write an entry.
    Stage = "stage",
    /// A ring's producer is about to wake the consumer, which sleeps.
    Doorbell = "doorbell",
    /// The version of the protocol that is about to be named in the handshake.
    Version = "version",
    /// How many entries the sentry's rings are to have.
    Entries = "entries",
    /// How many slots of each size the sentry's arena is to have.
    Slots = "slots",
    /// How many bytes a trace may have.
    Trace = "trace",
    /// A line of the log is about to be counted.
    Lines = "lines",
    /// How many bytes sentry and servers may have the launcher show, or add to the log.
    Messages = "messages",
    /// The process reads the time of day; a value is the seconds by which each reading jumps, to and fro.
    Clock = "clock",
}
