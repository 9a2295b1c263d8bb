//! Containers' specifications, as engines write them for a program without a terminal.
//!
//! All containers share the host's files as their root, and differ in the program and its devices.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::Work;

/// A node of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub path: String,
    pub major: u64,
    pub minor: u64,
}

/// What Docker grants.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

/// Where, of what type, and with which options something is mounted.
const MOUNTS: [(&str, &str, &[&str]); 6] = [
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755"]),
    (
        "/dev/pts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666"],
    ),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    (
        "/dev/shm",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "mode=1777"],
    ),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
];

/// Of what the simulated driver stands in for.
pub fn simulated() -> Device {
    Device {
        path: "/dev/nvidia0".to_owned(),
        major: 195,
        minor: 0,
    }
}

/// NVIDIA's nodes of this machine that programs of CUDA's use: of every GPU, so that each way has as many.
pub fn of_host() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let status = fs::metadata(entry.path())?;
        if is_used(&name) && status.file_type().is_char_device() {
            found.push(Device {
                path: format!("/dev/{name}"),
                major: major(status.rdev()),
                minor: minor(status.rdev()),
            });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn is_used(name: &str) -> bool {
    let Some(kind) = name.strip_prefix("nvidia") else {
        return false;
    };
    let is_number = !kind.is_empty() && kind.bytes().all(|digit| digit.is_ascii_digit());
    is_number || matches!(kind, "ctl" | "-uvm")
}

/// The specification of a container that runs this.
pub fn specification(work: &Work, root: &Path, devices: &[Device]) -> Value {
    let words: Vec<_> = work
        .words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    // What is not text no specification can have. What NVIDIA's variables say is of a container that this tool itself is in.
    let environment: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("NVIDIA_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mounts = MOUNTS.map(|(destination, kind, options)| {
        json!({"destination": destination, "type": kind, "source": kind, "options": options})
    });
    let nodes: Vec<Value> = devices
        .iter()
        .map(|device| {
            json!({
                "path": device.path, "type": "c", "major": device.major, "minor": device.minor,
                "fileMode": 0o666, "uid": 0, "gid": 0,
            })
        })
        .collect();
    let allowed = devices.iter().map(|device| {
        json!({"allow": true, "type": "c", "major": device.major, "minor": device.minor, "access": "rw"})
    });
    let none = json!({"allow": false, "access": "rwm"});
    let rules: Vec<Value> = [none].into_iter().chain(allowed).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": words,
            "env": environment,
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true,
        },
        "root": {"path": root, "readonly": true},
        "mounts": mounts,
        "linux": {
            "namespaces": NAMESPACES.map(|kind| json!({"type": kind})),
            "devices": nodes,
            "resources": {"devices": rules},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_are_those_that_programs_of_cuda_use() {
        for used in ["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia15"] {
            assert!(is_used(used), "{used}");
        }
        for other in [
            "nvidia",
            "nvidia-uvm-tools",
            "nvidia-caps",
            "nvidia0x",
            "null",
        ] {
            assert!(!is_used(other), "{other}");
        }
    }

    #[test]
    fn a_specification_has_the_program_and_its_devices_and_no_other_is_allowed() {
        let value = specification(
            &Work::new(["echo", "a b"]),
            Path::new("/root-of-containers"),
            &[simulated()],
        );
        assert_eq!(value["process"]["args"], json!(["echo", "a b"]));
        assert_eq!(
            value["root"],
            json!({"path": "/root-of-containers", "readonly": true})
        );
        assert_eq!(value["linux"]["devices"][0]["path"], "/dev/nvidia0");
        let rules = &value["linux"]["resources"]["devices"];
        assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(rules.as_array().map(Vec::len), Some(2));
    }
}
