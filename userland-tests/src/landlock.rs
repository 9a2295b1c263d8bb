//! What Landlock of this kernel can do. Some promises rest on it, and docs/THREAT_MODEL.md says what is left of them without:
//! a test of such a promise asks here and asserts what is said of a kernel like this one.
//!
//! `unsafe` is here for a system call that has no wrapper.

#![allow(unsafe_code)]

/// What a promise may rest on, with the version of Landlock's interface that has it (landlock(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// That there is any: opening files to write them can be forbidden (Linux 5.13).
    Files = 1,
    /// ioctl can be withheld on devices (Linux 6.10).
    IoctlDev = 5,
    /// Signals and abstract sockets can be kept within a domain (Linux 6.12).
    Scopes = 6,
}

impl Landlock {
    /// Whether this kernel has it, and was started with it.
    pub fn is_there(self) -> bool {
        const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
        // SAFETY: asked for the version, the call takes no pointer.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<u8>(),
                0,
                LANDLOCK_CREATE_RULESET_VERSION,
            )
        };
        version >= self as libc::c_long
    }
}
