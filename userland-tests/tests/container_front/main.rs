//! `ringfence-runtime`: what it hands over to the low-level runtime, what it refuses, and how an engine learns of that.
//!
//! Here a script is in the low-level runtime's place, which prints what it was given. What compares with runc and crun is in
//! `lives.rs`, containers with GPUs are in `sandboxes.rs`, and NVIDIA's ways to give GPUs in `nvidia/`.

mod attacks;
mod exec;
mod exhaustion;
mod faults;
mod hostile;
mod launchers;
mod lives;
mod nvidia;
mod ordinary_users;
mod parts;
mod profiles;
mod running;
mod sandboxes;
mod settings;
mod users;
mod walls;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};
use userland_tests::{Directory, Ended, finish, ringfence_program};

/// A directory with `ringfence-runtime`, settings that name a low-level runtime, and a bundle.
struct Front {
    directory: Directory,
    /// Who the front is: the test's own user, or an ordinary one, who makes containers without cgroups.
    user: OnceLock<u32>,
    /// Variables of the front's own environment.
    variables: Mutex<Vec<(&'static str, String)>>,
}

impl Front {
    fn new() -> Front {
        let front = Front {
            directory: Directory::new("front"),
            user: OnceLock::default(),
            variables: Mutex::default(),
        };
        symlink(ringfence_program(), front.runtime()).expect("a link");
        fs::create_dir_all(front.bundle().join("rootfs/bin")).expect("a bundle");
        front
    }

    /// One whose low-level runtime is this executable.
    fn of(low_level: &Path) -> Front {
        let front = Front::new();
        front.name(low_level);
        front
    }

    /// One whose low-level runtime is the script.
    fn of_script() -> Front {
        let front = Front::new();
        let script = front.path("low-level");
        fs::write(&script, SCRIPT).expect("a script");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a mode");
        front.name(&script);
        front
    }

    /// Names a low-level runtime in the settings.
    fn name(&self, low_level: &Path) {
        let low_level = low_level.display();
        let log = self.path("messages.log");
        self.set(&format!(
            "[runtime]\nlow-level = \"{low_level}\"\ndriver = \"sim\"\nlog = \"{}\"\n",
            log.display()
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runtime(&self) -> PathBuf {
        self.path("ringfence-runtime")
    }

    fn settings(&self) -> PathBuf {
        self.path("config.toml")
    }

    fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    fn set(&self, settings: &str) {
        fs::write(self.settings(), settings).expect("settings");
        // Whatever mode files get here: root's runtime obeys no file that others write.
        fs::set_permissions(self.settings(), Permissions::from_mode(0o644)).expect("a mode");
    }

    fn specify(&self, specification: &Value) {
        let mut specification = specification.clone();
        // Other tests run beside this one.
        let group = self.directory.path().file_name().expect("a name");
        let group = format!("/{}", group.to_string_lossy());
        if let Some(linux) = specification.get_mut("linux")
            && self.user.get().is_none()
        {
            linux["cgroupsPath"] = group.into();
        }
        let text = serde_json::to_vec(&specification).expect("JSON");
        fs::write(self.bundle().join("config.json"), text).expect("a specification");
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(self.runtime());
        command.args(words).stdin(Stdio::null());
        command.env("RINGFENCE_CONFIG", self.settings());
        command.current_dir(self.bundle());
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        finish(&mut self.command(words))
    }
}

/// Says what it was given. Of a container it knows the bundle.
const SCRIPT: &str = r#"#!/bin/sh
for word in "$@"; do
    if test "$word" = state; then
        printf '{"ociVersion":"1.0.2","id":"c","status":"running","bundle":"%s"}' "$PWD"
        exit 0
    fi
done
echo "low-level: $*"
exit 42
"#;

/// What the script says when it was given these words.
fn handed_over(words: &[&str]) -> Ended {
    Ended {
        status: 42,
        ..Ended::printing(&format!("low-level: {}\n", words.join(" ")))
    }
}

fn refused(reason: &str) -> Ended {
    Ended::failing(1, &format!("ringfence-runtime: {reason}"))
}

/// A specification that runc and crun take, of a program in busybox.
fn specification(arguments: &[&str]) -> Value {
    let namespaces = ["pid", "mount", "ipc", "uts", "network"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
        // No version of the specification has these.
        "futureField": {"deep": [1, {"x": null}]},
    })
}

/// The same with a GPU.
fn with_gpu() -> Value {
    let mut value = specification(&["sh"]);
    value["linux"]["devices"] =
        json!([{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}]);
    value
}

const PRIVILEGED: &str = "container c has GPUs (/dev/nvidia0) and is privileged, and could reach the driver around the sandbox: leave \
                          out --privileged (securityContext.privileged) and grant by --cap-add and --device what the program needs, or \
                          run it with the engine's own runtime (--runtime=runc; ctr: leave out --runc-binary; CRI: another handler or \
                          RuntimeClass)";

/// A specification that is refused.
fn with_gpu_and_privileges() -> Value {
    let mut value = with_gpu();
    privilege(&mut value);
    value
}

/// Whether the low-level runtime was given a bundle of the front's own, and more descriptors, in the words of `given`.
#[track_caller]
fn expect_sandbox(ended: &Ended, given: &str) {
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    let own = |word: &&str| word.contains("/ringfence-containers/c.");
    let descriptors = words.windows(2).any(|pair| pair == ["--preserve-fds", "6"]);
    assert!(
        ended.status == 42 && words.iter().any(own) && descriptors,
        "{given}: {ended:?}"
    );
}

#[test]
fn what_is_not_about_gpus_is_handed_over_word_by_word() {
    let front = Front::of_script();
    front.specify(&specification(&["sh"]));
    let bytes = || fs::read(front.bundle().join("config.json")).expect("a specification");
    let before = bytes();
    for words in [
        &["create", "--bundle", ".", "c"][..],
        &[
            "--root",
            "/r",
            "--systemd-cgroup",
            "run",
            "-d",
            "-b",
            ".",
            "c",
        ],
        &["--log", "/nonexistent/log", "start", "c"],
        &["kill", "c", "9"],
        &["delete", "--force", "c"],
        &["exec", "--process", "/p.json", "c"],
        &["ps", "c"],
        &["list", "-q"],
        &["pause", "c"],
        &["resume", "c"],
        &["update", "--memory", "1", "c"],
        &["events", "--stats", "c"],
        &["features"],
        &["spec"],
        &["a-later-command", "--with", "what it likes"],
        &["--a-later-option", "value", "start", "c"],
        &["create", "--help"],
        // There is nothing to read, and the low-level runtime says so.
        &["create", "--bundle", "/nonexistent", "c"],
    ] {
        assert_eq!(front.run(words), handed_over(words), "{words:?}");
    }
    assert_eq!(bytes(), before);
}

/// crun would remove the directory around that of its containers.
#[test]
fn a_directory_is_no_container() {
    let front = Front::of_script();
    for name in [".", ".."] {
        let line = format!("container {name}: this is a directory and no container: give its name");
        for words in [
            &["delete", "--force", name][..],
            &["state", name],
            &["create", name],
        ] {
            let ended = front.run(words);
            assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{words:?}");
            assert!(ended.stderr.contains(&line), "{words:?}: {}", ended.stderr);
        }
    }
}

/// What a process has besides its words: the environment, descriptors, its directory, signals that are ignored.
#[test]
fn the_low_level_runtime_finds_what_the_engine_left() {
    let front = Front::of_script();
    let shows = "#!/bin/sh\nenv | grep -v ^_= | sort\npwd\ncat <&3\ngrep -E '^Sig(Ign|Blk)' /proc/self/status\nls /proc/$$/fd\n";
    fs::write(front.path("low-level"), shows).expect("a script");
    let caller = "trap '' USR1; exec 3<config.json; exec \"$0\" state c";
    let of = |trap: &str, program: &Path| {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{trap}{caller}")])
            .arg(program);
        command.env("RINGFENCE_CONFIG", front.settings());
        command.env("EMPTY", "").stdin(Stdio::null());
        finish(command.current_dir(front.bundle()))
    };
    front.specify(&json!({"three": 3}));
    for trap in ["", "trap '' PIPE; "] {
        let alone = of(trap, &front.path("low-level"));
        assert!(alone.stdout.contains("{\"three\":3}"), "{alone:?}");
        assert_eq!(of(trap, &front.runtime()), alone);
    }
}

#[test]
fn a_container_with_gpus_is_refused_where_the_engine_looks() {
    let front = Front::of_script();
    let name = front.path("low-level");
    front.set(&format!("[runtime]\nlow-level = \"{}\"\n", name.display()));
    front.specify(&with_gpu_and_privileges());
    let log = front.path("log.json");
    let log_name = log.to_str().expect("text");
    let ended = front.run(&["--log", log_name, "--log-format", "json", "create", "c"]);
    assert_eq!(ended, refused(PRIVILEGED));
    let line = fs::read_to_string(&log).expect("a log");
    let entry: BTreeMap<String, String> = serde_json::from_str(&line).expect("one line of JSON");
    let names: Vec<&str> = entry.keys().map(String::as_str).collect();
    assert_eq!(names, ["level", "msg", "time"]);
    assert_eq!(entry["level"], "error");
    assert_eq!(entry["msg"], format!("ringfence-runtime: {PRIVILEGED}"));
    assert!(entry["time"].ends_with('Z'), "{line}");

    // Lines are added, in the form that was asked for, and to the administrator's own log.
    let settings = fs::read_to_string(front.settings()).expect("settings");
    let own = front.path("own.log");
    front.set(&format!("{settings}log = \"{}\"\n", own.display()));
    let bundle = front.bundle();
    let bundle = bundle.to_str().expect("text");
    let words = ["--log", log_name, "run", "--bundle", bundle, "c"];
    assert_eq!(front.run(&words), refused(PRIVILEGED));
    let text = fs::read_to_string(&log).expect("a log");
    let [first, second] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    assert_eq!(format!("{first}\n"), line);
    let end = format!(" level=error msg=\"ringfence-runtime: {PRIVILEGED}\"");
    assert!(
        second.starts_with("time=\"20") && second.ends_with(&end),
        "{second}"
    );
    assert_eq!(
        fs::read_to_string(&own).expect("a log"),
        format!("{second}\n")
    );

    // What cannot be logged is on stderr all the same.
    front.set(&settings);
    let ended = front.run(&["--log", "/nonexistent/log", "create", "c"]);
    let lost = "ringfence-runtime: log /nonexistent/log: No such file or directory\n";
    let told = format!("{lost}ringfence-runtime: {PRIVILEGED}");
    assert_eq!(ended, Ended::failing(1, &told));
}

#[test]
fn gpus_are_recognised_wherever_they_come_from() {
    let hook = |path: &str, environment: &[&str]| {
        let mut value = specification(&["sh"]);
        value["process"]["env"] = json!(environment);
        value["hooks"] = json!({"prestart": [{"path": path}]});
        value
    };
    let mut mounted = specification(&["sh"]);
    let mounts = mounted["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/gpu", "type": "bind", "source": "/dev/nvidia7", "options": ["bind"]}));
    let legacy = "/usr/bin/nvidia-container-runtime-hook";
    let front = Front::of_script();
    for (value, has_gpus) in [
        (with_gpu(), true),
        (mounted, true),
        (hook(legacy, &["NVIDIA_VISIBLE_DEVICES=all"]), true),
        (hook(legacy, &["NVIDIA_VISIBLE_DEVICES=none"]), true),
        (
            hook("/opt/nvidia-cdi-hook", &["NVIDIA_VISIBLE_DEVICES=void"]),
            true,
        ),
        (hook(legacy, &["NVIDIA_VISIBLE_DEVICES=void"]), false),
        (hook(legacy, &[]), false),
        (hook("/bin/true", &["NVIDIA_VISIBLE_DEVICES=all"]), false),
    ] {
        front.specify(&value);
        let ended = front.run(&["create", "c"]);
        match has_gpus {
            true => expect_sandbox(&ended, &value.to_string()),
            false => assert_eq!(ended, handed_over(&["create", "c"]), "{value}"),
        }
    }
}

#[test]
fn without_a_driver_no_gpu_is_simulated_by_itself() {
    if Path::new("/sys/module/nvidia/version").exists() {
        eprintln!("skipped: this machine has NVIDIA's driver");
        return;
    }
    let front = Front::of_script();
    let script = front.path("low-level");
    front.set(&format!("runtime.low-level = \"{}\"\n", script.display()));
    front.specify(&with_gpu());
    let line = format!(
        "this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): load the nvidia module, or to try containers \
         without a GPU, write driver = \"sim\" in [runtime] of {}",
        front.settings().display()
    );
    assert_eq!(front.run(&["create", "c"]), refused(&line));
}

/// However the bundle is named: a container that is not found is handed over.
#[test]
fn no_way_of_naming_the_bundle_goes_around() {
    let front = Front::of_script();
    front.specify(&with_gpu());
    let other = front.bundle().join("other.json");
    fs::write(&other, with_gpu().to_string()).expect("a specification");
    let named = front.bundle();
    let named = named.to_str().expect("text");
    let attached = format!("-b{named}");
    let equal = format!("--bundle={named}");
    for words in [
        &["create", "-b", named, "c"][..],
        &["create", "c", "-b", named],
        &["create", "--pid-file", "/p", "-b", named, "c"],
        &["create", &equal, "c"],
        &["create", &attached, "c"],
        &["create", "-bundle", named, "c"],
        &["create", "--bundl", named, "c"],
        &["create", "-no-pivot", "-b", named, "c"],
        &["--a-later-option", "value", "create", "-b", named, "c"],
    ] {
        let mut command = front.command(words);
        let ended = finish(command.current_dir("/"));
        expect_sandbox(&ended, &words.join(" "));
    }
    front.specify(&specification(&["sh"]));
    let ended = front.run(&["create", "--config", "other.json", "c"]);
    expect_sandbox(&ended, "--config");
    let last = ended.stdout.split_whitespace().rev().nth(1);
    let is_own = |path: &str| path.contains("/ringfence-containers/c.");
    assert!(
        last.is_some_and(is_own),
        "the last of several holds: {ended:?}"
    );
    fs::write(front.bundle().join("config.json"), "{\"linux\": ").expect("a file");
    let reason = "specification ./config.json: it is no JSON: EOF while parsing a value at line 1 column 10: have the engine write it again";
    assert_eq!(front.run(&["create", "c"]), refused(reason));
}

/// What an option of an engine does to a specification.
type Change = fn(&mut Value);

/// What `--privileged` makes of a specification.
fn privilege(value: &mut Value) {
    let names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE \
                 NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN \
                 SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE \
                 MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ";
    let all: Vec<String> = names.split(' ').map(|name| format!("CAP_{name}")).collect();
    value["process"]["capabilities"]["bounding"] = json!(all);
    value["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
}

/// What `--pid=host` makes of one.
fn share_processes(value: &mut Value) {
    value["linux"]["namespaces"] = json!([{"type": "mount"}]);
}

#[test]
fn what_a_container_with_gpus_cannot_have_is_refused_with_the_way_out() {
    let front = Front::of_script();
    let rows: [(Change, &str); 5] = [
        (
            |value| {
                value["linux"]["namespaces"] =
                    json!([{"type": "pid", "path": "/proc/self/ns/uts"}]);
                value["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_PTRACE"]);
            },
            "shares its processes with other containers and has CAP_SYS_ADMIN or CAP_SYS_PTRACE, by which its program could \
             reach the sandbox's own through them: leave out these capabilities, or --pid=container:NAME (shareProcessNamespace)",
        ),
        (
            privilege,
            "is privileged, and could reach the driver around the sandbox: leave out --privileged \
             (securityContext.privileged) and grant by --cap-add and --device what the program needs, or run it with the engine's own \
             runtime (--runtime=runc; ctr: leave out --runc-binary; CRI: another handler or RuntimeClass)",
        ),
        (
            share_processes,
            "has the host's process namespace, and a sandbox needs one of its own: leave out --pid=host (hostPID)",
        ),
        (
            |value| value["mounts"] = json!([]),
            "has no /proc, which a sandbox is made by: have the specification mount one (type proc)",
        ),
        (
            |value| {
                let mounts = value["mounts"].as_array_mut().expect("mounts");
                mounts.push(json!({"destination": "/proc2", "type": "proc", "source": "proc"}));
            },
            "mounts a second /proc at another place, which would show the sandbox's own processes: leave that mount (type proc) out",
        ),
    ];
    for (change, line) in rows {
        let mut value = with_gpu();
        change(&mut value);
        front.specify(&value);
        let line = format!("container c has GPUs (/dev/nvidia0) and {line}");
        assert_eq!(front.run(&["create", "c"]), refused(&line));
        // Without GPUs it is the low-level runtime's, as ever.
        let mut value = specification(&["sh"]);
        change(&mut value);
        front.specify(&value);
        assert_eq!(front.run(&["create", "c"]), handed_over(&["create", "c"]));
    }
}

#[test]
fn a_container_with_gpus_is_neither_saved_nor_restored() {
    let front = Front::of_script();
    let save = ["--root", "/r", "checkpoint", "--image-path", "/images", "c"];
    let restore = ["restore", "--image-path", "/images", "c"];
    for words in [&save[..], &restore[..]] {
        front.specify(&specification(&["sh"]));
        assert_eq!(front.run(words), handed_over(words));
        front.specify(&with_gpu());
        let command = match words.contains(&"checkpoint") {
            true => "checkpoint",
            false => "restore",
        };
        let line = format!(
            "{command}: container c has GPUs (/dev/nvidia0), whose state nobody can save or restore: stop it, and start it anew"
        );
        assert_eq!(front.run(words), refused(&line));
    }
}

#[test]
fn the_front_never_takes_itself_for_the_low_level_runtime() {
    let front = Front::of_script();
    let own = front.path("own");
    fs::create_dir(&own).expect("a directory");
    symlink(ringfence_program(), own.join("runc")).expect("a link");
    let others = front.path("others");
    fs::create_dir(&others).expect("a directory");
    fs::copy(front.path("low-level"), others.join("runc")).expect("a copy");
    front.set("");
    let path = std::env::join_paths([&own, &others]).expect("a path");
    let mut command = front.command(&["start", "c"]);
    command.env("PATH", path);
    assert_eq!(finish(&mut command), handed_over(&["start", "c"]));

    for (name, reason) in [
        (
            own.join("runc"),
            "it is ringfence-runtime itself: name runc or crun",
        ),
        (
            front.path("none"),
            "No such file or directory: name an executable",
        ),
        (front.settings(), "Permission denied: name an executable"),
    ] {
        front.name(&name);
        let line = format!("runtime.low-level: {}: {reason}", name.display());
        assert_eq!(front.run(&["start", "c"]), refused(&line));
    }
    let nvidias = front.path("nvidia-container-runtime");
    fs::copy(front.path("low-level"), &nvidias).expect("a copy");
    let link = front.path("linked");
    symlink(&nvidias, &link).expect("a link");
    front.name(&link);
    let line = format!(
        "runtime.low-level: {}: it is {}, which starts ringfence-runtime in its turn: name runc or crun",
        link.display(),
        nvidias.display()
    );
    assert_eq!(front.run(&["start", "c"]), refused(&line));
}

#[test]
fn help_and_version_are_its_own() {
    let front = Front::of_script();
    let version = format!("ringfence-runtime version {}\n", env!("CARGO_PKG_VERSION"));
    for word in ["--version", "-v"] {
        let expected = Ended {
            status: 42,
            ..Ended::printing(&format!("{version}low-level: {word}\n"))
        };
        assert_eq!(front.run(&[word]), expected);
    }
    let help = front.run(&["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    for word in [
        "low-level",
        "RINGFENCE_CONFIG",
        "--version",
        "create",
        "docker",
    ] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    assert!(help.stdout.lines().all(|line| line.len() <= 105));
    assert_eq!(front.run(&[]), help);
}
