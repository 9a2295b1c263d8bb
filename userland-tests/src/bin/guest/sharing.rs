//! Descriptors and objects that go from one task to another over a socket.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::*;
use ringfence::guest::{Client, open};
use ringfence_ipc::Socket;
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, SUBDEVICE};

/// A client lives in the socket alone for a while: its task has ended, and the next has not received it yet.
pub fn pass(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    let (ours, theirs) = Socket::pair()?;
    let sender = child(|| {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        let control = gpu.client.control.as_fd();
        theirs.send(gpu.client.root.into(), control)?;
        Ok(())
    })?;
    expect_success(sender)?;
    // Long enough for a release that should not happen: another client's is over by then.
    let other = Gpu::open()?;
    other.allocate(MEMORY, GIB)?;
    drop(other);
    observer.wait_for_free_memory(ALL - GIB)?;
    let (root, control) = ours.receive()?;
    let client = Client {
        control: File::from(control),
        root: root as u32,
    };
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
    let (ours, theirs) = Socket::pair()?;
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
        theirs.send(0, parcel.as_fd())?;
        Ok(())
    })?;
    expect_success(exporter)?;
    let (_, parcel) = ours.receive()?;
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
