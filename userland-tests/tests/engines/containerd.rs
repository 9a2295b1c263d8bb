//! containerd: Debian's and a current one, by `ctr`, which names the runtime's program itself.
//!
//! Pods, which are made by way of CRI, are in `pods.rs`.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use userland_tests::{Ended, eventually, finish};

use crate::engine::{built, installed, skip};
use crate::image::IMAGE;
use crate::machine::Machine;
use crate::options::REQUESTS;

/// A containerd that runs.
pub struct Containerd {
    pub name: &'static str,
    pub machine: Machine,
    ctr: PathBuf,
    /// Whether it knows specifications of CDI.
    pub knows_cdi: bool,
}

/// What differs between the two.
struct Version {
    name: &'static str,
    /// Where its programs are.
    folder: PathBuf,
    runc: PathBuf,
    /// Of the format of its configuration.
    format: u8,
    /// In that format, ahead of what `ringfence runtime configure` adds.
    settings: &'static str,
}

/// Settings of both. `PLACE` stands for the machine's directory.
const SETTINGS: &str = r#"
version = FORMAT
root = "PLACE/data/containerd"
state = "PLACE/data/containerd-state"

[grpc]
address = "PLACE/containerd.sock"
"#;

const OF_1_6: &str = r#"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/ringfence-test:latest"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"#;

const OF_2: &str = r#"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "docker.io/library/ringfence-test:latest"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
"#;

impl Containerd {
    pub fn all() -> impl Iterator<Item = &'static Containerd> {
        [debians(), current()].into_iter().flatten()
    }

    fn ctr(&self, words: &[&str]) -> Ended {
        let mut command = self.machine.command(&self.ctr);
        let socket = self.machine.path("containerd.sock");
        // Where CRI has its containers and images.
        let namespace = ["--namespace", "k8s.io"];
        finish(
            command
                .arg("--address")
                .arg(socket)
                .args(namespace)
                .args(words),
        )
    }

    /// `ctr run OPTIONS… IMAGE NAME sh -c SCRIPT` with the runtime or the low-level one.
    fn run(&self, program: Option<&str>, options: &[&str], script: &str) -> (String, Ended) {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("of-ctr-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let group = format!("{}/{name}", self.machine.group());
        let mut words = vec!["run", "--snapshotter", "native", "--cgroup", &group];
        if let Some(program) = program {
            words.extend(["--runc-binary", program]);
        }
        words.extend(options);
        words.extend([IMAGE, &name, "sh", "-c", script]);
        let ended = self.ctr(&words);
        (name, ended)
    }

    fn runtime(&self) -> String {
        self.machine.name_of("programs/ringfence-runtime")
    }
}

fn debians() -> Option<&'static Containerd> {
    static ENGINE: OnceLock<Option<Containerd>> = OnceLock::new();
    let start = || {
        let name = "Debian's containerd";
        let (Some(containerd), Some(runc)) = (installed("containerd"), installed("runc")) else {
            return skip(name, "it is not installed, or runc is not");
        };
        start(&Version {
            name,
            folder: containerd.parent()?.to_owned(),
            runc,
            format: 2,
            settings: OF_1_6,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

fn current() -> Option<&'static Containerd> {
    static ENGINE: OnceLock<Option<Containerd>> = OnceLock::new();
    let start = || {
        let name = "a current containerd";
        let (Some(folder), Some(runc)) = (built("containerd"), built("runc")) else {
            return skip(name, "it was not built, or runc was not (.ci/go-programs)");
        };
        start(&Version {
            name,
            folder,
            runc: runc.join("runc"),
            format: 3,
            settings: OF_2,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

fn start(version: &Version) -> Option<Containerd> {
    let name = version.name;
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(reason) => return skip(name, &reason),
    };
    configure(&machine, version);
    let folders = [
        Some(version.folder.clone()),
        version.runc.parent().map(PathBuf::from),
    ];
    let others = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let path = std::env::join_paths(folders.into_iter().flatten().chain(others));
    let mut command = machine.command(version.folder.join("containerd"));
    command.arg("--config").arg(machine.path("containerd.toml"));
    command.env("PATH", path.expect("paths"));
    command.env("RINGFENCE_CONFIG", machine.path("runc.toml"));
    machine.start(&mut command, "containerd.log");
    let engine = Containerd {
        name,
        machine,
        ctr: version.folder.join("ctr"),
        knows_cdi: version.format > 2,
    };
    let answers = || {
        let answers = engine.ctr(&["version"]).status == 0;
        if !answers {
            std::thread::sleep(Duration::from_millis(100));
        }
        answers
    };
    if !(0..600).any(|_| answers()) {
        let log = std::fs::read_to_string(engine.machine.path("containerd.log"));
        panic!("{name} does not answer: {log:?}");
    }
    let image = engine.machine.name_of("image.tar");
    let ended = engine.ctr(&["image", "import", "--snapshotter", "native", &image]);
    assert_eq!(ended.status, 0, "{name}: {ended:?}");
    let (_, ended) = engine.run(None, &["--rm"], "exit 9");
    if ended.status != 9 {
        return skip(name, &format!("it makes no container here: {ended:?}"));
    }
    Some(engine)
}

/// Writes the configuration as an administrator would: by hand, and then by `ringfence runtime configure`.
fn configure(machine: &Machine, version: &Version) {
    let text = [SETTINGS, version.settings].concat();
    let text = text.replace("PLACE", machine.name_of("").trim_end_matches('/'));
    let text = text.replace("FORMAT", &version.format.to_string());
    let file = machine.name_of("containerd.toml");
    std::fs::write(&file, text).expect("a file");
    machine.set("runc.toml", &version.runc);
    let mut command = machine.command(machine.ringfence());
    command.args(["runtime", "configure", "containerd", "--config", &file]);
    let ended = finish(&mut command);
    assert_eq!(ended.status, 0, "{ended:?}");
}

const GPU: [&str; 2] = ["--device", "/dev/nvidia0"];

#[test]
fn ctr_runs_a_container_with_gpus() {
    for containerd in Containerd::all() {
        let name = containerd.name;
        let runtime = containerd.runtime();
        let script = "guest close && guest pin-among-threads; id -u; touch /data/new 2>&1; echo err >&2; exit 7";
        let options = ["--rm", "--read-only", "--user", "1000:1000"];
        let (_, ended) = containerd.run(Some(&runtime), &[&options[..], &GPU].concat(), script);
        let expected = Ended {
            status: 7,
            stdout: format!(
                "{REQUESTS}pinned 20 times: ok\n1000\ntouch: /data/new: Read-only file system\n"
            ),
            stderr: "err\n".to_owned(),
        };
        assert_eq!(ended, expected, "{name}");
        // containerd's own profile, which has rules of its own for calls that the sentry needs.
        let script = "guest close; unshare -U true 2>&1; grep -e ^Cap -e ^NoNew /proc/self/status";
        let options = [
            "--rm",
            "--seccomp",
            "--net-host",
            "--cap-add",
            "CAP_SYS_NICE",
        ];
        let (_, ended) = containerd.run(Some(&runtime), &[&options[..], &GPU].concat(), script);
        let (_, alone) = containerd.run(None, &options, script.trim_start_matches("guest close; "));
        assert_eq!(
            ended.stdout,
            format!("{REQUESTS}{}", alone.stdout),
            "{name}: {ended:?} {alone:?}"
        );
        assert!(
            alone.stdout.contains("Operation not permitted"),
            "{name}: {alone:?}"
        );
        if containerd.knows_cdi {
            let options = ["--rm", "--device", "nvidia.com/gpu=all"];
            let (_, ended) = containerd.run(Some(&runtime), &options, "guest close; exit 6");
            let expected = Ended {
                status: 6,
                ..Ended::printing(REQUESTS)
            };
            assert_eq!(ended, expected, "{name}");
        }
    }
}

#[test]
fn ctr_runs_a_container_without_gpus_as_without_ringfence() {
    let script =
        "ls /dev; ls -d /proc/[0-9]*; grep -e ^Cap -e ^Seccomp -e ^NoNew /proc/self/status; exit 4";
    for containerd in Containerd::all() {
        let runtime = containerd.runtime();
        let (_, front) = containerd.run(Some(&runtime), &["--rm"], script);
        let (_, alone) = containerd.run(None, &["--rm"], script);
        assert_eq!(front, alone, "{}", containerd.name);
        assert_eq!(alone.status, 4, "{}: {alone:?}", containerd.name);
    }
}

#[test]
fn ctr_shows_what_is_refused() {
    for containerd in Containerd::all() {
        let name = containerd.name;
        let runtime = containerd.runtime();
        let options = [&["--rm", "--privileged"][..], &GPU].concat();
        let (_, ended) = containerd.run(Some(&runtime), &options, "echo ran");
        let line =
            "is privileged, and could reach the driver around the sandbox: leave out --privileged";
        assert!(ended.stderr.contains(line), "{name}: {ended:?}");
        assert_eq!(ended.stdout, "", "{name}");
    }
}

#[test]
fn ctr_pauses_kills_and_removes_a_container_with_gpus() {
    for containerd in Containerd::all() {
        let name = containerd.name;
        let runtime = containerd.runtime();
        let options = [&["--detach"][..], &GPU].concat();
        let script = "touch /data/up; while :; do sleep 0.1; done";
        let (container, ended) = containerd.run(Some(&runtime), &options, script);
        assert_eq!(ended, Ended::printing(""), "{name}");
        let state = |state: &str| {
            let listed = containerd.ctr(&["task", "list"]).stdout;
            let mut lines = listed.lines();
            lines.any(|line| line.starts_with(&format!("{container} ")) && line.contains(state))
        };
        let listed = || {
            let ringfence = containerd.machine.ringfence();
            finish(containerd.machine.command(ringfence).arg("ps")).stdout
        };
        eventually("it runs", || state("RUNNING"));
        eventually("ringfence ps shows it", || listed().contains(&container));
        assert_eq!(
            containerd.ctr(&["task", "pause", &container]).status,
            0,
            "{name}"
        );
        assert!(state("PAUSED"), "{name}");
        assert_eq!(
            containerd.ctr(&["task", "resume", &container]).status,
            0,
            "{name}"
        );
        assert!(state("RUNNING"), "{name}");
        let saved = containerd.ctr(&["task", "checkpoint", &container]);
        let line = "whose state nobody can save or restore";
        assert!(saved.stderr.contains(line), "{name}: {saved:?}");
        let killed = containerd.ctr(&["task", "kill", "--signal", "KILL", &container]);
        assert_eq!(killed.status, 0, "{name}: {killed:?}");
        eventually("it has ended", || state("STOPPED"));
        containerd.ctr(&["task", "delete", &container]);
        let removed = containerd.ctr(&["container", "delete", &container]);
        assert_eq!(removed.status, 0, "{name}: {removed:?}");
        eventually("nothing is left", || !listed().contains(&container));
    }
}
