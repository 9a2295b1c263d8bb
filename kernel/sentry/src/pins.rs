//! Pinning: the one kind of request that has to be issued from the task's own address space.
//!
//! The driver pins pages of whoever calls it (class 0x71), so a thread of the task's process must make the call, on the
//! command descriptor, with parameters that the server has validated. That is done so that no task can get at either:
//!
//! 1. The server validates the request and lends the command descriptor, to the sentry.
//! 2. Every other task of the sandbox is stopped, or, if it waits for an answer of the sentry's, kept waiting.
//! 3. The caller's call returns into a stop. It is made to make a thread, the *helper*, which the sentry traces from birth,
//!    and which leaves the caller's descriptor table for one of its own. The kernel may take the caller elsewhere than where it is set to, and never
//!    the helper (`tracee/injection.rs`). So the helper does all that follows.
//! 4. It is given two files of the sentry's, which it is made to map. The first has the instruction by which it makes its
//!    further calls, and can be written to by nobody (`pins/code.rs`). The second is memory that nobody reaches but by a
//!    mapping of his own (`pins/parameters.rs`). There the validated parameters lie, not the task's own.
//! 5. It is made to issue the ioctl on them. This notifies once more. If they still hold what was validated, which nobody
//!    can change any more while the thread waits, the helper's table gets the command descriptor, and the call is let
//!    through. What the driver answers is read at once.
//! 6. The helper is made to end, and its table with it. Then the caller unmaps both and the others go on, and, when
//!    the server has been told the outcome, the caller does. The server is told of all that was let through, whatever fails
//!    later: what the driver has done counts.
//!
//! So no task's descriptor table ever has the command descriptor, and nobody goes on before the helper is seen to have
//! ended. What a task's own seccomp filters answer to the calls, and who is killed when, changes nothing about either.
//!
//! ptrace(2) is a matter of threads: all pins are carried out by one thread of the sentry, one after the other.

mod code;
mod expected;
mod issuing;
mod pages;
mod parameters;

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nvproxy_protocol::requests::{ARGUMENT_RESULT, Kind, encode_result};
use ringfence_faults::{Act, Point, at_task};
use ringfence_ipc::locks::IgnorePoison;

use self::code::Code;
use self::expected::Expected;
use self::parameters::{Parameters, Secret, Supply};
use super::descriptions::Description;
use super::marshalling::{
    Marshalled, Stopped as StoppedRequest, Target, length_of, status_of, submission, write_back,
};
use super::observer::{Done, Known, heading};
use super::orphans;
use super::procfs;
use super::progress::Progress;
use super::recorder::Begun;
use super::server::ServerLink;
use super::shares::Share;
use super::times::{Phase, Times};
use super::tracee::{Alarm, Caller, Held, Looks, Numbers, PAUSE, Patience, Tracer};
use super::{Reply, Sentry};
use crate::seccomp::listener::Notification;
use crate::warnings::warn_once;

/// How long a server may be silent about the end of a pin while somebody wants the caller for something.
const PROMPT: Duration = Duration::from_secs(1);
/// How long in any case: as long as one that is to hand over may be silent.
const UNHEARD: Duration = Duration::from_secs(40);

/// A request that pins, to be carried out. The share in its `progress` makes it the only one until its caller goes on.
pub struct Job {
    pub link: ServerLink,
    pub notification: Notification,
    pub target: Target,
    pub marshalled: Marshalled,
    pub progress: Progress,
    pub payload: Vec<u8>,
}

/// What the thread that carries out pins is to do.
enum Task {
    Pin(Box<Job>),
    /// To end programs whose stand-in is gone.
    EndOrphans,
}

/// What waits to be carried out, and what is.
pub struct Pins {
    sender: mpsc::Sender<Task>,
    jobs: Mutex<mpsc::Receiver<Task>>,
    looks: Looks,
    /// The call that the helper of the pin under way is about to make.
    expected: Mutex<Option<Expected>>,
    /// Whether that call was let through.
    was_let_through: AtomicBool,
    /// Whether the helper was given what it is to map.
    was_given: AtomicBool,
    code: Code,
    supply: Supply,
    numbers: Numbers,
    /// Until the thread that carries out pins has taken it.
    alarm: Mutex<Option<Alarm>>,
    /// Taken as long as tasks are held.
    holding: Mutex<()>,
}

impl Pins {
    /// To be called before the sentry is confined. Fails as memfd_create(2) does.
    pub fn new(numbers: Numbers, alarm: Alarm) -> Result<Pins, Errno> {
        let (sender, jobs) = mpsc::channel();
        Ok(Pins {
            sender,
            jobs: Mutex::new(jobs),
            looks: Looks::default(),
            expected: Mutex::default(),
            was_let_through: AtomicBool::new(false),
            was_given: AtomicBool::new(false),
            code: Code::new()?,
            supply: Supply::new(),
            numbers,
            alarm: Mutex::new(Some(alarm)),
            holding: Mutex::default(),
        })
    }

    /// The file system of files in memory.
    pub fn file_system(&self) -> Result<libc::dev_t, Errno> {
        nix::sys::stat::fstat(self.code.file()).map(|status| status.st_dev)
    }

    /// Hands over a pin to the thread that carries them out.
    pub fn begin(&self, job: Job) {
        // That thread never ends.
        let _ = self.sender.send(Task::Pin(Box::new(job)));
    }

    /// A process that stood in for a further program has ended.
    pub fn end_orphans(&self) {
        let _ = self.sender.send(Task::EndOrphans);
    }

    /// How many looks have been taken for pins by now.
    pub fn looks(&self) -> u64 {
        self.looks.count()
    }

    /// Does what may make a task that whoever holds the others would not know of.
    pub fn while_none_holds(&self, then: impl FnOnce()) {
        let _none = self.holding.lock().ignore_poison();
        then();
    }

    fn expected(&self) -> MutexGuard<'_, Option<Expected>> {
        self.expected.lock().ignore_poison()
    }
}

/// Makes a page of the memory that the parameters of pins lie in, and lets go of it. Fails if the kernel has none, or with
/// `ENOMEM` if this process may not lock as much.
pub fn expect_secret_memory() -> Result<(), Errno> {
    Secret::new().map(drop)
}

/// Carries out one pin.
fn run(sentry: &Sentry, tracer: &Tracer, job: Job) {
    let Job {
        link,
        notification,
        target,
        marshalled,
        mut progress,
        mut payload,
    } = job;
    let Target::Device(description) = target else {
        let stopped = StoppedRequest::Errno(Errno::ENOTTY);
        return sentry.stop(&notification, target.node(), stopped, progress.times, None);
    };
    progress.times.end(Phase::Sentry);
    let looks = &sentry.pins.looks;
    // A test has it forgotten how long it has waited, to show that it would notice.
    let since = match at_task(Point::PinQueued, notification.task.as_raw()) {
        Some(Act::Drop) => looks.count(),
        _ => progress.share.since,
    };
    let pin = Pin {
        to_begin: Patience::since(since, looks),
        to_call: Patience::since(looks.count(), looks),
        sentry,
        tracer,
        link: &link,
        notification: &notification,
        description,
        marshalled,
        begun: progress.begun,
        times: Cell::new(progress.times),
        is_unmapped: Cell::new(false),
    };
    let outcome = pin.carry_out(progress.share, &mut payload);
    let server = pin.description.handle;
    match outcome {
        Ok(()) => {}
        Err(Failed::BeforeAnswer(errno)) => {
            sentry.record_answer(pin.begun, Err(errno), &[]);
            pin.end(Phase::Releasing);
            pin.note_failure(errno);
            sentry.listener.answer(&notification, Err(errno));
        }
        // Killed, or it took away the memory that the answer was to be written to.
        Err(Failed::AfterAnswer(Errno::ESRCH | Errno::EFAULT)) => {}
        // That the server was lost was told.
        Err(Failed::AfterAnswer(_)) if sentry.server.link_of(server).is_err() => {}
        Err(Failed::AfterAnswer(errno)) => warn_once("a request that pins was not finished", errno),
    }
}

/// Where a pin failed: whether the notification still waits for an answer.
enum Failed {
    BeforeAnswer(Errno),
    AfterAnswer(Errno),
}

struct Pin<'a> {
    /// Until the others are held, from when it began to wait. Then it fails.
    to_begin: Patience<'a>,
    /// Until it is over, from when it was its turn. Then its process is killed, which has waited for nobody else.
    to_call: Patience<'a>,
    sentry: &'a Sentry,
    tracer: &'a Tracer,
    link: &'a ServerLink,
    notification: &'a Notification,
    description: Arc<Description>,
    marshalled: Marshalled,
    begun: Option<Begun>,
    times: Cell<Times>,
    /// Whether nobody but the sentry has the page of the parameters any more.
    is_unmapped: Cell<bool>,
}

impl Pin<'_> {
    /// A phase is over.
    fn end(&self, phase: Phase) {
        let mut times = self.times.get();
        times.end(phase);
        self.times.set(times);
    }

    /// `share` is given back before the caller goes on, which may pin again at once.
    fn carry_out(&self, share: Share, payload: &mut Vec<u8>) -> Result<(), Failed> {
        if !self.to_begin.is_left() {
            return Err(Failed::BeforeAnswer(Errno::EAGAIN));
        }
        let begun = self.ask(Kind::PinBegin, payload, None);
        self.end(Phase::Lending);
        let begun = begun.and_then(|reply| reply.outcome.map(|_| reply.descriptor));
        let lent = begun.map_err(Failed::BeforeAnswer)?;
        let mut as_begun = payload.clone();
        self.sentry
            .pins
            .was_let_through
            .store(false, Ordering::SeqCst);
        let parameters = self.sentry.pins.supply.take(self.notification.task);
        let outcome = match (lent, parameters) {
            (Some(lent), Ok(parameters)) => {
                let parameters = Arc::new(parameters);
                let outcome = self.carry_out_with(lent, &parameters, share, payload);
                if self.is_unmapped.get() {
                    self.sentry.pins.supply.put_back(parameters);
                }
                outcome
            }
            (None, _) => Err(Failed::BeforeAnswer(Errno::EIO)),
            (_, Err(errno)) => Err(Failed::BeforeAnswer(errno)),
        };
        // The server keeps what it may take until it is told. What was let through may have come about.
        if outcome.is_err() && !self.sentry.pins.was_let_through.load(Ordering::SeqCst) {
            // Of a server that was lost nothing is left.
            let _ = self.ask(Kind::PinFinish, &mut as_begun, Some(Err(Errno::ECANCELED)));
        }
        outcome
    }

    fn carry_out_with(
        &self,
        lent: OwnedFd,
        parameters: &Arc<Parameters>,
        share: Share,
        payload: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        let task = self.notification.task;
        at_task(Point::PinLent, task.as_raw());
        let (listener, tracer) = (&self.sentry.listener, self.tracer);
        let numbers = &self.sentry.pins.numbers;
        let holding = self.sentry.pins.holding.lock().ignore_poison();
        // A test leaves this out, to show that it would notice.
        let is_to_hold = at_task(Point::Hold, task.as_raw()) != Some(Act::Drop);
        let held = is_to_hold
            .then(|| {
                // In a container that is the program itself.
                let init = (!self.sentry.is_container).then_some(self.sentry.init);
                Held::all_but(task, init, numbers, listener, tracer, &self.to_begin)
            })
            .transpose()
            .map_err(Failed::BeforeAnswer)?;
        at_task(Point::PinHeld, task.as_raw());
        let caller = Caller::seize(task, tracer, &self.to_call).map_err(Failed::BeforeAnswer)?;
        // Else another task has the number by now, was left out when the others were held, and is traced. From here on
        // the number is the caller's until its tracer has waited for its end.
        let is_the_caller = listener.expect_waiting(self.notification);
        is_the_caller.map_err(Failed::BeforeAnswer)?;
        // What it really returns is set when all is done.
        listener.answer(self.notification, Err(Errno::EIO));
        let mut stopped = caller.stopped().map_err(Failed::AfterAnswer)?;
        at_task(Point::PinStopped, task.as_raw());
        let mut issued = None;
        let done = self.issue(&mut stopped, lent, parameters, payload, &mut issued);
        at_task(Point::PinEnded, task.as_raw());
        drop(held);
        drop(holding);
        self.end(Phase::Releasing);
        at_task(Point::PinTold, task.as_raw());
        // The server hears what the driver has answered, whatever has failed since.
        let told = issued.map(|issued| self.ask(Kind::PinFinish, payload, Some(issued)));
        let told = match (told, done) {
            (Some(told), Ok(())) => told,
            (_, done) => Err(done.err().unwrap_or(Errno::EIO)),
        };
        let finished = told.and_then(|reply| {
            let mut times = self.times.get();
            times.answered(reply.driver);
            self.times.set(times);
            if reply.outcome.is_ok() {
                // The others go on, and may have executed a program.
                stopped.expect_present()?;
                write_back(task, &self.marshalled.parts, &reply.payload)?;
            }
            Ok(reply)
        });
        // Once the caller goes on it may end the sandbox.
        match &finished {
            Ok(reply) => self.note(reply),
            Err(errno) => {
                self.sentry.record_answer(self.begun, Err(*errno), &[]);
                self.end(Phase::WritingBack);
                self.note_failure(*errno);
            }
        }
        stopped.result = encode_result(
            finished
                .as_ref()
                .map_err(|errno| *errno)
                .and_then(|reply| reply.outcome),
        );
        drop(share);
        finished.map(drop).map_err(Failed::AfterAnswer)
    }

    /// Puts the answer into the recording, the statistics and the trace.
    fn note(&self, reply: &Reply) {
        self.sentry
            .record_answer(self.begun, reply.outcome, &reply.payload);
        self.end(Phase::WritingBack);
        let plan = &self.marshalled.plan;
        let done = Done {
            kind: heading(plan.family),
            name: plan.request.name,
            id: plan.id,
            node: self.description.node,
            payload: length_of(&self.marshalled.parts),
            outcome: reply.outcome.map(i64::from),
            status: status_of(plan, &reply.payload),
        };
        let task = self.notification.task;
        self.sentry.observer.done(task, self.times.get(), done);
    }

    /// Puts a failure that is not the driver's into the trace.
    fn note_failure(&self, errno: Errno) {
        let plan = &self.marshalled.plan;
        let known = Known::Named {
            kind: heading(plan.family),
            name: plan.request.name,
        };
        let (task, times) = (self.notification.task, self.times.get());
        let answer = (Err(errno), None);
        self.sentry
            .observer
            .stopped(task, times, self.description.node, known, answer);
    }

    /// Sends the request to the server, at one of the two moments of a pin that it is asked.
    fn ask(
        &self,
        kind: Kind,
        payload: &mut Vec<u8>,
        issued: Option<Result<i32, Errno>>,
    ) -> Result<Reply, Errno> {
        let command = self.notification.arguments[1] as u32;
        let target = Target::Device(Arc::clone(&self.description));
        let length = payload.len();
        let mut submission = submission(kind, &target, command, &self.marshalled.handles, payload);
        if let Some(issued) = issued {
            submission.arguments[ARGUMENT_RESULT] = encode_result(issued) as u64;
        }
        // The caller stands still meanwhile, as do all signals for it. A server may say nothing.
        let (asked, task) = (Instant::now(), self.notification.task);
        let is_useless = || {
            let waited = asked.elapsed();
            // A test leaves this out, to show that it would notice.
            issued.is_some()
                && at_task(Point::PinUnanswered, task.as_raw()) != Some(Act::Drop)
                && (waited > UNHEARD || waited > PROMPT && procfs::is_wanted(task))
        };
        let reply = self.sentry.call(self.link, submission, payload, is_useless);
        payload.truncate(length);
        reply
    }
}

impl Sentry {
    /// The one thread that carries out pins.
    pub fn pin_for_ever(&self) {
        let (jobs, alarm) = (&self.pins.jobs, &self.pins.alarm);
        let jobs = jobs.lock().ignore_poison();
        let alarm = alarm.lock().ignore_poison().take();
        let Some(alarm) = alarm else {
            return;
        };
        let tracer = Tracer::new(alarm);
        let mut rest = Rest::default();
        let mut are_orphans_left = false;
        loop {
            are_orphans_left = are_orphans_left && orphans::end(self.init);
            let is_to_tend = tracer.tend(&self.listener) || are_orphans_left;
            if rest.is_left() {
                std::thread::sleep(PAUSE);
                continue;
            }
            let job = match is_to_tend {
                true => jobs.recv_timeout(PAUSE).ok(),
                false => jobs.recv().ok(),
            };
            if let Some(Task::EndOrphans) = &job {
                are_orphans_left = true;
            }
            if let Some(Task::Pin(job)) = job {
                let before = self.pins.looks();
                run(self, &tracer, *job);
                rest = Rest::after(self.pins.looks() - before);
                // Nobody waits for it now.
                self.pins.supply.stock();
            }
        }
    }
}

/// For how long nobody is held, after a pin for which all were held for long: as long as that was. Else a program that pins again
/// and again would leave the others no time at all while one of them does not stop, or there are very many.
#[derive(Default)]
struct Rest(Option<Instant>);

impl Rest {
    /// What is not long.
    const SHORT: Duration = Duration::from_millis(20);

    /// After a pin that took so many looks.
    fn after(looks: u64) -> Rest {
        let held = PAUSE * u32::try_from(looks).unwrap_or(u32::MAX);
        Rest((held > Rest::SHORT).then(|| Instant::now() + held))
    }

    fn is_left(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() < end)
    }
}
