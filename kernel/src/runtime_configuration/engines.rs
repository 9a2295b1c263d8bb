//! The engines: where each has its configuration, and how it takes a new one.
//!
//! Sources: dockerd(8), "Configuration reload behavior"; containerd-config.toml(5); containers.conf(5); crio.conf(5) and
//! `UpdateFromPath` in CRI-O's pkg/config/config.go.

use std::path::PathBuf;

use clap::ValueEnum;
use nix::unistd::Uid;
use ringfence_sentry::failure::Failure;

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Docker,
    Containerd,
    Podman,
    Crio,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Json,
    Toml,
}

/// What is known of an engine.
#[derive(Debug)]
pub struct Facts {
    /// The file, of the whole machine.
    pub file: &'static str,
    pub syntax: Syntax,
    /// Whether every file in the directory of drop-ins counts, whatever its name, so that no copy may be kept there.
    pub reads_every_file: bool,
    /// What makes the engine read it, after an entry was put in.
    pub after_adding: &'static str,
    /// The same after one was taken out.
    pub after_removing: &'static str,
    /// What makes another engine than root's read it, where that differs: podman has one for each user.
    pub after_of_user: Option<&'static str>,
    /// How one container is given the engine's own runtime, where Ringfence is that of all.
    pub own_runtime: &'static str,
    /// What else to do for who may not write the file.
    pub for_others: &'static str,
}

// Of runtimes that are gone from the file dockerd hears by no signal: it keeps them where it has no others, and 20.10 dies of it
// where one was the default (`reloadPlatform` in its daemon/reload_unix.go).
const DOCKER: Facts = Facts {
    file: "/etc/docker/daemon.json",
    syntax: Syntax::Json,
    reads_every_file: false,
    after_adding: "next: systemctl reload docker (of a rootless dockerd: systemctl --user reload docker)",
    after_removing: "next: systemctl restart docker (of a rootless dockerd: systemctl --user restart docker)",
    after_of_user: None,
    own_runtime: "--runtime=runc",
    for_others: ", or for a rootless dockerd give --config ~/.config/docker/daemon.json",
};

const CONTAINERD: Facts = Facts {
    file: "/etc/containerd/config.toml",
    syntax: Syntax::Toml,
    reads_every_file: false,
    after_adding: "next: systemctl restart containerd (containers run on)",
    after_removing: "next: systemctl restart containerd (containers run on)",
    after_of_user: None,
    own_runtime: "a RuntimeClass whose handler is runc",
    for_others: ", or for a rootless containerd give --config ~/.config/containerd/config.toml",
};

const PODMAN: Facts = Facts {
    file: "/etc/containers/containers.conf.d/ringfence.conf",
    syntax: Syntax::Toml,
    reads_every_file: false,
    after_adding: "next: nothing, each podman command reads it; its service: systemctl restart podman",
    after_removing: "next: nothing, each podman command reads it; its service: systemctl restart podman",
    after_of_user: Some(
        "next: nothing, each podman command reads it; its service: systemctl --user restart podman",
    ),
    own_runtime: "--runtime=crun or --runtime=runc",
    for_others: "",
};

const CRIO: Facts = Facts {
    file: "/etc/crio/crio.conf.d/50-ringfence.conf",
    syntax: Syntax::Toml,
    reads_every_file: true,
    after_adding: "next: systemctl restart crio (containers run on)",
    after_removing: "next: systemctl restart crio (containers run on)",
    after_of_user: None,
    own_runtime: "a RuntimeClass whose handler is crun or runc",
    for_others: "",
};

impl Engine {
    pub fn facts(self) -> &'static Facts {
        match self {
            Engine::Docker => &DOCKER,
            Engine::Containerd => &CONTAINERD,
            Engine::Podman => &PODMAN,
            Engine::Crio => &CRIO,
        }
    }

    /// What makes the engine read its file, after an entry was put in, or taken out.
    pub fn next_step(self, was_removed: bool) -> &'static str {
        let facts = self.facts();
        let of_root = match was_removed {
            true => facts.after_removing,
            false => facts.after_adding,
        };
        let of_user = facts.after_of_user.filter(|_| !Uid::effective().is_root());
        of_user.unwrap_or(of_root)
    }

    /// The file that the engine reads where nothing else is said: podman has one for each user.
    pub fn file(self) -> Result<PathBuf, Failure> {
        if self != Engine::Podman || Uid::effective().is_root() {
            return Ok(self.facts().file.into());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let of_user = set("XDG_CONFIG_HOME").map(PathBuf::from);
        let of_user =
            of_user.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
        let Some(directory) = of_user.filter(|directory| directory.is_absolute()) else {
            return Err(Failure::setup(
                "podman's configuration of this user cannot be found: set HOME, or name the file with --config",
            ));
        };
        Ok(directory.join("containers/containers.conf.d/ringfence.conf"))
    }
}
