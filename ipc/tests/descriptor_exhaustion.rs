//! A process that is out of descriptors loses what arrives, says so, and recovers. In a test
//! program of its own, because the limit holds for the whole process.

use std::{io::Read, os::fd::AsFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence_ipc::{Socket, SocketError};

#[test]
fn a_descriptor_that_does_not_fit_is_reported_and_not_leaked() {
    let (one, other) = Socket::pair().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    one.send(1, writer.as_fd()).unwrap();
    one.send(2, writer.as_fd()).unwrap();
    drop(writer);

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    assert_eq!(other.receive().unwrap_err(), SocketError::DescriptorLost);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

    assert_eq!(other.receive().unwrap().0, 2);
    // Every copy of the writing end is gone, so that reading ends.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}
