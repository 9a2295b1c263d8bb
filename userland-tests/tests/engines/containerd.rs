//! containerd: Debian's and a current one, by `ctr`, which names the runtime's program itself.
//!
//! Pods, which are made by way of CRI, are in `pods.rs`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use userland_tests::{Ended, eventually, finish};

use crate::engine::{built, installed, skip};
use crate::image::IMAGE;
use crate::machine::{Cgroups, Machine};
use crate::options::REQUESTS;

/// A containerd that runs.
pub struct Containerd {
    pub name: &'static str,
    pub machine: Machine,
    ctr: PathBuf,
    /// Those that make containers here, runc the first.
    pub runtimes: Vec<Runtime>,
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

    pub fn ctr(&self, words: &[&str]) -> Ended {
        let mut command = self.machine.command(&self.ctr);
        let socket = self.machine.path("containerd.sock");
        // Where CRI has its containers and images.
        let namespace = ["--namespace", "k8s.io"];
        let command = command.arg("--address").arg(socket).args(namespace);
        let mut ended = finish(command.args(words));
        // Current ones say each time that cgroups of version 1 will not be known for ever.
        let lines = ended
            .stderr
            .lines()
            .filter(|line| !line.contains("DEPRECATION"));
        ended.stderr = lines.fold(String::new(), |text, line| text + line + "\n");
        ended
    }

    /// `ctr run OPTIONS… IMAGE NAME sh -c SCRIPT` with a runtime.
    pub fn run(&self, program: &str, options: &[&str], script: &str) -> (String, Ended) {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("of-ctr-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let group = format!("{}/{name}", self.machine.group());
        let mut words = vec!["run", "--snapshotter", "native", "--cgroup", &group];
        words.extend(["--runc-binary", program]);
        words.extend(options);
        words.extend([IMAGE, &name, "sh", "-c", script]);
        let ended = self.ctr(&words);
        (name, ended)
    }

    /// Removes a container that goes on, or has ended.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        self.ctr(&["task", "delete", "--force", container]);
        let removed = self.ctr(&["container", "delete", container]);
        assert_eq!(removed.status, 0, "{}: {removed:?}", self.name);
    }
}

/// A low-level runtime, and `ringfence-runtime` in front of it.
pub struct Runtime {
    alone: String,
    pub front: String,
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
    let machine = match Machine::new(Cgroups::Usual) {
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
    let mut engine = Containerd {
        name,
        machine,
        runtimes: Vec::new(),
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
    // The daemon of current ones unpacks for snapshotters that its configuration names; ctr does so for any.
    let local = if engine.knows_cdi {
        &["--local"][..]
    } else {
        &[]
    };
    let words = [
        &["image", "import", "--snapshotter", "native"],
        local,
        &[&image],
    ]
    .concat();
    let ended = engine.ctr(&words);
    assert_eq!(ended.status, 0, "{name}: {ended:?}");
    engine.runtimes = runtimes(&engine, version);
    (!engine.runtimes.is_empty()).then_some(engine)
}

fn runtimes(engine: &Containerd, version: &Version) -> Vec<Runtime> {
    let machine = &engine.machine;
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let mut found = vec![Runtime {
        alone: text(&version.runc),
        front: machine.name_of("programs/ringfence-runtime"),
    }];
    if let Some(crun) = installed("crun") {
        machine.set("crun.toml", &crun);
        let settings = machine.name_of("crun.toml");
        found.push(Runtime {
            alone: text(&crun),
            front: machine.runtime_with("programs/crun/ringfence-runtime", &settings),
        });
    }
    found.retain(|Runtime { alone, .. }| {
        let (_, ended) = engine.run(alone, &["--rm"], "exit 9");
        if ended.status != 9 {
            let name = format!("{} with {alone}", engine.name);
            skip::<()>(
                &name,
                &format!("it makes no container here: {}", ended.stderr.trim()),
            );
        }
        ended.status == 9
    });
    found
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

pub const GPU: [&str; 2] = ["--device", "/dev/nvidia0"];

#[test]
fn ctr_runs_a_container_with_gpus() {
    let script =
        "guest close && guest pin-among-threads; touch /data/new 2>&1; echo err >&2; exit 7";
    let options = [&["--rm", "--read-only"][..], &GPU].concat();
    for containerd in Containerd::all() {
        for Runtime { front, .. } in &containerd.runtimes {
            let (_, ended) = containerd.run(front, &options, script);
            let printed = "pinned 20 times: ok\ntouch: /data/new: Read-only file system\n";
            let expected = Ended {
                status: 7,
                stdout: format!("{REQUESTS}{printed}"),
                stderr: "err\n".to_owned(),
            };
            assert_eq!(ended, expected, "{}: {front}", containerd.name);
        }
    }
}

/// It has rules of its own for calls that the sentry needs.
#[test]
fn containerds_own_profile_holds() {
    let script = "unshare -U true 2>&1; grep -e ^Cap -e ^NoNew /proc/self/status";
    let options = "--rm --seccomp --net-host --cap-add CAP_SYS_NICE";
    let options: Vec<&str> = options.split(' ').collect();
    for containerd in Containerd::all() {
        for Runtime { alone, front } in &containerd.runtimes {
            let with_gpu = [&options[..], &GPU].concat();
            let requests = format!("guest close; {script}");
            let (_, ended) = containerd.run(front, &with_gpu, &requests);
            let (_, alone) = containerd.run(alone, &options, script);
            let expected = format!("{REQUESTS}{}", alone.stdout);
            assert_eq!(ended.stdout, expected, "{}: {front}", containerd.name);
            let is_refused = alone.stdout.contains("Operation not permitted");
            assert!(is_refused, "{}: {alone:?}", containerd.name);
        }
    }
}

#[test]
fn ctr_takes_names_of_cdi() {
    let options = ["--rm", "--device", "nvidia.com/gpu=all"];
    for containerd in Containerd::all().filter(|containerd| containerd.knows_cdi) {
        for Runtime { front, .. } in &containerd.runtimes {
            let (_, ended) = containerd.run(front, &options, "guest close; exit 6");
            let expected = Ended {
                status: 6,
                ..Ended::printing(REQUESTS)
            };
            assert_eq!(ended, expected, "{}: {front}", containerd.name);
        }
    }
}

#[test]
fn ctr_runs_a_container_without_gpus_as_without_ringfence() {
    let script =
        "ls /dev; ls -d /proc/[0-9]*; grep -e ^Cap -e ^Seccomp -e ^NoNew /proc/self/status; exit 4";
    for containerd in Containerd::all() {
        for Runtime { alone, front } in &containerd.runtimes {
            let (_, front) = containerd.run(front, &["--rm"], script);
            let (_, alone) = containerd.run(alone, &["--rm"], script);
            assert_eq!(front, alone, "{}", containerd.name);
            assert_eq!(alone.status, 4, "{}: {alone:?}", containerd.name);
        }
    }
}

#[test]
fn ctr_shows_what_is_refused() {
    let options = [&["--rm", "--privileged"][..], &GPU].concat();
    for containerd in Containerd::all() {
        for Runtime { front, .. } in &containerd.runtimes {
            let (_, ended) = containerd.run(front, &options, "echo ran");
            let line = "is privileged, and could reach the driver around the sandbox: leave out --privileged";
            let name = containerd.name;
            assert!(ended.stderr.contains(line), "{name}: {front}: {ended:?}");
            assert_eq!(ended.stdout, "", "{name}: {front}");
        }
    }
}

#[test]
fn ctr_pauses_kills_and_removes_a_container_with_gpus() {
    for containerd in Containerd::all() {
        let name = containerd.name;
        let front = &containerd.runtimes[0].front;
        let options = [&["--detach"][..], &GPU].concat();
        let script = "touch /data/up; while :; do sleep 0.1; done";
        let (container, ended) = containerd.run(front, &options, script);
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
        let line = " has GPUs, whose state nobody can save or restore";
        assert!(saved.stderr.contains(line), "{name}: {saved:?}");
        let killed = containerd.ctr(&["task", "kill", "--signal", "KILL", &container]);
        assert_eq!(killed.status, 0, "{name}: {killed:?}");
        eventually("it has ended", || state("STOPPED"));
        containerd.remove(&container);
        eventually("nothing is left", || !listed().contains(&container));
    }
}
