//! How each need is tried: by what needs it, wherever that can be called alone.
//!
//! Each probe returns what it found, or why it found nothing. What would change the calling process is tried in a child,
//! most of it in a user namespace, since there the sentry and the server live: they have rights over their tasks that
//! an ordinary user lacks, and lack rights on the host that root has.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use caps::{CapSet, Capability};
use landlock::{
    AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::ptrace;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use nvproxy_server::reactor;
use ringfence_confinement::linux::Feature;
use ringfence_confinement::{Confinement, Kept, install_with_listener, policies};
use ringfence_ipc::Socket;
use ringfence_ipc::region::Region;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::link;
use ringfence_sentry::memory::{self, Write as MemoryWrite};
use ringfence_sentry::pins;
use ringfence_sentry::releases::Releases;
use ringfence_sentry::seccomp::listener::{self, Listener};
use ringfence_sentry::system_calls::{
    compare_with_registered, dispatch, memfd_secret, pidfd_getfd, pidfd_open_process,
    pidfd_open_thread, signal_mask,
};

use super::child::{self, Place};
use crate::launch::core_dumps;
use crate::launch::devices::mount_terminals;
use crate::launch::mounts::{RESTRICTED, Tree, cover_with_memory, forbid_writing};
use crate::launch::namespaces::{isolate_mounts, mount_proc};
use crate::launch::network::bring_up_loopback;
use crate::memory::make_shared;

/// What a probe found, or why it found nothing.
type Found = Result<String, Failure>;

pub fn architecture() -> Found {
    match std::env::consts::ARCH {
        "x86_64" => Ok("x86_64".to_owned()),
        other => Err(Failure::setup(other)),
    }
}

/// A child is tried in only by a process that knows how many threads it has, and namespaces are set up by files of `/proc`.
pub fn own_processes() -> Found {
    fs::read_dir("/proc/self/task").attempt("/proc/self/task")?;
    Ok("is mounted".to_owned())
}

/// The kernel says EBUSY of a second listener, and of nothing else (seccomp(2)).
pub fn outside() -> Found {
    child::attempt(Place::Here, || {
        set_no_new_privs().attempt("no_new_privs")?;
        // The process has yet to answer and to end, which this policy permits.
        let program = policies::INIT.compile(&[]).attempt("a filter")?;
        match install_with_listener(&program) {
            Err(Errno::EBUSY) => Err(Failure::setup(listener::SUPERVISED)),
            // What else it can be is said by another check.
            _ => Ok("no seccomp listener supervises this process".to_owned()),
        }
    })
}

pub fn user_namespace() -> Found {
    child::attempt(Place::Inside(CloneFlags::empty()), || {
        let may_mount = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
        if may_mount.attempt("capabilities")? {
            Ok("can be created".to_owned())
        } else {
            Err(Failure::setup("can be created, but give no rights"))
        }
    })
}

pub fn process_namespace() -> Found {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    child::attempt(Place::Inside(own), || {
        isolate_mounts()?;
        mount_proc()?;
        let own = fs::read_link("/proc/self").attempt("/proc/self")?;
        if own == Path::new("1") {
            Ok("can be created and mounted".to_owned())
        } else {
            let own = own.display();
            Err(Failure::setup(format!("/proc calls process 1 {own}")))
        }
    })
}

/// Takes the null device and forbids devices on that mount, as the launcher does.
pub fn mounts() -> Found {
    child::attempt(Place::Inside(CloneFlags::CLONE_NEWNS), || {
        isolate_mounts()?;
        let null = Path::new("/dev/null");
        let tree = Tree::copy(null).attempt(null.display())?;
        let tree = tree.with_attributes(RESTRICTED).attempt("mount_setattr")?;
        tree.attach(null).attempt("move_mount")?;
        match File::open(null).map_err(|error| error.kind()) {
            Err(ErrorKind::PermissionDenied) => {}
            _ => return Err(Failure::setup("a mount without devices lets one be opened")),
        }
        Ok("devices can be bound and made useless".to_owned())
    })
}

/// Makes all mounts read-only, and covers two directories.
pub fn file_system() -> Found {
    child::attempt(Place::Inside(CloneFlags::CLONE_NEWNS), || {
        isolate_mounts()?;
        forbid_writing()?;
        let flags = statvfs("/tmp").attempt("/tmp")?.flags();
        if !flags.contains(FsFlags::ST_RDONLY) {
            return Err(Failure::setup("what was made read-only is not"));
        }
        cover_with_memory(Path::new("/tmp"), MsFlags::empty(), "mode=1777")?;
        mount_terminals(Path::new("/tmp")).attempt("mounting a devpts")?;
        Ok("all can be made read-only, and parts private".to_owned())
    })
}

pub fn network() -> Found {
    child::attempt(Place::Inside(CloneFlags::CLONE_NEWNET), || {
        bring_up_loopback()?;
        Ok("can be created".to_owned())
    })
}

pub fn notification() -> Found {
    child::attempt(Place::Here, || {
        set_no_new_privs().attempt("no_new_privs")?;
        listener::install()?;
        Ok("a filter with a listener and killable waits".to_owned())
    })
}

/// Answers a task's open with a descriptor of this process's choice.
pub fn injection() -> Found {
    child::attempt(sentry_s_place(), || {
        let (ours, theirs) = Socket::pair().attempt("socketpair")?;
        let supervise = |_| {
            let (_, descriptor) = ours.receive().attempt("no filter in the task")?;
            let listener = Listener::new(descriptor);
            let notification = listener
                .receive(listener::Number::FIRST)
                .attempt("receiving a notification")?;
            let notification =
                notification.ok_or_else(|| Failure::setup("no notification came"))?;
            let (mut granted, grant) = std::io::pipe().attempt("pipe")?;
            listener
                .give(&notification, grant.into(), true)
                .attempt("SECCOMP_IOCTL_NOTIF_ADDFD")?;
            granted
                .read_exact(&mut [0])
                .attempt("the task has another descriptor than it was given")?;
            Ok("an open was answered with another descriptor".to_owned())
        };
        child::with_task(move || open_under_filter(&theirs), supervise)
    })
}

/// Writes a byte to what an open of `/dev/null` gives under the filter. The supervisor notices what fails.
fn open_under_filter(supervisor: &Socket) {
    if set_no_new_privs().is_err() {
        return;
    }
    let Ok(filter) = listener::install() else {
        return;
    };
    if supervisor.send(0, filter.as_fd()).is_err() {
        return;
    }
    let opened = OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(mut opened) = opened {
        let _ = opened.write_all(&[0]);
    }
}

pub fn kcmp() -> Found {
    child::attempt(sentry_s_place(), || {
        let (reader, _writer) = std::io::pipe().attempt("pipe")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).attempt("epoll_create")?;
        epoll
            .add(&reader, EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .attempt("epoll_ctl")?;
        let number = reader.as_raw_fd();
        child::with_task(nothing, |task| {
            let same = compare_with_registered(task, number, epoll.0.as_fd(), number)
                .attempt("kcmp with KCMP_EPOLL_TFD")?;
            // A forked child has its parent's descriptions.
            if same.is_eq() {
                Ok("a task's descriptor was recognized".to_owned())
            } else {
                Err(Failure::setup("wrong answers"))
            }
        })
    })
}

pub fn descriptor_copy() -> Found {
    child::attempt(sentry_s_place(), || {
        let (reader, _writer) = std::io::pipe().attempt("pipe")?;
        let number = reader.as_raw_fd();
        child::with_task(nothing, |task| {
            let pidfd = pidfd_open_process(task).attempt("pidfd_open")?;
            pidfd_getfd(pidfd.as_fd(), number).attempt("pidfd_getfd")?;
            Ok("a task's descriptor was duplicated".to_owned())
        })
    })
}

pub fn descriptor_copy_of_thread() -> Found {
    child::attempt(Place::Here, || {
        let (reader, _writer) = std::io::pipe().attempt("pipe")?;
        let (sender, receiver) = mpsc::channel();
        // It lives as long as this process, which is not long.
        std::thread::spawn(move || {
            let _ = sender.send(gettid());
            std::thread::park();
        });
        let thread = receiver.recv().attempt("starting a thread")?;
        let pidfd = pidfd_open_thread(thread).attempt("pidfd_open of a thread")?;
        pidfd_getfd(pidfd.as_fd(), reader.as_raw_fd()).attempt("pidfd_getfd")?;
        Ok("a descriptor of one was duplicated".to_owned())
    })
}

pub fn task_memory() -> Found {
    child::attempt(sentry_s_place(), || {
        let value = *b"unchanged";
        // A forked child has its own copy at the same address.
        let address = std::hint::black_box(&raw const value) as u64;
        child::with_task(nothing, |task| {
            let bytes = b"rewritten";
            memory::write(task, &[MemoryWrite { address, bytes }]).attempt("process_vm_writev")?;
            let mut seen = [0; 9];
            memory::read(task, address, &mut seen).attempt("process_vm_readv")?;
            if seen == *bytes {
                Ok("a task's memory was written and read".to_owned())
            } else {
                Err(Failure::setup("what was written was not read"))
            }
        })
    })
}

/// Stops a task and reads its state, as is done for ioctls that pin memory. It does not go on: it may have been stopped
/// anywhere, not in a call that waits for an answer.
pub fn ptrace() -> Found {
    child::attempt(sentry_s_place(), || {
        child::with_task(nothing, |task| {
            seize_and_stop(task)?;
            ptrace::getregs(task).attempt("PTRACE_GETREGS")?;
            signal_mask(task).attempt("PTRACE_GETSIGMASK")?;
            Ok("a task was seized and stopped".to_owned())
        })
    })
}

fn seize_and_stop(task: Pid) -> Result<(), Failure> {
    ptrace::seize(task, ptrace::Options::PTRACE_O_TRACESYSGOOD).attempt("PTRACE_SEIZE")?;
    ptrace::interrupt(task).attempt("PTRACE_INTERRUPT")?;
    match waitpid(task, Some(WaitPidFlag::__WALL)).attempt("waitpid")? {
        WaitStatus::PtraceEvent(..) => Ok(()),
        other => Err(Failure::setup(format!("no stop, but {other:?}"))),
    }
}

pub fn io_uring() -> Found {
    child::attempt(sentry_s_place(), || {
        reactor::Ring::new().attempt("io_uring")?;
        Ok("a ring with futex operations was set up, in which the server waits".to_owned())
    })
}

pub fn sealed_memory() -> Found {
    let memory = make_shared()?;
    Region::attach(memory, link::geometry()).attempt("a region")?;
    Ok("a region was created and sealed".to_owned())
}

pub fn secret_memory() -> Found {
    match memfd_secret() {
        Ok(_) => Ok("memory that others cannot reach was made".to_owned()),
        Err(errno) => Err(errno).attempt("memfd_secret"),
    }
}

/// Secret memory takes of it; what else a pin makes does not.
pub fn locked_memory() -> Found {
    if memfd_secret().is_err() {
        return Ok("nothing takes any here".to_owned());
    }
    child::attempt(Place::Here, || {
        pins::expect_secret_memory().attempt("a page of secret memory")?;
        Ok("there is enough for a pin".to_owned())
    })
}

/// Asks for what every tracer of a thread can know from Linux 6.4 on.
pub fn traced_dispatch() -> Found {
    child::attempt(sentry_s_place(), || {
        child::with_task(nothing, |task| {
            seize_and_stop(task)?;
            dispatch(task).attempt("PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG")?;
            Ok("where a task's calls are taken was read".to_owned())
        })
    })
}

pub fn refused_execution() -> Found {
    there(
        Feature::RefusedExecution,
        "memory can be kept from becoming executable",
        "prctl",
    )
}

pub fn peer_descriptors() -> Found {
    there(
        Feature::PeerDescriptors,
        "a socket told who is at its other end",
        "getsockopt",
    )
}

/// By what the launcher asks, too.
fn there(feature: Feature, works: &str, how: &str) -> Found {
    if feature.is_there() {
        return Ok(works.to_owned());
    }
    let name = feature.row().name;
    Err(Failure::setup(format!("{how} does not know {name}")))
}

pub fn inotify() -> Found {
    child::attempt(sentry_s_place(), || {
        let releases = Releases::new().attempt("inotify_init")?;
        let null = File::open("/dev/null").attempt("/dev/null")?;
        let watched = releases.watch_inode(&null.into(), (0, 0));
        watched.attempt("inotify_add_watch")?;
        Ok("an open file was watched".to_owned())
    })
}

pub fn landlock_files() -> Found {
    child::attempt(Place::Here, || {
        let ruleset = Ruleset::default().handle_access(AccessFs::WriteFile);
        enforced(ruleset, 1, "writing files can be withheld")
    })
}

pub fn landlock_truncate() -> Found {
    child::attempt(Place::Here, || {
        let ruleset = Ruleset::default().handle_access(AccessFs::Truncate);
        enforced(ruleset, 3, "emptying files can be withheld")
    })
}

pub fn landlock_tcp() -> Found {
    child::attempt(Place::Here, || {
        let ruleset = Ruleset::default().handle_access(AccessNet::ConnectTcp);
        enforced(ruleset, 4, "connecting by TCP can be withheld")
    })
}

pub fn landlock_ioctl_dev() -> Found {
    child::attempt(Place::Here, || {
        let ruleset = Ruleset::default().handle_access(AccessFs::IoctlDev);
        enforced(ruleset, 5, "ioctl on devices can be withheld")
    })
}

pub fn core_dumps() -> Found {
    child::attempt(Place::Here, || {
        core_dumps::forbid().map(|()| "nobody is told of a crash".to_owned())
    })
}

pub fn landlock_scopes() -> Found {
    child::attempt(Place::Here, || {
        let ruleset = Ruleset::default().scope(Scope::Signal | Scope::AbstractUnixSocket);
        enforced(ruleset, 6, "signals and abstract sockets can be kept in")
    })
}

/// Enters a domain that Landlock has from this ABI on.
fn enforced(ruleset: Result<Ruleset, RulesetError>, abi: u8, works: &str) -> Found {
    let status = ruleset
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .attempt("Landlock")?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        return Ok(works.to_owned());
    }
    Err(Failure::setup(match status.landlock {
        LandlockStatus::NotEnabled => "Landlock is built in, but not enabled".to_owned(),
        LandlockStatus::NotImplemented => "this kernel has no Landlock".to_owned(),
        LandlockStatus::Available { effective_abi, .. } => {
            format!("Landlock's ABI is {} and not {abi}", effective_abi as u8)
        }
    }))
}

/// Leaves a process an empty file system and little else, as is done with the server.
pub fn confinement() -> Found {
    child::attempt(Place::Inside(CloneFlags::CLONE_NEWNS), || {
        // The process has yet to answer and to end, which this policy permits.
        let program = policies::INIT.compile(&[]).attempt("a filter")?;
        let confinement = Confinement {
            kept: Some(Kept {
                paths: &[],
                alone: false,
            }),
            landlock: true,
            capabilities: &[],
            address_space: u64::MAX,
            descriptors: u64::MAX,
            file_size: u64::MAX,
            program: &program,
        };
        confinement.enter().map_err(Failure::setup)?;
        Ok("a process gave up its files, rights and calls".to_owned())
    })
}

/// Runs a program in a sandbox: this very executable, which says its version.
pub fn sandbox() -> Found {
    child::attempt(Place::Here, || {
        let executable = "/proc/self/exe";
        let arguments = [
            "run",
            "--driver=sim",
            "--workdir=/",
            "--",
            executable,
            "--version",
        ];
        let output = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .attempt("ringfence run")?;
        if output.status.success() {
            return Ok("a program ran in one, with the simulated driver".to_owned());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let reason = errors.lines().rfind(|line| !line.trim().is_empty());
        Err(Failure::setup(match reason {
            Some(reason) => reason.trim_start_matches("ringfence: ").to_owned(),
            None => format!("ringfence run: {}", output.status),
        }))
    })
}

/// Where the sentry lives, or, if that cannot be, here: another check says that.
fn sentry_s_place() -> Place {
    let inside = Place::Inside(CloneFlags::empty());
    match child::attempt(inside, || Ok(String::new())) {
        Ok(_) => inside,
        Err(_) => Place::Here,
    }
}

/// What a task does that need only be there.
fn nothing() {}
