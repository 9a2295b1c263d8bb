//! x86-64.

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;

/// `__X32_SYSCALL_BIT` of asm/unistd.h: the system calls of the x32 architecture have this number or a higher one.
pub(crate) const FIRST_FOREIGN: u32 = 0x4000_0000;

/// System calls that newer architectures lack, by name: the C library makes them here.
pub const OLDER_CALLS: &[(&str, libc::c_long)] = &[
    ("access", libc::SYS_access),
    ("arch_prctl", libc::SYS_arch_prctl),
    ("dup2", libc::SYS_dup2),
    ("epoll_wait", libc::SYS_epoll_wait),
    ("fork", libc::SYS_fork),
    ("getrlimit", libc::SYS_getrlimit),
    ("mkdir", libc::SYS_mkdir),
    ("mknod", libc::SYS_mknod),
    ("open", libc::SYS_open),
    ("poll", libc::SYS_poll),
    ("readlink", libc::SYS_readlink),
    ("stat", libc::SYS_stat),
    ("time", libc::SYS_time),
    ("unlink", libc::SYS_unlink),
    ("vfork", libc::SYS_vfork),
];
