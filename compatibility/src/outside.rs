//! A program outside of a sandbox, and what the driver refuses it there.
//!
//! The idea: a filter has the kernel stop the program at its ioctls alone, for a tracer (ptrace(2)); all else costs nothing.
//! At a request of the driver's the tracer looks at it by the tables, lets it be made, and reads the answer. It changes nothing:
//! what is stopped by a signal, as by a shell, stays so until another has it go on.
//! What the program starts is watched, too. Only what traces others itself, as a debugger does, cannot run so.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use libc::sock_filter;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::refusal::Answer;
use nvproxy_abi::status;
use nvproxy_abi::table::shown_name;
use ringfence::survey::node_of;
use ringfence_programs::running::ended;
use ringfence_sentry::failure::{NOT_EXECUTABLE, NOT_FOUND};
use ringfence_sentry::marshalling::{self, Stopped};
use ringfence_sentry::system_calls::{CallStop, call_stop, resume};
use ringfence_sentry::{memory, observer};
use rustix::process::{WaitOptions, WaitStatus, wait};

use crate::refusals::{By, Refusals};
use crate::stopped::{StoppedProcesses, stops};

/// A stop at the end of a call is told from one by a signal; and who watches takes the program along when it ends.
const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACESECCOMP)
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEEXEC)
    .union(Options::PTRACE_O_EXITKILL);

/// How long to wait until a further look at what is stopped.
const PAUSE: Duration = Duration::from_millis(10);

/// Becomes a program that is to be watched: stops once, for its tracer to take hold of it, and executes it then.
/// If that cannot be, it returns with which status a shell would end, and why.
pub fn become_program(words: &[String]) -> (u8, String) {
    let Some((program, arguments)) = words.split_first() else {
        return (NOT_FOUND, "no program is named".to_owned());
    };
    if let Err(errno) = stop_at_ioctls() {
        return (NOT_EXECUTABLE, format!("the filter: {errno}"));
    }
    if let Err(errno) = raise(Signal::SIGSTOP) {
        return (NOT_EXECUTABLE, format!("stopping: {errno}"));
    }
    let error = Command::new(program).args(arguments).exec();
    let status = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    (status, format!("{program}: {error}"))
}

/// Has the kernel stop this process, and what it becomes, at each ioctl, for whoever traces it.
fn stop_at_ioctls() -> Result<(), Errno> {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    // What is at offset 0 of `struct seccomp_data` is the call's number.
    let program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_ioctl as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_TRACE),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    match ringfence_confinement::install(&program) {
        // Who is no administrator gives up to gain privileges (seccomp(2)).
        Err(Errno::EACCES) => {
            prctl::set_no_new_privs()?;
            ringfence_confinement::install(&program)
        }
        installed => installed,
    }
}

/// Waits until a program has ended that begins with [`become_program`], and takes down what the driver refuses it.
pub fn watch(
    child: Pid,
    abi: &'static Abi,
    devices: &Path,
    refusals: &mut Refusals,
) -> io::Result<WaitStatus> {
    let stopped = ended(child, WaitOptions::UNTRACED)?;
    if !stopped.stopped() {
        return Ok(stopped);
    }
    ptrace::seize(child, OPTIONS)?;
    kill(child, Signal::SIGCONT)?;
    let mut watch = Watch {
        abi,
        devices,
        refusals,
        pending: HashMap::new(),
        stopped: StoppedProcesses::default(),
        payload: Vec::new(),
    };
    watch.until_it_has_ended(child)
}

/// A request that is being made.
struct Pending {
    name: String,
    /// Where in memory the driver writes its status, if it does.
    status_at: Option<u64>,
}

struct Watch<'a> {
    abi: &'static Abi,
    /// Where the driver's nodes are.
    devices: &'a Path,
    refusals: &'a mut Refusals,
    /// By thread.
    pending: HashMap<Pid, Pending>,
    stopped: StoppedProcesses,
    payload: Vec<u8>,
}

impl Watch<'_> {
    fn until_it_has_ended(&mut self, child: Pid) -> io::Result<WaitStatus> {
        const CALL: i32 = libc::SIGTRAP | 0x80;
        // Threads, too, whose end is not told by SIGCHLD.
        let options = WaitOptions::from_bits_retain(libc::__WALL as u32);
        loop {
            self.stopped.look()?;
            let without_waiting = match self.stopped.is_empty() {
                true => WaitOptions::empty(),
                false => WaitOptions::NOHANG,
            };
            let (thread, status) = match wait(options | without_waiting) {
                Ok(Some((thread, status))) => {
                    (Pid::from_raw(thread.as_raw_nonzero().get()), status)
                }
                Ok(None) => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Some(signal) = status.stopping_signal() else {
                self.pending.remove(&thread);
                self.stopped.ended(thread);
                if thread == child {
                    return Ok(status);
                }
                continue;
            };
            let event = status.as_raw() >> 16;
            let gone_on = match (event, signal) {
                (libc::PTRACE_EVENT_SECCOMP, _) => self.begin(thread),
                (0, CALL) => {
                    self.end(thread);
                    resume(thread, 0)
                }
                (0, signal) => {
                    let noted = self.stopped.passed_on(thread, signal);
                    noted.and_then(|()| resume(thread, signal))
                }
                // It stops with its whole process. (What a new thread begins with is SIGTRAP.)
                (libc::PTRACE_EVENT_STOP, signal) if stops(signal) => self.stopped.hold(thread),
                _ => resume(thread, 0),
            };
            // It may have been killed meanwhile, and its end is told next.
            match gone_on {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A thread is about to make an ioctl.
    fn begin(&mut self, thread: Pid) -> Result<(), Errno> {
        let CallStop::Filtered([descriptor, command, argument, ..]) = call_stop(thread)? else {
            return resume(thread, 0);
        };
        match node_of(self.devices, thread, descriptor as i32) {
            Some(node) => {
                let pending = self.look_at(thread, node, command as u32, argument);
                self.pending.insert(thread, pending);
                ptrace::syscall(thread, None)
            }
            None => resume(thread, 0),
        }
    }

    fn look_at(&mut self, thread: Pid, node: Node, command: u32, argument: u64) -> Pending {
        let nameless = || format!("ioctl {command:#x}");
        let payload = &mut self.payload;
        let (name, at) = match marshalling::copy(self.abi, node, thread, command, argument, payload)
        {
            Ok((plan, _)) => (
                shown_name(plan.request.name, plan.id).into_owned(),
                plan.status_at(),
            ),
            Err(Stopped::Refused(refusal)) => {
                let (_, name) = observer::meant(refusal.what);
                let name = name.map_or_else(|| refusal.what.to_string(), |name| name.into_owned());
                let at = match refusal.answer {
                    Answer::Status { at, .. } => Some(at),
                    Answer::Errno(_) => None,
                };
                (name, at)
            }
            Err(Stopped::Unreadable(_) | Stopped::Errno(_)) => (nameless(), None),
        };
        Pending {
            name,
            status_at: at.map(|at| argument.wrapping_add(at.into())),
        }
    }

    /// A thread's ioctl was answered.
    fn end(&mut self, thread: Pid) {
        let Some(pending) = self.pending.remove(&thread) else {
            return;
        };
        let answer = match call_stop(thread) {
            // A number that the kernel keeps for itself: a signal has interrupted the call, which is made again or fails with
            // EINTR. The driver has not answered.
            Ok(CallStop::Returned(Err(Errno::UnknownErrno))) => return,
            Ok(CallStop::Returned(Err(errno))) => format!("{errno:?}"),
            Ok(CallStop::Returned(Ok(_))) => {
                match pending.status_at.and_then(|at| status_in(thread, at)) {
                    Some(code) if marshalling::is_error(code) => {
                        status::name(code).map_or_else(|| format!("{code:#x}"), str::to_owned)
                    }
                    _ => return,
                }
            }
            _ => return,
        };
        self.refusals.add(pending.name, answer, By::Driver);
    }
}

fn status_in(thread: Pid, address: u64) -> Option<u32> {
    let mut status = [0; 4];
    memory::read(thread, address, &mut status).ok()?;
    Some(u32::from_ne_bytes(status))
}
