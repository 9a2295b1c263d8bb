//! Podman: that of root, and that of an ordinary user.
//!
//! It passes no variable on to a runtime. So settings are where an administrator has them, `/etc/ringfence/config.toml`, and for a second
//! low-level runtime a script names others.

use std::path::Path;
use std::sync::OnceLock;

use userland_tests::finish;

use crate::engine::{BY_CDI, Engine, LowLevel, Runtime, called, installed, skip};
use crate::machine::{Cgroups, Machine};

/// What differs from one to another.
struct Kind {
    name: &'static str,
    is_roots: bool,
    cgroups: Cgroups,
}

pub fn of_root() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || {
        start(&Kind {
            name: "podman",
            is_roots: true,
            cgroups: Cgroups::Usual,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

/// Where cgroups of version 2 alone are in sight, by which a program in the kernel decides on devices.
pub fn with_second_cgroups() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || {
        start(&Kind {
            name: "podman with cgroups of version 2",
            is_roots: true,
            cgroups: Cgroups::Second,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

pub fn of_user() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || {
        let name = "podman, rootless";
        if installed("newuidmap").is_none() {
            return skip(name, "there is no newuidmap (Debian's uidmap)");
        }
        start(&Kind {
            name,
            is_roots: false,
            cgroups: Cgroups::Usual,
        })
    };
    ENGINE.get_or_init(start).as_ref()
}

/// An ordinary user, who has numbers for the users of containers.
const USER: &str = "
printf 'tester:x:64321:64321::/home/tester:/bin/sh\\n' >>/etc/passwd
printf 'tester:x:64321:\\n' >>/etc/group
printf 'tester:100000:65536\\n' >>/etc/subuid
printf 'tester:100000:65536\\n' >>/etc/subgid
mkdir -p /run/user/64321
chown 64321:64321 /run/user/64321
";

const RUN: &str = "/run/user/64321";
const AS_USER: &str =
    "setpriv --reuid 64321 --regid 64321 --clear-groups env XDG_RUNTIME_DIR=/run/user/64321";

fn start(kind: &Kind) -> Option<Engine> {
    let Kind { name, is_roots, .. } = *kind;
    if installed("podman").is_none() {
        return skip(name, "it is not installed");
    }
    let machine = match Machine::new(kind.cgroups) {
        Ok(machine) => machine,
        Err(reason) => return skip(name, &reason),
    };
    let home = machine.name_of("data/home");
    machine.tell(&format!("mkdir {home}"));
    let mut user = Vec::new();
    if !is_roots {
        machine.tell(&format!("{USER}chown 64321:64321 {home}"));
        user.extend(AS_USER.split(' ').map(str::to_owned));
        user.push(format!("HOME={home}"));
    }
    let low_levels = configure(&machine, name);
    let group = machine.group();
    let options = match (is_roots, kind.cgroups) {
        (false, _) => Vec::new(),
        (true, Cgroups::Usual) => vec!["--cgroup-parent".to_owned(), group],
        // Where version 1 is in use as well, the other controllers are there.
        (true, Cgroups::Second) => {
            let options = ["--cgroup-parent", &group, "--pids-limit", "0"];
            options.map(str::to_owned).to_vec()
        }
    };
    let engine = Engine {
        name,
        machine,
        low_levels,
        user,
        words: words(&home, if is_roots { "/run" } else { RUN }),
        names_runtime_first: true,
        options,
        ways: &[BY_CDI],
        has_init: Path::new("/usr/libexec/podman/catatonit").exists(),
        is_roots,
    };
    engine.prepare()
}

/// Configures podman as an administrator would, and returns the low-level runtimes that there are.
fn configure(machine: &Machine, name: &str) -> Vec<LowLevel> {
    let add = |options: &[&str]| {
        let mut command = machine.command(machine.ringfence());
        command.args(["runtime", "configure", "podman"]);
        let ended = finish(command.args(options));
        assert_eq!(ended.status, 0, "{ended:?}");
    };
    let mut low_levels = Vec::new();
    for low_level in LowLevel::ALL {
        let of = low_level.name();
        let Some(path) = installed(of) else {
            skip::<()>(&format!("{name} with {of}"), "it is not installed");
            continue;
        };
        machine.set(&format!("{of}.toml"), &path);
        let settings = machine.name_of(&format!("{of}.toml"));
        match low_level {
            LowLevel::Runc => {
                let place = "/etc/ringfence/config.toml";
                machine.tell(&format!("mkdir /etc/ringfence; cp {settings} {place}"));
                add(&[]);
            }
            LowLevel::Crun => {
                let path = machine.runtime_with("programs/crun/ringfence-runtime", &settings);
                add(&[
                    "--name",
                    called(Runtime::Ringfence(low_level)),
                    "--runtime-path",
                    &path,
                ]);
            }
        }
        low_levels.push(low_level);
    }
    low_levels
}

/// The command line: what lasts is below the home, and what does not where podman takes a short path only.
fn words(home: &str, run: &str) -> Vec<String> {
    let mut words = vec!["podman".to_owned()];
    for (option, place) in [("root", home), ("runroot", run), ("tmpdir", run)] {
        words.extend([format!("--{option}"), format!("{place}/{option}")]);
    }
    let options = "--storage-driver vfs --cgroup-manager cgroupfs --events-backend file";
    words.extend(options.split(' ').map(str::to_owned));
    words
}
