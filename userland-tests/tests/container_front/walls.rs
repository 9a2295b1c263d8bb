//! What each process of a container with GPUs has, on the host and inside: what the kernel says of them while they run.
//!
//! In `walls.rs` of these tests is what the same processes have in a sandbox of `ringfence run`, and what each attempt comes to
//! under the same filters.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use userland_tests::eventually;
use userland_tests::processes::Process;

use super::running::Running;
use super::sandboxes::{Maker, with_gpu};

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Walls {
    /// What it is called.
    name: String,
    /// The bits of the capabilities that it holds, and of those that it could get back, in whichever way.
    capabilities: u64,
    obtainable: u64,
    no_new_privileges: bool,
    filters: u32,
    /// Namespaces in which it is with the test, and with the sentry.
    with_host: BTreeSet<&'static str>,
    with_sentry: BTreeSet<&'static str>,
    /// Where something is mounted that it can reach, and how.
    mounts: Vec<(String, String)>,
    /// What it has open, each kind once.
    open: BTreeSet<String>,
    /// In which of the groups that limit the container it is.
    is_in_cgroup: bool,
}

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn read(process: Process, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", process.pid)).expect(file)
}

fn namespace(process: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("a namespace")
}

/// The kinds of namespaces that both are in.
fn shared(one: &str, other: &str) -> BTreeSet<&'static str> {
    let same = |kind: &&str| namespace(one, kind) == namespace(other, kind);
    KINDS.into_iter().filter(same).collect()
}

/// What a descriptor is, without numbers.
fn kind_of(target: PathBuf) -> String {
    let text = target.to_string_lossy().into_owned();
    match text.split_once(":[") {
        Some((kind, number)) if number.trim_end_matches(']').parse::<u64>().is_ok() => {
            kind.to_owned()
        }
        _ => text,
    }
}

impl Walls {
    fn of(process: Process, running: &Running<'_>) -> Walls {
        let status = read(process, "status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).trim_start_matches(':').trim()
        };
        let bits = |name| u64::from_str_radix(field(name), 16).expect(name);
        assert_eq!(bits("CapEff"), bits("CapPrm"));
        let number = process.pid.to_string();
        let mountinfo = read(process, "mountinfo");
        let mounts = mountinfo.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[4].to_owned(), words[5].to_owned())
        });
        let entries = fs::read_dir(format!("/proc/{number}/fd")).expect("descriptors");
        let targets = entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok());
        let group = running
            .called
            .front
            .directory
            .path()
            .file_name()
            .expect("a name");
        Walls {
            name: field("Name").to_owned(),
            capabilities: bits("CapEff"),
            obtainable: bits("CapBnd") | bits("CapInh") | bits("CapAmb"),
            no_new_privileges: field("NoNewPrivs") == "1",
            filters: field("Seccomp_filters").parse().expect("a number"),
            with_host: shared(&number, "self"),
            with_sentry: shared(&number, &running.sentry.pid.to_string()),
            mounts: mounts.collect(),
            open: targets.map(kind_of).collect(),
            is_in_cgroup: read(process, "cgroup").contains(&*group.to_string_lossy()),
        }
    }
}

fn set<const N: usize>(names: [&'static str; N]) -> BTreeSet<&'static str> {
    names.into()
}

fn open<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn mounts(mounts: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = mounts.iter();
    owned
        .map(|(place, how)| ((*place).to_owned(), (*how).to_owned()))
        .collect()
}

/// As the host's processes have it, without walls. (The test has the low-level runtime start with mounts of its own.)
fn launcher(running: &Running<'_>, capabilities: u64) -> Walls {
    let files = [&running.bundle, &running.called.front.path("messages.log")];
    let executable = userland_tests::ringfence_program();
    let files = files.iter().map(|path| path.display().to_string());
    let files = files.chain([executable.display().to_string()]);
    let kinds = [
        "/dev/null",
        "anon_inode:[eventfd]",
        "anon_inode:[pidfd]",
        "anon_inode:[signalfd]",
        // What the sentry has the program's calls from: for whoever would end it.
        "anon_inode:seccomp notify",
        "pipe",
        "socket",
    ];
    Walls {
        name: "ringfence-launc".to_owned(),
        capabilities,
        obtainable: capabilities,
        no_new_privileges: false,
        filters: 0,
        with_host: set(["cgroup", "ipc", "net", "pid", "user", "uts"]),
        with_sentry: set(["cgroup", "user"]),
        mounts: Vec::new(),
        open: kinds.map(str::to_owned).into_iter().chain(files).collect(),
        is_in_cgroup: false,
    }
}

/// As in every sandbox.
fn server() -> Walls {
    Walls {
        name: "nvproxy-server".to_owned(),
        capabilities: 0,
        obtainable: 0,
        no_new_privileges: true,
        filters: 1,
        with_host: set(["cgroup"]),
        with_sentry: set(["cgroup"]),
        mounts: mounts(&[("/", "ro,nosuid,noexec,relatime")]),
        open: open([
            // Of the simulated driver: its own descriptors.
            "/",
            "/memfd:ringfence-ipc (deleted)",
            "anon_inode:[io_uring]",
            "pipe",
            "socket",
        ]),
        is_in_cgroup: false,
    }
}

/// It has CAP_SYS_PTRACE, in the host's user namespace. Nothing of the container's is open there, nor mounted where it looks, but
/// two namespaces of the program's, which its policy has no call to enter. Its root is a directory of a file system that it cannot
/// write, and no mount.
fn sentry() -> Walls {
    Walls {
        name: "ringfence-sentr".to_owned(),
        capabilities: 1 << 19,
        obtainable: 0,
        no_new_privileges: true,
        filters: 1,
        with_host: set(["cgroup", "user"]),
        with_sentry: KINDS.into(),
        mounts: mounts(&[("/proc", "ro,nosuid,nodev,noexec,relatime")]),
        open: open([
            // Of a /proc that is mounted nowhere.
            "/loadavg",
            "/memfd:instruction (deleted)",
            "/secretmem (deleted)",
            "anon_inode:[eventfd]",
            "anon_inode:[landlock-ruleset]",
            "anon_inode:[pidfd]",
            "anon_inode:[signalfd]",
            "anon_inode:inotify",
            "anon_inode:seccomp notify",
            "mnt",
            "pid",
            "pipe",
            "socket",
        ]),
        is_in_cgroup: true,
    }
}

/// As in a container without GPUs, but for the filter, the nodes, and a process and a mount namespace.
fn program(running: &Running<'_>) -> Walls {
    let node = "ro,nosuid,nodev,noexec,relatime";
    let streams =
        ["stdin", "stdout", "stderr"].map(|name| running.called.root.with_extension(name));
    let streams = streams.map(|path| path.display().to_string());
    Walls {
        name: "sleep".to_owned(),
        capabilities: 1 << 5,
        obtainable: 1 << 5,
        no_new_privileges: false,
        filters: 1,
        with_host: set(["cgroup", "user"]),
        with_sentry: set(["cgroup", "ipc", "net", "user", "uts"]),
        mounts: mounts(&[
            ("/", "ro,relatime"),
            ("/dev", "rw,nosuid,relatime"),
            ("/dev/nvidiactl", node),
            ("/dev/nvidia-uvm", node),
            ("/dev/nvidia0", node),
            ("/tmp", "rw,relatime"),
            ("/proc", "rw,nosuid,nodev,noexec,relatime"),
            ("/proc/keys", "ro,nosuid,relatime"),
            ("/proc/acpi", node),
            ("/proc/sys", node),
        ]),
        open: streams.into_iter().collect(),
        is_in_cgroup: true,
    }
}

#[test]
fn of_a_container_that_runs() {
    for maker in Maker::all() {
        let running = Running::start(&maker, &with_gpu("guest close; exec sleep 1000"));
        running.settle();
        eventually("the server has closed what the program has", || {
            Walls::of(running.server, &running).open == server().open
        });
        let seen = running
            .processes()
            .map(|process| Walls::of(process, &running));
        let [mut of_launcher, of_server, of_sentry, of_program] = seen;
        of_launcher.mounts.clear();
        let own = fs::read_to_string("/proc/self/status").expect("a status");
        let own = own.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
        let own = u64::from_str_radix(own.expect("capabilities"), 16).expect("bits");
        assert_eq!(of_launcher, launcher(&running, own), "{}", maker.name);
        assert_eq!(of_server, server(), "{}", maker.name);
        assert_eq!(of_sentry, sentry(), "{}", maker.name);
        assert_eq!(of_program, program(&running), "{}", maker.name);
        running.remove();
    }
}

/// What engines show as a container's processes (`docker top`) has the sentry in it, which says what it is.
#[test]
fn the_sentry_is_listed_as_what_it_is() {
    for maker in Maker::all() {
        let running = Running::start(&maker, &with_gpu("guest close; exec sleep 1000"));
        running.settle();
        let listed = running
            .called
            .run(&["ps", "--format", "json", &running.name]);
        let numbers: BTreeSet<i32> = serde_json::from_str(&listed.stdout).expect("numbers");
        let expected = [running.sentry, running.program].map(|process| process.pid.as_raw());
        assert_eq!(numbers, expected.into(), "{}", maker.name);
        let title = read(running.sentry, "cmdline");
        assert_eq!(
            title.trim_end_matches('\0'),
            format!("ringfence-sentry {}", running.name)
        );
        running.remove();
    }
}
