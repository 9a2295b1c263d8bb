//! Descriptors across dup, fork, vfork and exec.
//!
//! `unsafe` is here for taking over descriptors by their numbers.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, read};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_ESC_RM_ALLOC, NV01_MEMORY_LOCAL_USER, NV01_ROOT_CLIENT};
use nvproxy_sim::structs::frontend::NVOS21_PARAMETERS;
use ringfence::guest::{Client, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, SUBDEVICE};
use crate::pinning::{Pages, pin};

/// The object is allocated and reached through `control`, whichever way that came about.
fn use_client(control: &File, root: u32) -> Outcome {
    let client = Client {
        control: control.try_clone()?,
        root,
    };
    assert_eq!(client.free_memory(SUBDEVICE)?, ALL - GIB);
    Ok(())
}

/// A client goes on living through duplicates of its descriptor, and ends with the last.
pub fn duplicates(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    let Gpu { client, node } = Gpu::open()?;
    client.memory(DEVICE, MEMORY, NV01_MEMORY_LOCAL_USER, GIB)?;
    let Client { control, root } = client;
    // A GPU's description that is registered with the client's keeps that one open.
    drop(node);
    let duplicate = nix::unistd::dup(&control)?;
    let placed = open(Node::Control)?;
    let mut placed = std::os::fd::OwnedFd::from(placed);
    nix::unistd::dup2(&control, &mut placed)?;
    let number = fcntl(&control, FcntlArg::F_DUPFD_CLOEXEC(100))?;
    // SAFETY: fcntl just made it, so nothing else owns it.
    let numbered = unsafe { File::from_raw_fd(number) };
    drop(control);
    use_client(&File::from(duplicate), root)?;
    use_client(&File::from(placed), root)?;
    println!("through fcntl's {number}");
    use_client(&numbered, root)?;
    drop(numbered);
    observer.wait_for_free_memory(ALL)?;
    println!("freed with the last");
    Ok(())
}

/// A child uses what it inherited; so does the parent, after the child has closed its own.
pub fn fork(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    let started = child(|| {
        use_client(&gpu.client.control, gpu.client.root)?;
        gpu.allocate(MEMORY + 1, GIB)?;
        Ok(())
    })?;
    expect_success(started)?;
    println!("free after the child: {} GiB", gpu.free_memory()? / GIB);
    gpu.free(MEMORY + 1)?;
    use_client(&gpu.client.control, gpu.client.root)
}

/// Opens a node under a name that is hostile to whoever prints it.
pub fn misnamed(_: &[String]) -> Outcome {
    nix::sys::prctl::set_name(c"\"}],\\\n\x1b\xff</b>")?;
    open(Node::Control)?;
    Ok(())
}

/// Starts programs in the manner of vfork, from several threads, while others use the GPU.
pub fn spawn(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    let starters = (0..4).map(|_| {
        std::thread::spawn(|| {
            let output = Command::new("/proc/self/exe")
                .arg("shared-client")
                .output()
                .expect("a child");
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        })
    });
    let starters: Vec<_> = starters.collect();
    for _ in 0..100 {
        gpu.free_memory()?;
    }
    for starter in starters {
        println!("{:?}", starter.join().expect("a starting thread"));
    }
    gpu.wait_for_free_memory(ALL - GIB)?;
    Ok(())
}

/// Executes another program, which closes the client's descriptor and so frees the client.
pub fn exec(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    println!("free before: {} GiB", gpu.free_memory()? / GIB);
    let number = gpu.client.control.as_raw_fd().to_string();
    Err(Command::new("/proc/self/exe")
        .args(["exec-closed", &number])
        .exec()
        .into())
}

/// What [`exec`] executes.
pub fn exec_closed(arguments: &[String]) -> Outcome {
    let number: RawFd = arguments.first().map_or(Ok(-1), |number| number.parse())?;
    // SAFETY: looks at a number, whether it is a descriptor or not.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) });
    println!("the descriptor: {flags:?}");
    let gpu = Gpu::open()?;
    gpu.wait_for_free_memory(ALL)?;
    println!("free after: {} GiB", gpu.free_memory()? / GIB);
    Ok(())
}

/// Executes itself with descriptors that exec does not close; the client lives on.
pub fn exec_inherited(arguments: &[String]) -> Outcome {
    if let [number, root] = arguments {
        // SAFETY: the descriptor was left open for this program, which takes it over.
        let control = unsafe { File::from_raw_fd(number.parse()?) };
        use_client(&control, root.parse()?)?;
        println!("used after exec");
        return Ok(());
    }
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    for file in [&gpu.client.control, &gpu.node] {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    let (number, root) = (gpu.client.control.as_raw_fd(), gpu.client.root);
    let arguments = [
        "exec-inherited".to_owned(),
        number.to_string(),
        root.to_string(),
    ];
    Err(Command::new("/proc/self/exe").args(arguments).exec().into())
}

/// A child makes a request, which is a pin if there is an argument, and is killed before it has an answer. Others follow,
/// which have the same memory at the same place, until one is told to look whether anybody has written to it. The test
/// says when.
pub fn reused(arguments: &[String]) -> Outcome {
    let gpu = (!arguments.is_empty()).then(Gpu::open).transpose()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let control = open(Node::Control)?;
    let mut request = Box::new(NVOS21_PARAMETERS::new_zeroed());
    request.hClass = NV01_ROOT_CLIENT;
    let victim = child(|| {
        match &gpu {
            Some(gpu) => pin(gpu, MEMORY, &pages)?,
            None => drop(frontend(&control, NV_ESC_RM_ALLOC, &mut *request)?),
        }
        Ok(())
    })?;
    println!("ready");
    line()?;
    kill(victim, Signal::SIGKILL)?;
    waitpid(victim, None)?;
    println!("gone");
    while line()? == "start" {
        let before = *request;
        let heir = child(|| {
            println!("there");
            while line()? == "look" {
                let is_same = **std::hint::black_box(&request) == before;
                println!("{}", if is_same { "untouched" } else { "altered" });
            }
            Ok(())
        })?;
        expect_success(heir)?;
    }
    Ok(())
}

/// The next line of standard input, of which nothing further is taken: children go on reading there.
fn line() -> Result<String, Errno> {
    let mut line = String::new();
    let mut byte = [0];
    while read(std::io::stdin(), &mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0].into());
    }
    Ok(line)
}

/// A process opens as many nodes as it gets, and keeps them; then another does.
pub fn greedy(_: &[String]) -> Outcome {
    let take = |who: &str| {
        let mut nodes = Vec::new();
        let refusal = loop {
            match open(Node::Control) {
                Ok(node) => nodes.push(node),
                Err(error) => break error,
            }
        };
        println!("{who} has {}, then {refusal}", nodes.len());
        nodes
    };
    let nodes = take("one");
    let other = child(|| {
        take("another");
        Ok(())
    })?;
    expect_success(other)?;
    drop(nodes);
    Ok(())
}

/// Takes all processes that it may have, and asks for something then.
pub fn take_all_processes(_: &[String]) -> Outcome {
    let mut taken = 0;
    loop {
        // SAFETY: this process has one thread, so that the child may go on as if nothing had happened.
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => loop {
                nix::unistd::pause();
            },
            Ok(ForkResult::Parent { .. }) => taken += 1,
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
        assert!(taken < 10_000, "there is no limit");
    }
    println!("none is left");
    let client = Client::new()?;
    println!("client: {}", client.root != 0);
    Ok(())
}
