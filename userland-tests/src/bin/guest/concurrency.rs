//! Many tasks at once, and one that waits while others go on.
//!
//! `unsafe` is here for the end of one thread, which the C library makes that of its process.

#![allow(unsafe_code)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::uvm::{UVM_INITIALIZE_PARAMS, UVM_REGISTER_GPU_PARAMS};
use ringfence::guest::{Result, check, ioctl, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{ALL, DEVICE, Gpu, MEMORY, MIB, word};

/// What each task does: memory of its own, written and read back.
pub fn work(gpu: &Gpu, memory: u32, mark: u8) -> Result<()> {
    gpu.allocate_system(memory, MIB)?;
    let mut mapping = gpu.client.map(DEVICE, memory, 4096, Node::Control)?;
    mapping.write(0, &[mark; 64]);
    assert_eq!(mapping.read(0, 64), [mark; 64]);
    gpu.free(memory)
}

/// Threads, each with a client of its own.
pub fn threads(_: &[String]) -> Outcome {
    const THREADS: u8 = 32;
    let together = Barrier::new(THREADS.into());
    std::thread::scope(|scope| {
        for mark in 0..THREADS {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let gpu = Gpu::open().expect("a client");
                for _ in 0..20 {
                    work(&gpu, MEMORY, mark).expect("work");
                }
            });
        }
    });
    Gpu::open()?.wait_for_free_memory(ALL)?;
    println!("{THREADS} threads");
    Ok(())
}

/// Threads, each with an address space of unified memory, of which the first thread is none.
pub fn threads_on_unified_memory(_: &[String]) -> Outcome {
    const THREADS: usize = 4;
    let registered = std::thread::scope(|scope| {
        let thread = |_| scope.spawn(|| register_gpu(&address_space().expect("an address space")));
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"));
        joined.collect::<Result<Vec<_>>>()
    })?;
    println!("{} threads", registered.len());
    Ok(())
}

/// A request of a thread that has descriptors of its own.
pub fn own_descriptors(_: &[String]) -> Outcome {
    let request = || {
        // SAFETY: there is no such descriptor.
        let own = unsafe { libc::close_range(5000, 5000, libc::CLOSE_RANGE_UNSHARE as i32) };
        assert_eq!(own, 0, "descriptors of its own");
        word(address_space())
    };
    println!("{}", std::thread::spawn(request).join().expect("a thread"));
    Ok(())
}

/// A request of a thread that outlives its process's first thread.
pub fn without_the_first_thread(_: &[String]) -> Outcome {
    std::thread::spawn(|| {
        let first = format!("/proc/self/task/{}/stat", std::process::id());
        let has_ended = || std::fs::read_to_string(&first).is_ok_and(|stat| stat.contains(") Z "));
        while !has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{}", word(address_space()));
        std::process::exit(0);
    });
    // SAFETY: the thread ends, and its stack is kept as long as the process.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

/// Threads that share one client.
pub fn shared_client(_: &[String]) -> Outcome {
    const THREADS: u8 = 8;
    let gpu = Gpu::open()?;
    std::thread::scope(|scope| {
        for mark in 0..THREADS {
            let gpu = &gpu;
            scope.spawn(move || {
                for _ in 0..40 {
                    work(gpu, MEMORY + u32::from(mark), mark).expect("work");
                }
            });
        }
    });
    println!("{THREADS} threads");
    Ok(())
}

/// Hundreds of processes at once.
pub fn processes(_: &[String]) -> Outcome {
    const PROCESSES: usize = 300;
    let children: nix::Result<Vec<_>> = (0..PROCESSES)
        .map(|index| {
            child(|| {
                let gpu = Gpu::open()?;
                for _ in 0..3 {
                    work(&gpu, MEMORY, index as u8)?;
                }
                Ok(())
            })
        })
        .collect();
    children?.into_iter().try_for_each(expect_success)?;
    println!("{PROCESSES} processes");
    Ok(())
}

/// A UVM description that is an address space.
pub fn address_space() -> Result<std::fs::File> {
    let uvm = open(Node::Uvm)?;
    let mut parameters = UVM_INITIALIZE_PARAMS::new_zeroed();
    ioctl(&uvm, UVM_INITIALIZE, &mut parameters)?;
    check(parameters.rmStatus)?;
    Ok(uvm)
}

/// Registers the first GPU with UVM, which takes the driver long.
pub fn register_gpu(uvm: &impl std::os::fd::AsFd) -> Result<()> {
    let mut parameters = UVM_REGISTER_GPU_PARAMS::new_zeroed();
    parameters.gpu_uuid.uuid = *b"simulated GPU \0\0";
    parameters.rmCtrlFd = -1;
    ioctl(uvm, UVM_REGISTER_GPU, &mut parameters)?;
    check(parameters.rmStatus)
}

/// Runs `meanwhile` again and again while a thread waits in the kernel for a request that the driver keeps for long;
/// says how often it came to its end before that request did.
pub fn during_a_long_request(
    mut meanwhile: impl FnMut() -> Outcome,
) -> std::result::Result<u32, Box<dyn std::error::Error>> {
    let uvm = address_space()?;
    let (sender, thread) = std::sync::mpsc::channel();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender
                .send(nix::unistd::gettid())
                .expect("the other thread");
            register_gpu(&uvm).expect("registered");
            done.store(true, Ordering::SeqCst);
        });
        let thread = thread.recv()?;
        // Its line starts with the number of the system call that it waits in (proc_pid_syscall(5)).
        let waiting = format!("{} ", libc::SYS_ioctl);
        while !std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"))?
            .starts_with(&waiting)
        {
            assert!(
                !done.load(Ordering::SeqCst),
                "the request was over before it was seen to wait"
            );
        }
        let mut times = 0;
        loop {
            meanwhile()?;
            if done.load(Ordering::SeqCst) {
                return Ok(times);
            }
            times += 1;
        }
    })
}

/// A request that the driver keeps delays no other: many are answered before it is.
pub fn blocking(_: &[String]) -> Outcome {
    // Each is dozens of requests. If they waited for the long one, not even one would come to its end before.
    const ENOUGH: u32 = 3;
    let gpu = Gpu::open()?;
    let times = during_a_long_request(|| Ok(work(&gpu, MEMORY, 1)?))?;
    assert!(
        times >= ENOUGH,
        "only {times} came to their end during the long request"
    );
    println!("others went on");
    Ok(())
}

/// More long requests at once than the server has threads for, and many more than are one process's part.
pub fn crowd(_: &[String]) -> Outcome {
    const THREADS: usize = 100;
    let registered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let uvm = address_space().expect("an address space");
                register_gpu(&uvm).expect("registered");
                registered.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    println!("{} registered", registered.into_inner());
    Ok(())
}
