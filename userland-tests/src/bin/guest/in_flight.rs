//! Descriptors that are sent and never received. The kernel counts them for the user, not for the sandbox.

use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use crate::Outcome;

/// The most that one message carries (`SCM_MAX_FD`, include/net/scm.h, Linux 6.12).
const OF_ONE_MESSAGE: usize = 253;

/// Sends descriptors until the kernel takes no more, and holds them until its standard input ends.
pub fn in_flight(_: &[String]) -> Outcome {
    // Once the sentry answers, it has passed on what it passes on at a start.
    let node = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/nvidiactl")?;
    drop(node);
    let file = std::fs::File::open("/dev/null")?;
    let descriptors = [file.as_raw_fd(); OF_ONE_MESSAGE];
    let mut sockets = Vec::new();
    let refusal = loop {
        let pair = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let sent = send_until_refused(pair.0.as_raw_fd(), &descriptors);
        sockets.push(pair);
        if sent != Errno::EAGAIN {
            break sent;
        }
    };
    assert_eq!(refusal, Errno::ETOOMANYREFS);
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn send_until_refused(socket: i32, descriptors: &[i32]) -> Errno {
    loop {
        let sent = sendmsg::<()>(
            socket,
            &[IoSlice::new(&[0])],
            &[ControlMessage::ScmRights(descriptors)],
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        if let Err(errno) = sent {
            return errno;
        }
    }
}
