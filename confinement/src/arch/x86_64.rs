//! x86-64.

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;

/// `__X32_SYSCALL_BIT` of asm/unistd.h: the system calls of the x32 architecture have this number or a higher one.
pub(crate) const FIRST_FOREIGN: u32 = 0x4000_0000;
