//! What a thread is made to map for a pin: a page for an instruction, and one for the parameters.
//!
//! The first is mapped by an instruction of the program's, and nobody gains by knowing where it lies. Then the sentry's own is
//! used. So no code of the program's ever runs while the thread has the address of the second, which is chosen at random.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nvproxy_abi::plan::Plan;
use nvproxy_protocol::requests::errno_of;
use ringfence_faults::{Act, Point, at_task};

use super::Pin;
use super::expected::{What, number_of_code};
use super::parameters::Parameters;
use crate::arch::{ADDRESSES, PAGE};
use crate::tracee::{Calls, Helper, Stopped};

/// What is mapped: a descriptor's file or new memory, and how (mmap(2)).
pub(super) struct Mapping {
    descriptor: Option<RawFd>,
    protection: libc::c_int,
    sharing: libc::c_int,
}

impl Mapping {
    /// mmap(2)'s arguments; 0 leaves the address to the kernel.
    pub fn at(&self, address: u64) -> [u64; 6] {
        let anonymous = self.descriptor.map_or(libc::MAP_ANONYMOUS, |_| 0);
        let fixed = match address {
            0 => 0,
            _ => libc::MAP_FIXED_NOREPLACE,
        };
        let flags = self.sharing | anonymous | fixed;
        let file = self
            .descriptor
            .map_or(u64::MAX, |descriptor| descriptor as u64);
        [address, PAGE, self.protection as u64, flags as u64, file, 0]
    }
}

/// A hit on what is mapped already is rare, unless nearly everything is.
pub(super) const TRIES: usize = 16;

/// What a mapping that came to nothing means; nothing if another address is to be tried.
pub(super) fn expect_another(result: i64) -> Result<(), Errno> {
    match result {
        // Only a filter of the program's answers so.
        0.. => Err(Errno::EPERM),
        failure => match errno_of(-failure as i32) {
            Errno::EEXIST => Ok(()),
            // The program may lock no more memory.
            Errno::EAGAIN => Err(Errno::ENOMEM),
            errno => Err(errno),
        },
    }
}

impl Pin<'_> {
    /// Has `helper` map the page of the instructions, and go on by those. Returns where it lies.
    pub(super) fn map_code(
        &self,
        helper: &mut Helper<'_>,
        parameters: &Arc<Parameters>,
    ) -> Result<u64, Errno> {
        self.give_files(helper, parameters)?;
        // A test has a copy mapped, to show that it would notice.
        let sharing = match at_task(Point::PinShared, self.notification.task.as_raw()) {
            Some(Act::Drop) => libc::MAP_PRIVATE,
            _ => libc::MAP_SHARED,
        };
        let code = self.map(
            helper.calls(),
            random_page,
            &Mapping {
                descriptor: Some(number_of_code(self.descriptor())),
                protection: libc::PROT_READ | libc::PROT_EXEC,
                sharing,
            },
        )?;
        self.have_call_from(helper.calls(), code);
        Ok(code)
    }

    /// Has `helper` map the page of the parameters. Returns where it lies.
    pub(super) fn map_parameters<'a>(
        &self,
        stopped: &mut Stopped<'a>,
        helper: &mut Helper<'a>,
        parameters: &Parameters,
    ) -> Result<u64, Errno> {
        let task = self.notification.task.as_raw();
        let mapping = self.mapping_of(parameters);
        // A test has the caller map it, or leaves the choice to the kernel, to show that it would notice.
        let maker = match at_task(Point::PinMaker, task) {
            Some(Act::Drop) => stopped.calls(),
            _ => helper.calls(),
        };
        match at_task(Point::PinPage, task) {
            Some(Act::Drop) => self.map(maker, || Ok(0), &mapping),
            _ => self.map(maker, random_page, &mapping),
        }
    }

    /// The number of the descriptor that the program has made the request on.
    pub(super) fn descriptor(&self) -> RawFd {
        self.notification.arguments[0] as RawFd
    }

    pub(super) fn mapping_of(&self, parameters: &Parameters) -> Mapping {
        Mapping {
            descriptor: parameters.file().map(|_| self.descriptor()),
            protection: libc::PROT_READ | libc::PROT_WRITE,
            sharing: match parameters {
                Parameters::Secret(_) => libc::MAP_SHARED,
                Parameters::Private => libc::MAP_PRIVATE,
            },
        }
    }

    /// Has the helper make the call that a pin is, to be given what it is to map.
    fn give_files(
        &self,
        helper: &mut Helper<'_>,
        parameters: &Arc<Parameters>,
    ) -> Result<(), Errno> {
        let was_given = &self.sentry.pins.was_given;
        was_given.store(false, Ordering::SeqCst);
        self.have_called(helper, parameters, 0, What::Files)?;
        match was_given.load(Ordering::SeqCst) {
            true => Ok(()),
            // A filter of the program's has answered, or no descriptor may have such a number.
            false => Err(Errno::EPERM),
        }
    }

    /// Has `maker` map it at an address of this choice, and returns where it lies.
    ///
    /// When a task that is held is killed, the kernel writes on its behalf to addresses that it was told before
    /// (set_tid_address(2), get_robust_list(2)). So nobody is to foresee where parameters lie.
    ///
    /// That it returns an address means that the kernel has mapped what it was asked to: filters of the program's can answer
    /// with an error or 0 only.
    fn map(
        &self,
        maker: &mut Calls<'_>,
        choose: impl Fn() -> Result<u64, Errno>,
        mapping: &Mapping,
    ) -> Result<u64, Errno> {
        for _ in 0..TRIES {
            let address = choose()?;
            match maker.call(libc::SYS_mmap, mapping.at(address))? {
                start @ 1.. if address == 0 || start as u64 == address => return Ok(start as u64),
                result => expect_another(result)?,
            }
        }
        Err(Errno::ENOMEM)
    }

    /// Has a thread make its calls by the sentry's instruction from now on.
    fn have_call_from(&self, calls: &mut Calls<'_>, code: u64) {
        // A test has the program's own instruction used, to show that it would notice.
        if at_task(Point::PinCode, self.notification.task.as_raw()) != Some(Act::Drop) {
            calls.call_from(code);
        }
    }

    /// Has the caller unmap `pages`, the one of the instruction, by which it does so, last.
    pub(super) fn unmap(
        &self,
        calls: &mut Calls<'_>,
        code: Option<u64>,
        pages: &[u64],
    ) -> Result<(), Errno> {
        if let Some(code) = code {
            self.have_call_from(calls, code);
        }
        for page in pages.iter().rev() {
            calls.call(libc::SYS_munmap, [*page, PAGE, 0, 0, 0, 0])?;
        }
        Ok(())
    }
}

/// The address of a page, chosen at random from those that a program has, less what vm.mmap_min_addr usually keeps back and as
/// much at the upper end, where a stack is.
pub(super) fn random_page() -> Result<u64, Errno> {
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
