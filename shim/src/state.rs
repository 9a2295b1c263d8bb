//! What the library keeps, in memory that a forked child finds empty.
//!
//! A child made by fork(2) has descriptors and a lane of its own to be, and nothing that the parent was about to do. The
//! kernel wipes the state for it (`MADV_WIPEONFORK`), and all bytes zero is the state of a process that has not begun. A
//! child made by vfork(2) shares the memory and not the descriptors; it is known by its process number, and left to the
//! trap.
//!
//! Who makes a request *claims* a slot, by one atomic operation, and takes the trap if there is none; so nobody waits.
//! Who changes the lane claims all slots. A thread that leaves a request by longjmp(3), while it sleeps for the
//! answer, keeps its slot for ever, and with it the lane that there is.
//!
//! `unsafe` is here because memory is obtained from the kernel, and because a claimed slot gives access to what is
//! otherwise shared.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nvproxy_abi::Abi;
use ringfence_ipc::Spin;
use ringfence_ipc::lane::{Lane, SLOT_BYTES, SLOTS, WORDS};

use crate::descriptors::Descriptors;
use crate::system;

const ALL: u32 = u32::MAX;
const _: () = assert!(SLOTS == u32::BITS as usize);

/// Never: see [`State::is_reluctant`].
pub const NEVER: u32 = u32::MAX;

/// Room for the payload of one request.
#[repr(C, align(8))]
struct Staging(UnsafeCell<[u8; SLOT_BYTES]>);

/// What is kept. All bytes zero is a state.
#[repr(C)]
pub struct State {
    /// The process whose descriptors are meant; 0 until it makes a request.
    owner: AtomicI32,
    /// A bit for each slot that is claimed.
    busy: AtomicU32,
    /// How many requests are to take the trap before another lane is asked for.
    reluctance: AtomicU32,
    /// Grows with every lane of this process.
    number: AtomicU32,
    /// The words of the lane; null without one.
    words: AtomicPtr<AtomicU64>,
    /// What the sentry calls the lane.
    name: AtomicU64,
    /// The lane is served no more.
    is_over: AtomicBool,
    /// How long to look for an answer before sleeping, in nanoseconds.
    spin: AtomicU64,
    /// What descriptor numbers are called in the lane.
    pub descriptors: Descriptors,
    staging: [Staging; SLOTS],
}

// SAFETY: all is atomic but the staging, each part of which belongs to whoever has claimed its slot.
unsafe impl Sync for State {}

/// The driver's tables. Not in the state, of which all bytes zero have to be a value.
struct Tables(UnsafeCell<MaybeUninit<Abi>>);

// SAFETY: written by who has claimed all slots, and read by who has claimed one, once there was a lane.
unsafe impl Sync for Tables {}

static TABLES: Tables = Tables(UnsafeCell::new(MaybeUninit::uninit()));
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

impl State {
    /// The state, which is made by the first who asks for it. `None` if the kernel does not give what it takes.
    pub fn get() -> Option<&'static State> {
        let mut state = STATE.load(Ordering::Acquire);
        if state.is_null() {
            let made = allocate()?;
            let first = STATE.compare_exchange(state, made, Ordering::AcqRel, Ordering::Acquire);
            state = match first {
                Ok(_) => made,
                Err(others) => {
                    // SAFETY: nobody knows of this one.
                    unsafe { unmap(made.cast(), size_of::<State>()) };
                    others
                }
            };
        }
        // SAFETY: it was made by `allocate`, and is never given back.
        Some(unsafe { &*state })
    }

    /// The state if there is one already.
    pub fn known() -> Option<&'static State> {
        // SAFETY: as in `get`.
        unsafe { STATE.load(Ordering::Acquire).as_ref() }
    }

    /// Whether the calling process is the one that this is the state of. The first who asks is.
    pub fn is_own(&self) -> bool {
        let process = system::process();
        let owner = &self.owner;
        let first = owner.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed);
        first.is_ok() || first == Err(process)
    }

    /// Claims a slot, if one is free.
    pub fn claim(&'static self) -> Option<Slot> {
        let free = |busy: u32| (busy != ALL).then(|| busy | busy.wrapping_add(1));
        let claimed = self
            .busy
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, free);
        let number = claimed.ok()?.trailing_ones() as usize;
        Some(Slot {
            state: self,
            number,
        })
    }

    /// Claims all slots, if all are free.
    pub fn claim_all(&'static self) -> Option<AllSlots> {
        let busy = &self.busy;
        let claimed = busy.compare_exchange(0, ALL, Ordering::Acquire, Ordering::Relaxed);
        // Not one that is dropped again because it was not had: that would free what others have claimed.
        claimed.is_ok().then(|| AllSlots { state: self })
    }

    /// Whether the process is to go on without a lane, because there was none to be had lately, or will never be.
    pub fn is_reluctant(&self) -> bool {
        self.reluctance.load(Ordering::Relaxed) != 0
    }

    /// Lets a request go by without asking for a lane.
    pub fn overcome_reluctance(&self) {
        let lower = |left| (left != NEVER && left != 0).then(|| left - 1);
        let relaxed = Ordering::Relaxed;
        let _ = self.reluctance.fetch_update(relaxed, relaxed, lower);
    }

    /// Whether there is a lane that is served, as far as this process knows.
    pub fn has_lane(&self) -> bool {
        !self.words.load(Ordering::Relaxed).is_null() && !self.is_over.load(Ordering::Relaxed)
    }
}

/// A slot that one thread has to itself, until this is dropped.
pub struct Slot {
    pub state: &'static State,
    pub number: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let busy = &self.state.busy;
        busy.fetch_and(!(1 << self.number), Ordering::Release);
    }
}

impl Slot {
    /// Whether the slot is still claimed. It is not in a child that a signal handler forked meanwhile: what was begun was
    /// begun by the parent.
    pub fn is_held(&self) -> bool {
        self.state.busy.load(Ordering::Relaxed) & 1 << self.number != 0
    }

    /// The lane, if there is one that is served; it stays there at least as long as the slot is claimed.
    pub fn lane(&self) -> Option<Lane<'_>> {
        if !self.state.has_lane() {
            return None;
        }
        let words = self.state.words.load(Ordering::Relaxed);
        // SAFETY: they are mapped as long as any slot is claimed, and are atomics, for which any bytes are a value and a
        // change by another process is no data race. They are not null, see above.
        let words = unsafe { slice::from_raw_parts(words, WORDS) };
        Lane::new(words)
    }

    /// The number of this process's lane.
    pub fn lane_number(&self) -> u16 {
        self.state.number.load(Ordering::Relaxed) as u16
    }

    /// What the sentry calls the lane.
    pub fn lane_name(&self) -> u64 {
        self.state.name.load(Ordering::Relaxed)
    }

    /// The lane is served no more.
    pub fn end_lane(&self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }

    /// How long to look for an answer before sleeping.
    pub fn spin(&self) -> Spin {
        Spin {
            duration: Duration::from_nanos(self.state.spin.load(Ordering::Relaxed)),
        }
    }

    /// The driver's tables. There has to be a lane.
    pub fn tables(&self) -> &'static Abi {
        // SAFETY: they were written before there was a lane, and are written again, if at all, by who has claimed all slots,
        // when no request is under way.
        unsafe { (*TABLES.0.get()).assume_init_ref() }
    }

    /// The lane, if there is one that is served, and room for the payload.
    pub fn lane_and_staging(&mut self) -> Option<(Lane<'_>, &[u8; SLOT_BYTES])> {
        let index = self.number % SLOTS;
        // SAFETY: as in `staging`.
        let staging = unsafe { &*self.state.staging[index].0.get() };
        Some((self.lane()?, staging))
    }

    /// Room for the payload.
    pub fn staging(&mut self) -> &mut [u8; SLOT_BYTES] {
        let index = self.number % SLOTS;
        // SAFETY: it belongs to the slot, which belongs to this value, which is borrowed.
        unsafe { &mut *self.state.staging[index].0.get() }
    }
}

/// All slots, and so the right to change the lane, until this is dropped.
pub struct AllSlots {
    pub state: &'static State,
}

impl Drop for AllSlots {
    fn drop(&mut self) {
        self.state.busy.store(0, Ordering::Release);
    }
}

impl AllSlots {
    /// Asks for no lane before so many requests have taken the trap.
    pub fn be_reluctant(&self, requests: u32) {
        self.state.reluctance.store(requests, Ordering::Relaxed);
    }

    /// Gives up the lane that there is.
    pub fn forget_lane(&self) {
        let words = self.state.words.swap(ptr::null_mut(), Ordering::Relaxed);
        if !words.is_null() {
            // SAFETY: nobody has a slot, and so nobody has a reference to them.
            unsafe { unmap(words.cast(), WORDS * size_of::<AtomicU64>()) };
        }
    }

    /// Takes up a lane, whose words are mapped at `words` and stay there until it is forgotten.
    ///
    /// # Safety
    ///
    /// There are [`WORDS`] of them, and nothing else refers to them in this process.
    pub unsafe fn take_up(&self, words: *mut AtomicU64, name: u64, tables: Abi) {
        let state = self.state;
        // SAFETY: nobody has a slot, and so nobody reads the tables.
        unsafe { (*TABLES.0.get()).write(tables) };
        let spin = Spin::for_processors(system::processors());
        state
            .spin
            .store(spin.duration.as_nanos() as u64, Ordering::Relaxed);
        state.name.store(name, Ordering::Relaxed);
        state.number.fetch_add(1, Ordering::Relaxed);
        state.is_over.store(false, Ordering::Relaxed);
        state.words.store(words, Ordering::Relaxed);
    }
}

/// Memory for a state. A page takes memory once it is touched.
fn allocate() -> Option<*mut State> {
    let (length, protection) = (size_of::<State>(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing.
    let made = unsafe {
        let arguments = [
            0,
            length,
            protection as usize,
            flags as usize,
            usize::MAX,
            0,
        ];
        system::call(libc::SYS_mmap, arguments)
    };
    let made = usize::try_from(made).ok()? as *mut State;
    // SAFETY: this is the mapping that was just made.
    unsafe {
        let wipe = libc::MADV_WIPEONFORK as usize;
        let arguments = [made as usize, length.next_multiple_of(4096), wipe, 0, 0, 0];
        if system::call(libc::SYS_madvise, arguments) < 0 {
            unmap(made.cast(), length);
            return None;
        }
    }
    Some(made)
}

/// # Safety
///
/// It is a mapping to which nothing refers any more.
unsafe fn unmap(start: *mut u8, length: usize) {
    // SAFETY: as the caller promises.
    unsafe { system::call(libc::SYS_munmap, [start as usize, length, 0, 0, 0, 0]) };
}
