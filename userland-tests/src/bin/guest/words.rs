//! Command words of ioctls: which of them reach the driver's nodes unseen, and which cost nothing.
//!
//! `unsafe` is here because ioctl takes addresses.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::pty::openpty;
use nix::sys::stat::fstat;
use nix::unistd::{dup2_raw, pipe};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::words;
use nvproxy_sim::structs::frontend::NVOS21_PARAMETERS;
use ringfence::guest::open;
use zerocopy::FromZeros;

use crate::Outcome;

/// As many bytes as a word can name.
type Argument = [u64; 2048];

fn ioctl(descriptor: RawFd, word: u32, argument: &mut Argument) -> Result<i32, Errno> {
    // SAFETY: the argument is as large as a word can say that it is, and holds no pointers.
    let result = unsafe { libc::ioctl(descriptor, word.into(), argument.as_mut_ptr()) };
    Errno::result(result)
}

/// The numbers and sizes that the driver of any release reads.
fn read_by_driver() -> Vec<u32> {
    let sizes = [0, 4, 72, 4096, 16383];
    let any = words::any_size().iter();
    let any = any.flat_map(|number| sizes.map(|size| size << 16 | number));
    words::sized().iter().copied().chain(any).collect()
}

/// The same of UVM.
fn read_by_uvm() -> Vec<u32> {
    (0..words::UVM_BOUND).chain(words::uvm_beyond()).collect()
}

/// Every type, or those that were given, with every number and size that the driver of any release reads, and every word of
/// UVM's, on descriptors of all nodes. The direction changes from type to type.
pub fn every(types: &[String]) -> Outcome {
    let mut types: Vec<u8> = types
        .iter()
        .map(|kind| kind.parse())
        .collect::<Result<_, _>>()?;
    if types.is_empty() {
        types = (0..=u8::MAX).collect();
    }
    let mut tried = 0u32;
    for node in [Node::Control, Node::Gpu(0), Node::Uvm] {
        for read in read_by_driver() {
            let mut file = open(node)?;
            let (_, number, _) = parts(read);
            for kind in types.iter().map(|kind| u32::from(*kind)) {
                // A descriptor that has been registered for events is none of a node any more.
                if number == NV_ESC_ALLOC_OS_EVENT {
                    file = open(node)?;
                }
                let word = (kind + read) << 30 | kind << 8 | read;
                // What it comes to does not matter: the test asks what the nodes saw.
                let _ = ioctl(file.as_raw_fd(), word, &mut [0; 2048]);
                tried += 1;
            }
        }
        let file = open(node)?;
        for word in read_by_uvm() {
            let _ = ioctl(file.as_raw_fd(), word, &mut [0; 2048]);
            tried += 1;
        }
    }
    println!("tried {tried} words");
    Ok(())
}

/// A request by words of several types and directions.
pub fn types(_: &[String]) -> Outcome {
    let control = open(Node::Control)?;
    for kind in [NV_IOCTL_MAGIC, 0, b'G', 0xff] {
        for direction in 0..4 {
            let size = size_of::<NVOS21_PARAMETERS>();
            let read = words::READ_BITS & ioctl_word(NV_ESC_RM_ALLOC, size);
            let mut argument = NVOS21_PARAMETERS::new_zeroed();
            argument.hClass = NV01_ROOT_CLIENT;
            let word = direction << 30 | u32::from(kind) << 8 | read;
            ringfence::guest::ioctl(&control, word, &mut argument)?;
            ringfence::guest::check(argument.status)?;
            assert_ne!(argument.hObjectNew, 0, "{word:#x}");
        }
    }
    println!("one request");
    Ok(())
}

/// One of UVM's requests on a number that a second thread lets mean another device and one of UVM's descriptors by turns.
/// (What stands in for UVM's node is a file.)
pub fn exchanged(_: &[String]) -> Outcome {
    const TRIES: u32 = 3000;
    let uvm = open(Node::Uvm)?;
    let other = File::open("/dev/null")?;
    let contested = other.try_clone()?;
    let over = AtomicBool::new(false);
    let is_other = || fstat(&contested).is_ok_and(|status| status.st_rdev != 0);
    let mut others = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for turn in [uvm.as_fd(), other.as_fd()] {
                    // SAFETY: the number stays open, and whatever it means, closing it closes that.
                    let placed = unsafe { dup2_raw(turn, contested.as_raw_fd()) };
                    std::mem::forget(placed);
                    // To take a file's place may take as long as it takes whoever serves the file.
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        });
        for _ in 0..TRIES {
            others += u32::from(is_other());
            // What it comes to does not matter: the test asks what the nodes saw.
            let _ = ioctl(contested.as_raw_fd(), UVM_REGISTER_GPU, &mut [0; 2048]);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(others > 0 && others < TRIES, "{others}: there was no race");
    println!("exchanged");
    Ok(())
}

/// What programs ask of terminals, sockets, pipes and files all the time; with a word as argument, that as well.
pub fn ordinary(arguments: &[String]) -> Outcome {
    let terminal = openpty(None, None)?;
    let (socket, _peer) = UnixStream::pair()?;
    let (reader, _writer) = pipe()?;
    let file = File::create_new("/tmp/ordinary")?;
    let descriptors: [(&str, OwnedFd); 4] = [
        ("terminal", terminal.slave),
        ("socket", socket.into()),
        ("pipe", reader),
        ("file", file.into()),
    ];
    // FIGETBSZ, FICLONE, FICLONERANGE, FIDEDUPERANGE and FS_IOC_FIEMAP of linux/fs.h and linux/fiemap.h.
    let of_files = [2, 0x4004_9409, 0x4020_940d, 0xc018_9436, 0xc020_660b];
    let words = [
        libc::TCGETS,
        libc::FIONREAD,
        libc::FIONBIO,
        libc::FIOCLEX,
        libc::TIOCGWINSZ,
    ];
    let words = words.map(|word| word as u32).into_iter().chain(of_files);
    let words: Vec<u32> = match arguments.first() {
        Some(word) => words.chain([word.parse()?]).collect(),
        None => words.collect(),
    };
    for (what, descriptor) in &descriptors {
        let works = words.iter().take(5);
        let works = works.map(
            |word| match ioctl(descriptor.as_raw_fd(), *word, &mut [0; 2048]) {
                Ok(_) => "ok".to_owned(),
                Err(errno) => format!("{errno:?}"),
            },
        );
        println!("{what}: {}", works.collect::<Vec<_>>().join(" "));
        for word in words.iter().skip(5) {
            let _ = ioctl(descriptor.as_raw_fd(), *word, &mut [0; 2048]);
        }
    }
    Ok(())
}

/// The driver's words on descriptors that are not the driver's.
pub fn foreign(_: &[String]) -> Outcome {
    const PAGE: u64 = 4096;
    /// FIBMAP, FS_IOC_UNRESVSP64, two of the driver's words with another type, and one of UVM's.
    const WORDS: [u32; 5] = [1, 0x4030_582b, 0xc020_002a, 0xc000_475f, UVM_REGISTER_GPU];
    let terminal = openpty(None, None)?;
    let (reader, _writer) = pipe()?;
    let path = "/tmp/foreign";
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.write_all(&[1; 3 * PAGE as usize])?;
    let named = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let mut hole = [0; 2048];
    // From where the file is: one page, two pages back (struct space_resv of linux/falloc.h).
    hole[0] = (libc::SEEK_CUR as u64) << 16;
    hole[1] = (2 * PAGE).wrapping_neg();
    hole[2] = PAGE;
    for (what, descriptor) in [
        ("file", file.as_raw_fd()),
        ("path", named.as_raw_fd()),
        ("terminal", terminal.slave.as_raw_fd()),
        ("pipe", reader.as_raw_fd()),
        ("none", 1000),
    ] {
        let outcomes = WORDS.map(|word| match ioctl(descriptor, word, &mut hole.clone()) {
            Ok(_) => "ok".to_owned(),
            Err(errno) => format!("{errno:?}"),
        });
        println!("{what}: {}", outcomes.join(" "));
    }
    let mut pages = [0; 3 * PAGE as usize];
    file.read_exact_at(&mut pages, 0)?;
    let left: Vec<u8> = pages.chunks(PAGE as usize).map(|page| page[17]).collect();
    println!("left of the file: {left:?}");
    hole[0] = 3 << 16;
    println!(
        "from nowhere: {:?}",
        ioctl(file.as_raw_fd(), WORDS[1], &mut hole)
    );
    let to_read = File::open(path)?;
    hole[0] = 0;
    hole[1] = 0;
    println!(
        "to be read only: {:?}",
        ioctl(to_read.as_raw_fd(), WORDS[1], &mut hole)
    );
    Ok(())
}

/// Sockets, and what a terminal cannot be made into.
pub fn narrow(_: &[String]) -> Outcome {
    let say = |what: &str, result: libc::c_int| {
        let outcome =
            Errno::result(result).map_or_else(|errno| format!("{errno:?}"), |_| "ok".to_owned());
        println!("{what}: {outcome}");
    };
    for (name, protocol) in [
        ("NETLINK_ROUTE", libc::NETLINK_ROUTE),
        ("NETLINK_NETFILTER", libc::NETLINK_NETFILTER),
        ("NETLINK_GENERIC", libc::NETLINK_GENERIC),
        ("NETLINK_KOBJECT_UEVENT", libc::NETLINK_KOBJECT_UEVENT),
    ] {
        // SAFETY: numbers alone are passed.
        say(name, unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)
        });
    }
    use libc::{AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
    for (name, family, kind, protocol) in [
        ("AF_UNIX", AF_UNIX, SOCK_SEQPACKET, 0),
        ("TCP", AF_INET, SOCK_STREAM, libc::IPPROTO_TCP),
        ("TCP of IPv6", AF_INET6, SOCK_STREAM | libc::SOCK_CLOEXEC, 0),
        ("UDP", AF_INET, SOCK_DGRAM, 0),
        ("SCTP", AF_INET, SOCK_STREAM, 132),
        ("SCTP of packets", AF_INET6, SOCK_SEQPACKET, 132),
        ("SMC", AF_INET, SOCK_STREAM, 256),
        ("SOCK_DCCP", AF_INET, 6, 33),
        ("L2TP", AF_INET, SOCK_DGRAM, 115),
        ("UDP-Lite", AF_INET, SOCK_DGRAM, 136),
        ("SOCK_PACKET", AF_INET, 10, 0),
    ] {
        // SAFETY: numbers alone are passed.
        say(name, unsafe { libc::socket(family, kind, protocol) });
    }
    let stream = std::net::TcpListener::bind("127.0.0.1:0")?;
    for (name, option) in [
        ("TCP_MD5SIG", libc::TCP_MD5SIG),
        ("TCP_ULP", libc::TCP_ULP),
        ("TCP_AO_ADD_KEY", 38),
    ] {
        // SAFETY: no value is passed.
        say(name, unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                std::ptr::null(),
                0,
            )
        });
    }
    for (name, request) in [
        ("SIOCGIFBR", 0x8940),
        ("SIOCGIFVLAN", 0x8982),
        ("SIOCGIFCONF", 0x8912),
    ] {
        match ioctl(stream.as_raw_fd(), request, &mut [0; 2048]) {
            Ok(_) => println!("{name}: ok"),
            Err(errno) => println!("{name}: {errno:?}"),
        }
    }
    for (name, family) in [
        ("a pair of AF_UNIX", libc::AF_UNIX),
        ("a pair of AF_INET", libc::AF_INET),
        ("a pair of AF_TIPC", libc::AF_TIPC),
    ] {
        let mut pair = [0; 2];
        // SAFETY: the kernel writes two numbers.
        say(name, unsafe {
            libc::socketpair(family, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr())
        });
    }
    let terminal = openpty(None, None)?;
    // N_TTY, which every terminal has already.
    let outcome = ioctl(
        terminal.slave.as_raw_fd(),
        libc::TIOCSETD as u32,
        &mut [0; 2048],
    );
    println!("TIOCSETD: {outcome:?}");
    Ok(())
}

/// Asks a file what its file system alone knows (NS_GET_NSTYPE). If there are arguments, a process without a filter does so
/// beside this one, which waits for it.
pub fn of_one_file_system(beside: &[String]) -> Outcome {
    const ASKED: &str = "/dev/shm/asked";
    let is_unfiltered = std::env::var_os("RINGFENCE_UNFILTERED").is_some();
    let namespace = File::open("/proc/self/ns/ipc")?;
    let outcome = ioctl(namespace.as_raw_fd(), 0xb703, &mut [0; 2048]).map(drop);
    if is_unfiltered {
        println!("without a filter: {outcome:?}");
        File::create(ASKED)?;
        return Ok(());
    }
    while !beside.is_empty() && !Path::new(ASKED).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("with a filter: {outcome:?}");
    Ok(())
}
