//! Memory of the program's own that the driver pins.
//!
//! `unsafe` is here for words in shared pages, and for a child as vfork(2) makes one.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::wait::waitpid;
use nix::time::ClockId;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV_OS_DESC_MEMORY_ALLOCATION_PARAMS;
use ringfence::guest::Result;
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::concurrency::during_a_long_request;
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB, word};
use crate::lent::{answer, is_lent};
use crate::on_oneself::{fetch, pidfd_open};
use crate::pinning::{LENGTH, Pages, pin, pin_and_free, pin_at_once};
use crate::signals::{beside_a_rain_of_signals, say_how_many, under_a_rain_of_signals};

fn pins_once(sharing: libc::c_int) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(sharing)?;
    println!("pinned: {}", word(pin(&gpu, MEMORY, &pages)));
    println!("again: {}", word(pin(&gpu, MEMORY, &pages)));
    println!("freed: {}", word(gpu.free(MEMORY)));
    for _ in 0..20 {
        pin_and_free(&gpu, MEMORY, &pages)?;
    }
    println!("by class: {}", word(pin_by_class(&gpu, MEMORY, &pages)));
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    pin(&gpu, MEMORY + 1, &pages)?;
    assert_eq!(
        std::fs::read_dir("/proc/self/fd")?.count(),
        descriptors,
        "a descriptor was left"
    );
    println!("then: {}", word(gpu.allocate(MEMORY + 2, MIB)));
    Ok(())
}

/// The other request that pins: NV_ESC_RM_ALLOC.
fn pin_by_class(gpu: &Gpu, memory: u32, pages: &Pages) -> Result<()> {
    let mut parameters = NV_OS_DESC_MEMORY_ALLOCATION_PARAMS::new_zeroed();
    (parameters.descriptor, parameters.limit) = (pages.address() as u64, LENGTH as u64 - 1);
    gpu.client.allocate(
        DEVICE,
        memory,
        NV01_MEMORY_SYSTEM_OS_DESCRIPTOR,
        &mut parameters,
    )
}

/// Private memory, in a program of one thread.
pub fn private(_: &[String]) -> Outcome {
    pins_once(libc::MAP_PRIVATE)
}

/// Shared memory.
pub fn shared(_: &[String]) -> Outcome {
    pins_once(libc::MAP_SHARED)
}

/// Pins that the driver refuses.
pub fn refused(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let at = |offset: usize, device: u32| {
        word(gpu.client.pin(
            &gpu.node,
            device,
            MEMORY,
            pages.address().wrapping_add(offset),
            LENGTH,
        ))
    };
    println!("not at a page: {}", at(1, DEVICE));
    println!("below a missing device: {}", at(0, 0x77));
    let control = &gpu.client.control;
    println!(
        "on nvidiactl: {}",
        word(
            gpu.client
                .pin(control, DEVICE, MEMORY, pages.address(), LENGTH)
        )
    );
    println!("after all that: {}", at(0, DEVICE));
    Ok(())
}

/// Pins while no further descriptor can be had.
pub fn without_descriptors(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let lowest_free = gpu.node.try_clone()?.as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, lowest_free as u64, hard)?;
    println!("with none left: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// A thread pins again and again whose filter answers with this number when it is to make a thread, and then another.
pub fn that_fails(arguments: &[String]) -> Outcome {
    let [number] = arguments else {
        return Err("which number?".into());
    };
    let number = number.parse()?;
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| -> nix::Result<()> {
            answer(libc::SYS_clone as u32, number)?;
            for _ in 0..3 {
                println!("without threads: {}", word(pin(&gpu, MEMORY, &pages)));
            }
            Ok(())
        });
        failing.join().expect("the thread")
    })?;
    println!("then: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// Pins while a thread of another process is in the kernel until a child of it ends, which uses the thread's memory, as
/// after vfork(2), or, if an argument says so, a copy; and tries once only, if another says so.
pub fn beside_vfork(arguments: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let shared = Pages::new(libc::MAP_SHARED)?;
    // SAFETY: the pages are never unmapped, and atomics are what they are used for.
    let [has_begun, is_over] =
        [0, 1].map(|at| unsafe { &*shared.address().cast::<AtomicU32>().add(at) });
    let is_said = |word: &str| arguments.iter().any(|argument| argument == word);
    let memory = if is_said("a copy") { 0 } else { libc::CLONE_VM };
    type Pinning = fn(&Gpu, u32, &Pages) -> Result<()>;
    let pinning: Pinning = if is_said("once") { pin_at_once } else { pin };
    let parent = child(|| Ok(wait_behind_a_child(memory, has_begun, is_over)?))?;
    while has_begun.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("beside: {}", word(pinning(&gpu, MEMORY, &pages)));
    println!("once more: {}", word(pinning(&gpu, MEMORY + 1, &pages)));
    is_over.store(1, Ordering::SeqCst);
    expect_success(parent)?;
    println!("then: {}", word(pin(&gpu, MEMORY + 2, &pages)));
    Ok(())
}

/// Waits in the kernel for a child until `is_over`, and then for its end.
fn wait_behind_a_child(
    memory: libc::c_int,
    has_begun: &AtomicU32,
    is_over: &AtomicU32,
) -> nix::Result<()> {
    static STACK: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];
    extern "C" fn body(words: *mut libc::c_void) -> i32 {
        // SAFETY: they are references of the parent's, which waits.
        let [has_begun, is_over] = unsafe { *words.cast::<[&AtomicU32; 2]>() };
        has_begun.store(1, Ordering::SeqCst);
        while is_over.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        0
    }
    let top = STACK.as_ptr_range().end as *mut libc::c_void;
    let words = [has_begun, is_over];
    // SAFETY: the stack is nobody else's, and the body needs far less. It allocates nothing.
    let process = unsafe {
        libc::clone(
            body,
            top,
            memory | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw const words).cast_mut().cast(),
        )
    };
    let process = Pid::from_raw(Errno::result(process)?);
    waitpid(process, None).map(drop)
}

/// Some threads compute, others wait in a read; none notices.
pub fn among_threads(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let over = AtomicBool::new(false);
    let spins = AtomicU32::new(0);
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (reader, writer) = std::io::pipe()?;
        readers.push(reader);
        writers.push(writer);
    }
    std::thread::scope(|scope| -> Outcome {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    spins.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reading: Vec<_> = readers
            .iter_mut()
            .map(|reader| {
                scope.spawn(move || {
                    let mut bytes = [0; 4];
                    // `read` itself, not `read_exact`: that would hide an interruption.
                    reader
                        .read(&mut bytes)
                        .map(|length| bytes[..length].to_vec())
                })
            })
            .collect();
        let pinned: Result<()> = (0..20).try_for_each(|_| pin_and_free(&gpu, MEMORY, &pages));
        let before = spins.load(Ordering::Relaxed);
        while pinned.is_ok() && spins.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        for writer in &mut writers {
            writer.write_all(b"done")?;
        }
        for reader in reading {
            assert_eq!(reader.join().expect("a reader")?, b"done");
        }
        println!("pinned 20 times: {}", word(pinned));
        Ok(())
    })
}

/// Two threads pin at the same time.
pub fn from_two_threads(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = [
        Pages::new(libc::MAP_PRIVATE)?,
        Pages::new(libc::MAP_PRIVATE)?,
    ];
    let together = Barrier::new(pages.len());
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (MEMORY..)
            .zip(&pages)
            .map(|(memory, pages)| {
                let (gpu, together) = (&gpu, &together);
                scope.spawn(move || {
                    (0..20).try_for_each(|_| {
                        together.wait();
                        // Both always come to the barrier as often, or one would wait there for ever.
                        pin_and_free(gpu, memory, pages).or_else(|error| {
                            println!("{error}");
                            Ok(())
                        })
                    })
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"));
        joined.collect::<Vec<Result<()>>>()
    });
    println!(
        "{}",
        outcomes
            .into_iter()
            .map(word)
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}

/// A pin while another thread waits for a request that the driver keeps for long.
pub fn during_blocking(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let times = during_a_long_request(|| Ok(pin_and_free(&gpu, MEMORY, &pages)?))?;
    println!("pinned during the long request: {}", times > 0);
    Ok(())
}

/// Signals come in all the time, to the pinning thread: each is handled once, and no pin notices.
pub fn under_signals(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    under_a_rain_of_signals(|| Ok(pin_and_free(&gpu, MEMORY, &pages)?))?;
    println!(
        "then: {}",
        word(gpu.client.map(DEVICE, MEMORY, 4096, Node::Control))
    );
    Ok(())
}

/// Signals come in all the time, to a thread that computes and is made to stand still for each pin: each is handled once.
pub fn beside_signals(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let over = Arc::new(AtomicBool::new(false));
    let computing = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        }
    });
    beside_a_rain_of_signals(computing.as_pthread_t(), || {
        Ok(pin_and_free(&gpu, MEMORY, &pages)?)
    })?;
    over.store(true, Ordering::Relaxed);
    computing.join().expect("the thread that computes");
    say_how_many();
    Ok(())
}

/// Processes with several threads are killed while they pin, at moments a bit further apart each time. Each of them can
/// be waited for, and the next pins.
pub fn killed(_: &[String]) -> Outcome {
    for times in 0..60 {
        let mut child = Command::new("/proc/self/exe")
            .arg("pin-among-threads")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_micros(times * 700));
        child.kill()?;
        child.wait()?;
    }
    pins_once(libc::MAP_PRIVATE)
}

/// A process looks at whatever descriptors the threads of another have, as fast as it can, while that one pins, opens
/// them anew, and fetches them (pidfd_getfd(2)), by its thread or by its process.
pub fn watched(_: &[String]) -> Outcome {
    let (mut lent, mut opened, mut others, mut fetched) = (0, 0, 0, 0);
    for _ in 0..40 {
        let mut child = Command::new("/proc/self/exe")
            .arg("pin-private")
            .stdout(Stdio::null())
            .spawn()?;
        while child.try_wait()?.is_none() {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", child.id())) else {
                continue;
            };
            for thread in threads.filter_map(|thread| thread.ok()) {
                fetched += fetched_from(&thread.file_name());
                for number in 3..16 {
                    let descriptor = thread.path().join(format!("fd/{number}"));
                    if is_lent(&descriptor) {
                        lent += 1;
                        opened += usize::from(File::open(&descriptor).is_ok());
                    } else {
                        others += usize::from(std::fs::read_link(&descriptor).is_ok());
                    }
                }
            }
        }
    }
    println!(
        "saw lent ones: {}, opened some: {}, fetched some: {}, saw any others: {}",
        lent > 0,
        opened > 0,
        fetched > 0,
        others > 0
    );
    Ok(())
}

/// How many descriptors that were lent can be had of a thread.
fn fetched_from(thread: &std::ffi::OsStr) -> usize {
    let number = thread.to_str().and_then(|number| number.parse().ok());
    let ways = [0, libc::PIDFD_THREAD].into_iter();
    let pidfds = ways.filter_map(|flags| pidfd_open(number?, flags).ok());
    let fetched =
        pidfds.flat_map(|pidfd| (3..16).filter_map(move |number| fetch(&pidfd, number).ok()));
    let path = |fetched: &OwnedFd| format!("/proc/self/fd/{}", fetched.as_raw_fd());
    fetched
        .filter(|fetched| is_lent(path(fetched).as_ref()))
        .count()
}

/// Pins once, while a timer of its own has it stop again and again, as often as it can.
pub fn stopped_for_ever(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let event = SigEvent::new(SigevNotify::SigevSignal {
        signal: Signal::SIGSTOP,
        si_value: 0,
    });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
    let soon = Expiration::IntervalDelayed(
        Duration::from_millis(20).into(),
        Duration::from_nanos(1).into(),
    );
    timer.set(soon, TimerSetTimeFlags::empty())?;
    println!("pinned: {}", word(pin_at_once(&gpu, MEMORY, &pages)));
    Ok(())
}
