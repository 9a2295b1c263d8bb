//! The pages that are made for a pin: one for an instruction, and those behind it for the parameters.
//!
//! They are private, and at an address that nobody could foresee. Only those of the parameters can be written to.

use nix::errno::Errno;
use nvproxy_abi::plan::Plan;
use nvproxy_protocol::requests::errno_of;
use ringfence_faults::{Act, Point, at_task};

use super::Pin;
use crate::arch::{ADDRESSES, PAGE};
use crate::tracee::Calls;

/// Memory that no other process has.
const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Pages that were made for a pin: an instruction's, and those of the parameters.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub start: u64,
    pub length: u64,
}

impl Pages {
    /// Where the parameters go.
    pub fn parameters(self) -> u64 {
        self.start + PAGE
    }
}

impl Pin<'_> {
    /// Has `maker` map fresh pages for so many bytes of parameters, at an address that nobody could foresee: when a task
    /// that is held is killed, the kernel writes on its behalf to addresses that it was told before (set_tid_address(2),
    /// get_robust_list(2)).
    pub(super) fn map(&self, maker: &mut Calls<'_>, length: u64) -> Result<Pages, Errno> {
        /// A hit on what is mapped already is rare, unless nearly everything is.
        const TRIES: usize = 16;
        let length = PAGE + length.next_multiple_of(PAGE);
        let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let is_foreseeable =
            at_task(Point::PinPage, self.notification.task.as_raw()) == Some(Act::Drop);
        for _ in 0..TRIES {
            // A test leaves the choice to the kernel, to show that it would notice.
            let (address, fixed) = match is_foreseeable {
                true => (0, 0),
                false => (random_page()?, libc::MAP_FIXED_NOREPLACE),
            };
            let flags = (PRIVATE | fixed) as u64;
            let arguments = [address, length, protection, flags, u64::MAX, 0];
            match maker.call(libc::SYS_mmap, arguments)? {
                start @ 1.. if is_foreseeable || start as u64 == address => {
                    let start = start as u64;
                    return Ok(Pages { start, length });
                }
                // Only a filter of the program's answers so.
                0.. => return Err(Errno::EPERM),
                failure => match errno_of(-failure as i32) {
                    Errno::EEXIST => {}
                    errno => return Err(errno),
                },
            }
        }
        Err(Errno::ENOMEM)
    }

    /// Has a thread make its calls by an instruction on the first page from now on, which no write of the kernel's on
    /// anybody's behalf alters: it is not writable.
    pub(super) fn have_call_from(&self, calls: &mut Calls<'_>, pages: Pages) -> Result<(), Errno> {
        // A test has the program's own instruction used, to show that it would notice.
        match at_task(Point::PinCode, self.notification.task.as_raw()) {
            Some(Act::Drop) => Ok(()),
            _ => calls.call_from(pages.start),
        }
    }

    /// Has the helper make the other pages writable, by that instruction.
    pub(super) fn make_writable(&self, calls: &mut Calls<'_>, pages: Pages) -> Result<(), Errno> {
        self.have_call_from(calls, pages)?;
        let (address, length) = (pages.parameters(), pages.length - PAGE);
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (PRIVATE | libc::MAP_FIXED) as u64;
        let arguments = [address, length, protection, flags, u64::MAX, 0];
        match calls.call(libc::SYS_mmap, arguments)? {
            mapped @ 0.. if mapped as u64 == address => Ok(()),
            0.. => Err(Errno::EPERM),
            failure => Err(errno_of(-failure as i32)),
        }
    }
}

/// The address of a page, chosen at random from those that a program has, less what vm.mmap_min_addr usually keeps back and as
/// much at the upper end, where a stack is.
fn random_page() -> Result<u64, Errno> {
    const FIRST: u64 = 1 << 16;
    const END: u64 = ADDRESSES - (1 << 16);
    let mut bytes = [0; 8];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(8) => Ok((FIRST + u64::from_ne_bytes(bytes) % (END - FIRST)) / PAGE * PAGE),
        Ok(_) => Err(Errno::EIO),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    }
}

/// Lets the pointers in `payload` point to where their buffers will lie at `page`; returns what stood there.
pub(super) fn relocate(plan: &Plan, page: u64, payload: &mut [u8]) -> Vec<(usize, u64)> {
    let mut originals = Vec::new();
    for segment in &plan.segments {
        let Some(at) = segment.pointer_at else {
            continue;
        };
        let original = put_address(payload, at as usize, page + u64::from(segment.offset));
        originals.extend(original.map(|original| (at as usize, original)));
    }
    originals
}

/// Returns what stood there.
pub(super) fn put_address(payload: &mut [u8], at: usize, address: u64) -> Option<u64> {
    let field = payload.get_mut(at..)?.first_chunk_mut::<8>()?;
    Some(u64::from_ne_bytes(std::mem::replace(
        field,
        address.to_ne_bytes(),
    )))
}
