//! What the processes of Ringfence itself cannot do, once they have confined themselves: each attempt and its exact
//! outcome, and what the kernel says of them in a sandbox that runs. What tasks cannot do is in `confinement.rs`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use rustix::process::{PidfdFlags, pidfd_open};
use userland_tests::linux::{self, Feature};
use userland_tests::processes::{Process, Tree};
use userland_tests::{
    Directory, Ended, captive_program, finish, guest, guest_program, guest_under, intruder_program,
    ringfence_with_faults, showing_the_guest, started,
};

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
    ("pidfd_send_signal", KILLED),
    ("dup", KILLED),
    ("F_DUPFD_CLOEXEC", "ok"),
    ("F_SETOWN", KILLED),
    ("F_SETFL", "ok"),
    ("F_SETFL, to send signals", KILLED),
    ("F_SETLEASE", KILLED),
    ("F_SETLK", KILLED),
    ("SO_TYPE", "ENOTSOCK"),
    ("SO_PEERCRED", KILLED),
    ("setting SO_PASSCRED", KILLED),
    ("readlinkat", KILLED),
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
        ("F_SETSIG", KILLED),
        ("F_OFD_SETLK", "EFAULT"),
        ("memfd_create", "ok"),
        ("ftruncate", "EINVAL"),
        ("filling a part of a file", KILLED),
        ("setting SO_SNDTIMEO", "ENOTSOCK"),
        ("kcmp, of memory", KILLED),
        ("pidfd_open", KILLED),
        ("pidfd_getfd", KILLED),
        ("ptrace another", KILLED),
        ("read the memory of another", KILLED),
    ];
    let sent = match linux::has(Feature::LandlockScopes) {
        true => "EPERM",
        false => "ok",
    };
    let sent = [("send to an abstract name", sent)];
    check("server", &[OF_SERVER_AND_SENTRY, &own, &sent].concat());
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
        ("kill, by a signal that nobody passes on", KILLED),
        ("kcmp, of memory", "ok"),
        ("kcmp, of descriptor tables", "ok"),
        ("kcmp, of descriptors", KILLED),
        ("pidfd_open", "ESRCH"),
        ("pidfd_open, with another flag", KILLED),
        ("pidfd_getfd", "EBADF"),
        ("pidfd_getfd, with a flag", KILLED),
        ("F_SETSIG", "ok"),
        ("F_OFD_SETLK", "EFAULT"),
        ("memfd_create", KILLED),
        ("ftruncate", "EINVAL"),
        ("pwrite64", KILLED),
        ("F_ADD_SEALS", KILLED),
        ("setting SO_SNDTIMEO", KILLED),
        // A process that traces others can be in no domain of Landlock's.
        ("send to an abstract name", "ok"),
        ("freeing a part of a file", "EBADF"),
        ("filling a part of a file", KILLED),
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
    /// Bytes of address space, descriptors, bytes of a file, bytes of a core file.
    limits: [u64; 4],
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
            let hard = word.expect(name);
            hard.parse().unwrap_or(u64::MAX)
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
                limit("Max file size"),
                limit("Max core file size"),
            ],
        }
    }

    /// With one filter, and nothing to get back.
    fn new(capabilities: u64, mounts: &[(&str, &str)], limits: [u64; 3]) -> Walls {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let [bytes, descriptors, file] = limits;
        Walls {
            capabilities,
            obtainable: 0,
            no_new_privileges: true,
            filters: 1,
            mounts: mounts
                .iter()
                .map(|(place, how)| ((*place).to_owned(), (*how).to_owned()))
                .collect(),
            limits: [bytes, descriptors.min(most), file, 0],
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
    let processes = ("/proc", "ro,nosuid,nodev,noexec,relatime");
    let cap_sys_ptrace = 1 << 19;
    assert_eq!(
        [server, sentry],
        [
            Walls::new(0, &[empty], [20 * GIB, 1 << 18, u64::MAX]),
            Walls::new(
                cap_sys_ptrace,
                &[empty, processes],
                [32 * GIB, 1 << 18, 4096]
            ),
        ]
    );
    // Init, which cannot open anything, sees what the program sees.
    let mounts = Vec::new();
    let expected = Walls::new(0, &[], [GIB, 64, 0]);
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

#[test]
fn the_server_holds_nothing_of_the_hosts_proc() {
    let host = fs::metadata("/proc").expect("/proc").dev();
    let held = of_a_sandbox(&mut guest(&["busy"]), |tree| {
        let entries = fs::read_dir(format!("/proc/{}/fd", tree.server.pid)).expect("descriptors");
        let paths = entries.map(|entry| entry.expect("a descriptor").path());
        let described = |path: PathBuf| {
            // One of an anonymous file has no status that could be followed to.
            let device = fs::metadata(&path).map(|status| status.dev()).ok();
            (device, fs::read_link(&path).unwrap_or_default())
        };
        paths.map(described).collect::<Vec<_>>()
    });
    assert!(!held.is_empty());
    let of_the_host: Vec<_> = held
        .iter()
        .filter(|(device, _)| *device == Some(host))
        .collect();
    assert!(of_the_host.is_empty(), "{of_the_host:?}");
}

/// The simulated server's descriptor of its own descriptors leads nowhere else.
#[test]
fn from_the_servers_directories_no_other_can_be_reached() {
    let names = |path: &str| {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.collect::<BTreeSet<_>>()
    };
    of_a_sandbox(&mut guest(&["busy"]), |tree| {
        let place = format!("/proc/{}/fd", tree.server.pid);
        let numbers = names(&place).into_iter().map(|number| number.into_string());
        let paths = numbers.map(|number| format!("{place}/{}", number.expect("a number")));
        let directories: Vec<String> = paths.filter(|path| Path::new(path).is_dir()).collect();
        assert_eq!(directories.len(), 1, "{directories:?}");
        for directory in directories {
            // All of them are numbers, as in the directory itself, which the server opens and closes meanwhile.
            for name in names(&format!("{directory}/..")) {
                let name = name.into_string().expect("text");
                assert!(name.parse::<u32>().is_ok(), "{name}");
            }
        }
    });
}

/// A process with threads that has too few is held up by the kernel each time that it needs more.
#[test]
fn server_and_sentry_have_room_for_a_thousand_descriptors_from_the_start() {
    let room = |process: Process| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        line?.trim().parse().ok()
    };
    of_a_sandbox(&mut guest(&["busy"]), |tree| {
        assert_eq!(
            (room(tree.server), room(tree.sentry)),
            (Some(1024), Some(1024))
        );
    });
}

/// What of its caller's each process of a sandbox holds that obeys `rules`: server, sentry, init and program.
fn held_of_the_callers(rules: &str) -> [Vec<String>; 4] {
    let directory = Directory::new("held");
    let place = |name: &str| directory.path().join(name).display().to_string();
    fs::write(place("input"), "of the caller").expect("a file");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3>>\"$0\"; exec \"$@\"", &place("inherited")])
        .arg(ringfence_with_faults())
        .args(["record", "--driver", "sim", "--preserve-fds", "1"])
        .args(["--out", &place("recording"), "--log", &place("log")])
        .args(["--trace", &place("trace")])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .arg("busy")
        .stdin(File::open(place("input")).expect("the file"))
        .env("RINGFENCE_FAULTS", rules);
    of_a_sandbox(&mut command, |tree| {
        let entries = fs::read_dir(directory.path()).expect("the directory");
        let files = entries.map(|entry| entry.expect("an entry").path());
        let streams = [("stdout", 1), ("stderr", 2)].map(|(name, number)| {
            let path = format!("/proc/{}/fd/{number}", tree.launcher.pid);
            (name.to_owned(), PathBuf::from(path))
        });
        let name = |path: &PathBuf| path.file_name().expect("a name").display().to_string();
        let named = files.map(|path| (name(&path), path)).chain(streams);
        let known: Vec<(String, (u64, u64))> = named
            .map(|(name, path)| (name, identity(&path).expect("its status")))
            .collect();
        [tree.server, tree.sentry, tree.init, tree.program].map(|process| {
            let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).expect("descriptors");
            let paths = entries.map(|entry| entry.expect("a descriptor").path());
            let held: Vec<_> = paths.filter_map(|path| identity(&path)).collect();
            let names = known.iter().filter(|(_, known)| held.contains(known));
            // Of a recording that is not there yet the name has a number in it.
            let short = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
            let mut names: Vec<String> = names.map(|(name, _)| short(name)).collect();
            names.sort();
            names
        })
    })
}

/// Which file this is; `None` for an anonymous one, which cannot be followed to.
fn identity(path: &PathBuf) -> Option<(u64, u64)> {
    let status = fs::metadata(path).ok()?;
    Some((status.dev(), status.ino()))
}

/// Who has a terminal open can read what is typed there, and who has a file open can shorten and rewrite it.
#[test]
fn none_but_the_program_holds_what_the_caller_has_open() {
    let [server, sentry, init, program] = held_of_the_callers("");
    assert_eq!([server, sentry, init], [const { Vec::<String>::new() }; 3]);
    assert_eq!(program, ["inherited", "input", "stderr", "stdout"]);
}

/// The test above can fail: a process that is forked holds what its parent held.
#[test]
fn all_hold_what_the_caller_has_open_if_they_do_not_let_go() {
    let [server, sentry, init, _] = held_of_the_callers("sentry.descriptors=drop");
    assert_eq!(server, ["stderr", "stdout"]);
    let all = [
        "inherited",
        "input",
        "log",
        "recording",
        "stderr",
        "stdout",
        "trace",
    ];
    assert_eq!(sentry, all);
    assert_eq!(init, all);
}

/// What comes of every attempt of `intruder` on the server of a sandbox that obeys `rules`. `None` if this user cannot
/// take the sentry's place.
fn from_the_sentrys_place(rules: &str, further: &[&str]) -> Option<String> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can enter a sentry's namespaces");
        return None;
    }
    let ended = of_a_sandbox(&mut guest_under(rules, &["busy"]), |tree| {
        let server = rustix::process::Pid::from_raw(tree.server.pid.as_raw()).expect("a number");
        let server = pidfd_open(server, PidfdFlags::empty()).expect("the server's pidfd");
        let [sentry, number] = [tree.sentry, tree.server].map(|process| process.pid.to_string());
        // Its number where the sentry lives, if it has one there.
        let number = match namespace(tree.sentry) == namespace(tree.server) {
            true => last_number(tree.server),
            false => number,
        };
        let mut intruder = Command::new(intruder_program());
        finish(intruder.args([sentry, number]).args(further).stdin(server))
    });
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    Some(ended.stdout)
}

fn namespace(process: Process) -> PathBuf {
    fs::read_link(format!("/proc/{}/ns/pid", process.pid)).expect("a namespace")
}

/// The number of a process in its own process namespace.
fn last_number(process: Process) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("its status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = numbers.and_then(|numbers| numbers.split_whitespace().last());
    last.expect("a number").to_owned()
}

/// Attempts whose outcome is not that no process has the number.
const FROM_THE_SENTRYS_PLACE: &[(&str, &str)] = &[
    ("pidfd_getfd", "EPERM"),
    // The process is not below the caller's process namespace.
    ("pidfd_send_signal", "EINVAL"),
    ("process_madvise", "EACCES"),
    ("setns, of a pidfd", "EPERM"),
    ("setns to the user of a pidfd", "EPERM"),
    ("PIDFD_GET_USER_NAMESPACE", "EACCES"),
    ("PIDFD_GET_PID_NAMESPACE", "EACCES"),
];
/// The same, of calls that not every kernel has, and what they fail with then.
const OF_SOME_KERNELS: &[(&str, &[&str])] = &[
    // Before Linux 6.11.
    ("PIDFD_GET_USER_NAMESPACE", &["ENOTTY"]),
    ("PIDFD_GET_PID_NAMESPACE", &["ENOTTY"]),
    // By what an administrator has decided.
    ("perf_event_open", &["EACCES", "ENOSYS"]),
];

#[test]
fn from_the_sentrys_place_the_server_is_out_of_reach() {
    let Some(outcomes) = from_the_sentrys_place("", &[]) else {
        return;
    };
    let mut count = 0;
    for line in outcomes.lines() {
        let (attempt, outcome) = line.rsplit_once(": ").expect("an outcome");
        let known = FROM_THE_SENTRYS_PLACE
            .iter()
            .find(|(known, _)| *known == attempt);
        let expected = match known {
            Some((_, expected)) => expected,
            None if attempt.starts_with("/proc/") => "ENOENT",
            None => "ESRCH",
        };
        let elsewhere = OF_SOME_KERNELS.iter().find(|(known, _)| *known == attempt);
        let is_excused = elsewhere.is_some_and(|(_, outcomes)| outcomes.contains(&outcome))
            || attempt == "pidfd_open, of a thread"
                && !linux::has(Feature::ThreadDescriptors)
                && outcome == "EINVAL";
        assert!(outcome == expected || is_excused, "{line}");
        count += 1;
    }
    assert_eq!(count, 58);
}

/// Under the sentry's filter what is left of the attempts is what a sentry does to tasks, and reading: what comes of that is
/// said above.
#[test]
fn from_the_sentrys_place_its_filter_leaves_little_to_attempt() {
    let Some(outcomes) = from_the_sentrys_place("", &["filtered"]) else {
        return;
    };
    let mut outcomes: Vec<(&str, &str)> = outcomes
        .lines()
        .map(|line| line.rsplit_once(": ").expect("an outcome"))
        .collect();
    assert_eq!(outcomes.len(), 58);
    outcomes.retain(|(_, outcome)| *outcome != KILLED);
    let (files, calls): (Vec<_>, Vec<_>) = outcomes
        .into_iter()
        .partition(|(attempt, _)| attempt.starts_with("/proc/"));
    assert!(files.iter().all(|(_, outcome)| *outcome == "ENOENT"));
    // It would be opened to be written.
    assert!(!files.iter().any(|(file, _)| *file == "/proc/N/mem"));
    let expected = [
        ("pidfd_open", "ESRCH"),
        ("PTRACE_SEIZE", "ESRCH"),
        ("process_vm_readv", "ESRCH"),
        ("process_vm_writev", "ESRCH"),
        ("sched_getaffinity", "ESRCH"),
        ("sched_setaffinity", "ESRCH"),
        ("pidfd_getfd", "EPERM"),
        ("its number", "ESRCH"),
    ];
    let calls: Vec<_> = calls
        .into_iter()
        .filter(|(call, _)| *call != "pidfd_open, of a thread")
        .collect();
    assert_eq!(calls, expected);
}

/// The test above can fail: in the sentry's namespaces a server is the sentry's.
#[test]
fn in_the_sentrys_namespaces_the_server_is_the_sentrys() {
    let Some(outcomes) = from_the_sentrys_place("sentry.apart=drop", &[]) else {
        return;
    };
    let succeeded: Vec<&str> = outcomes
        .lines()
        .filter_map(|line| line.strip_suffix(": ok"))
        .collect();
    for attempt in [
        "kill",
        "pidfd_open",
        "PTRACE_SEIZE",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
        "prlimit",
        "/proc/N/maps",
        "/proc/N/fd",
        "/proc/N/fd/0",
        "/proc/N/root",
        "/proc/N/ns/user",
        "pidfd_getfd",
        "pidfd_send_signal",
        "its number",
    ] {
        assert!(succeeded.contains(&attempt), "{attempt}, of {succeeded:?}");
    }
}
