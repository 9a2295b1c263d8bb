//! What a task's filter says to the calls that matter.

use libc::c_long;
use ringfence_confinement::interpreter::{Call, run};
use ringfence_confinement::{Table, Verdict, policies};

fn on(call: Call) -> Verdict {
    let tables = [
        ("driver_words", &[0x10_0029, 0x20_002a, 0x30_002b][..]),
        ("driver_numbers", &[0x5f, 0xc8]),
        ("uvm_words", &[0x3000_0001]),
        ("words_let_run", &[]),
    ];
    let tables = tables.map(|(name, numbers)| Table { name, numbers });
    let program = policies::TASK.compile(&tables).expect("a program");
    run(&program, &call).expect("a verdict")
}

fn native(number: c_long, arguments: [u64; 6]) -> Verdict {
    on(Call::native(number, arguments))
}

const MISSING: Verdict = Verdict::Errno(libc::ENOSYS as u16);

#[test]
fn driver_ioctls_notify_and_others_run() {
    let ioctl = |request: u64| native(libc::SYS_ioctl, [3, request, 0x1000, 0, 0, 0]);
    // RM_CONTROL; the upper half of the register is not part of an ioctl's number.
    assert_eq!(ioctl(0xc020_462a), Verdict::Notify);
    assert_eq!(ioctl(0xffff_ffff_c020_462a), Verdict::Notify);
    assert_eq!(ioctl(0x3000_0001), Verdict::Notify);
    assert_eq!(ioctl(0x25), Verdict::Notify);
    assert_eq!(ioctl(0x137), Verdict::Notify);
    assert_eq!(ioctl(libc::TCGETS), Verdict::Allow);
    assert_eq!(ioctl(libc::FIONREAD), Verdict::Allow);
    // FIGETBSZ, FICLONE, FICLONERANGE, FIDEDUPERANGE and FS_IOC_FIEMAP: no driver sees them.
    for word in [2, 0x4004_9409, 0x4020_940d, 0xc018_9436, 0xc020_660b] {
        assert_eq!(ioctl(word), Verdict::Allow, "{word:#x}");
    }
}

/// The driver looks neither at the type nor at the direction.
#[test]
fn driver_ioctls_notify_whatever_their_type() {
    let ioctl = |request: u32| native(libc::SYS_ioctl, [3, request.into(), 0x1000, 0, 0, 0]);
    for kind in 0..=255u32 {
        for direction in 0..4 {
            let word = |number: u32, size: u32| direction << 30 | size << 16 | kind << 8 | number;
            assert_eq!(ioctl(word(0x2a, 32)), Verdict::Notify, "{kind:#x}");
            assert_eq!(ioctl(word(0x5f, 0)), Verdict::Notify, "{kind:#x}");
            assert_eq!(ioctl(word(0xc8, 72)), Verdict::Notify, "{kind:#x}");
            // What the driver refuses for its size, if it is not of its own type, and no number of UVM's.
            if kind != 0x46 && kind > 1 {
                assert_ne!(ioctl(word(0x2a, 44)), Verdict::Notify, "{kind:#x}");
            }
        }
    }
}

#[test]
fn opens_for_reading_and_writing_notify() {
    let openat = |flags: i32| native(libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
    let open = |flags: i32| native(libc::SYS_open, [0, flags as u64, 0, 0, 0, 0]);
    for with in [0, libc::O_CLOEXEC, libc::O_NONBLOCK, libc::O_NOFOLLOW] {
        assert_eq!(openat(libc::O_RDWR | with), Verdict::Notify, "{with:#x}");
    }
    assert_eq!(openat(libc::O_RDONLY), Verdict::Allow);
    assert_eq!(openat(libc::O_WRONLY | libc::O_CREAT), Verdict::Allow);
    assert_eq!(open(libc::O_RDWR), Verdict::Notify);
    assert_eq!(open(libc::O_RDONLY), Verdict::Allow);
    assert_eq!(constant(libc::SYS_openat2), MISSING);
    // Pages that are mapped get into no pipe.
    let invalid = Verdict::Errno(libc::EINVAL as u16);
    assert_eq!(constant(libc::SYS_vmsplice), invalid);
}

/// What is stopped can be interrupted, and these calls cannot fail so outside.
#[test]
fn what_no_node_is_opened_with_and_an_end_are_not_stopped() {
    use libc::{O_APPEND, O_CREAT, O_DIRECT, O_DIRECTORY, O_PATH, O_RDWR, O_TMPFILE, O_TRUNC};
    for with in [
        O_CREAT,
        O_TRUNC,
        O_APPEND,
        O_DIRECT,
        O_DIRECTORY,
        O_PATH,
        O_TMPFILE,
    ] {
        let flags = (O_RDWR | with | libc::O_CLOEXEC) as u64;
        let opens = [
            native(libc::SYS_open, [0, flags, 0, 0, 0, 0]),
            native(libc::SYS_openat, [0, 0, flags, 0, 0, 0]),
        ];
        assert_eq!(opens, [Verdict::Allow; 2], "{with:#x}");
    }
    assert_eq!(constant(libc::SYS_exit_group), Verdict::Allow);
    assert_eq!(constant(libc::SYS_exit), Verdict::Allow);
}

#[test]
fn no_file_becomes_set_user_id_or_set_group_id() {
    for mode in [0o4755, 0o2755, 0o6000, 0o10_4755, 0o755, 0o1777, 0o10_0644] {
        let expected = match mode & 0o6000 {
            0 => Verdict::Allow,
            _ => REFUSED,
        };
        // In the lower half of a register, whatever the upper half is.
        let at = |place: usize, flags: Option<(usize, libc::c_int)>| {
            let mut arguments = [0xffff_ffff_0000_0000; 6];
            arguments[place] |= mode;
            if let Some((place, flags)) = flags {
                arguments[place] |= flags as u32 as u64;
            }
            arguments
        };
        for call in [
            libc::SYS_chmod,
            libc::SYS_fchmod,
            libc::SYS_creat,
            libc::SYS_mknod,
        ] {
            assert_eq!(native(call, at(1, None)), expected, "{call} {mode:o}");
        }
        for call in [libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_mknodat] {
            assert_eq!(native(call, at(2, None)), expected, "{call} {mode:o}");
        }
        for (call, place) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
            let verdict = |flags| native(call, at(place + 1, Some((place, flags))));
            assert_eq!(verdict(libc::O_WRONLY | libc::O_CREAT), expected);
            let made = verdict(libc::O_RDWR | libc::O_TMPFILE);
            assert_eq!(made == REFUSED, expected == REFUSED);
            // Where nothing is made the register can hold anything.
            assert_eq!(verdict(libc::O_DIRECTORY), Verdict::Allow);
        }
    }
}

#[test]
fn ways_around_are_missing() {
    assert_eq!(native(libc::SYS_io_uring_setup, [0; 6]), MISSING);
    assert_eq!(native(libc::SYS_io_uring_enter, [0; 6]), MISSING);
    assert_eq!(native(libc::SYS_getpid, [0; 6]), Verdict::Allow);
    let i386 = Call {
        machine: 0x4000_0003,
        number: 54,
        arguments: [0; 6],
    };
    assert_eq!(on(i386), MISSING, "i386 ioctl");
    assert_eq!(native(0x4000_0000 | 514, [0; 6]), MISSING, "x32 ioctl");
}

const REFUSED: Verdict = Verdict::Errno(libc::EPERM as u16);

/// A call whose verdict does not depend on its arguments.
fn constant(number: c_long) -> Verdict {
    let verdict = native(number, [0; 6]);
    assert_eq!(native(number, [u64::MAX; 6]), verdict, "{number}");
    verdict
}

#[test]
fn what_programs_need_runs_whatever_its_arguments() {
    for call in [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_mmap,
        libc::SYS_poll,
        libc::SYS_futex,
        libc::SYS_execve,
        libc::SYS_newfstatat,
        libc::SYS_prctl,
        libc::SYS_ptrace,
        libc::SYS_rseq,
        libc::SYS_process_vm_readv,
        libc::SYS_faccessat2,
        libc::SYS_mseal,
        libc::SYS_get_mempolicy,
        libc::SYS_set_mempolicy,
        libc::SYS_set_mempolicy_home_node,
        libc::SYS_mbind,
        libc::SYS_move_pages,
        libc::SYS_migrate_pages,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_madvise,
    ] {
        assert_eq!(constant(call), Verdict::Allow, "{call}");
    }
}

#[test]
fn what_administers_the_machine_is_refused() {
    for call in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_open_by_handle_at,
    ] {
        assert_eq!(constant(call), REFUSED, "{call}");
    }
}

#[test]
fn what_is_newer_than_the_list_is_missing() {
    assert_eq!(constant(libc::SYS_clone3), MISSING);
    // The numbers of obsolete calls, of those past the last that the list knows, and of none.
    for number in [libc::SYS__sysctl, 470, 511, 0x3fff_ffff] {
        assert_eq!(constant(number), MISSING, "{number}");
    }
}

#[test]
fn clones_make_no_namespaces() {
    let clone = |flags: libc::c_int| native(libc::SYS_clone, [flags as u32 as u64, 0, 0, 0, 0, 0]);
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
    assert_eq!(clone(thread | libc::CLONE_SIGHAND), Verdict::Allow);
    assert_eq!(clone(libc::SIGCHLD), Verdict::Allow);
    for namespace in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        assert_eq!(clone(libc::SIGCHLD | namespace), REFUSED, "{namespace:#x}");
    }
}

/// Of what unshare(2) can end the sharing of, namespaces are not among what may be.
#[test]
fn unsharing_makes_no_namespaces() {
    let unshare = |flags: u64| native(libc::SYS_unshare, [flags, 0, 0, 0, 0, 0]);
    let shared = [libc::CLONE_FS, libc::CLONE_FILES, libc::CLONE_SYSVSEM];
    let shared = shared.map(|flag| flag as u64);
    for bit in 0..32 {
        let flag = 1 << bit;
        let expected = match shared.contains(&flag) {
            true => Verdict::Allow,
            false => REFUSED,
        };
        assert_eq!(unshare(flag), expected, "{flag:#x}");
        assert_eq!(unshare(flag | shared[0]), expected, "{flag:#x}");
    }
}

#[test]
fn sockets_are_of_families_that_programs_use() {
    let of = |call, family: libc::c_int, protocol: libc::c_int| {
        let kind = libc::SOCK_STREAM as u64;
        native(call, [family as u64, kind, protocol as u64, 0, 0, 0])
    };
    let socket = |family| of(libc::SYS_socket, family, 0);
    for family in [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ] {
        assert_eq!(socket(family), Verdict::Allow, "{family}");
    }
    let unsupported = Verdict::Errno(libc::EAFNOSUPPORT as u16);
    for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_TIPC] {
        assert_eq!(socket(family), unsupported, "{family}");
    }
    let netlink = |protocol| of(libc::SYS_socket, libc::AF_NETLINK, protocol);
    assert_eq!(netlink(libc::NETLINK_ROUTE), Verdict::Allow);
    for protocol in [
        libc::NETLINK_NETFILTER,
        libc::NETLINK_GENERIC,
        libc::NETLINK_XFRM,
        -1,
    ] {
        let expected = Verdict::Errno(libc::EPROTONOSUPPORT as u16);
        assert_eq!(netlink(protocol), expected, "{protocol}");
    }
    let pair = |family| of(libc::SYS_socketpair, family, 0);
    assert_eq!(pair(libc::AF_UNIX), Verdict::Allow);
    for family in [libc::AF_INET, libc::AF_TIPC, libc::AF_NETLINK] {
        let expected = Verdict::Errno(libc::EOPNOTSUPP as u16);
        assert_eq!(pair(family), expected, "{family}");
    }
}

/// Other protocols have the host load a module.
#[test]
fn sockets_of_the_internet_are_of_protocols_that_programs_use() {
    use libc::{AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
    let known = [
        (AF_INET, SOCK_STREAM, 0),
        (AF_INET, SOCK_STREAM, libc::IPPROTO_TCP),
        (AF_INET, SOCK_STREAM, libc::IPPROTO_MPTCP),
        (AF_INET, SOCK_DGRAM, 0),
        (AF_INET, SOCK_DGRAM, libc::IPPROTO_UDP),
        (AF_INET, SOCK_DGRAM, libc::IPPROTO_ICMP),
        (AF_INET6, SOCK_STREAM, 0),
        (AF_INET6, SOCK_STREAM, libc::IPPROTO_TCP),
        (AF_INET6, SOCK_STREAM, libc::IPPROTO_MPTCP),
        (AF_INET6, SOCK_DGRAM, 0),
        (AF_INET6, SOCK_DGRAM, libc::IPPROTO_UDP),
        (AF_INET6, SOCK_DGRAM, libc::IPPROTO_ICMPV6),
    ];
    for family in [AF_INET, AF_INET6] {
        // Of the types there is SOCK_PACKET, too, which the kernel takes for another family.
        for kind in 0..16 {
            // Among them those of IGMP, DCCP, L2TP, PIM, SCTP, UDP-Lite, raw packets and SMC.
            for protocol in [
                0, 1, 2, 6, 17, 33, 58, 103, 115, 132, 136, 255, 256, 262, -1, 0x1_0000,
            ] {
                let expected = match kind {
                    _ if known.contains(&(family, kind, protocol)) => Verdict::Allow,
                    SOCK_RAW => REFUSED,
                    _ => Verdict::Errno(libc::EPROTONOSUPPORT as u16),
                };
                for flags in [0, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK] {
                    let arguments = [family, kind | flags, protocol, 0, 0, 0];
                    let wide = arguments.map(|argument| argument as u32 as u64 | 7 << 32);
                    assert_eq!(native(libc::SYS_socket, wide), expected, "{arguments:?}");
                }
            }
        }
    }
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let arguments = [libc::AF_UNIX as u64, kind as u64, 0, 0, 0, 0];
        assert_eq!(native(libc::SYS_socket, arguments), Verdict::Allow);
    }
}

/// What has the host load modules, and what only one file system knows, or one kind of device.
#[test]
fn sockets_and_files_are_asked_for_what_all_know() {
    let ioctl = |word: u32| native(libc::SYS_ioctl, [3, word.into(), 0x1000, 0, 0, 0]);
    let unknown = Verdict::Errno(libc::ENOTTY as u16);
    // SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR, SIOCBRDELBR; SIOCGIFVLAN, SIOCSIFVLAN; SIOCDEVPRIVATE, and one of no meaning.
    for word in [
        0x8940, 0x8941, 0x89a0, 0x89a1, 0x8982, 0x8983, 0x89f0, 0x89ff,
    ] {
        assert_eq!(ioctl(word), unknown, "{word:#x}");
    }
    // SIOCGIFCONF, SIOCGIFHWADDR, SIOCETHTOOL, SIOCGSTAMP_NEW.
    for word in [0x8912, 0x8927, 0x8946, 0x8010_8906] {
        assert_eq!(ioctl(word), Verdict::Allow, "{word:#x}");
    }
    // FS_IOC_SET_ENCRYPTION_POLICY, FS_IOC_ADD_ENCRYPTION_KEY, FS_IOC_REMOVE_ENCRYPTION_KEY; BTRFS_IOC_SNAP_CREATE and _V2,
    // BTRFS_IOC_SNAP_DESTROY and _V2, BTRFS_IOC_SUBVOL_CREATE; EXT4_IOC_MOVE_EXT; LOOP_CLR_FD; TUNSETIFF; NS_GET_NSTYPE.
    for word in [
        0x800c_6613,
        0xc050_6617,
        0xc040_6618,
        0x5000_9401,
        0x5000_9417,
        0x5000_940f,
        0x5000_943f,
        0x5000_940e,
        0xc028_660f,
        0x4c01,
        0x4004_54ca,
        0xb703,
    ] {
        assert_eq!(ioctl(word), unknown, "{word:#x}");
    }
    // FS_IOC_GETFLAGS, FS_IOC_FSSETXATTR, BLKGETSIZE64, TCGETS2, TIOCGPTN, TIOCGPTPEER, SECCOMP_IOCTL_NOTIF_RECV.
    for word in [
        0x8008_6601,
        0x401c_5820,
        0x8008_1272,
        0x802c_542a,
        0x8004_5430,
        0x5441,
        0xc050_2100,
    ] {
        assert_eq!(ioctl(word), Verdict::Allow, "{word:#x}");
    }
    let set = |level: libc::c_int, option: u64| {
        native(
            libc::SYS_setsockopt,
            [3, level as u64, option, 0x1000, 16, 0],
        )
    };
    let unknown = Verdict::Errno(libc::ENOPROTOOPT as u16);
    // TCP_MD5SIG, TCP_ULP, TCP_MD5SIG_EXT, TCP_AO_ADD_KEY; of other levels these are others.
    for option in [14, 31, 32, 38] {
        assert_eq!(set(libc::IPPROTO_TCP, option), unknown);
        assert_eq!(set(libc::SOL_SOCKET, option), Verdict::Allow);
    }
    let nodelay = set(libc::IPPROTO_TCP, libc::TCP_NODELAY as u64);
    assert_eq!(nodelay, Verdict::Allow);
}

/// The limit by which nobody is told of a crash.
#[test]
fn the_limit_of_core_files_stays() {
    const DONE: Verdict = Verdict::Errno(0);
    let core = libc::RLIMIT_CORE as u64;
    let files = libc::RLIMIT_NOFILE as u64;
    let wide = |low: u64| low | 0xffff_ffff_0000_0000;
    for (resource, expected) in [(core, DONE), (wide(core), DONE), (files, Verdict::Allow)] {
        let arguments = [resource, 0x1000, 0, 0, 0, 0];
        assert_eq!(native(libc::SYS_setrlimit, arguments), expected);
    }
    // A pointer is null if both its halves are.
    for (new, old, expected) in [
        (0, 0, Verdict::Allow),
        (0, 0x1000, Verdict::Allow),
        (0, 1 << 32, Verdict::Allow),
        (0x1000, 0, DONE),
        (1 << 32, 0, DONE),
        (u64::MAX, 0, DONE),
        (1 << 32, 0x1000, REFUSED),
        (0x1000, 1 << 32, REFUSED),
    ] {
        for process in [0, 17] {
            let of = |resource| native(libc::SYS_prlimit64, [process, resource, new, old, 0, 0]);
            assert_eq!(of(core), expected, "{new:#x} {old:#x}");
            assert_eq!(of(wide(core)), expected);
            assert_eq!(of(files), Verdict::Allow);
        }
    }
}

#[test]
fn personalities_weaken_nothing() {
    let personality = |value: u64| native(libc::SYS_personality, [value, 0, 0, 0, 0, 0]);
    for value in [0, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        assert_eq!(personality(value), Verdict::Allow, "{value:#x}");
    }
    for value in [
        libc::ADDR_NO_RANDOMIZE,
        libc::MMAP_PAGE_ZERO,
        libc::READ_IMPLIES_EXEC,
    ] {
        assert_eq!(personality(value as u64), REFUSED, "{value:#x}");
    }
}

#[test]
fn nothing_is_typed_into_a_terminal_and_no_line_discipline_set() {
    for request in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD] {
        assert_eq!(native(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]), REFUSED);
        let wide = request | 0xffff_ffff_0000_0000;
        assert_eq!(native(libc::SYS_ioctl, [0, wide, 0, 0, 0, 0]), REFUSED);
    }
}

/// Whoever makes a file in memory could otherwise have the kernel keep 128 KiB for it that count nowhere.
#[test]
fn extended_attributes_are_short() {
    for number in [libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr] {
        let of_size = |size| native(number, [0x1000, 0x2000, 0x3000, size, 0, 0]);
        assert_eq!(of_size(1023), Verdict::Allow);
        for size in [1024, 65536] {
            assert_eq!(of_size(size), Verdict::Errno(libc::E2BIG as u16));
        }
    }
}

/// Of a description that is shared with the caller, the owner may be outside.
#[test]
fn no_description_is_made_to_send_signals() {
    let invalid = Verdict::Errno(libc::EINVAL as u16);
    let fcntl = |command: u64, argument: u64| {
        let verdict = native(libc::SYS_fcntl, [0, command, argument, 0, 0, 0]);
        // Of both the kernel takes the lower half.
        let wide = |low: u64| low | 0xffff_ffff_0000_0000;
        let arguments = [0, wide(command), wide(argument), 0, 0, 0];
        assert_eq!(native(libc::SYS_fcntl, arguments), verdict);
        verdict
    };
    // F_SETSIG.
    for signal in [0, libc::SIGKILL as u64] {
        assert_eq!(fcntl(10, signal), invalid);
    }
    assert_eq!(fcntl(libc::F_NOTIFY as u64, 1), invalid);
    let flags = |flags: libc::c_int| fcntl(libc::F_SETFL as u64, flags as u64);
    assert_eq!(flags(libc::O_ASYNC), invalid);
    assert_eq!(flags(libc::O_ASYNC | libc::O_NONBLOCK), invalid);
    assert_eq!(flags(libc::O_APPEND | libc::O_NONBLOCK), Verdict::Allow);
    // F_SETOWN names nobody outside.
    assert_eq!(fcntl(libc::F_SETOWN as u64, 1), Verdict::Allow);
    for word in [0x5452, 0xffff_ffff_0000_5452] {
        let verdict = native(libc::SYS_ioctl, [0, word, 0x1000, 0, 0, 0]);
        assert_eq!(verdict, Verdict::Errno(libc::ENOTTY as u16));
    }
}

/// Init, which is number 1, would end by one, and with it the sandbox.
#[test]
fn no_limit_of_init_is_changed() {
    let prlimit = |process: u64| {
        let arguments = [process, libc::RLIMIT_CPU.into(), 0x1_0000_0000, 0, 0, 0];
        native(libc::SYS_prlimit64, arguments)
    };
    for process in [1, 0xffff_ffff_0000_0001] {
        assert_eq!(prlimit(process), REFUSED);
    }
    for process in [0, 2, 1001] {
        assert_eq!(prlimit(process), Verdict::Allow);
    }
}

/// What is said about a file, and how it may be locked, concerns others; and what is newer than the list is not known.
#[test]
fn descriptors_have_the_commands_that_programs_use() {
    let fcntl = |command: u64| native(libc::SYS_fcntl, [0, command, 0, 0, 0, 0]);
    let commands = || (0..64).chain(1020..1050).chain([0x1_0000, 0xffff_ffff]);
    let passed: Vec<u64> = commands()
        .filter(|command| fcntl(*command) == Verdict::Allow)
        .collect();
    // From F_DUPFD to F_GETOWN, F_GETSIG, F_SETOWN_EX, F_GETOWN_EX, F_GETOWNER_UIDS, F_OFD_GETLK, F_GETLEASE, F_DUPFD_QUERY,
    // F_CREATED_QUERY, F_DUPFD_CLOEXEC to F_GET_RW_HINT, F_GET_FILE_RW_HINT.
    let expected: Vec<u64> = (0..10)
        .chain([11, 15, 16, 17, 36, 1025, 1027, 1028])
        .chain(1030..=1035)
        .chain([1037])
        .collect();
    assert_eq!(passed, expected);
    // The kernel does neither by itself.
    let locks = [libc::F_OFD_SETLK, libc::F_OFD_SETLKW].map(|command| command as u64);
    for command in commands().filter(|command| !passed.contains(command)) {
        let expected = match locks.contains(&command) {
            true => Verdict::Notify,
            false => Verdict::Errno(libc::EINVAL as u16),
        };
        assert_eq!(fcntl(command), expected, "{command:#x}");
    }
}

/// The room for compiled filters is the whole machine's.
#[test]
fn no_filter_is_attached_to_a_socket() {
    let set = |level: libc::c_int, option: u64| {
        let level = 0xffff_ffff_0000_0000 | level as u64;
        native(libc::SYS_setsockopt, [3, level, option, 0x1000, 16, 0])
    };
    // SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and SO_ATTACH_REUSEPORT_EBPF.
    for option in [26, 50, 51, 52] {
        assert_eq!(set(libc::SOL_SOCKET, option), REFUSED);
        assert_eq!(set(libc::IPPROTO_TCP, option), Verdict::Allow);
    }
    assert_eq!(
        set(libc::SOL_SOCKET, libc::SO_REUSEADDR as u64),
        Verdict::Allow
    );
    // Nor does one have its closing wait.
    let linger = set(libc::SOL_SOCKET, libc::SO_LINGER as u64);
    assert_eq!(linger, Verdict::Errno(0));
}
