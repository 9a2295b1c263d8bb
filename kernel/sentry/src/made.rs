//! Descriptors that the driver makes for a program: memory of a GPU's as a dma-buf.
//!
//! The driver puts such a descriptor into the table of who asks, and writes its number into the request. Who asks is the server,
//! which hands it on. So the idea: the kernel puts it into the task's table while the task waits (`SECCOMP_IOCTL_NOTIF_ADDFD`),
//! under a number of that table, with the task's own limit, and that number is written for the task with the rest of
//! the answer. Of a task that is gone nothing stays: the descriptor is closed here.
//!
//! A server that was taken over could hand on anything that it has. So it is looked what the descriptor is of.

use std::borrow::Cow;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::unistd::Pid;
use nvproxy_abi::plan::Plan;
use nvproxy_abi::status::{NV_ERR_OPERATING_SYSTEM, NV_OK};
use nvproxy_protocol::driver::Kind;
use ringfence_faults::{Act, Point, at_task};

use super::Sentry;
use super::marshalling::status_of;
use crate::seccomp::listener::Notification;
use crate::warnings::warn_once;

/// The file system of dma-bufs, which has nothing else (linux/magic.h).
const DMA_BUF_MAGIC: FsType = FsType(0x444d_4142);

impl Sentry {
    /// Gives a task what was made for its request, if that makes something, and returns the answer with the number in it. Fails with
    /// `ENOENT` if the task is gone.
    pub(super) fn give_made<'a>(
        &self,
        notification: &Notification,
        plan: &Plan,
        payload: &'a [u8],
        made: Option<OwnedFd>,
    ) -> Result<Cow<'a, [u8]>, Errno> {
        let (Some(at), Some(NV_OK)) = (plan.result_at(), status_of(plan, payload)) else {
            return Ok(payload.into());
        };
        let made = made.ok_or(Errno::EIO)?;
        self.expect_dma_buf(notification.task, &made)?;
        // The driver's are closed on execve (`nv_dma_buf_create`, kernel-open/nvidia/nv-dmabuf.c, in all releases).
        let (at, value) = match self.listener.add_descriptor(notification, made, true) {
            Ok(number) => (at, number as u32),
            Err(Errno::ENOENT) => return Err(Errno::ENOENT),
            // As the driver answers if there is no room in the table.
            Err(_) => (plan.status_at().unwrap_or(at), NV_ERR_OPERATING_SYSTEM),
        };
        at_task(Point::Installed, notification.task.as_raw());
        let mut told = payload.to_vec();
        let field = told.get_mut(at as usize..);
        let field = field.and_then(<[u8]>::first_chunk_mut);
        *field.ok_or(Errno::EIO)? = value.to_ne_bytes();
        Ok(told.into())
    }

    /// Fails with `EIO` unless it is what such a driver makes.
    fn expect_dma_buf(&self, task: Pid, made: &OwnedFd) -> Result<(), Errno> {
        let expected = match self.driver.kind {
            Kind::Host => DMA_BUF_MAGIC,
            Kind::Simulated | Kind::Recorded => TMPFS_MAGIC,
        };
        let is_expected = fstatfs(made)?.filesystem_type() == expected;
        // A test leaves this out, to show that it would notice.
        let is_left = at_task(Point::Handed, task.as_raw()) == Some(Act::Drop);
        if is_expected || is_left {
            return Ok(());
        }
        warn_once(
            "the server has handed over a descriptor that is no dma-buf",
            "the program does not get it",
        );
        Err(Errno::EIO)
    }
}
