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
    /// What makes the engine read it.
    pub next_step: &'static str,
    /// What else to do for who may not write the file.
    pub for_others: &'static str,
}

const DOCKER: Facts = Facts {
    file: "/etc/docker/daemon.json",
    syntax: Syntax::Json,
    reads_every_file: false,
    next_step: "next: systemctl reload docker (of a rootless dockerd: systemctl --user reload docker)",
    for_others: ", or for a rootless dockerd give --config ~/.config/docker/daemon.json",
};

const CONTAINERD: Facts = Facts {
    file: "/etc/containerd/config.toml",
    syntax: Syntax::Toml,
    reads_every_file: false,
    next_step: "next: systemctl restart containerd (containers run on)",
    for_others: ", or for a rootless containerd give --config ~/.config/containerd/config.toml",
};

const PODMAN: Facts = Facts {
    file: "/etc/containers/containers.conf.d/ringfence.conf",
    syntax: Syntax::Toml,
    reads_every_file: false,
    next_step: "next: nothing, each podman command reads it; its service: systemctl restart podman",
    for_others: "",
};

const CRIO: Facts = Facts {
    file: "/etc/crio/crio.conf.d/50-ringfence.conf",
    syntax: Syntax::Toml,
    reads_every_file: true,
    next_step: "next: systemctl restart crio (containers run on)",
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
