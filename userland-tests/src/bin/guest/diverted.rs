//! A thread that pins, and does not execute what the sentry sets it to: because the kernel takes it elsewhere, or because
//! the kernel alters the instruction.
//!
//! Both are done by what the program set up before, since the pin leaves nobody else to do anything. The kernel takes a
//! thread that comes out of a restartable sequence of instructions to another place (rseq(2)). And when a process
//! is killed, the kernel writes to memory on its behalf: to a robust list's word, if it is the process's number
//! (get_robust_list(2)), and where the process had its number cleared (set_tid_address(2)). A timer kills it, and it shares
//! the memory of the one that pins.
//!
//! `unsafe` is here for raw system calls, machine code and memory that it shares.

#![allow(unsafe_code)]

use std::arch::global_asm;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};
use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::nv_ioctl_nvos02_parameters_with_fd;

use crate::Outcome;
use crate::children::{child, end_of};
use crate::contest::next_page;
use crate::gpu::{Gpu, MEMORY, word};
use crate::pinning::{Pages, pin, pin_at_once, request};
use crate::pins_beside::is_in_an_ioctl;

/// What stands before the place that the kernel takes a thread to (RSEQ_SIG).
const SIGNATURE: u32 = 0x5305_3053;
/// Where in the page of the parameters the limit is.
const LIMIT_AT: u64 = 32;

global_asm!(
    // An ioctl, from which the kernel takes the thread to `guest_aborted` if it is not through.
    ".globl guest_ioctl",
    "guest_ioctl:",
    "mov eax, 16",
    ".globl guest_call",
    "guest_call:",
    "syscall",
    "ret",
    ".long 0x53053053",
    ".globl guest_aborted",
    "guest_aborted:",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r10",
    "push r8",
    "push r9",
    "push rbx",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {aborted}",
    "mov rsp, rbx",
    "pop rbx",
    "pop r9",
    "pop r8",
    "pop r10",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rax",
    "jmp guest_call",
    // An ioctl whose instruction, with what follows, is an addition to memory further on in the page when its first byte
    // is 0, which does no harm. Then
    // the number of the call that was to be made, and its third argument, are left where the fourth argument points to,
    // unless the number is 0: what comes back when it was altered afterwards.
    ".globl guest_alterable",
    "guest_alterable:",
    "push r12",
    "mov r12, rcx",
    "mov eax, 16",
    ".globl guest_altered",
    "guest_altered:",
    ".byte 0x0f, 0x05",
    ".byte 0xeb, 0x02, 0x00, 0x00",
    "cmp byte ptr [rip + guest_altered], 0",
    "jne 1f",
    "test rax, rax",
    "jz 1f",
    "mov [r12 + 8], rdx",
    "mov [r12], rax",
    "2: jmp 2b",
    "1: pop r12",
    "ret",
    ".globl guest_alterable_end",
    "guest_alterable_end:",
    aborted = sym aborted,
);

type Ioctl = extern "C" fn(libc::c_int, u64, *mut nv_ioctl_nvos02_parameters_with_fd, u64) -> i64;

unsafe extern "C" {
    fn guest_ioctl();
    fn guest_call();
    fn guest_aborted();
    fn guest_alterable();
    fn guest_altered();
    fn guest_alterable_end();
}

/// `struct rseq` of linux/rseq.h; which sequence the thread is in is the second word.
#[repr(C, align(32))]
struct Area([AtomicU64; 4]);
static AREA: Area = Area([const { AtomicU64::new(0) }; 4]);

/// `struct rseq_cs`: a version and flags, where the sequence starts, its length, and where to go if it is not through.
#[repr(C, align(32))]
struct Sequence([AtomicU64; 4]);
static SEQUENCE: Sequence = Sequence([const { AtomicU64::new(0) }; 4]);

/// `struct robust_list_head` of linux/futex.h: the list, an offset, and the word that is being taken.
static LIST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// How often the kernel took the thread elsewhere.
static TIMES: AtomicU32 = AtomicU32::new(0);
/// The limit of the pin that is under way, as far as anybody knows where it lies; 0 if nobody does.
static KNOWN: AtomicU64 = AtomicU64::new(0);

/// Whether it does not go on from there for [`STAY`].
static STAYS: AtomicBool = AtomicBool::new(false);

/// Longer than any pin may take. Not for ever: the kernel also takes a thread there whose own call is made anew, and then
/// nobody waits for it.
const STAY: Duration = Duration::from_secs(20);

/// From now on the thread is in the sequence.
fn enter() {
    AREA.0[1].store((&raw const SEQUENCE) as u64, Ordering::SeqCst);
}

/// Where the kernel takes the thread to. The last registers that were pushed come first.
extern "C" fn aborted(registers: *const [u64; 8]) {
    // SAFETY: they were just pushed.
    let [.., address, number] = unsafe { *registers };
    TIMES.fetch_add(1, Ordering::SeqCst);
    let came = Instant::now();
    while STAYS.load(Ordering::SeqCst) && came.elapsed() < STAY {
        std::hint::spin_loop();
    }
    if number == libc::SYS_mmap as u64 {
        KNOWN.store(address + LIMIT_AT, Ordering::SeqCst);
        LIST[2].store(address + LIMIT_AT, Ordering::SeqCst);
    }
    enter();
}

/// Executes the scenario anew unless the C library has registered no area of its own.
fn expect_no_area(scenario: &str, arguments: &[String]) -> Outcome {
    let tunables = "glibc.pthread.rseq=0";
    if std::env::var("GLIBC_TUNABLES").as_deref() == Ok(tunables) {
        return Ok(());
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg(scenario).args(arguments);
    Err(command.env("GLIBC_TUNABLES", tunables).exec().into())
}

/// Has the kernel know of the sequence.
fn register() -> nix::Result<()> {
    let start = guest_call as *const () as u64;
    let sequence = [0, start, 2, guest_aborted as *const () as u64];
    for (word, value) in SEQUENCE.0.iter().zip(sequence) {
        word.store(value, Ordering::SeqCst);
    }
    // SAFETY: the area is as long as it says, and lasts.
    let registered = unsafe { libc::syscall(libc::SYS_rseq, &raw const AREA, 32, 0, SIGNATURE) };
    Errno::result(registered).map(drop)
}

/// Processes pin at once, of which each keeps the others waiting in a restartable sequence as long as it may; says
/// whether all were killed for that, and what else came of them.
pub fn crowded(arguments: &[String]) -> Outcome {
    expect_no_area("pin-crowded", arguments)?;
    const PROCESSES: u32 = 4;
    let (gpu, pages) = (Gpu::open()?, Pages::new(libc::MAP_PRIVATE)?);
    register()?;
    STAYS.store(true, Ordering::SeqCst);
    let pinning = (0..PROCESSES).map(|_| {
        child(|| {
            // SAFETY: the code is that of such a function.
            let ioctl: Ioctl = unsafe { std::mem::transmute(guest_ioctl as *const ()) };
            loop {
                let mut request = request(&gpu, &pages, 0xfff);
                enter();
                let outcome = pinned(&gpu, ioctl, &mut request, 0);
                if outcome < 0 {
                    std::process::exit(-outcome as i32);
                }
            }
        })
    });
    let pinning: Vec<Pid> = pinning.collect::<nix::Result<_>>()?;
    let ends = pinning.into_iter().map(end_of);
    let mut ends: Vec<String> = ends.collect::<nix::Result<_>>()?;
    ends.sort();
    ends.dedup();
    println!("{}", ends.join(", "));
    Ok(())
}

/// Pins again and again, in a restartable sequence, with the number of a process that a timer kills so many milliseconds
/// later for the limit; says whether the kernel took the thread elsewhere, whether it knew then where the limit lay, and
/// whether that was altered. With a further argument it is not in a sequence, and foresees where the limit would lie if the
/// kernel chose the place.
pub fn restarted(arguments: &[String]) -> Outcome {
    expect_no_area("pin-restarted", arguments)?;
    let arguments = arguments.iter().map(String::as_str);
    let arguments: Vec<&str> = arguments.collect();
    let [attempts, milliseconds, further @ ..] = &arguments[..] else {
        return Err("how often, and when?".into());
    };
    let (attempts, milliseconds): (u32, u64) = (attempts.parse()?, milliseconds.parse()?);
    let (gpu, pages) = (Gpu::open()?, Pages::new(libc::MAP_PRIVATE)?);
    LIST[0].store((&raw const LIST) as u64, Ordering::SeqCst);
    register()?;
    let mut is_altered = false;
    for _ in 0..attempts {
        LIST[2].store(0, Ordering::SeqCst);
        let ends = start_victim(Victim::Robust, Duration::from_millis(milliseconds))?;
        let limit = ends.as_raw() as u64;
        let mut request = request(&gpu, &pages, limit);
        if further.is_empty() {
            enter();
        } else {
            LIST[2].store(next_page() as u64 + LIMIT_AT, Ordering::SeqCst);
        }
        // SAFETY: the code is that of such a function.
        let ioctl: Ioctl = unsafe { std::mem::transmute(guest_ioctl as *const ()) };
        let outcome = pinned(&gpu, ioctl, &mut request, 0);
        waitpid(ends, None)?;
        let _ = gpu.free(MEMORY);
        if outcome == 0 && request.params.status == 0 && request.params.limit != limit {
            is_altered = true;
            break;
        }
    }
    println!("taken elsewhere: {}", TIMES.load(Ordering::SeqCst) > 0);
    println!("known: {}", KNOWN.load(Ordering::SeqCst) != 0);
    println!("altered: {is_altered}");
    Ok(())
}

/// A child pins by an instruction that the kernel alters on behalf of a process that a timer kills. Says in place of which
/// call of the sentry's, by its number, the program's code was executed, and what came of the child.
pub fn altered(_: &[String]) -> Outcome {
    const UNTOUCHED: u64 = u64::MAX;
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let shared = Pages::new(libc::MAP_SHARED)?;
    // SAFETY: it is never unmapped, and used for this only.
    let in_place_of = unsafe { &*shared.address().cast::<AtomicU64>() };
    // SAFETY: the same.
    let protection = unsafe { &*shared.address().cast::<AtomicU64>().add(1) };
    let mut delay = Duration::from_secs(1);
    loop {
        in_place_of.store(UNTOUCHED, Ordering::SeqCst);
        let pinning = child(|| pin_by_altered_code(&gpu, &pages, in_place_of, delay))?;
        let end = end_of(pinning)?;
        let number = in_place_of.load(Ordering::SeqCst);
        let _ = gpu.free(MEMORY);
        // Too early: there is nothing yet to be had.
        let executable = protection.load(Ordering::SeqCst) & libc::PROT_EXEC as u64 != 0;
        let is_early = match number as libc::c_long {
            libc::SYS_clone | libc::SYS_ioctl => true,
            libc::SYS_mmap => executable,
            _ => false,
        };
        if is_early {
            delay *= 2;
            continue;
        }
        match number {
            UNTOUCHED => println!("in place of: nothing"),
            number => println!("in place of: {number}"),
        }
        println!("child: {end}");
        return Ok(());
    }
}

/// Another thread puts two bytes in the place of the instruction that a child pins by, while the call waits. Says what came
/// of the child, and of a pin of this process's then.
pub fn replaced(arguments: &[String]) -> Outcome {
    let [first, second] = arguments else {
        return Err("which bytes?".into());
    };
    let bytes: [u8; 2] = [first.parse()?, second.parse()?];
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let pinning = child(|| {
        let (ioctl, altered) = alterable_code()?;
        let (own, place) = (gettid(), altered as usize);
        std::thread::spawn(move || {
            while !is_in_an_ioctl(own) {
                std::thread::yield_now();
            }
            // SAFETY: it is two bytes of this process's own code.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place as *mut u8, 2) };
        });
        let mut request = request(&gpu, &pages, 0xfff);
        pinned(&gpu, ioctl, &mut request, 0);
        Ok(())
    })?;
    println!("child: {}", end_of(pinning)?);
    println!("then: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// A copy of the ioctl that can be altered, and where its instruction is.
fn alterable_code() -> nix::Result<(Ioctl, *mut u8)> {
    const LENGTH: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping disturbs nothing.
    let code = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, protection, flags, -1, 0) };
    if code == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let [begin, altered, end] =
        [guest_alterable, guest_altered, guest_alterable_end].map(|at| at as *const () as usize);
    // SAFETY: the code is shorter than a page, and does not refer to anything outside it.
    unsafe {
        let code = code.cast::<u8>();
        std::ptr::copy_nonoverlapping(begin as *const u8, code, end - begin);
        Ok((
            std::mem::transmute::<*mut u8, Ioctl>(code),
            code.add(altered - begin),
        ))
    }
}

fn pin_by_altered_code(
    gpu: &Gpu,
    pages: &Pages,
    in_place_of: &AtomicU64,
    delay: Duration,
) -> Outcome {
    let (ioctl, altered) = alterable_code()?;
    // The last of the four bytes that are cleared is the instruction's first; the others are 0 already.
    let cleared = altered as usize - 3;
    start_victim(Victim::Cleared(cleared), delay)?;
    let mut request = request(gpu, pages, 0xfff);
    pinned(
        gpu,
        ioctl,
        &mut request,
        in_place_of as *const AtomicU64 as u64,
    );
    Ok(())
}

fn pinned(
    gpu: &Gpu,
    ioctl: Ioctl,
    request: &mut nv_ioctl_nvos02_parameters_with_fd,
    further: u64,
) -> i64 {
    let command = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, size_of_val(request));
    ioctl(gpu.node.as_raw_fd(), command.into(), request, further)
}

/// What a process has the kernel write when it is killed.
#[derive(Clone, Copy)]
enum Victim {
    /// The word in [`LIST`].
    Robust,
    /// 4 bytes of 0 at this address.
    Cleared(usize),
}

/// Makes a process that shares the memory, and that a timer kills after this time, whatever is held by then.
fn start_victim(how: Victim, delay: Duration) -> nix::Result<Pid> {
    static STACK: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];
    static IS_READY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn body(words: *mut libc::c_void) -> i32 {
        // SAFETY: the parent waits until it has been read.
        let (how, delay) = unsafe { *words.cast::<(Victim, Duration)>() };
        let ready = prepare(how, delay);
        IS_READY.store(1 + u32::from(ready.is_err()), Ordering::SeqCst);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    IS_READY.store(0, Ordering::SeqCst);
    let top = STACK.as_ptr_range().end as *mut libc::c_void;
    let mut words = (how, delay);
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is that of one such process at a time, and the body needs far less. It allocates nothing.
    let process = unsafe { libc::clone(body, top, flags, (&raw mut words).cast()) };
    let process = Pid::from_raw(Errno::result(process)?);
    while IS_READY.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_micros(100));
    }
    match IS_READY.load(Ordering::SeqCst) {
        1 => Ok(process),
        _ => Err(Errno::EIO),
    }
}

fn prepare(how: Victim, delay: Duration) -> nix::Result<()> {
    // SAFETY: what these calls are told of lasts, and is written to when the process ends only.
    let result = unsafe {
        match how {
            Victim::Robust => libc::syscall(libc::SYS_set_robust_list, &raw const LIST, 24),
            Victim::Cleared(address) => libc::syscall(libc::SYS_set_tid_address, address),
        }
    };
    Errno::result(result)?;
    kill_after(delay)
}

/// Has a timer kill this process.
fn kill_after(delay: Duration) -> nix::Result<()> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    // SAFETY: all-zero structs are valid ones.
    let (mut event, mut when): (libc::sigevent, libc::itimerspec) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let end = now + delay;
    when.it_value.tv_sec = end.as_secs() as i64;
    when.it_value.tv_nsec = end.subsec_nanos().into();
    let mut timer = 0i32;
    // SAFETY: the kernel reads the structs and writes the timer's number, which outlive the calls.
    let set = unsafe {
        let clock = libc::CLOCK_MONOTONIC;
        let made = libc::syscall(
            libc::SYS_timer_create,
            clock,
            &raw mut event,
            &raw mut timer,
        );
        Errno::result(made)?;
        let absolute = libc::TIMER_ABSTIME;
        let old = std::ptr::null_mut::<libc::itimerspec>();
        libc::syscall(
            libc::SYS_timer_settime,
            timer,
            absolute,
            &raw const when,
            old,
        )
    };
    Errno::result(set).map(drop)
}

/// Processes that pin in their parent's memory, as children of vfork, are killed while they do: the parent goes on each time.
pub fn killed_behind_vfork(_: &[String]) -> Outcome {
    const ROUNDS: u32 = 40;
    static STACK: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];
    struct Round<'a> {
        gpu: &'a Gpu,
        pages: &'a Pages,
        number: u32,
    }
    extern "C" fn body(round: *mut libc::c_void) -> i32 {
        // SAFETY: the parent waits as long as this process lives.
        let Round { gpu, pages, number } = unsafe { &*round.cast::<Round<'_>>() };
        // It allocates nothing: it may be killed at any moment.
        let set = kill_after(Duration::from_micros(150 + 50 * u64::from(*number)));
        let _ = set.map(|()| pin_at_once(gpu, MEMORY + number, pages));
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let top = STACK.as_ptr_range().end as *mut libc::c_void;
    for number in 0..ROUNDS {
        let mut round = Round {
            gpu: &gpu,
            pages: &pages,
            number,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is that of one such process at a time, and the body needs far less.
        let process = unsafe { libc::clone(body, top, flags, (&raw mut round).cast()) };
        waitpid(Pid::from_raw(Errno::result(process)?), None)?;
    }
    println!("went on {ROUNDS} times");
    Ok(())
}
