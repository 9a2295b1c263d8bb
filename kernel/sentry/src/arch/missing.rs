//! An architecture that has no file: the build ends. Everything else can be checked on it nevertheless
//! (`.ci/architectures`). What the items are is said in `x86_64.rs`.

use libc::ucontext_t;
use nix::errno::Errno;
use nix::unistd::Pid;

#[cfg(not(check_missing_architecture))]
compile_error!("ringfence-sentry has no file in arch/ for this architecture");

pub const PAGE: u64 = 4096;
pub const ADDRESSES: u64 = 1 << 47;
pub const OPEN: Option<libc::c_long> = None;
pub const VFORK: Option<libc::c_long> = None;
pub const SYSTEM_CALL: [u8; 4] = [0; 4];
pub const INSTRUCTIONS: [u8; 8] = [0; 8];
pub const SEQUENCE: [u8; 8] = [0; 8];
pub const SEQUENCE_AT: usize = 8;
pub const RESULT_AT: usize = 4088;

#[derive(Clone, Copy)]
pub struct Registers;

impl Registers {
    pub fn of(_: Pid) -> Result<Registers, Errno> {
        Err(Errno::ENOSYS)
    }

    pub fn give(self, _: Pid) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    pub fn issuing(self, _: u64, _: [u64; 6], _: u64, _: u64) -> Registers {
        self
    }

    pub fn instruction(&self) -> u64 {
        0
    }

    pub fn calling(self, _: u64, _: libc::c_long, _: [u64; 6]) -> Registers {
        self
    }

    pub fn makes(&self, _: u64, _: libc::c_long, _: [u64; 6]) -> bool {
        false
    }

    pub fn result(&self) -> i64 {
        0
    }

    pub fn returning(self, _: i64) -> Registers {
        self
    }
}

pub fn call_of(_: &ucontext_t) -> (libc::c_long, u64) {
    (0, 0)
}

pub fn next_of(_: &ucontext_t) -> *const [u8; SYSTEM_CALL.len()] {
    std::ptr::null()
}

pub fn pass_call(_: &mut ucontext_t, _: i64) {}
