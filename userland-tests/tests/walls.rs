//! What the processes of Ringfence itself cannot do, once they have confined themselves: each attempt and its exact
//! outcome, and what the kernel says of them in a sandbox that runs. What tasks cannot do is in `confinement.rs`.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};
use userland_tests::processes::{Process, Tree};
use userland_tests::{Ended, captive_program, finish, guest, started};

/// Killed by the filter (SIGSYS).
const KILLED: &str = "killed";

fn outcome(role: &str, attempt: &str) -> String {
    let mut command = Command::new(captive_program());
    command.args([role, attempt]).stdin(Stdio::null());
    match finish(&mut command) {
        Ended {
            status: 159,
            stdout,
            stderr,
        } if stdout.is_empty() && stderr.is_empty() => KILLED.to_owned(),
        Ended {
            status: 0,
            stdout,
            stderr,
        } if stderr.is_empty() => stdout.trim_end().to_owned(),
        other => panic!("{role}: {attempt}: {other:?}"),
    }
}

fn check(role: &str, expected: &[(&str, &str)]) {
    let found: Vec<(&str, String)> = expected
        .iter()
        .map(|(attempt, _)| (*attempt, outcome(role, attempt)))
        .collect();
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(attempt, outcome)| (*attempt, outcome.as_str()))
        .collect();
    assert_eq!(found, expected, "{role}");
}

/// Attempts that come to the same for the server and for the sentry.
const OF_SERVER_AND_SENTRY: &[(&str, &str)] = &[
    ("open a file of the host", "ENOENT"),
    ("create a file", KILLED),
    ("make a directory", KILLED),
    ("socket", KILLED),
    ("execve", KILLED),
    ("fork", KILLED),
    ("clone3", "ENOSYS"),
    ("map executable memory", KILLED),
    ("make memory executable", KILLED),
    ("map more than the limit", "ENOMEM"),
    ("ioctl of a terminal", KILLED),
    ("signal a thread of another", KILLED),
    ("be traced", KILLED),
    ("mount", KILLED),
    ("unshare", KILLED),
    ("setuid", KILLED),
    ("capset", KILLED),
    ("become traceable", KILLED),
    ("raise a limit", KILLED),
    ("io_uring_setup", KILLED),
    ("bpf", KILLED),
    ("a call of x32", KILLED),
];

#[test]
fn the_server() {
    let own = [
        ("open a file of another process", "ENOENT"),
        ("socketpair", "ok"),
        ("socketpair of another family", KILLED),
        ("NV_ESC_RM_CONTROL", "ENOTTY"),
        ("an escape that no table has", KILLED),
        ("UVM_INITIALIZE", "ENOTTY"),
        ("a request of UVM that no table has", KILLED),
        ("SECCOMP_IOCTL_NOTIF_RECV", KILLED),
        ("kill", KILLED),
        ("signal a thread of its own", "ok"),
        ("ptrace another", KILLED),
        ("read the memory of another", KILLED),
    ];
    check("server", &[OF_SERVER_AND_SENTRY, &own].concat());
}

#[test]
fn the_sentry() {
    let own = [
        ("open /proc", "ok"),
        ("socketpair", KILLED),
        ("NV_ESC_RM_CONTROL", KILLED),
        ("UVM_INITIALIZE", KILLED),
        ("SECCOMP_IOCTL_NOTIF_RECV", "ENOTTY"),
        ("kill", "ok"),
        ("ptrace another", "ESRCH"),
        ("read the memory of another", "ESRCH"),
    ];
    check("sentry", &[OF_SERVER_AND_SENTRY, &own].concat());
}

#[test]
fn init() {
    check(
        "init",
        &[
            ("open a file of the host", KILLED),
            ("socket", KILLED),
            ("execve", KILLED),
            ("fork", KILLED),
            ("clone3", KILLED),
            ("map executable memory", KILLED),
            ("make memory executable", KILLED),
            ("ioctl of a terminal", KILLED),
            ("kill", "ok"),
            ("ptrace another", KILLED),
            ("read the memory of another", KILLED),
            ("mount", KILLED),
            ("unshare", KILLED),
            ("setuid", KILLED),
            ("a call of x32", KILLED),
        ],
    );
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Walls {
    /// The bits of the capabilities that it holds.
    capabilities: u64,
    /// The bits of those that it could get back, in whichever way.
    obtainable: u64,
    /// Whether it can gain no privileges, and how many filters its calls go through.
    no_new_privileges: bool,
    filters: u32,
    /// Where something is mounted, and how.
    mounts: Vec<(String, String)>,
    /// Bytes of address space, descriptors, bytes of a core file.
    limits: [u64; 3],
}

impl Walls {
    fn of(process: Process) -> Walls {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid)).expect(file);
        let (status, mountinfo, limits) = (read("status"), read("mountinfo"), read("limits"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).trim_start_matches(':').trim()
        };
        let bits = |name| u64::from_str_radix(field(name), 16).expect(name);
        assert_eq!(bits("CapEff"), bits("CapPrm"));
        let mounts = mountinfo.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[4].to_owned(), words[5].to_owned())
        });
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            let word = line.expect(name).split_whitespace().nth(1);
            word.and_then(|hard| hard.parse().ok()).expect(name)
        };
        Walls {
            capabilities: bits("CapEff"),
            obtainable: bits("CapBnd") | bits("CapInh") | bits("CapAmb"),
            no_new_privileges: field("NoNewPrivs") == "1",
            filters: field("Seccomp_filters").parse().expect("a number"),
            mounts: mounts.collect(),
            limits: [
                limit("Max address space"),
                limit("Max open files"),
                limit("Max core file size"),
            ],
        }
    }

    /// With one filter, and nothing to get back.
    fn new(capabilities: u64, mounts: &[(&str, &str)], limits: [u64; 2]) -> Walls {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let [bytes, descriptors] = limits;
        Walls {
            capabilities,
            obtainable: 0,
            no_new_privileges: true,
            filters: 1,
            mounts: mounts
                .iter()
                .map(|(place, how)| ((*place).to_owned(), (*how).to_owned()))
                .collect(),
            limits: [bytes, descriptors.min(most), 0],
        }
    }
}

/// Starts `command`, whose program says when it is ready, and returns what `look` sees of the sandbox's processes.
fn of_a_sandbox<T>(command: &mut Command, look: impl FnOnce(&Tree) -> T) -> T {
    let (mut child, _output) = started(command);
    let tree = Tree::of(child.id());
    let seen = look(&tree);
    tree.kill(|tree| tree.launcher);
    tree.expect_gone();
    child.wait().expect("the launcher's end");
    seen
}

#[test]
fn of_a_sandbox_that_runs() {
    let [server, sentry, init] = of_a_sandbox(&mut guest(&["busy"]), |tree| {
        [tree.server, tree.sentry, tree.init].map(Walls::of)
    });

    const GIB: u64 = 1 << 30;
    let empty = ("/", "ro,nosuid,noexec,relatime");
    let processes = ("/proc", "rw,nosuid,nodev,noexec,relatime");
    let cap_sys_ptrace = 1 << 19;
    assert_eq!(
        [server, sentry],
        [
            Walls::new(0, &[empty], [20 * GIB, 1 << 18]),
            Walls::new(cap_sys_ptrace, &[empty, processes], [32 * GIB, 1 << 18]),
        ]
    );
    // Init, which cannot open anything, sees what the program sees.
    let mounts = Vec::new();
    let expected = Walls::new(0, &[], [GIB, 64]);
    assert_eq!(Walls { mounts, ..init }, expected);
}

#[test]
fn the_server_has_nothing_of_the_callers_environment() {
    let mut command = guest(&["busy"]);
    let [server, program] = of_a_sandbox(command.env("SECRET", "of the caller"), |tree| {
        [tree.server, tree.program].map(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid));
            String::from_utf8(environment.expect("its environment")).expect("text")
        })
    });
    assert_eq!(server, "");
    let mut given = program.split('\0');
    assert!(given.any(|entry| entry == "SECRET=of the caller"));
}
