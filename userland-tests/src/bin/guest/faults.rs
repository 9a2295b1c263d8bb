//! Programs for tests in which something of Ringfence or of the driver goes wrong. Each goes on after a failure and
//! says what came of every step.
//!
//! `unsafe` is here for an ioctl on memory whose surroundings are watched.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::NVOS54_PARAMETERS;
use ringfence::guest::{Client, Error, open};
use zerocopy::{FromZeros, IntoBytes};

use crate::Outcome;
use crate::children::{child, end_of};
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, SUBDEVICE, word};

/// A number among the arguments.
fn number(arguments: &[String], index: usize) -> std::result::Result<usize, String> {
    let argument = arguments.get(index).ok_or("an argument is missing")?;
    argument.parse().map_err(|_| format!("{argument}?"))
}

/// Opens, allocates a client, and makes as many requests as it is told; then opens once more.
pub fn requests(arguments: &[String]) -> Outcome {
    let count = number(arguments, 0)?;
    let control = open(Node::Control);
    println!("open: {}", word(control.as_ref().map_err(|error| *error)));
    let client = Client::on(control?);
    println!("client: {}", word(client.as_ref().map_err(|error| *error)));
    let client = client?;
    for index in 1..=count {
        println!("request {index}: {}", word(client.probed_gpus()));
    }
    println!("open: {}", word(open(Node::Control)));
    Ok(())
}

/// Opens, allocates a client, and makes requests until one fails.
pub fn requests_until_one_fails(_: &[String]) -> Outcome {
    let client = Client::on(open(Node::Control)?)?;
    let mut asked = client.probed_gpus();
    while asked.is_ok() {
        asked = client.probed_gpus();
    }
    println!("at last: {}", word(asked));
    Ok(())
}

/// A request with 512 KiB of parameters, between two small ones.
pub fn large(_: &[String]) -> Outcome {
    const CHANNELS: usize = 1 << 16;
    let gpu = Gpu::open()?;
    let mut lists = [vec![0u32; CHANNELS], vec![0u32; CHANNELS]];
    let [handles, channels] = lists.each_mut().map(|list| list.as_mut_ptr() as u64);
    println!("before: {}", word(gpu.free_memory()));
    // NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS (ctrl0080fifo.h): a count, and two lists of so many words.
    let mut parameters = [CHANNELS as u64, handles, channels];
    let asked = gpu.client.control(
        DEVICE,
        NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST,
        &mut parameters,
    );
    println!("large: {}", word(asked));
    println!("after: {}", word(gpu.free_memory()));
    Ok(())
}

/// A request whose parameters lie between bytes that the driver was not given.
pub fn questions(_: &[String]) -> Outcome {
    const AROUND: usize = 256;
    const LENGTH: usize = size_of::<NVOS54_PARAMETERS>();
    let gpu = Gpu::open()?;
    let mut nested = [0x11u8; AROUND + 132 + AROUND];
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject) = (gpu.client.root, SUBDEVICE);
    request.cmd = NV2080_CTRL_CMD_GPU_GET_NAME_STRING;
    request.paramsSize = 132;
    request.params = nested[AROUND..].as_mut_ptr() as u64;
    let mut argument = [0x11u8; AROUND + LENGTH + AROUND];
    argument[AROUND..AROUND + LENGTH].copy_from_slice(request.as_bytes());
    nested[AROUND..AROUND + 132].fill(0);
    let command = ioctl_word(NV_ESC_RM_CONTROL, LENGTH);
    // SAFETY: the argument and the memory that it points to are longer than the request says.
    let result = unsafe {
        libc::ioctl(
            gpu.client.control.as_raw_fd(),
            command as libc::Ioctl,
            argument[AROUND..].as_mut_ptr(),
        )
    };
    println!("returned: {:?}", Errno::result(result));
    let is_untouched = |bytes: &[u8], length: usize| {
        let (before, rest) = bytes.split_at(AROUND);
        before
            .iter()
            .chain(&rest[length..])
            .all(|byte| *byte == 0x11)
    };
    println!("around the argument: {}", is_untouched(&argument, LENGTH));
    println!("around the buffer: {}", is_untouched(&nested, 132));
    let inside = &nested[AROUND..AROUND + 132];
    println!("in the buffer: {:x?}", &inside[..4]);
    println!("then: {}", word(gpu.free_memory()));
    Ok(())
}

/// Whether a thread waits in an ioctl, by the number that its line starts with (proc_pid_syscall(5)).
fn waits_in_ioctl(thread: Pid) -> std::io::Result<bool> {
    let line = std::fs::read_to_string(format!("/proc/{thread}/syscall"))?;
    Ok(line.starts_with(&format!("{} ", libc::SYS_ioctl)))
}

fn wait_until_in_ioctl(thread: Pid) -> std::io::Result<()> {
    while !waits_in_ioctl(thread)? {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A thread makes a slow request, which may never be answered; meanwhile others are made, and the program ends.
pub fn beside_a_slow_one(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let uvm = address_space()?;
    let (sender, thread) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sender.send(nix::unistd::gettid()).expect("the main thread");
        println!("slow: {}", word(register_gpu(&uvm)));
    });
    wait_until_in_ioctl(thread.recv()?)?;
    for _ in 0..100 {
        gpu.allocate(MEMORY, GIB)?;
        gpu.free(MEMORY)?;
    }
    println!("others went on");
    Ok(())
}

/// A child that has memory of the GPU makes requests, or pins, until it is killed. This process then sees all memory
/// free, and works.
pub fn doomed(arguments: &[String]) -> Outcome {
    let pins = arguments.first().is_some_and(|argument| argument == "pins");
    let child = child(|| {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        for _ in 0..20 {
            if pins {
                crate::pinning::pin_once(&gpu, MEMORY + 1)?;
            } else {
                gpu.free_memory()?;
            }
        }
        Ok(())
    })?;
    println!("child: {}", end_of(child)?);
    let gpu = Gpu::open()?;
    gpu.wait_for_free_memory(ALL)?;
    println!("all is free");
    crate::pinning::pin_once(&gpu, MEMORY)?;
    println!("pinned");
    Ok(())
}

/// Four children make a request each while the driver keeps the first one's, and end with the number of GPUs, or with 100
/// and the errno. The third is killed meanwhile.
pub fn batch(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let mut children = Vec::new();
    for _ in 0..4 {
        let child = child(|| {
            std::process::exit(match gpu.client.probed_gpus() {
                Ok(gpus) => gpus.len() as i32,
                Err(Error::Errno(errno)) => 100 + errno as i32,
                Err(_) => 100,
            })
        })?;
        wait_until_in_ioctl(child)?;
        children.push(child);
    }
    kill(children[2], Signal::SIGKILL)?;
    for (child, index) in children.into_iter().zip(1..) {
        println!("child {index}: {}", end_of(child)?);
    }
    println!("then: {}", word(gpu.free_memory()));
    Ok(())
}

/// Opens and never closes, until it gets no more; closes all, and opens again.
pub fn hoard(arguments: &[String]) -> Outcome {
    if let Ok(limit) = number(arguments, 0) {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, limit as u64, most)?;
    }
    let mut hoard = Vec::new();
    let errno = loop {
        match Client::new() {
            Ok(client) => hoard.push(client),
            Err(error) => break error,
        }
    };
    println!(
        "more than 8: {}, then {}",
        hoard.len() > 8,
        word::<()>(Err(errno))
    );
    println!("again: {}", word(open(Node::Control)));
    let last = hoard.pop();
    println!(
        "the last: {}",
        word(
            last.as_ref()
                .map_or(Ok(()), |last| last.probed_gpus().map(drop))
        )
    );
    drop(last);
    drop(hoard);
    // What was closed is freed behind the program's back.
    let gpu = loop {
        match Gpu::open() {
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
            opened => break opened,
        }
    };
    println!("after closing: {}", word(gpu));
    Ok(())
}

/// Starts and kills as many tasks as it is told, at moments from before their first request to after several.
pub fn many(arguments: &[String]) -> Outcome {
    const AT_ONCE: usize = 50;
    let count = number(arguments, 0)?;
    let observer = Gpu::open()?;
    for round in 0..count / AT_ONCE {
        let children: nix::Result<Vec<Pid>> = (0..AT_ONCE)
            .map(|_| {
                child(|| {
                    loop {
                        let client = Client::new()?;
                        client.probed_gpus()?;
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_micros(round as u64 % 10 * 300));
        for child in children? {
            kill(child, Signal::SIGKILL)?;
            waitpid(child, None)?;
        }
    }
    observer.wait_for_free_memory(ALL)?;
    println!("{count} tasks");
    Ok(())
}
