//! The engine's own seccomp profile, whatever it says: with GPUs a container starts under it where it starts without, and it holds.

use serde_json::{Value, json};
use userland_tests::Ended;

use super::exec::{end, start};
use super::sandboxes::{Maker, plain, with_gpu};

/// Calls that Ringfence's own processes make, and that a small program can do without: by number, with whatever arguments.
const CALLS: [(&str, libc::c_long); 44] = [
    ("accept4", libc::SYS_accept4),
    ("chroot", libc::SYS_chroot),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("close_range", libc::SYS_close_range),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("eventfd2", libc::SYS_eventfd2),
    ("execveat", libc::SYS_execveat),
    ("fallocate", libc::SYS_fallocate),
    ("fsopen", libc::SYS_fsopen),
    ("ftruncate", libc::SYS_ftruncate),
    ("getsockname", libc::SYS_getsockname),
    ("getsockopt", libc::SYS_getsockopt),
    ("inotify_add_watch", libc::SYS_inotify_add_watch),
    ("inotify_init1", libc::SYS_inotify_init1),
    ("kcmp", libc::SYS_kcmp),
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
    ("memfd_create", libc::SYS_memfd_create),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("mkdirat", libc::SYS_mkdirat),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("open_tree", libc::SYS_open_tree),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("prlimit64", libc::SYS_prlimit64),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("ptrace", libc::SYS_ptrace),
    ("recvmsg", libc::SYS_recvmsg),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
    ("sched_yield", libc::SYS_sched_yield),
    ("sendmsg", libc::SYS_sendmsg),
    ("setns", libc::SYS_setns),
    ("sigaltstack", libc::SYS_sigaltstack),
    ("signalfd4", libc::SYS_signalfd4),
    ("socketpair", libc::SYS_socketpair),
    ("timer_create", libc::SYS_timer_create),
    ("timer_settime", libc::SYS_timer_settime),
    ("umount2", libc::SYS_umount2),
    ("unlinkat", libc::SYS_unlinkat),
    ("unshare", libc::SYS_unshare),
    ("wait4", libc::SYS_wait4),
    ("writev", libc::SYS_writev),
];

/// What a specification comes to under a profile, and what the low-level runtime alone makes of the same without a GPU.
fn beside(maker: &Maker, script: &str, profile: &Value) -> (Ended, Ended) {
    let under = |mut value: Value| {
        value["linux"]["seccomp"] = profile.clone();
        value["process"]["args"] = script.split(' ').collect();
        value
    };
    maker.front.specify(&under(plain("")));
    let alone = maker.alone().run(&["run", "c"]);
    (maker.run(&under(with_gpu(""))), alone)
}

/// A profile that refuses these calls with an errno that nobody else gives.
fn refusing(names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPROTO}],
    })
}

/// A guest that makes these calls, and what it prints if all are refused.
fn calling(calls: &[(&str, libc::c_long)]) -> (String, Ended) {
    let words = calls.iter().map(|(_, number)| format!(" {number}"));
    let lines = calls
        .iter()
        .map(|(_, number)| format!("{number}: EPROTO\n"));
    let printed: String = lines.collect();
    (
        format!("guest calls{}", words.collect::<String>()),
        Ended::printing(&printed),
    )
}

/// One that was not opened would keep the container from starting.
#[test]
fn a_profile_that_refuses_calls_holds_and_keeps_no_container_from_starting() {
    let names = CALLS.map(|(name, _)| name);
    let (script, expected) = calling(&CALLS);
    for maker in Maker::all() {
        let (ended, alone) = beside(&maker, &script, &refusing(&names));
        assert_eq!(ended, expected, "{}", maker.name);
        assert_eq!(alone, expected, "{}", maker.name);
    }
}

/// All but what the container's own program calls, and the process that stands in for a further one: that is under the profile as well.
#[test]
fn a_profile_that_refuses_calls_holds_for_further_programs() {
    let needed = ["clock_nanosleep", "signalfd4", "wait4"];
    let calls = CALLS.iter().copied();
    let calls: Vec<_> = calls.filter(|(name, _)| !needed.contains(name)).collect();
    let names: Vec<&str> = calls.iter().map(|(name, _)| *name).collect();
    let (script, expected) = calling(&calls);
    let words: Vec<&str> = ["exec", "c"].into_iter().chain(script.split(' ')).collect();
    for maker in Maker::all() {
        let called = maker.called();
        let mut value = with_gpu("");
        value["process"]["args"] = json!(["sleep", "600"]);
        value["linux"]["seccomp"] = refusing(&names);
        start(&called, &value);
        assert_eq!(called.run(&words), expected, "{}", maker.name);
        end(&called);
    }
}

/// What `guest block-size` and the low-level runtimes need; the rest of what Ringfence does is refused.
const NEEDED_BY_THE_PROGRAM: &[&str] = &[
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clock_gettime",
    "close",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "exit_group",
    "fchdir",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getpid",
    "getrandom",
    "gettid",
    "ioctl",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "openat",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setuid",
    "sigaltstack",
    "tgkill",
    "write",
];

#[test]
fn a_profile_that_allows_what_a_program_needs_lets_it_reach_the_driver() {
    for maker in Maker::all() {
        let mut value = with_gpu("");
        value["process"]["args"] = json!(["guest", "block-size"]);
        let without = maker.run(&value);
        assert_eq!((without.status, without.stderr.as_str()), (0, ""));
        value["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": NEEDED_BY_THE_PROGRAM, "action": "SCMP_ACT_ALLOW"}],
        });
        assert_eq!(maker.run(&value), without, "{}", maker.name);
    }
}

/// Each is a rule of its own then.
#[test]
fn a_profile_holds_with_two_conditions_on_one_argument() {
    let equal = |value: u64| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
    let number = libc::SYS_timer_delete;
    for maker in Maker::all() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["timer_delete"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPROTO,
                "args": [equal(0), equal(5)],
            }],
        });
        let (ended, alone) = beside(&maker, &format!("guest calls {number}"), &profile);
        let expected = Ended::printing(&format!("{number}: EPROTO\n"));
        assert_eq!(alone, expected, "{}", maker.name);
        assert_eq!(ended, expected, "{}", maker.name);
    }
}

/// Calls that Ringfence's policy speaks of as well, and other actions.
#[test]
fn a_profile_holds_for_calls_that_the_sentry_is_told_of() {
    for maker in Maker::all() {
        let ioctl = libc::SYS_ioctl;
        for (action, printed, status) in [
            ("SCMP_ACT_ERRNO", format!("{ioctl}: EPERM\n"), 0),
            ("SCMP_ACT_TRACE", format!("{ioctl}: ENOSYS\n"), 0),
            ("SCMP_ACT_LOG", format!("{ioctl}: ENOTTY\n"), 0),
            ("SCMP_ACT_TRAP", String::new(), 159),
            ("SCMP_ACT_KILL_PROCESS", String::new(), 159),
        ] {
            let profile = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["ioctl"], "action": action}],
            });
            let (ended, alone) = beside(&maker, &format!("guest calls {ioctl}"), &profile);
            let expected = Ended {
                status,
                ..Ended::printing(&printed)
            };
            assert_eq!(ended, expected, "{}: {action}", maker.name);
            assert_eq!(ended, alone, "{}: {action}", maker.name);
        }
    }
}
