//! What a task cannot do, whatever it tries.
//!
//! `unsafe` is here for system calls that have no wrapper, which is what they are tried for.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::nv_ioctl_card_info_t;
use ringfence::guest::{Client, Error, frontend, open};
use zerocopy::{FromZeros, IntoBytes};

use crate::Outcome;
use crate::children::child;
use crate::gpu::{Gpu, word};

/// What a raw system call came to.
fn outcome(result: libc::c_long) -> String {
    match Errno::result(result) {
        Ok(value) => value.to_string(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// System calls that would go around the filter.
pub fn ways_around(_: &[String]) -> Outcome {
    let mut parameters = [0u8; 120];
    // SAFETY: the kernel writes at most as much as the parameters of io_uring_setup hold.
    let setup = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    println!("io_uring_setup: {}", outcome(setup));
    // SAFETY: numbers alone are passed; x32's getpid touches no memory.
    let x32 = unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) };
    println!("x32: {}", outcome(x32));
    println!("i386: {}", i386()?);
    Ok(())
}

/// A system call of the 32-bit architecture, tried in a child: a kernel without that architecture kills it.
fn i386() -> Result<&'static str, Box<dyn std::error::Error>> {
    const GETPID: i64 = 20;
    let tried = child(|| {
        let result: i64;
        // SAFETY: the call takes no arguments and touches no memory.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") GETPID => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
        };
        std::process::exit(if result as i32 == -libc::ENOSYS {
            38
        } else {
            1
        })
    })?;
    Ok(match waitpid(tried, None)? {
        WaitStatus::Exited(_, 38)
        | WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSEGV, _) => "missing",
        _ => "there",
    })
}

/// The descriptors of a program that has opened and mapped everything: none is of a device node of the driver's.
pub fn held(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let _uvm = crate::concurrency::address_space()?;
    let events = open(Node::Control)?;
    gpu.client.register_event_descriptor(&events)?;
    let devices: BTreeSet<PathBuf> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_device = fs::metadata(&path).ok()?.file_type().is_char_device();
            is_device.then(|| fs::read_link(path).ok()).flatten()
        })
        .collect();
    println!("character devices: {devices:?}");
    Ok(())
}

/// Opens that the filter does not stop fail in the kernel.
pub fn native_opens(_: &[String]) -> Outcome {
    let _held = Gpu::open()?;
    for name in ["nvidiactl", "nvidia0", "nvidia-uvm"] {
        let path = format!("/dev/{name}");
        println!("{name} for reading: {}", errno_of(File::open(&path)));
        println!(
            "{name} for writing: {}",
            errno_of(OpenOptions::new().write(true).open(&path))
        );
        for (flags, what) in [
            (libc::O_CREAT, "O_CREAT"),
            (libc::O_TRUNC, "O_TRUNC"),
            (libc::O_APPEND, "O_APPEND"),
        ] {
            let mut for_both = OpenOptions::new();
            for_both.read(true).write(true).custom_flags(flags);
            println!("{name} with {what}: {}", errno_of(for_both.open(&path)));
        }
        std::os::unix::fs::symlink(&path, format!("/dev/shm/{name}"))?;
        let through_link = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/dev/shm/{name}"));
        println!("{name} through a link: {}", errno_of(through_link));
        let path_only = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&path)?;
        println!(
            "{name} by O_PATH: {}",
            word(frontend(&path_only, NV_ESC_RM_ALLOC, &mut [0u8; 32]))
        );
        let again = format!("/proc/self/fd/{}", path_only.as_raw_fd());
        println!(
            "{name} opened anew: {}",
            errno_of(OpenOptions::new().read(true).write(true).open(again))
        );
    }
    Ok(())
}

/// Opens what the argument says as programs open a node.
pub fn open_node(arguments: &[String]) -> Outcome {
    let path = arguments.first().ok_or("no path")?;
    let opened = OpenOptions::new().read(true).write(true).open(path);
    println!("{}", errno_of(opened));
    Ok(())
}

fn errno_of(outcome: std::io::Result<File>) -> String {
    match outcome {
        Ok(_) => "opened".to_owned(),
        Err(error) => error.raw_os_error().map_or("none".to_owned(), |errno| {
            format!("{:?}", Errno::from_raw(errno))
        }),
    }
}

/// A path that a second thread changes all the time, between the sentry's look and the kernel's.
pub fn raced_open(_: &[String]) -> Outcome {
    const TRIES: u32 = 3000;
    // The two paths differ in their last eight bytes, so that one store turns one into the other.
    let halves = [*b"idiactl\0", *b"nothing\0"].map(u64::from_ne_bytes);
    let path = [u64::from_ne_bytes(*b"//dev/nv"), halves[0]].map(AtomicU64::new);
    let over = AtomicBool::new(false);
    let (mut mediated, mut refused) = (0, 0);
    std::thread::scope(|scope| -> Outcome {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for half in halves {
                    path[1].store(half, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..TRIES {
            // SAFETY: the path is terminated whichever half stands there.
            let number =
                unsafe { libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC) };
            match Errno::result(number) {
                Ok(number) => {
                    // SAFETY: the kernel just made it for this program, so nothing else owns it.
                    let file = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(number) };
                    Client::on(file)?;
                    mediated += 1;
                }
                Err(Errno::EACCES | Errno::ENOENT) => refused += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
        over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    assert_eq!(mediated + refused, TRIES);
    assert!(
        mediated > 0 && refused > 0,
        "{mediated} and {refused}: there was no race"
    );
    println!("never opened by the kernel");
    Ok(())
}

/// Which nodes there are, and which GPUs the driver tells of.
pub fn visible(_: &[String]) -> Outcome {
    let mut names: Vec<String> = fs::read_dir("/dev")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nvidia"))
        .collect();
    names.sort();
    println!("nodes {names:?}");
    for node in [
        Node::Control,
        Node::Gpu(0),
        Node::Gpu(1),
        Node::Gpu(2),
        Node::Uvm,
    ] {
        println!("{}: {}", node.file_name(), word(open(node)));
    }
    let client = match Client::new() {
        Ok(client) => client,
        Err(Error::Errno(Errno::ENOENT)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    println!("probed {:x?}", client.probed_gpus()?);
    let mut cards = <[nv_ioctl_card_info_t; 8]>::new_zeroed();
    let mut bytes = [0u8; 8 * size_of::<nv_ioctl_card_info_t>()];
    frontend(&client.control, NV_ESC_CARD_INFO, &mut bytes)?;
    cards.as_mut_bytes().copy_from_slice(&bytes);
    let minors: Vec<u32> = cards
        .iter()
        .filter(|card| card.valid != 0)
        .map(|card| card.minor_number)
        .collect();
    println!("minors {minors:?}");
    Ok(())
}
