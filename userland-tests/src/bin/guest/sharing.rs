//! Descriptors and objects that go from one task to another over a socket.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::structs::control::*;
use ringfence::guest::{Client, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, SUBDEVICE};
use crate::tasks::{child, expect_success};

fn sockets() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::Datagram,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// Sends a descriptor and a number.
pub fn send(socket: &OwnedFd, file: &File, number: u32) -> nix::Result<()> {
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let bytes = number.to_ne_bytes();
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &rights,
        MsgFlags::empty(),
        None,
    );
    sent.map(drop)
}

pub fn receive(socket: &OwnedFd) -> Result<(File, u32), Box<dyn std::error::Error>> {
    let mut bytes = [0; 4];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let descriptor = message.cmsgs()?.find_map(|rights| match rights {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = descriptor.ok_or("no descriptor came")?;
    // SAFETY: the kernel just made it for this process, so nothing else owns it.
    let file = unsafe { File::from_raw_fd(descriptor) };
    Ok((file, u32::from_ne_bytes(bytes)))
}

/// A client lives in the socket alone for a while: its task has ended, and the next has not received it yet.
pub fn pass(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    let (ours, theirs) = sockets()?;
    let sender = child(|| {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        send(&theirs, &gpu.client.control, gpu.client.root)?;
        Ok(())
    })?;
    expect_success(sender)?;
    // Long enough for a release that should not happen: another client's is over by then.
    let other = Gpu::open()?;
    other.allocate(MEMORY, GIB)?;
    drop(other);
    observer.wait_for_free_memory(ALL - GIB)?;
    let (control, root) = receive(&ours)?;
    let client = Client { control, root };
    println!("used: {} GiB free", client.free_memory(SUBDEVICE)? / GIB);
    client.free(DEVICE, MEMORY)?;
    println!("freed: {} GiB free", client.free_memory(SUBDEVICE)? / GIB);
    client.memory(DEVICE, MEMORY, NV01_MEMORY_LOCAL_USER, GIB)?;
    drop(client);
    observer.wait_for_free_memory(ALL)?;
    println!("closed: {} GiB free", observer.free_memory()? / GIB);
    Ok(())
}

/// Memory is exported by one task and imported by another, which finds the bytes in it after the first has ended.
pub fn export(_: &[String]) -> Outcome {
    let (ours, theirs) = sockets()?;
    let exporter = child(|| {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        gpu.client
            .map(DEVICE, MEMORY, 4096, Node::Gpu(0))?
            .write(0, b"parcel");
        let parcel = open(Node::Control)?;
        let mut parameters = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS::new_zeroed();
        parameters.object = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
            r#type: 1,
            data: [DEVICE, DEVICE, MEMORY],
        };
        parameters.fd = parcel.as_raw_fd();
        gpu.client.control(
            gpu.client.root,
            NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD,
            &mut parameters,
        )?;
        send(&theirs, &parcel, 0)?;
        Ok(())
    })?;
    expect_success(exporter)?;
    let (parcel, _) = receive(&ours)?;
    let gpu = Gpu::open()?;
    let mut parameters = NV0000_CTRL_OS_UNIX_IMPORT_OBJECT_FROM_FD_PARAMS::new_zeroed();
    parameters.object = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
        r#type: 1,
        data: [DEVICE, DEVICE, MEMORY + 5],
    };
    parameters.fd = parcel.as_raw_fd();
    gpu.client.control(
        gpu.client.root,
        NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD,
        &mut parameters,
    )?;
    assert_eq!(
        parameters.fd,
        parcel.as_raw_fd(),
        "the program sees its own number again"
    );
    println!("imported as {:#x}", parameters.object.data[2]);
    drop(parcel);
    let mapping = gpu.client.map(DEVICE, MEMORY + 5, 4096, Node::Gpu(0))?;
    println!("holds {}", String::from_utf8(mapping.read(0, 6))?);
    gpu.wait_for_free_memory(ALL - GIB)?;
    gpu.free(MEMORY + 5)?;
    gpu.wait_for_free_memory(ALL)?;
    println!("freed");
    Ok(())
}
