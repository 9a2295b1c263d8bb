//! Containers with GPUs, which runc and crun make by way of the front: the program is in a sandbox, and in a container as
//! any other.
//!
//! They need root, the low-level runtime and a static busybox, and are skipped by name where one of these is missing. The
//! driver is the simulated one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use userland_tests::{Ended, eventually, finish, guest_program, ringfence_with_faults};

use super::lives::{BUSYBOX, Called, low_level};
use super::{Front, refused, specification};

const APPLETS: [&str; 16] = [
    "sh", "cat", "chmod", "grep", "ln", "ls", "mkdir", "mknod", "mount", "mv", "readlink", "rmdir",
    "sleep", "stty", "umount", "unshare",
];

/// Containers that a low-level runtime makes.
pub struct Maker {
    pub name: &'static str,
    pub front: Front,
    pub low_level: std::path::PathBuf,
}

impl Maker {
    /// One for each low-level runtime that there is here.
    pub fn all() -> Vec<Maker> {
        let names = ["runc", "crun"].into_iter();
        let found = names.filter_map(|name| Some((name, low_level(name)?)));
        let makers = found.map(|(name, low_level)| {
            let front = Front::of(&low_level);
            let root = front.bundle().join("rootfs");
            for directory in ["proc", "dev", "tmp"] {
                fs::create_dir(root.join(directory)).expect("a directory");
            }
            for applet in APPLETS {
                fs::copy(BUSYBOX, root.join("bin").join(applet)).expect("a program");
            }
            fs::copy(guest_program(), root.join("bin/guest")).expect("the guest");
            Maker {
                name,
                front,
                low_level,
            }
        });
        makers
            .filter(|maker| {
                let alone = maker.alone();
                maker.front.specify(&plain("exit 9"));
                let first = alone.run(&["run", "c"]);
                if first.status != 9 {
                    eprintln!(
                        "skipped: {}: it makes no container here: {first:?}",
                        maker.name
                    );
                }
                first.status == 9
            })
            .collect()
    }

    /// The low-level runtime by itself.
    pub fn alone(&self) -> Called<'_> {
        Called {
            front: &self.front,
            program: self.low_level.clone(),
            root: self.front.path("alone"),
        }
    }

    /// By way of the front.
    pub fn called(&self) -> Called<'_> {
        Called {
            front: &self.front,
            program: self.front.runtime(),
            root: self.front.path("front-root"),
        }
    }

    /// Runs a container of this specification to its end.
    pub fn run(&self, specification: &Value) -> Ended {
        self.front.specify(specification);
        self.called().run(&["run", "c"])
    }

    /// Has a runtime with points of fault be the front, and these rules hold for it, for the launcher and for servers.
    pub fn with_faults_on_the_host(&self, rules: &str) {
        let directory = self.front.path("faults");
        fs::create_dir(&directory).expect("a directory");
        let with_faults = directory.join("ringfence-runtime");
        std::os::unix::fs::symlink(ringfence_with_faults(), &with_faults).expect("a link");
        let runtime = self.front.runtime();
        fs::remove_file(&runtime).expect("removed");
        let with_faults = with_faults.display();
        let script = format!("#!/bin/sh\nRINGFENCE_FAULTS='{rules}' exec {with_faults} \"$@\"\n");
        fs::write(&runtime, script).expect("a script");
        fs::set_permissions(&runtime, Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Has a runtime with points of fault be the front.
    pub fn with_faults(&self) {
        let runtime = self.front.runtime();
        fs::remove_file(&runtime).expect("removed");
        std::os::unix::fs::symlink(ringfence_with_faults(), runtime).expect("a link");
    }

    /// The same, of the real driver, whose nodes are in this directory.
    pub fn with_nodes(&self, nodes: &Path) {
        self.with_faults();
        let settings = fs::read_to_string(self.front.settings()).expect("settings");
        self.front.set(&settings.replace("\"sim\"", "\"host\""));
        let mut variables = self.front.variables.lock().expect("variables");
        variables.push(("RINGFENCE_DEVICES", nodes.display().to_string()));
    }

    /// The same, which obeys these rules. What is about the program itself is in the environment of that.
    pub fn obey(&self, rules: &str) {
        self.with_faults();
        let mut variables = self.front.variables.lock().expect("variables");
        variables.push(("RINGFENCE_FAULTS", rules.to_owned()));
    }
}

/// A shell's script in a container without GPUs, with what every engine has there.
pub fn plain(script: &str) -> Value {
    let mut value = specification(&["sh", "-c", script]);
    value["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]);
    value["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/acpi"]);
    value["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    value
}

/// The same with a GPU.
pub fn with_gpu(script: &str) -> Value {
    let mut value = plain(script);
    value["linux"]["devices"] =
        json!([{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}]);
    value
}

pub fn grant(value: &mut Value, names: &[&str]) {
    for set in ["bounding", "effective", "permitted"] {
        value["process"]["capabilities"][set] = json!(names);
    }
}

/// Every right by which a program that is root outside as well finds another mount namespace.
const FINDING: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_READ_SEARCH"];

/// statmount(2), listmount(2) and listns(2), and open_by_handle_at(2): by them a program with CAP_SYS_ADMIN enters the sentry's mount
/// namespace, or the host's.
#[test]
fn a_program_in_a_container_finds_no_other_mount_namespace() {
    let words = ["calls", "457", "458", "470", "304"];
    let natively = finish(Command::new(guest_program()).args(words));
    assert!(natively.stdout.ends_with("\n304: EFAULT\n"), "{natively:?}");
    for maker in Maker::all() {
        let mut value = with_gpu(&format!("guest {}", words.join(" ")));
        grant(&mut value, &FINDING);
        let expected = "457: ENOSYS\n458: ENOSYS\n470: ENOSYS\n304: EPERM\n";
        assert_eq!(
            maker.run(&value),
            Ended::printing(expected),
            "{}",
            maker.name
        );
    }
}

/// By NS_MNT_GET_NEXT and NS_MNT_GET_PREV who has CAP_SYS_ADMIN opens them on kernels that do not look whose they are, by any type. What a
/// kernel says by itself is another error.
#[test]
fn a_program_in_a_container_opens_no_mount_namespace_by_ioctl() {
    for maker in Maker::all() {
        let mut value = with_gpu("guest namespaces-by-ioctl");
        grant(&mut value, &["CAP_SYS_ADMIN"]);
        let expected = "0xb7 11: ENOTTY\n0xb7 12: ENOTTY\n0x64 11: ENOTTY\n0x64 12: ENOTTY\n";
        assert_eq!(
            maker.run(&value),
            Ended::printing(expected),
            "{}",
            maker.name
        );
    }
}

/// By bpf(2) who has CAP_SYS_ADMIN takes away what keeps a cgroup from devices. The call is known to the kernel: without GPUs it says
/// otherwise of these arguments.
#[test]
fn a_program_in_a_container_makes_no_call_of_bpf() {
    for maker in Maker::all() {
        let script = "guest calls 321";
        let [mut alone, mut inside] = [plain(script), with_gpu(script)];
        for value in [&mut alone, &mut inside] {
            grant(value, &["CAP_SYS_ADMIN", "CAP_BPF"]);
        }
        maker.front.specify(&alone);
        let natively = maker.alone().run(&["run", "c"]);
        assert_eq!(natively, Ended::printing("321: EINVAL\n"));
        let ended = maker.run(&inside);
        assert_eq!(ended, Ended::printing("321: EPERM\n"), "{}", maker.name);
    }
}

/// The sentry has a descriptor or more for each of what all processes have, and more than each of these may have.
#[test]
fn programs_with_a_low_limit_of_descriptors_reach_the_driver() {
    let script = "ulimit -Sn; ulimit -Hn; for each in 1 2 3 4 5 6 7 8 9 10; do \
                  (guest block-size >/dev/null && echo done) & done; wait; guest pin-among-threads";
    for maker in Maker::all() {
        let mut value = with_gpu(script);
        value["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 24, "hard": 32}]);
        let done = "done\n".repeat(10);
        let expected = format!("24\n32\n{done}pinned 20 times: ok\n");
        assert_eq!(
            maker.run(&value),
            Ended::printing(&expected),
            "{}",
            maker.name
        );
    }
}

/// The two tests above can fail: if nothing is refused, the kernel answers as it does without GPUs.
#[test]
fn what_a_container_asks_of_the_kernel_is_its_to_answer_if_nothing_is_refused() {
    let script = "guest calls 321; guest namespaces-by-ioctl";
    for maker in Maker::all() {
        maker.with_faults();
        let [mut alone, mut inside] = [plain(script), with_gpu(script)];
        for value in [&mut alone, &mut inside] {
            grant(value, &["CAP_SYS_ADMIN", "CAP_BPF"]);
        }
        inside["process"]["env"] = json!(["PATH=/bin", "RINGFENCE_FAULTS=program.refused=drop"]);
        maker.front.specify(&alone);
        let natively = maker.alone().run(&["run", "c"]);
        assert_eq!(maker.run(&inside), natively, "{}", maker.name);
        assert!(natively.stdout.starts_with("321: EINVAL\n"), "{natively:?}");
    }
}

/// Where something is mounted on the host, and nothing in these containers.
const OF_HOST: &str = "/sys/fs/cgroup";

/// What a program sees of the host's mounts, that has all rights for it and no such mount of its own.
fn seen_of_host(maker: &Maker, rules: &str) -> Ended {
    maker.with_faults();
    let mut value = with_gpu(&format!("guest other-mounts {OF_HOST}"));
    value["process"]["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={rules}")]);
    grant(&mut value, &FINDING);
    maker.run(&value)
}

#[test]
fn a_program_in_a_container_sees_none_of_the_hosts_mounts() {
    for maker in Maker::all() {
        let expected = "listmount: ENOSYS\nopen_by_handle_at: EPERM\n";
        let seen = seen_of_host(&maker, "");
        assert_eq!(seen, Ended::printing(expected), "{}", maker.name);
    }
}

/// The test above can fail: it sees what root's programs see that are in no container.
#[test]
fn a_program_in_a_container_sees_the_hosts_mounts_if_it_may_ask_for_them() {
    let script = "umount -l /sys && exec \"$0\" other-mounts \"$1\"";
    let mut natively = Command::new("unshare");
    natively.args(["--mount", "sh", "-c", script]);
    let natively = finish(natively.arg(guest_program()).arg(OF_HOST));
    if !natively.stdout.contains(": seen\n") {
        eprintln!("skipped: no program sees other mount namespaces here: {natively:?}");
        return;
    }
    for maker in Maker::all() {
        let seen = seen_of_host(&maker, "program.refused=drop");
        assert_eq!(seen, natively, "{}", maker.name);
    }
}

#[test]
fn a_program_in_a_container_reaches_the_driver_by_its_sandbox() {
    for maker in Maker::all() {
        let ended = maker.run(&with_gpu("guest close && guest pin-among-threads; exit 7"));
        let expected = Ended {
            status: 7,
            ..Ended::printing("freed 50 times\npinned 20 times: ok\n")
        };
        assert_eq!(ended, expected, "{}", maker.name);
        let mut value = with_gpu("guest close");
        value["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        assert_eq!(
            maker.run(&value),
            Ended::printing("freed 50 times\n"),
            "{}",
            maker.name
        );
    }
}

/// What is lent to the first process is given back, and what the engine hides is hidden.
#[test]
fn a_program_in_a_sandbox_has_what_it_has_in_a_container() {
    let script = "grep -e ^Cap -e ^NoNew -e ^Uid /proc/self/status; cat /proc/keys; ls /proc/acpi; echo x >/proc/sys/kernel/domainname; \
                  ls -d /proc/[0-9]*; mount -t tmpfs x /tmp; exit 3";
    for maker in Maker::all() {
        for (names, ids) in [
            (&["CAP_KILL", "CAP_CHOWN"][..], 0),
            (&["CAP_SETUID"], 1000),
            (&[], 0),
        ] {
            let change = |mut value: Value| {
                grant(&mut value, names);
                value["process"]["user"] = json!({"uid": ids, "gid": ids});
                value
            };
            maker.front.specify(&change(plain(script)));
            let alone = maker.alone().run(&["run", "c"]);
            let inside = maker.run(&change(with_gpu(script)));
            assert_eq!(inside, alone, "{}: {names:?}", maker.name);
            assert_eq!(alone.status, 3);
        }
    }
}

/// A profile that lets through all but some calls, which the sentry needs.
fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["unshare", "mount", "ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
             "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]},
        ],
    })
}

const CALLS: &str =
    "unshare -m true; mount -t tmpfs x /tmp; umount /tmp; umount -l /tmp && echo taken away";

fn under_profile() -> Value {
    let mut value = with_gpu(CALLS);
    grant(&mut value, &["CAP_SYS_ADMIN"]);
    value["linux"]["seccomp"] = profile();
    value
}

#[test]
fn the_engines_profile_holds_as_written() {
    for maker in Maker::all() {
        let ended = maker.run(&under_profile());
        let mut alone = under_profile();
        alone["linux"]
            .as_object_mut()
            .expect("an object")
            .remove("devices");
        maker.front.specify(&alone);
        let alone = maker.alone().run(&["run", "c"]);
        assert_eq!(ended, alone, "{}", maker.name);
        let expected = "unshare: unshare(0x20000): Input/output error\n";
        assert!(alone.stderr.starts_with(expected), "{alone:?}");
    }
}

/// The test above can fail: the calls are open for the sentry's sake.
#[test]
fn the_engines_profile_is_open_if_nobody_closes_it() {
    for maker in Maker::all() {
        maker.with_faults();
        let mut value = under_profile();
        value["process"]["env"] = json!(["PATH=/bin", "RINGFENCE_FAULTS=program.closed=drop"]);
        let ended = maker.run(&value);
        assert_eq!(ended, Ended::printing("taken away\n"), "{}", maker.name);
    }
}

/// With all rights that a container can have, and what the sandbox is made of in sight.
#[test]
fn nothing_in_a_container_opens_a_node_of_the_drivers() {
    let script = "umount /dev/nvidia0; umount /dev/nvidiactl; mknod /tmp/node c 195 255; cat /tmp/node; mount -o remount,bind,dev /dev/nvidia1; \
                  rmdir /dev/.ringfence; ls -d /proc/[0-9]*; guest pin-among-threads";
    for maker in Maker::all() {
        let mut value = with_gpu(script);
        grant(
            &mut value,
            &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD"],
        );
        value["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
                   {"allow": true, "type": "c", "major": 195, "access": "rwm"}]);
        let ended = maker.run(&value);
        assert_eq!(
            ended.stdout, "/proc/1\npinned 20 times: ok\n",
            "{}: {ended:?}",
            maker.name
        );
        let refused = "cat: can't open '/tmp/node': Operation not permitted\n";
        assert!(ended.stderr.contains(refused), "{ended:?}");
    }
}

/// Where no file system is mounted on `/dev`, the image says what is there.
#[test]
fn a_link_of_the_images_leads_to_no_device_that_ioctls_reach() {
    for maker in Maker::all() {
        let root = maker.front.bundle().join("rootfs");
        fs::create_dir(root.join("nodes")).expect("a directory");
        let zero = nix::sys::stat::makedev(1, 5);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&root.join("nodes/zero"), kind, mode, zero).expect("a node");
        std::os::unix::fs::symlink("/nodes", root.join("dev/console")).expect("a link");
        fs::copy(BUSYBOX, root.join("bin/stty")).expect("a program");
        let mut value = with_gpu("stty -F /nodes/zero");
        let mounts = value["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
        let refused = Ended::failing(1, "stty: /nodes/zero: Permission denied");
        assert_eq!(maker.run(&value), refused, "{}", maker.name);
        // Without a sandbox the node would answer that it is no terminal.
        value["linux"]["devices"] = json!([]);
        let reached = Ended::failing(1, "stty: /nodes/zero: Inappropriate ioctl for device");
        assert_eq!(maker.run(&value), reached, "{}", maker.name);
    }
}

/// A hook that lets the container open the driver's nodes, as NVIDIA's does unless it is told otherwise.
pub const HOOK: &str = "#!/bin/sh
pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')
group=$(sed -n 's/.*:devices:\\(.*\\)/\\1/p' /proc/$pid/cgroup)
echo 'c 195:* rw' >\"/sys/fs/cgroup/devices$group/devices.allow\"
";

#[test]
fn a_container_that_could_open_the_drivers_nodes_does_not_start() {
    if !std::path::Path::new("/sys/fs/cgroup/devices").exists() {
        eprintln!("skipped: the hook knows cgroups of version 1 only");
        return;
    }
    for maker in Maker::all() {
        let hook = maker.front.path("hook");
        fs::write(&hook, HOOK).expect("a hook");
        fs::set_permissions(&hook, Permissions::from_mode(0o755)).expect("a mode");
        let mut value = with_gpu("echo started");
        grant(&mut value, &["CAP_SYS_ADMIN"]);
        value["hooks"] = json!({"createRuntime": [{"path": hook}]});
        let line = "the container's cgroup lets it open NVIDIA's nodes, and so go around the sandbox: where a hook of NVIDIA's has done \
                    that, set no-cgroups = true in /etc/nvidia-container-runtime/config.toml";
        assert_eq!(
            maker.run(&value),
            Ended::failing(125, &format!("ringfence: {line}")),
            "{}",
            maker.name
        );
    }
}

#[test]
fn a_container_ends_with_its_sentry_and_nothing_is_left() {
    for maker in Maker::all() {
        let called = maker.called();
        maker
            .front
            .specify(&with_gpu("guest close >/dev/null; exec sleep 1000"));
        assert_eq!(called.run_without_mask(&["create", "c"]).status, 0);
        assert_eq!(called.run(&["start", "c"]).status, 0);
        let state: Value =
            serde_json::from_str(&called.run(&["state", "c"]).stdout).expect("a state");
        let bundle = std::path::PathBuf::from(state["bundle"].as_str().expect("a bundle"));
        assert!(bundle.exists());
        let saved = called.run(&["checkpoint", "c"]);
        let line = "checkpoint: container c has GPUs, whose state nobody can save or restore: stop it, and start it anew";
        assert_eq!(saved, refused(line));
        // Who turns logs over by copytruncate (logrotate(8)) shortens the file that the launcher has open.
        let log = maker.front.path("messages.log");
        // Who can write it can say anything in it.
        let mode = fs::metadata(&log).expect("a log").permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{}", maker.name);
        fs::write(&log, "").expect("a log");
        let sentry = Pid::from_raw(state["pid"].as_i64().expect("a number") as i32);
        kill(sentry, Signal::SIGKILL).expect("killed");
        eventually("it has ended", || {
            called.status_of_container().as_deref() == Some("stopped")
        });
        eventually("the launcher has ended", || !bundle.exists());
        assert_eq!(called.run(&["delete", "c"]).status, 0);
        let line = format!("ERROR {WITHOUT_A_WORD}");
        assert_eq!(said_of(&log, "c"), [line], "{}", maker.name);
    }
}

/// What a log says of the container, each line without its time and the container's name, which all of them have. What the front has
/// refused stands there in the form of runc's own lines, and is left out.
#[track_caller]
pub fn said_of(log: &Path, container: &str) -> Vec<String> {
    let said = fs::read_to_string(log).expect("a log");
    let of_container = |line: &str| {
        let (time, rest) = line.split_once(' ')?;
        let is_time = time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z');
        let rest = rest.strip_prefix(container)?.strip_prefix(' ')?;
        is_time.then(|| rest.trim_start().to_owned())
    };
    let lines = said.lines().filter(|line| !line.starts_with("time=\""));
    let lines = lines.map(|line| of_container(line).ok_or(line));
    let lines: Result<Vec<String>, &str> = lines.collect();
    lines.expect("a time and a container in each line")
}

/// What the program's user sees is one line without either: nobody else's stands beside it.
#[test]
fn a_program_that_is_not_there_is_said_in_the_containers_log_as_all_else() {
    for maker in Maker::all() {
        let mut value = with_gpu("");
        value["process"]["args"] = json!(["/nope"]);
        let reason = "/nope: No such file or directory";
        assert_eq!(
            maker.run(&value),
            Ended::failing(127, &format!("ringfence: {reason}")),
            "{}",
            maker.name
        );
        let log = maker.front.path("messages.log");
        let expected = [format!("ERROR {reason}")];
        eventually("the log says so", || said_of(&log, "c") == expected);
    }
}

#[test]
fn a_server_that_does_not_start_is_said_in_the_containers_log_as_all_else() {
    for maker in Maker::all() {
        // EHWPOISON, by which no call fails here otherwise.
        maker.with_faults_on_the_host("server-start.step@1=errno:133");
        let ended = maker.run(&with_gpu("echo started"));
        let expected = Ended {
            status: 125,
            ..Ended::printing("")
        };
        assert_eq!(ended, expected, "{}", maker.name);
        let log = maker.front.path("messages.log");
        let line = "ERROR the server refused the channel: setsid: Memory page has hardware error";
        eventually("the log says so", || said_of(&log, "c") == [line]);
    }
}

/// By which who reads the log tells a sentry that was killed from a program that has ended.
#[test]
fn a_container_that_ends_by_itself_or_was_never_started_has_nothing_to_say() {
    for maker in Maker::all() {
        let called = maker.called();
        for ending in [&["start", "c"][..], &["delete", "--force", "c"]] {
            maker.front.specify(&with_gpu("guest close; exit 3"));
            assert_eq!(called.run(&["create", "c"]).status, 0);
            let state: Value =
                serde_json::from_str(&called.run(&["state", "c"]).stdout).expect("a state");
            let bundle = std::path::PathBuf::from(state["bundle"].as_str().expect("a bundle"));
            assert!(bundle.exists());
            assert_eq!(called.run(ending).status, 0, "{}", maker.name);
            eventually("the launcher has nothing more to say", || !bundle.exists());
            let said = fs::read_to_string(maker.front.path("messages.log")).expect("a log");
            assert_eq!(said, "", "{}: {ending:?}", maker.name);
            called.run(&["delete", "--force", "c"]);
        }
    }
}

/// What the log says of a sentry that was killed.
const WITHOUT_A_WORD: &str = "the first process was killed, and the container with it: its engine does that, or the kernel if memory ran out";
