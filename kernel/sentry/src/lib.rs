//! The sentry: supervises the tasks of one sandbox.
//!
//! Whenever a task makes a call that can concern the driver, the kernel stops it and notifies the sentry. The sentry
//! finds out what the call is about, copies the request, has the server issue it, and lets the task go on with the
//! outcome. It believes no task: it holds no driver descriptor itself, and what it passes on is checked by the server.
//!
//! | module | subject |
//! |---|---|
//! | `arch` | what it knows of the processor's architecture |
//! | `confinement` | what the sentry itself may do |
//! | [`receivers`] | the threads that take on calls |
//! | [`descriptions`] | which of the server's handles a task's descriptor means |
//! | [`memory`], [`procfs`] | task memory, and what `/proc` says of a task |
//! | [`marshalling`] | a request, copied out of task memory and back |
//! | [`opens`], [`requests`], [`pins`] | the calls: opening nodes, ioctls, and ioctls that pin memory |
//! | `made` | descriptors that the driver makes for a program |
//! | `foreign`, `locks` | what is answered on a duplicate of a descriptor that is not the driver's |
//! | [`tracee`] | threads held still for a pin, and made to issue it |
//! | [`server`], [`link`] | the server that serves now, and the channel to it |
//! | [`shares`] | what there is little of, divided among processes |
//! | [`nodes`] | how many nodes a process may have open |
//! | [`releases`] | what tasks have let go of |
//! | [`observer`] | who looks on: [`stats`] and [`tracer`], by the [`times`] of requests |
//! | [`recorder`] | what was asked and answered, for `ringfence record` |
//! | [`seccomp`] | the descriptors by which stopped calls arrive |
//! | [`entrance`], `orphans` | how a further program gets into a container's sandbox, and what becomes of it if its stand-in is killed |
//! | [`liaison`] | what launcher and sentry tell each other |
//! | [`ready`] | when the program may begin |
//! | [`failure`], [`log`], [`warnings`], [`visible`] | how Ringfence's processes fail, and what they say |
//! | [`signals`], [`streams`], [`system_calls`] | what launcher and sentry share of the kernel's interface |
//!
//! Threads: the main one waits for signals and for processes to end; one waits for releases; one takes on calls that
//! waited for their share; one tries again to lock what others have locked; one carries out pins; one consumes answers when no other thread is there to do it; the others
//! receive notifications.

mod arch;
pub mod confinement;
pub mod descriptions;
pub mod entrance;
pub mod failure;
mod foreign;
pub mod liaison;
pub mod link;
mod locks;
pub mod log;
mod made;
pub mod marshalling;
pub mod memory;
pub mod nodes;
pub mod observer;
pub mod opens;
mod orphans;
pub mod pins;
pub mod procfs;
mod progress;
pub mod ready;
pub mod receivers;
pub mod recognition;
pub mod recorder;
pub mod releases;
pub mod remedies;
pub mod requests;
pub mod seccomp;
pub mod server;
pub mod shares;
pub mod signals;
pub mod stats;
pub mod streams;
pub mod system_calls;
pub mod times;
pub mod tracee;
pub mod tracer;
pub mod visible;
pub mod warnings;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use ringfence_ipc::{Socket, Spin, Submission};
use rustix::process::WaitOptions;

use self::descriptions::Descriptions;
use self::entrance::{Entrance, Way};
use self::link::{Answer, Broken, Resume};
use self::locks::Locks;
use self::nodes::{Nodes, Room};
use self::observer::Observer;
use self::pins::Pins;
use self::receivers::Receivers;
use self::recognition::DeviceOpen;
use self::recorder::{Begun, Recorder};
use self::releases::Releases;
use self::requests::Issued;
use self::server::{OnServerExit, Server, ServerLink};
use self::shares::{Share, Shares};
use self::times::{DriverTime, Times};
use crate::failure::{A_THREAD, Attempt, Failure, SETUP};
use crate::liaison::SentryEnd;
use crate::seccomp::listener::{Listener, Notification};
use crate::system_calls::pidfd_open_process;
use nvproxy_protocol::driver::{Driver, Kind};

/// The sentry's ends of what it shares with the processes below it.
pub struct Sandbox {
    /// Process 1 of the tasks' namespace.
    pub init: Pid,
    /// Whether this is a container: init is the program itself, and the calling process's root is empty.
    pub is_container: bool,
    /// See [`uvm_number`].
    pub uvm: Option<u64>,
    /// Brings the listener, once the program's process has installed its filter.
    pub listener: Socket,
    /// Brings a failure, or ends when the program was executed.
    pub report: Socket,
    /// Tells of servers.
    pub liaison: SentryEnd,
    /// Says whether any task was made in the meantime.
    pub numbers: tracee::Numbers,
    /// How further programs get in, if they do.
    pub way: Option<Way>,
}

/// The sentry of one sandbox.
pub struct Sentry {
    abi: &'static Abi,
    driver: Driver,
    listener: Listener,
    server: Server,
    on_server_exit: OnServerExit,
    descriptions: Descriptions,
    releases: Releases,
    pins: Pins,
    shares: Arc<Shares>,
    locks: Locks,
    nodes: Arc<Nodes>,
    init: Pid,
    is_container: bool,
    observer: Observer,
    recorder: Option<Recorder>,
    receivers: Arc<Receivers>,
    /// The thread that consumes when no other is there to do it.
    deputy: OnceLock<Thread>,
}

/// What to do when the server answers.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and boxing those would cost each an allocation"
)]
pub enum Continuation {
    /// Give the task its new descriptor.
    Open(Notification, DeviceOpen, Times, Option<Begun>, Share, Room),
    /// Write back and return.
    Request(Issued),
    /// Hand the answer to the thread that waits for it.
    Call(mpsc::SyncSender<Reply>),
    Nothing,
}

/// An answer that outlives the moment of its arrival.
pub struct Reply {
    pub outcome: Result<i32, Errno>,
    pub values: [u64; 4],
    pub descriptor: Option<OwnedFd>,
    pub payload: Vec<u8>,
    pub driver: DriverTime,
}

/// How a sandbox is to be supervised.
pub struct Options<'a> {
    pub driver: &'a Driver,
    /// The program and its arguments, for the recording.
    pub command: &'a [OsString],
    pub stats: bool,
    pub on_server_exit: OnServerExit,
    /// Where to write a recording.
    pub record: Option<recorder::Output<'a>>,
    /// Where to write a trace.
    pub trace: Option<tracer::Output<'a>>,
}

/// Confines this process, which must have one thread, and supervises a sandbox until its program ends; the exit status is the program's.
pub fn run(options: &Options<'_>, sandbox: Sandbox) -> Result<u8, Failure> {
    let driver = options.driver;
    let Sandbox {
        init,
        is_container,
        uvm,
        listener,
        report,
        liaison,
        numbers,
        way,
    } = sandbox;
    Spin::automatic();
    let alarm = tracee::Alarm::new().attempt("the alarm of the thread that pins")?;
    let most = nodes::descriptors();
    let nodes = Arc::new(Nodes::within(most));
    let pins = Pins::new(numbers, alarm).attempt("the memory of pins")?;
    let simulated = match driver.kind {
        Kind::Host => None,
        _ => Some(pins.file_system().attempt("a file in memory")?),
    };
    confinement::enter(is_container)?;
    let server = Server::new(liaison).inspect_err(|_| {
        // The program may wait for an answer already. It is not to see this process go away first. Init ends after
        // every task.
        let _ = kill(init, Signal::SIGKILL).and_then(|()| waitpid(init, None));
    })?;
    tracing::debug!("the server is ready");
    let Ok((_, descriptor)) = listener.receive() else {
        return end_before_the_program(options, init, report);
    };
    let held = server.liaison().hold(descriptor.as_fd());
    held.attempt("handing over the listener")?;
    let abi = Abi::of_release(&driver.tables, driver.granted()).attempt("the tables")?;
    let sentry = Arc::new(Sentry {
        abi,
        driver: driver.clone(),
        listener: Listener::new(descriptor),
        server,
        on_server_exit: options.on_server_exit,
        descriptions: Descriptions::new(uvm, most),
        releases: Releases::new().attempt("inotify")?,
        pins,
        shares: Arc::default(),
        locks: Locks::new(simulated),
        nodes,
        init,
        is_container,
        observer: Observer::new(options.stats, options.trace.as_ref())?,
        recorder: options.record.map(|_| Recorder::new(abi)),
        receivers: Arc::default(),
        deputy: OnceLock::new(),
    });
    let deputy = sentry.start("deputy", |sentry| sentry.deputize())?;
    sentry.deputy.get_or_init(|| deputy);
    sentry.add_first_receivers()?;
    sentry.start("releases", |sentry| sentry.release_for_ever())?;
    sentry.start("shares", |sentry| sentry.take_on())?;
    sentry.start("locks", |sentry| sentry.lock_for_ever())?;
    sentry.start("pins", |sentry| sentry.pin_for_ever())?;
    tracing::debug!("the program's filter is in place");
    ready::say(&listener);
    let status = sentry.supervise(report, way.map(Entrance::new));
    if is_container {
        // A launcher that is gone needs not know.
        let _ = sentry.server.liaison().over();
    }
    tracing::debug!("the program has ended");
    log::finish(None);
    if let Some(table) = sentry.observer.finish() {
        log::print(&table);
    }
    if let (Ok(_), Some(recorder), Some(output)) = (&status, &sentry.recorder, &options.record) {
        let recording = recorder
            .finish(driver, options.command)
            .map(|mut recording| {
                if !output.keep_identifiers {
                    recording.scrub(abi);
                }
                recording
            });
        recording
            .and_then(|recording| output.write(recording))
            .map_err(|reason| output.failure(&reason))?;
    }
    status
}

/// The outcome where the program's process has ended before it could become the program: a failure that it has reported, or the
/// signal that has ended it, as somebody sends one who thinks better of it.
fn end_before_the_program(options: &Options<'_>, init: Pid, report: Socket) -> Result<u8, Failure> {
    if let Some(failure) = Failure::reported(report) {
        return Err(failure);
    }
    let message = "the program's process ended early";
    match waitpid(init, None) {
        Ok(WaitStatus::Exited(_, status)) if status > 128 => match options.record {
            Some(_) => Err(Failure {
                status: status as u8,
                message: format!("{message}: there is no recording"),
            }),
            None => Ok(status as u8),
        },
        _ => Err(Failure::setup(message)),
    }
}

/// The device number of UVM's node, if the driver is the real one.
pub fn uvm_number(driver: &Driver) -> Option<u64> {
    let path = driver.path(Node::Uvm);
    let is_host = driver.kind == Kind::Host;
    is_host
        .then(|| {
            nix::sys::stat::stat(&path)
                .ok()
                .map(|status| status.st_rdev)
        })
        .flatten()
}

impl Sentry {
    /// The main thread: waits for the program, the server, signals, and a failure to execute the program.
    fn supervise(
        self: &Arc<Self>,
        report: Socket,
        mut entrance: Option<Entrance>,
    ) -> Result<u8, Failure> {
        let signals = signals::descriptor()?;
        let mut report = Some(report);
        ringfence_faults::at(ringfence_faults::Point::FirstThread);
        let init = pidfd_open_process(self.init).attempt("init's pidfd")?;
        loop {
            if let Some(status) = self.find_ended(init.as_fd())? {
                return match (status, report.take().and_then(Failure::reported)) {
                    (_, Some(failure)) => Err(failure),
                    (status, None) => status,
                };
            }
            self.look_after_the_server().inspect_err(|_| {
                let _ = kill(self.init, Signal::SIGKILL);
            })?;
            self.wait_for_news(&signals, &mut report, &mut entrance)?;
        }
    }

    /// How init has ended, if it has. Nobody waits for it before: the program of a container is traced for a pin, by another
    /// thread, and waiting would take from that what it is told (wait(2): the kernel tells the parent of stops for a tracer that is of
    /// its own thread group).
    fn find_ended(&self, init: BorrowedFd<'_>) -> Result<Option<Result<u8, Failure>>, Failure> {
        let mut ended = [PollFd::new(init, PollFlags::POLLIN)];
        if poll(&mut ended, PollTimeout::ZERO).attempt("poll")? == 0 {
            return Ok(None);
        }
        let number = rustix::process::Pid::from_raw(self.init.as_raw());
        // (By rustix, since nix's fails on one that a real-time signal ended.)
        let waited = rustix::process::waitpid(number, WaitOptions::empty());
        let Some((_, status)) = waited.attempt("waiting for init")? else {
            return Ok(None);
        };
        let signal = status.terminating_signal();
        Ok(match (status.exit_status(), signal) {
            (Some(status), _) => Some(Ok(status as u8)),
            (None, Some(signal)) if self.is_container => Some(Ok(128 + signal as u8)),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map(|signal| signal.to_string());
                let name = name.unwrap_or_else(|_| format!("signal {signal}"));
                Some(Err(Failure {
                    status: SETUP,
                    message: format!("init was ended by {name}, and the sandbox with it"),
                }))
            }
            (None, None) => None,
        })
    }

    fn wait_for_news(
        self: &Arc<Self>,
        signals: &signals::Descriptor,
        report: &mut Option<Socket>,
        entrance: &mut Option<Entrance>,
    ) -> Result<(), Failure> {
        let server = self.server.process();
        let mut polled = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.server.liaison().as_fd(), PollFlags::POLLIN),
        ];
        let others = [
            report.as_ref().map(AsFd::as_fd),
            server.as_ref().map(|process| process.as_fd()),
        ];
        let entering = entrance.iter().flat_map(Entrance::descriptors);
        polled.extend(
            others
                .into_iter()
                .flatten()
                .chain(entering)
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)),
        );
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).attempt("poll"),
        }
        let ready = |index: usize| polled.get(index).and_then(PollFd::any).unwrap_or(false);
        let (signalled, reported) = (ready(0), report.is_some() && ready(2));
        drop(polled);
        if signalled {
            signals.forward(self.init)?;
        }
        if reported && let Some(failure) = report.take().and_then(Failure::reported) {
            return Err(failure);
        }
        if let Some(entrance) = entrance {
            entrance.attend(self);
        }
        Ok(())
    }

    /// Starts a thread that does one thing as long as the process lives.
    fn start(self: &Arc<Self>, name: &str, task: fn(&Arc<Sentry>)) -> Result<Thread, Failure> {
        let sentry = Arc::clone(self);
        let started = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || task(&sentry));
        Ok(started.attempt(A_THREAD)?.thread().clone())
    }

    /// Asks the server and waits for the answer, until that is no longer of use to anybody: then it fails with `EIO`. That is
    /// looked at now and then.
    fn call(
        &self,
        link: &ServerLink,
        submission: Submission,
        payload: &[u8],
        is_useless: impl Fn() -> bool,
    ) -> Result<Reply, Errno> {
        const NOW_AND_THEN: Duration = Duration::from_millis(100);
        let (sender, receiver) = mpsc::sync_channel(1);
        link.submit(self, submission, payload, &[], Continuation::Call(sender))?;
        let mut reply = None;
        self.consume(
            || (),
            || {
                reply = reply.take().or_else(|| receiver.try_recv().ok());
                reply.is_some() || is_useless()
            },
        );
        loop {
            match reply {
                Some(reply) => return Ok(reply),
                None if is_useless() => return Err(Errno::EIO),
                None => match receiver.recv_timeout(NOW_AND_THEN) {
                    Ok(received) => reply = Some(received),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(Errno::EIO),
                },
            }
        }
    }

    /// Resumes what the server answered, until `enough` says so. A channel that broke cannot be mended: the server is
    /// done for. Calls `slow` if an answer takes longer than most do.
    fn consume(&self, slow: impl FnMut(), enough: impl FnMut() -> bool) {
        let Ok(link) = self.server.link() else {
            return;
        };
        match link.consume(self, slow, enough) {
            Ok(false) => {}
            Ok(true) => self.have_consumed(),
            Err(Broken(reason)) => {
                tracing::error!("the server: {reason}");
                self.server.condemn(&link);
            }
        }
    }

    /// Sees to it that some thread consumes what is outstanding. For threads that cannot, since tasks decide how long
    /// that is: as long as they like.
    fn have_consumed(&self) {
        if let Some(deputy) = self.deputy.get() {
            deputy.unpark();
        }
    }

    /// Consumes whenever nobody else is there to do it.
    fn deputize(&self) {
        loop {
            thread::park();
            self.consume(|| (), || false);
        }
    }
}

impl Resume<Continuation> for Sentry {
    fn resume(&self, continuation: Continuation, answer: Answer<'_>) {
        match continuation {
            Continuation::Open(notification, open, times, begun, share, room) => {
                drop(share);
                self.finish_open(&notification, open, times, (begun, room), answer)
            }
            Continuation::Request(issued) => self.finish_request(issued, answer),
            Continuation::Call(sender) => {
                let Answer {
                    outcome,
                    values,
                    descriptor,
                    payload,
                    driver,
                    ..
                } = answer;
                // The waiting thread may have given up.
                let _ = sender.send(Reply {
                    outcome,
                    values,
                    descriptor,
                    payload: payload.to_vec(),
                    driver,
                });
            }
            Continuation::Nothing => {}
        }
    }
}
