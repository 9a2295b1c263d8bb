//! A thread that pins, and all others of its process and its relatives fighting for what the driver reads.
//!
//! They change the argument in place, in shared memory and by remapping it, write to where the sentry has the argument
//! put, close and replace descriptors, use whatever a pin lends, and send signals. The pinning thread never looks at
//! its argument itself, so it does not matter what becomes of that.
//!
//! `unsafe` is here for raw memory and system calls, which is what this is about.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getpid, gettid};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::nv_ioctl_nvos02_parameters_with_fd;
use ringfence::guest::open;
use zerocopy::{FromZeros, IntoBytes};

use crate::Outcome;
use crate::children::child;

const PAGE: usize = 4096;
/// In every field of what no pin may be made with, and in nothing else.
pub const HOSTILE: u32 = 0xbadc_0de5;
/// Threads, the pinning one included.
const THREADS: usize = 64;
/// Numbers that descriptors which are opened now get.
const NUMBERS: std::ops::Range<i32> = 8..20;

/// Everybody strikes at once, whenever so many milliseconds of the monotonic clock are over. A longer period leaves time
/// in which a pin that is not protected comes as far as the driver, rather than being altered too early to be accepted.
static PERIOD: AtomicU64 = AtomicU64::new(1);

/// The number of the period that it is now, and how long it lasts still.
fn period() -> (u128, Duration) {
    let length = Duration::from_millis(PERIOD.load(Ordering::Relaxed)).as_nanos();
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    let left = length - now.as_nanos() % length;
    (now.as_nanos() / length, Duration::from_nanos(left as u64))
}

/// Waits for the next period.
fn await_blow() {
    std::thread::sleep(period().1);
}

static OVER: AtomicBool = AtomicBool::new(false);
/// The page that relatives share.
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// An argument that a program may make.
fn argument(class: u32) -> [u8; 56] {
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.fd = -1;
    argument.params.hClass = class;
    argument.params.hObjectNew = class;
    argument.params.pMemory = 0x10_0000;
    argument.params.limit = 0xfff;
    let mut bytes = [0; 56];
    bytes.copy_from_slice(argument.as_bytes());
    bytes
}

/// One that pins and one that does not. Which comes last, and stays until the next blow, changes from period to period.
fn arguments() -> [[u8; 56]; 2] {
    let mut classes = [NV01_MEMORY_SYSTEM_OS_DESCRIPTOR, NV01_MEMORY_SYSTEM];
    if period().0.is_multiple_of(2) {
        classes.reverse();
    }
    classes.map(argument)
}

fn map(at: usize, sharing: i32, protection: i32) -> usize {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED };
    let flags = sharing | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: a new mapping, or one in the place of the page that threads contend for and nobody borrows.
    unsafe { libc::mmap(at as *mut _, PAGE, protection, flags, -1, 0) as usize }
}

/// Writes to memory of a process as another would, so that a page that is not there does no harm.
fn write(process: Pid, at: usize, bytes: &[u8]) {
    let local = libc::iovec {
        iov_base: bytes.as_ptr() as *mut _,
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: at as *mut _,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel reads `bytes` and checks the address. Nothing of Rust's lies where this writes.
    unsafe { libc::process_vm_writev(process.as_raw(), &local, 1, &remote, 1, 0) };
}

/// Where a mapping of one page would lie now.
pub fn next_page() -> usize {
    let page = map(0, libc::MAP_PRIVATE, libc::PROT_NONE);
    // SAFETY: the mapping was just made here.
    unsafe { libc::munmap(page as *mut _, PAGE) };
    page
}

/// Where a mapping of one page would have lain when the pins began, in the page that relatives share.
fn first_page() -> &'static AtomicUsize {
    let at = SHARED.load(Ordering::Relaxed) + PAGE / 2;
    // SAFETY: the shared page is never unmapped, and arguments take less than half of it.
    unsafe { &*(at as *const AtomicUsize) }
}

/// Where the pages of the next mappings would have lain when the pins began.
fn pages() -> impl Iterator<Item = usize> {
    let first = first_page().load(Ordering::Relaxed);
    (0..32).map(move |index| first.wrapping_sub(index * PAGE))
}

/// Overwrites whatever lies there.
fn overwrite(process: Pid) {
    for page in pages() {
        write(process, page, [HOSTILE; 14].as_bytes());
    }
}

/// The same through a process's memory, opened as a file.
fn overwrite_through(memory: &File) {
    for page in pages() {
        let _ = memory.write_at([HOSTILE; 14].as_bytes(), page as u64);
    }
}

/// The arguments are for how many blows it lasts, and the milliseconds from one to the next.
pub fn contest(arguments: &[String]) -> Outcome {
    let [blows, milliseconds] = arguments else {
        return Err("a number of blows and their period".into());
    };
    let blows: u128 = blows.parse()?;
    PERIOD.store(milliseconds.parse::<u64>()?.max(1), Ordering::Relaxed);
    let device = open(Node::Gpu(0))?;
    let null = File::open("/dev/null")?;
    let readable = libc::PROT_READ | libc::PROT_WRITE;
    let shared = map(0, libc::MAP_SHARED, readable);
    let [remapped, spare] = [(); 2].map(|()| map(0, libc::MAP_PRIVATE, readable));
    SHARED.store(shared, Ordering::Relaxed);
    let (victim, pinning) = (getpid(), gettid());
    let relative = child(|| {
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{victim}/mem"))?;
        loop {
            overwrite_through(&memory);
            for argument in self::arguments() {
                write(getpid(), shared, &argument);
                write(victim, remapped, &argument);
            }
            overwrite(victim);
            await_blow();
        }
    })?;
    let ignore = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &ignore) }?;
    let pinned = AtomicU64::new(0);
    // Until then threads map memory of their own.
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for index in 1..THREADS {
            let (device, null) = (device.as_raw_fd(), null.as_raw_fd());
            let together = &together;
            scope.spawn(move || {
                together.wait();
                while !OVER.load(Ordering::Relaxed) {
                    match index % 8 {
                        0 | 1 => self::arguments()
                            .iter()
                            .for_each(|argument| write(victim, shared, argument)),
                        2..=4 => overwrite(victim),
                        5 => remap(remapped, spare),
                        6 => contend_for_descriptors(null),
                        _ => disturb(pinning, device),
                    }
                    await_blow();
                }
            });
        }
        let sharing_memory = share_memory();
        together.wait();
        first_page().store(next_page(), Ordering::Relaxed);
        let end = period().0 + blows;
        for argument in [shared, remapped].into_iter().cycle() {
            if period().0 >= end {
                break;
            }
            let command = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
            // SAFETY: the kernel checks the address, at which lies nothing of Rust's.
            let result = unsafe { libc::ioctl(device.as_raw_fd(), command.into(), argument) };
            pinned.fetch_add(u64::from(result == 0), Ordering::Relaxed);
        }
        OVER.store(true, Ordering::Relaxed);
        sharing_memory
    })?;
    kill(relative, Signal::SIGKILL)?;
    waitpid(relative, None)?;
    assert!(pinned.into_inner() > 0, "no request succeeded");
    println!("contested");
    Ok(())
}

extern "C" fn nothing(_: i32) {}

/// Replaces the page by an empty one, protects it, and moves the spare one's memory into its place.
fn remap(page: usize, spare: usize) {
    let readable = libc::PROT_READ | libc::PROT_WRITE;
    for (protection, argument) in [
        (libc::PROT_NONE, 0),
        (readable, 0),
        (libc::PROT_READ, 1),
        (readable, 0),
    ] {
        map(page, libc::MAP_PRIVATE, protection);
        write(getpid(), page, &arguments()[argument]);
    }
    write(getpid(), spare, &arguments()[1]);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let place = page as *mut libc::c_void;
    // SAFETY: nobody borrows either page, and both stay mapped, so that nothing else comes to lie there.
    unsafe { libc::mremap(spare as *mut _, PAGE, PAGE, flags, place) };
}

/// Uses, replaces and closes whatever comes by the next numbers.
fn contend_for_descriptors(null: i32) {
    let hostile = [HOSTILE; 14];
    for number in NUMBERS {
        let command = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
        // SAFETY: the argument is as large as the request says; none of the program's own files has such a number.
        unsafe {
            libc::ioctl(number, command.into(), hostile.as_ptr());
            libc::dup2(null, number);
            libc::close(number);
        }
    }
}

/// Interrupts the pinning thread, and asks for something itself.
fn disturb(pinning: Pid, device: i32) {
    // SAFETY: tgkill takes no pointer; the argument is as large as the request says.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            getpid().as_raw(),
            pinning.as_raw(),
            libc::SIGUSR1,
        );
        libc::ioctl(
            device,
            ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56).into(),
            argument(NV01_MEMORY_SYSTEM).as_ptr(),
        );
    }
}

/// A process of its own that shares all memory, and no descriptor table, until the pins are over.
fn share_memory() -> nix::Result<()> {
    static STACK: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];
    extern "C" fn body(victim: *mut libc::c_void) -> i32 {
        while !OVER.load(Ordering::Relaxed) {
            overwrite(Pid::from_raw(victim as usize as i32));
            await_blow();
        }
        0
    }
    let top = STACK.as_ptr_range().end as *mut libc::c_void;
    // SAFETY: the stack is nobody else's, lasts as long as the process, and the body needs far less. It shares this
    // thread's errno, which nobody reads meanwhile, and allocates nothing.
    let process = unsafe {
        libc::clone(
            body,
            top,
            libc::CLONE_VM | libc::SIGCHLD,
            getpid().as_raw() as usize as *mut _,
        )
    };
    Errno::result(process).map(drop)
}
