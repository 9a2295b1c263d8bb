//! What a library that makes requests in the program's place has to leave as it was: signal handlers, `errno`, children,
//! and what descriptor numbers mean. Each scenario comes to the same with the library and without it.
//!
//! `unsafe` is here for signal handlers, fork, and calls around the C library.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_abi::structs::frontend::{NVOS54_PARAMETERS, nv_ioctl_rm_api_version_t};
use ringfence::guest::{Client, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{ALL, GIB, Gpu, MEMORY};
use crate::tasks::{child, expect_success};

/// The descriptor that the handler makes its request on.
static CONTROL: AtomicI32 = AtomicI32::new(-1);
/// And its client.
static ROOT: AtomicU32 = AtomicU32::new(0);
static HANDLED: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);

/// Makes a request that needs no client, without allocating anything; whether it succeeds.
pub fn asks_version(control: i32) -> bool {
    let mut request = nv_ioctl_rm_api_version_t::new_zeroed();
    // NV_RM_API_VERSION_CMD_QUERY: nothing is compared.
    request.cmd = u32::from(b'2');
    let command = ioctl_word(NV_ESC_CHECK_VERSION_STR, size_of_val(&request));
    // SAFETY: the parameters outlive the call.
    let result = unsafe { libc::ioctl(control, command as libc::Ioctl, &raw mut request) };
    result == 0
}

/// Asks for all GPUs, without allocating anything; whether the answer is right.
fn probed_gpus(control: i32, root: u32) -> bool {
    let mut probed = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject) = (root, root);
    request.cmd = NV0000_CTRL_CMD_GPU_GET_PROBED_IDS;
    request.paramsSize = size_of_val(&probed) as u32;
    request.params = &raw mut probed as u64;
    let command = ioctl_word(NV_ESC_RM_CONTROL, size_of_val(&request));
    // SAFETY: the parameters, and what they point to, outlive the call.
    let result = unsafe { libc::ioctl(control, command as libc::Ioctl, &raw mut request) };
    result == 0 && request.status == 0 && probed.gpuIds.starts_with(&[0x100, 0x200, u32::MAX])
}

extern "C" fn ask(_: libc::c_int) {
    let (control, root) = (
        CONTROL.load(Ordering::Relaxed),
        ROOT.load(Ordering::Relaxed),
    );
    if !probed_gpus(control, root) {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// A handler makes requests, and what it interrupts is mostly a request, too.
pub fn handler(_: &[String]) -> Outcome {
    const SENT: u32 = 2000;
    let gpu = Gpu::open()?;
    CONTROL.store(gpu.client.control.as_raw_fd(), Ordering::Relaxed);
    ROOT.store(gpu.client.root, Ordering::Relaxed);
    let signal = libc::SIGRTMIN();
    // SAFETY: an all-zero action is a valid one, and the handler makes a system call and adds to atomic numbers.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ask as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        let set = libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        Errno::result(set)?;
    }
    // SAFETY: it has no precondition.
    let this = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        for _ in 0..SENT {
            // SAFETY: the thread waits for this one.
            assert_eq!(unsafe { libc::pthread_kill(this, signal) }, 0);
            std::thread::sleep(Duration::from_micros(20));
        }
    });
    let gpus = gpu.client.probed_gpus()?;
    while !sender.is_finished() || HANDLED.load(Ordering::Relaxed) < SENT {
        assert_eq!(gpu.client.probed_gpus()?, gpus);
    }
    sender.join().expect("the sender");
    println!(
        "{} handled, {} wrong",
        HANDLED.load(Ordering::Relaxed),
        WRONG.load(Ordering::Relaxed)
    );
    Ok(())
}

/// How many children the handler below has forked.
static FORKED: AtomicU32 = AtomicU32::new(0);
/// This is one of them.
static IS_FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn fork_here(_: libc::c_int) {
    // SAFETY: fork is async-signal-safe (signal-safety(7)); the child goes on with what the handler interrupted.
    if unsafe { libc::fork() } == 0 {
        IS_FORKED.store(true, Ordering::Relaxed);
    } else {
        FORKED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A handler forks, and what it interrupts is mostly a request: parent and child each get an answer.
pub fn fork_in_a_handler(_: &[String]) -> Outcome {
    const CHILDREN: u32 = 100;
    let client = Client::new()?;
    let (control, root) = (client.control.as_raw_fd(), client.root);
    let every = |microseconds| {
        let period = libc::timeval {
            tv_sec: 0,
            tv_usec: microseconds,
        };
        let timer = libc::itimerval {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: the timer outlives the call.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    };
    // SAFETY: an all-zero action is a valid one; what the handler does may be done in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = fork_here as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        let set = libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        Errno::result(set)?;
    }
    every(3000);
    while FORKED.load(Ordering::Relaxed) < CHILDREN {
        let right = probed_gpus(control, root);
        if IS_FORKED.load(Ordering::Relaxed) {
            let right = right && (0..3).all(|_| probed_gpus(control, root));
            // SAFETY: ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        assert!(right, "the parent got a wrong answer");
    }
    every(0);
    for _ in 0..FORKED.load(Ordering::Relaxed) {
        let ended = nix::sys::wait::wait()?;
        assert!(
            matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)),
            "{ended:?}"
        );
    }
    println!("all got theirs");
    Ok(())
}

/// `errno` is what it was after a call that succeeded.
pub fn errno(_: &[String]) -> Outcome {
    let control = open(Node::Control)?;
    for _ in 0..3 {
        Errno::set_raw(77);
        assert!(asks_version(control.as_raw_fd()));
        println!("errno {}", Errno::last_raw());
    }
    assert!(!asks_version(-1));
    println!("errno {}", Errno::last_raw());
    Ok(())
}

/// A child of vfork's uses what it has under a number that means something else in its parent.
pub fn vfork(_: &[String]) -> Outcome {
    let (control, other) = (open(Node::Control)?, File::open("/dev/null")?);
    let (control, other) = (control.as_raw_fd(), other.as_raw_fd());
    for _ in 0..20 {
        assert!(asks_version(control) && !asks_version(other));
        // SAFETY: the child makes system calls and ends, and changes no memory but atomics and its own part of the stack.
        #[expect(deprecated, reason = "this is about vfork")]
        let child = unsafe { libc::vfork() };
        if child == 0 {
            // SAFETY: as above. The numbers are exchanged in the child alone, whose descriptors are its own.
            unsafe {
                libc::dup2(control, other);
                libc::close(control);
                let right = asks_version(other) && !asks_version(control);
                libc::_exit(i32::from(!right));
            }
        }
        let child = nix::unistd::Pid::from_raw(Errno::result(child)?);
        expect_success(child)?;
        assert!(asks_version(control) && !asks_version(other));
    }
    println!("each knew its own");
    Ok(())
}

/// A number is closed and given to something else again and again, in every way in which that can be done.
pub fn renumbered(_: &[String]) -> Outcome {
    let first = Client::new()?;
    let number = first.control.as_raw_fd();
    let spare = first.control.try_clone()?;
    let gpus = first.probed_gpus()?;
    let null = File::open("/dev/null")?;
    let expect = |is_client: bool, how: &str| {
        assert_eq!(asks_version(number), is_client, "{how}");
    };
    // SAFETY: the number is this scenario's own, which gives it back to its owner in the end.
    unsafe {
        libc::dup2(null.as_raw_fd(), number);
        expect(false, "dup2");
        libc::dup3(spare.as_raw_fd(), number, libc::O_CLOEXEC);
        expect(true, "dup3");
        libc::close(number);
        expect(false, "close");
        assert_eq!(
            libc::fcntl(spare.as_raw_fd(), libc::F_DUPFD, number),
            number
        );
        expect(true, "fcntl");
        libc::close_range(number as u32, number as u32, 0);
        expect(false, "close_range");
        assert_eq!(libc::dup(spare.as_raw_fd()), number);
        expect(true, "dup");
    }
    drop(spare);
    assert_eq!(first.probed_gpus()?, gpus);
    println!("each time it was what it meant");
    Ok(())
}

/// A child that a thread among many forks makes requests, and so do its children, while the threads go on.
pub fn fork_among_threads(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(probed_gpus(gpu.client.control.as_raw_fd(), gpu.client.root));
                }
            });
        }
        let forked = (0..10).try_for_each(|_| fork_twice(gpu.client.control.as_raw_fd()));
        over.store(true, Ordering::Relaxed);
        forked
    })?;
    assert_eq!(gpu.free_memory()?, ALL - GIB);
    println!("10 children and 10 grandchildren");
    Ok(())
}

fn fork_twice(control: i32) -> Outcome {
    // SAFETY: the child makes system calls only, and ends without running anything of its parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = (0..10).all(|_| asks_version(control));
        // SAFETY: as above.
        let grandchild = unsafe { libc::fork() };
        let right = right && (0..10).all(|_| asks_version(control));
        let mut status = 0;
        // SAFETY: as above; the status outlives the call.
        unsafe {
            if grandchild > 0 {
                libc::waitpid(grandchild, &raw mut status, 0);
            }
            libc::_exit(i32::from(!right || status != 0));
        }
    }
    expect_success(nix::unistd::Pid::from_raw(Errno::result(child)?))
}

/// A thread is cancelled while it waits in a call that can be cancelled (pthreads(7)): for a lock that a child has.
pub fn cancelled(_: &[String]) -> Outcome {
    extern "C-unwind" fn wait(descriptor: *mut libc::c_void) -> *mut libc::c_void {
        lock(descriptor as i32, libc::F_SETLKW);
        std::ptr::null_mut()
    }
    type Routine = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
    let file = File::create("/tmp/locked")?;
    let (mut told, telling) = std::io::pipe()?;
    let holder = child(|| {
        lock(file.as_raw_fd(), libc::F_SETLK);
        (&telling).write_all(b"locked")?;
        loop {
            nix::unistd::pause();
        }
    })?;
    told.read_exact(&mut [0; 6])?;
    let (mut thread, mut result) = (0, std::ptr::null_mut());
    // SAFETY: the routine has nothing to drop, so that it can be unwound; but for that its type is the one that is wanted.
    unsafe {
        let routine = std::mem::transmute::<*const (), Routine>(wait as *const ());
        let argument = file.as_raw_fd() as *mut libc::c_void;
        let created = libc::pthread_create(&raw mut thread, std::ptr::null(), routine, argument);
        assert_eq!(created, 0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(libc::pthread_cancel(thread), 0);
        assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
    }
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL)?;
    println!("ended with {}", result as isize);
    Ok(())
}

/// Locks a file for this process, with one of the commands for that (fcntl_locking(2)).
fn lock(descriptor: i32, command: i32) {
    // SAFETY: an all-zero lock is one of the whole file, to be read, and it outlives the call.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        libc::fcntl(descriptor, command, &raw const lock);
    }
}

/// Calls of `ioctl` that have nothing to do with the driver, in a sandbox or not.
pub fn other_ioctls(_: &[String]) -> Outcome {
    let null = File::open("/dev/null")?;
    let outcome = |descriptor| {
        let asked = asks_version(descriptor);
        assert!(!asked);
        Errno::last()
    };
    println!(
        "on a file {}, on none {}",
        outcome(null.as_raw_fd()),
        outcome(-1)
    );
    let (reader, writer) = nix::unistd::pipe()?;
    nix::unistd::write(&writer, b"seven..")?;
    let mut waiting = 0;
    // SAFETY: the kernel writes a number to `waiting`, which outlives the call.
    let result = unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
    println!("in a pipe {:?} {waiting}", Errno::result(result));
    Ok(())
}
