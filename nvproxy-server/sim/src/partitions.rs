//! The parts of the simulated GPUs (MIG), and the nodes by which a program shows that it may use one.
//!
//! The idea: the driver knows a node by its number alone, and numbers them by a fixed list (`nv_cap_tables_init`,
//! kernel-open/nvidia/nv-caps.c, 580.142). So numbers are computed here. A simulated node is a file that says which one it is:
//! there is no device behind it, so anybody can make one. That is a difference from the driver.
//!
//! Every simulated GPU has the same parts, and can be used as a whole besides, as no GPU can.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nvproxy_abi::node::{Node, of_part};
use nvproxy_abi::status::{NV_ERR_INSUFFICIENT_PERMISSIONS, NV_ERR_INVALID_ARGUMENT};
use ringfence_faults::{Act, Point, at};

use super::backing::memory_file;
use super::names::Outcome;

/// The instances of each GPU, and the compute instances of each of those.
pub const INSTANCES: [(u32, &[u32]); 2] = [(1, &[0]), (2, &[0, 1])];

/// What the nodes that are of no part let a program do: divide GPUs, and watch all of their parts.
pub(super) const CONFIGURE: u16 = 1;
pub(super) const MONITOR: u16 = 2;

/// The number of the first node of the first GPU, and how many nodes each GPU and each of its instances can have.
const FIRST: u32 = 3;
const OF_GPU: u32 = 15 * OF_INSTANCE;
const OF_INSTANCE: u32 = 9;

/// What stands in a request for a node with the number 0: no description has a number as high.
const NAMED: i32 = 1 << 24;

/// The number of the node that is for an instance of the GPU with this minor number, or for a compute instance of it.
pub fn number(gpu: u8, instance: u32, compute: Option<u32>) -> Option<u16> {
    let within = compute.map_or(0, |compute| compute + 1);
    let number = FIRST + OF_GPU * u32::from(gpu) + OF_INSTANCE * instance + within;
    u16::try_from(number).ok()
}

/// What a node says of itself.
pub fn text(node: Node) -> String {
    format!("{}\n", node.file_name())
}

/// A file that says that it is this node.
pub(super) fn file(node: Node) -> Result<OwnedFd, Errno> {
    let file = File::from(memory_file("open-only")?);
    file.write_all_at(text(node).as_bytes(), 0)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Ok(file.into())
}

/// By which number a request names the node that this is, if it is one of those that were given.
pub(super) fn named(descriptor: BorrowedFd<'_>, given: &[Node]) -> Option<i32> {
    let status = fstat(descriptor).ok()?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    let length = usize::try_from(status.st_size).ok()?;
    // What is longer than any is not read, and what is no file could keep its reader waiting.
    if kind != SFlag::S_IFREG || length > 64 {
        return None;
    }
    let mut said = vec![0; length];
    let read = rustix::io::pread(descriptor, &mut said[..], 0).ok()?;
    said.truncate(read);
    let said = String::from_utf8(said).ok()?;
    let node = Node::from_file_name(said.strip_suffix('\n')?)?;
    // A test leaves this out, to show that it would notice.
    let is_given = given.contains(&node) || at(Point::NotGiven) == Some(Act::Drop);
    match node {
        Node::OpenOnly(node) if is_given => Some(NAMED + i32::from(node.number())),
        _ => None,
    }
}

/// Whether a request that names `descriptor` shows the node with this number (`osRmCapAcquire`, src/nvidia/arch/nvalloc/unix/src/os.c). Of the
/// field's 8 bytes the driver looks at the lower 4.
pub(super) fn expect(descriptor: u64, number: Option<u16>) -> Outcome {
    let is_shown = number.is_some_and(|number| {
        of_part(number).is_some() && descriptor as i32 == NAMED + i32::from(number)
    });
    is_shown
        .then_some(())
        .ok_or(NV_ERR_INSUFFICIENT_PERMISSIONS)
}

/// Subscribes to an instance (`gisubscriptionConstruct_IMPL`, mig_mgr/gpu_instance_subscription.c).
pub(super) fn instance(gpu: u8, instance: u32, descriptor: u64) -> Outcome {
    computes(instance)?;
    expect(descriptor, number(gpu, instance, None))
}

/// Subscribes to a compute instance (`cisubscriptionConstruct_IMPL`, mig_mgr/compute_instance_subscription.c).
pub(super) fn compute(gpu: u8, instance: u32, compute: u32, descriptor: u64) -> Outcome {
    match computes(instance)?.contains(&compute) {
        true => expect(descriptor, number(gpu, instance, Some(compute))),
        false => Err(NV_ERR_INVALID_ARGUMENT),
    }
}

fn computes(instance: u32) -> Outcome<&'static [u32]> {
    let mut all = INSTANCES.iter();
    let found = all.find(|(number, _)| *number == instance);
    found
        .map(|(_, computes)| *computes)
        .ok_or(NV_ERR_INVALID_ARGUMENT)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// As they are on machines with NVIDIA's driver: gpu0/gi1/access is 12.
    #[test]
    fn numbers_are_the_drivers() {
        assert_eq!(number(0, 0, None), Some(3));
        assert_eq!(number(0, 1, None), Some(12));
        assert_eq!(number(0, 1, Some(0)), Some(13));
        assert_eq!(number(0, 14, Some(7)), Some(137));
        assert_eq!(number(1, 0, None), Some(138));
        assert_eq!(number(31, 14, Some(7)), Some(4322));
    }

    #[test]
    fn a_file_is_the_node_that_it_says() {
        let twelfth = of_part(12).expect("a node");
        let file = file(twelfth).expect("a file");
        let descriptor = named(file.as_fd(), &[twelfth]).expect("a node") as u64;
        assert_eq!(named(file.as_fd(), &[]), None);
        assert_eq!(expect(descriptor, Some(12)), Ok(()));
        let refused = Err(NV_ERR_INSUFFICIENT_PERMISSIONS);
        assert_eq!(expect(descriptor, Some(13)), refused);
        assert_eq!(expect(12, Some(12)), refused);
        assert_eq!(expect(u64::MAX, Some(12)), refused);
        let other = memory_file("other").expect("a file");
        assert_eq!(named(other.as_fd(), &[twelfth]), None);
    }

    #[test]
    fn what_is_not_there_is_refused_before_the_descriptor() {
        let shown = |number: u16| (NAMED + i32::from(number)) as u64;
        assert_eq!(instance(0, 1, shown(12)), Ok(()));
        assert_eq!(instance(0, 3, shown(30)), Err(NV_ERR_INVALID_ARGUMENT));
        assert_eq!(compute(0, 1, 0, shown(13)), Ok(()));
        assert_eq!(compute(0, 1, 1, shown(14)), Err(NV_ERR_INVALID_ARGUMENT));
        let refused = Err(NV_ERR_INSUFFICIENT_PERMISSIONS);
        assert_eq!(compute(0, 1, 0, shown(12)), refused);
        assert_eq!(instance(1, 1, shown(12)), refused);
    }
}
