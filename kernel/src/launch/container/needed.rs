//! The system calls that Ringfence's own processes make in a container.
//!
//! The idea: between the low-level runtime's installing of the engine's seccomp profile and the program, everything in the container is
//! Ringfence's: the start of the first process and of what starts a further program, the sentry with its threads, and the
//! process that stands in for a further program. What a profile refuses of these calls `profile.rs` opens.
//!
//! The list may have a call too many: then a call is opened that nobody makes, and is closed again for the program. One that it lacks
//! keeps containers from starting whose profile refuses it.

use ringfence_confinement::OLDER_CALLS;

/// A call's name, as profiles have it, and its number.
pub type Call = (&'static str, libc::c_long);

macro_rules! calls {
    ($($name:ident = $number:ident),* $(,)?) => {
        &[$((stringify!($name), libc::$number)),*]
    };
}

/// Those of every architecture, in this order: the start of a process and its threads, descriptors and files, memory, namespaces and
/// mounts, other tasks, signals and time, sockets.
const EVERYWHERE: &[Call] = calls![
    brk = SYS_brk,
    capget = SYS_capget,
    capset = SYS_capset,
    clone = SYS_clone,
    clone3 = SYS_clone3,
    execve = SYS_execve,
    execveat = SYS_execveat,
    exit = SYS_exit,
    exit_group = SYS_exit_group,
    getegid = SYS_getegid,
    geteuid = SYS_geteuid,
    getgid = SYS_getgid,
    getpid = SYS_getpid,
    getppid = SYS_getppid,
    getrandom = SYS_getrandom,
    gettid = SYS_gettid,
    getuid = SYS_getuid,
    prctl = SYS_prctl,
    prlimit64 = SYS_prlimit64,
    restart_syscall = SYS_restart_syscall,
    rseq = SYS_rseq,
    sched_getaffinity = SYS_sched_getaffinity,
    sched_setaffinity = SYS_sched_setaffinity,
    sched_yield = SYS_sched_yield,
    seccomp = SYS_seccomp,
    set_robust_list = SYS_set_robust_list,
    set_tid_address = SYS_set_tid_address,
    setsid = SYS_setsid,
    uname = SYS_uname,
    wait4 = SYS_wait4,
    waitid = SYS_waitid,
    futex = SYS_futex,
    getcpu = SYS_getcpu,
    chdir = SYS_chdir,
    close = SYS_close,
    close_range = SYS_close_range,
    dup = SYS_dup,
    dup3 = SYS_dup3,
    eventfd2 = SYS_eventfd2,
    epoll_create1 = SYS_epoll_create1,
    epoll_ctl = SYS_epoll_ctl,
    epoll_pwait = SYS_epoll_pwait,
    faccessat = SYS_faccessat,
    faccessat2 = SYS_faccessat2,
    fallocate = SYS_fallocate,
    fchdir = SYS_fchdir,
    fcntl = SYS_fcntl,
    fstat = SYS_fstat,
    fstatfs = SYS_fstatfs,
    ftruncate = SYS_ftruncate,
    getdents64 = SYS_getdents64,
    inotify_add_watch = SYS_inotify_add_watch,
    inotify_init1 = SYS_inotify_init1,
    inotify_rm_watch = SYS_inotify_rm_watch,
    ioctl = SYS_ioctl,
    lseek = SYS_lseek,
    memfd_create = SYS_memfd_create,
    memfd_secret = SYS_memfd_secret,
    mkdirat = SYS_mkdirat,
    mknodat = SYS_mknodat,
    newfstatat = SYS_newfstatat,
    openat = SYS_openat,
    openat2 = SYS_openat2,
    pipe2 = SYS_pipe2,
    ppoll = SYS_ppoll,
    pread64 = SYS_pread64,
    pwrite64 = SYS_pwrite64,
    read = SYS_read,
    readlinkat = SYS_readlinkat,
    readv = SYS_readv,
    statfs = SYS_statfs,
    statx = SYS_statx,
    unlinkat = SYS_unlinkat,
    write = SYS_write,
    writev = SYS_writev,
    madvise = SYS_madvise,
    mmap = SYS_mmap,
    mprotect = SYS_mprotect,
    mremap = SYS_mremap,
    munmap = SYS_munmap,
    chroot = SYS_chroot,
    fsconfig = SYS_fsconfig,
    fsmount = SYS_fsmount,
    fsopen = SYS_fsopen,
    landlock_add_rule = SYS_landlock_add_rule,
    landlock_create_ruleset = SYS_landlock_create_ruleset,
    landlock_restrict_self = SYS_landlock_restrict_self,
    mount = SYS_mount,
    mount_setattr = SYS_mount_setattr,
    move_mount = SYS_move_mount,
    open_tree = SYS_open_tree,
    setns = SYS_setns,
    umount2 = SYS_umount2,
    unshare = SYS_unshare,
    kcmp = SYS_kcmp,
    pidfd_getfd = SYS_pidfd_getfd,
    pidfd_open = SYS_pidfd_open,
    pidfd_send_signal = SYS_pidfd_send_signal,
    process_vm_readv = SYS_process_vm_readv,
    process_vm_writev = SYS_process_vm_writev,
    ptrace = SYS_ptrace,
    clock_gettime = SYS_clock_gettime,
    clock_nanosleep = SYS_clock_nanosleep,
    kill = SYS_kill,
    nanosleep = SYS_nanosleep,
    rt_sigaction = SYS_rt_sigaction,
    rt_sigprocmask = SYS_rt_sigprocmask,
    rt_sigreturn = SYS_rt_sigreturn,
    sigaltstack = SYS_sigaltstack,
    signalfd4 = SYS_signalfd4,
    tgkill = SYS_tgkill,
    timer_create = SYS_timer_create,
    timer_delete = SYS_timer_delete,
    timer_settime = SYS_timer_settime,
    accept4 = SYS_accept4,
    getsockname = SYS_getsockname,
    getsockopt = SYS_getsockopt,
    recvfrom = SYS_recvfrom,
    recvmsg = SYS_recvmsg,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    shutdown = SYS_shutdown,
    socketpair = SYS_socketpair,
];

/// All of them.
pub fn calls() -> impl Iterator<Item = Call> + Clone {
    EVERYWHERE.iter().chain(OLDER_CALLS).copied()
}

#[cfg(test)]
mod tests {
    use ringfence_confinement::policies;

    use super::*;

    #[test]
    fn what_the_sentry_may_call_is_in_the_list() {
        let rules = policies::SENTRY.rules.iter();
        let lacking: Vec<u32> = rules
            .map(|rule| rule.number)
            .filter(|number| calls().all(|(_, listed)| listed as u32 != *number))
            .collect();
        assert_eq!(lacking, [0; 0]);
    }
}
