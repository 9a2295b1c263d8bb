//! What the server needs of a driver, whether it is NVIDIA's, the simulated one or a recorded one.
//!
//! A [`Backend`] opens device nodes; each open gives up to two things: a [`DeviceFile`], on which the server issues
//! requests and which never leaves it, and a *granted* description, which is what the task gets to hold: `mmap` works
//! on it, and `ioctl` (on the real driver, UVM excepted) does not. By the time a request reaches a backend it has been
//! validated against the driver's tables and lies in memory of the server's own; a host has only to issue it.

pub mod handover;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::Segment;

use self::handover::Enclosures;

/// Why a driver cannot be had, confined, saved or restored. It is the user who reads it in the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was handed over is not whole.
    #[error(transparent)]
    HandedOver(#[from] handover::Error),
    /// What this driver alone can fail with, in its own words.
    #[error(transparent)]
    Driver(Box<dyn std::error::Error + Send + Sync>),
}

/// One validated request.
pub struct Call<'a> {
    /// The ioctl command word.
    pub request: u32,
    /// The server's own copy of the request, 8-byte aligned: the argument, then every buffer that it points to.
    /// Descriptor numbers in it are already the host's; pointer fields still hold the task's addresses.
    pub payload: &'a mut [u8],
    /// Where each buffer lies in `payload`, and which field points to it.
    pub segments: &'a [Segment],
    /// The offset in `payload` of each descriptor number that names something, and what it names
    /// ([`DeviceFile::descriptor`]): for a backend that has the request issued where the numbers are others.
    pub descriptors: &'a [(usize, BorrowedFd<'a>)],
    /// Where a descriptor goes that the driver makes for the program, if the request is one for which it makes one.
    pub made: Option<Made<'a>>,
}

/// What a driver makes for the program.
pub struct Made<'a> {
    /// The offset in the payload of its number in this process, which nobody reads when the request has been issued.
    pub at: usize,
    /// The descriptor itself, which is nobody else's.
    pub descriptor: &'a mut Option<OwnedFd>,
}

/// How a task opened a device node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// `O_NONBLOCK` was given.
    pub nonblocking: bool,
}

/// How requests name a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuNames {
    /// The driver's own number for it (`gpuId`).
    pub id: u32,
    /// Unknown until the driver has started the GPU.
    pub uuid: Option<[u8; 16]>,
}

/// The outcome of opening a device node.
pub struct Opened {
    /// What requests on the new description are issued on. `None` where the description itself travels with each
    /// request (UVM on the real driver).
    pub file: Option<Arc<dyn DeviceFile>>,
    /// The description that the task is given. The server keeps no reference to it, so that its last close is the
    /// task's.
    pub granted: OwnedFd,
}

/// On which thread a node has to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// At once, on a confined thread.
    Prompt,
    /// On a confined thread that may wait: the first open of a GPU can take seconds.
    Patient,
    /// On a thread that is not confined, because the task's own description has to accept ioctl.
    Unconfined,
}

/// A driver, as the server has it.
pub trait Backend: Send + Sync {
    /// Takes from the calling thread, for good, the right to issue ioctls on device nodes that it opens from now on.
    /// Descriptions that tasks are given are opened on such threads.
    fn confine(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Which thread is to call [`Backend::open`] for `node`.
    fn opener(&self, _node: Node) -> Opener {
        Opener::Prompt
    }

    /// Opens `node`. Fails with the errno that the driver's open gives.
    fn open(&self, node: Node, flags: OpenFlags) -> Result<Opened, Errno>;

    /// The file to issue a request on whose target came with it as a descriptor. Fails with `ENOTTY` if the
    /// descriptor is not one of this driver's.
    fn carried(&self, descriptor: OwnedFd) -> Result<Arc<dyn DeviceFile>, Errno>;

    /// The number by which a descriptor that came with a request (the target of a mapping, an open-only node's) is named in
    /// the request's parameters. Fails with `EBADF` if it is not one of this driver's.
    fn number_of(&self, descriptor: BorrowedFd<'_>) -> Result<i32, Errno>;

    /// The names of the GPUs that the sandbox was given, as far as the driver tells them; `None` for a backend whose GPUs have no
    /// names of which that could be said.
    fn gpus(&self) -> Option<Vec<GpuNames>> {
        None
    }

    /// Marks a description that a task was granted, for as long as anything refers to it, a mapping that was made through it
    /// included. Returns a name for it, which is not given twice, by whichever server of the sandbox; `None` if it cannot be
    /// marked.
    fn mark(&self, _granted: BorrowedFd<'_>) -> Option<u64> {
        None
    }

    /// Which of these are gone for good, of descriptions that [`DeviceFile::description`] or [`Backend::mark`] has named.
    fn ended(&self, _descriptions: &[u64]) -> Vec<u64> {
        Vec::new()
    }

    /// What a backend of the same kind in another process needs to take this one's place, but for the files, each of
    /// which is saved by itself ([`DeviceFile::save`]). No request is being issued meanwhile. This backend goes on as
    /// before; it and its files can be dropped without a trace in the one that was restored.
    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, Error>;

    /// A file of the backend that this one was restored from. A restored backend is first given all files back, and is then
    /// told so ([`Backend::finish_restoring`]).
    fn restore_file(
        &self,
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Arc<dyn DeviceFile>, Error>;

    /// Told that every file has been restored: what was kept for others that might follow is closed.
    fn finish_restoring(&self) {}

    /// Told of a restored backend that the process serves from now on, in the place of the other one. A backend that is dropped
    /// before leaves no trace in that one.
    fn begin_to_serve(&self) {}

    /// Told after the last [`Backend::save`], when the backend that was made of it is about to serve in another process. Returns
    /// what this process has to go on doing for that one, if anything; the server then drops all files, calls it, and
    /// ends when it returns.
    fn keep(&self) -> Option<Box<dyn FnOnce()>> {
        None
    }
}

/// One open file description of a device node. Dropped when the last reference that any task had to it is gone.
pub trait DeviceFile: Send + Sync {
    /// The number that names this description in the parameters of a request.
    fn number(&self) -> Result<i32, Errno>;

    /// The descriptor with that number, where the number is one of this process's.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Which description this is, of those that came with a request ([`Backend::carried`]) and that this backend granted. Names
    /// are not given twice, by whichever server of the sandbox.
    fn description(&self) -> Option<u64> {
        None
    }

    /// Whether the next request can be issued on any thread: false while the backend first has to open something that a
    /// confined thread cannot open.
    fn is_ready(&self) -> bool {
        true
    }

    /// Issues a request and returns what the ioctl returns.
    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno>;

    /// A pollable descriptor that is readable while an event of the operating system is pending on this description.
    fn event_descriptor(&self) -> Result<OwnedFd, Errno>;

    /// The command descriptor, for a task to issue one pinning request on (docs/ARCHITECTURE.md, decision 7).
    fn lend(&self) -> Result<OwnedFd, Errno>;

    /// Told what the task's own ioctl on the lent descriptor returned. What is left in the payload is written back to
    /// the task, and what this returns is what the program sees.
    fn pinned(&self, issued: Result<i32, Errno>, call: Call<'_>) -> Result<i32, Errno>;

    /// What [`Backend::restore_file`] needs to give this file back.
    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, Error>;
}

/// Makes a backend of the state that another one has saved, with the descriptors that came beside it.
pub type Restore =
    Box<dyn FnOnce(serde_json::Value, &mut Enclosures) -> Result<Arc<dyn Backend>, Error>>;

/// How a server comes to its backend, as the launcher has chosen it.
pub trait BackendFactory {
    /// The device nodes that a confined server opens.
    fn nodes(&self) -> Vec<PathBuf>;

    /// Makes a backend on which nothing is open. It opens what a confined process cannot reach.
    fn make(&self, abi: &'static Abi) -> Result<Arc<dyn Backend>, Error>;

    /// A backend to which only the state is missing: it has looked by now at the files that a confined process cannot reach.
    fn prepare_to_restore(&self, abi: &'static Abi) -> Result<Restore, Error>;
}
