//! Docker: Debian's 20.10 and a current one, each started here with roots of its own.
//!
//! The entry of `ringfence-runtime` in daemon.json is what `ringfence runtime configure docker` writes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use userland_tests::finish;

use crate::engine::{BY_CDI, Engine, LowLevel, Runtime, built, installed, skip};
use crate::machine::{Cgroups, Machine};

/// What differs between the two.
struct Version {
    name: &'static str,
    daemon: PathBuf,
    /// Where else the daemon finds programs, first of all.
    path: Vec<PathBuf>,
    runc: PathBuf,
    /// Ways to ask for a GPU.
    ways: &'static [&'static [&'static str]],
    /// Whether root in containers is another user outside.
    remaps: bool,
}

/// dockerd puts NVIDIA's hook there, which does nothing here.
const BY_HOOK: &[&str] = &["--gpus", "all"];

pub fn debians() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || start(&of_debian("docker 20.10")?);
    ENGINE.get_or_init(start).as_ref()
}

/// Debian's, with `userns-remap`.
pub fn remapping() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || {
        start(&Version {
            ways: &[],
            remaps: true,
            ..of_debian("docker 20.10 with userns-remap")?
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

fn of_debian(name: &'static str) -> Option<Version> {
    let daemon = PathBuf::from("/usr/sbin/dockerd");
    if !daemon.exists() {
        return skip(name, "it is not installed (Debian's docker.io)");
    }
    let Some(runc) = installed("runc") else {
        return skip(name, "runc is not installed");
    };
    Some(Version {
        name,
        daemon,
        path: Vec::new(),
        runc,
        ways: &[BY_HOOK],
        remaps: false,
    })
}

pub fn current() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || {
        let name = "a current docker";
        let groups = ["docker", "containerd", "runc"];
        let folders: Option<Vec<PathBuf>> = groups.into_iter().map(built).collect();
        let Some(path) = folders else {
            return skip(
                name,
                "dockerd, containerd or runc was not built (.ci/go-programs)",
            );
        };
        start(&Version {
            name,
            daemon: path[0].join("dockerd"),
            runc: path[2].join("runc"),
            path,
            ways: &[BY_HOOK, BY_CDI],
            remaps: false,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

/// What dockerd is to do without here, and where it keeps what it has.
fn settings(machine: &Machine, version: &Version, crun: Option<&Path>) -> Value {
    let mut value = json!({
        "bridge": "none",
        "iptables": false,
        "ip6tables": false,
        "ip-masq": false,
        "storage-driver": "vfs",
        "features": {"containerd-snapshotter": false, "cdi": true},
        // `docker checkpoint` is there only then.
        "experimental": true,
        "data-root": machine.path("data/docker"),
        "exec-root": machine.path("data/docker-exec"),
        "pidfile": machine.path("data/dockerd.pid"),
        "hosts": [address(machine)],
        "cgroup-parent": machine.group(),
    });
    if version.remaps {
        machine.tell(USER);
        value["userns-remap"] = "remapped".into();
    }
    if let Some(crun) = crun {
        value["runtimes"]["crun"] = json!({"path": crun});
    }
    value
}

/// Whose numbers containers' users have.
const USER: &str = "
printf 'remapped:x:64322:64322::/:/bin/false\\n' >>/etc/passwd
printf 'remapped:x:64322:\\n' >>/etc/group
printf 'remapped:200000:65536\\n' >>/etc/subuid
printf 'remapped:200000:65536\\n' >>/etc/subgid
";

/// The daemon's socket, below the machine's directory.
pub const SOCKET: &str = "docker.sock";

/// A runtime whose containers get 4 GiB of a GPU's memory at most, and its settings.
pub const LIMITED: &str = "ringfence-limited";
pub const LIMITED_SETTINGS: &str = "limited.toml";

fn address(machine: &Machine) -> String {
    format!("unix://{}", machine.name_of(SOCKET))
}

fn start(version: &Version) -> Option<Engine> {
    let name = version.name;
    if installed("docker").is_none() {
        return skip(name, "there is no docker (Debian's docker.io)");
    }
    let machine = match Machine::new(Cgroups::Usual) {
        Ok(machine) => machine,
        Err(reason) => return skip(name, &reason),
    };
    let crun = installed("crun");
    if crun.is_none() {
        skip::<()>(&format!("{name} with crun"), "it is not installed");
    }
    configure(&machine, version, crun.as_deref());
    let mut low_levels = vec![LowLevel::Runc];
    low_levels.extend(crun.map(|_| LowLevel::Crun));
    start_daemon(&machine, version, "daemon.json", "dockerd.log");
    let address = address(&machine);
    let words = ["docker", "--host", &address].map(str::to_owned).to_vec();
    let engine = Engine {
        name,
        machine,
        low_levels,
        user: Vec::new(),
        words,
        names_runtime_first: false,
        options: Vec::new(),
        ways: version.ways,
        has_init: true,
        is_roots: true,
    };
    if !answers(&engine) {
        let log = std::fs::read_to_string(engine.machine.path("dockerd.log"));
        panic!("{name} does not answer: {log:?}");
    }
    engine.prepare()
}

/// Writes daemon.json as an administrator would: by hand, and then by `ringfence runtime configure`.
fn configure(machine: &Machine, version: &Version, crun: Option<&Path>) {
    let file = machine.name_of("daemon.json");
    let text = settings(machine, version, crun).to_string();
    std::fs::write(&file, text).expect("a file");
    let add = |options: &[&str]| {
        let mut command = machine.command(machine.ringfence());
        command.args(["runtime", "configure", "docker", "--config", &file]);
        let ended = finish(command.args(options));
        assert_eq!(ended.status, 0, "{ended:?}");
    };
    machine.set("runc.toml", &version.runc);
    add(&[]);
    if let Some(crun) = crun {
        machine.set("crun.toml", crun);
        let settings = machine.name_of("crun.toml");
        let path = machine.runtime_with("programs/crun/ringfence-runtime", &settings);
        add(&["--name", "ringfence-crun", "--runtime-path", &path]);
    }
    machine.set(LIMITED_SETTINGS, &version.runc);
    let settings = machine.name_of(LIMITED_SETTINGS);
    let text = std::fs::read_to_string(&settings).expect("settings");
    let text = text + "[gpu-memory]\nmaximum = \"4g\"\n";
    std::fs::write(&settings, text).expect("settings");
    let path = machine.runtime_with("programs/limited/ringfence-runtime", &settings);
    add(&["--name", LIMITED, "--runtime-path", &path]);
    // In the place of NVIDIA's hook, which dockerd wants for --gpus.
    let hook = machine.name_of("programs/nvidia-container-runtime-hook");
    machine.write_program(&hook, "#!/bin/sh\nexit 0\n");
}

/// Starts dockerd with a file of settings.
fn start_daemon(machine: &Machine, version: &Version, settings: &str, log: &str) {
    let mut path = vec![machine.path("programs")];
    path.extend(version.path.iter().cloned());
    path.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    let path = std::env::join_paths(path).expect("paths");
    let mut command = machine.command(&version.daemon);
    command.arg("--config-file").arg(machine.path(settings));
    command.env("PATH", path);
    command.env("RINGFENCE_CONFIG", machine.path("runc.toml"));
    // Debian's client is of 20.10.
    command.env("DOCKER_MIN_API_VERSION", "1.24");
    machine.start(&mut command, log);
}

/// Whether the daemon answers before long.
fn answers(engine: &Engine) -> bool {
    let alone = Runtime::Alone(LowLevel::Runc);
    let mut tries = 0..600;
    tries.any(|_| {
        let answers = engine.tell(alone, &["version"]).status == 0;
        if !answers {
            std::thread::sleep(Duration::from_millis(100));
        }
        answers
    })
}
