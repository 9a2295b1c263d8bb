//! What a container with GPUs cannot have: a table of what is refused, how it is seen in the specification, and the way out.
//!
//! The idea: each of these goes around any sandbox. Whoever asks for both learns it before anything was made, in one line.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caps::CapSet;
use ringfence_sentry::failure::Failure;
use serde_json::Value;

use super::gpus::{Asked, Driver, HookKind};
use super::specification::{Specification, number, text};
use super::toolkit::VOID;

/// Something that is refused.
struct Refusal {
    is_asked: fn(&Specification, &Asked) -> bool,
    /// What the container has, why that cannot be, and what to do.
    line: &'static str,
}

const TABLE: [Refusal; 9] = [
    Refusal {
        is_asked: |specification, _| is_privileged(specification, &grantable()),
        line: "is privileged, and could reach the driver around the sandbox: leave out --privileged (securityContext.privileged) and \
               grant by --cap-add and --device what the program needs, or run it with the engine's own runtime (--runtime=runc; ctr: leave out \
               --runc-binary; CRI: another handler or RuntimeClass)",
    },
    Refusal {
        is_asked: |specification, _| has_hosts_processes(specification),
        line: "has the host's process namespace, and a sandbox needs one of its own: leave out --pid=host (hostPID)",
    },
    Refusal {
        is_asked: |specification, _| {
            joins_processes(specification)
                && specification
                    .bounding_capabilities()
                    .any(|name| REACHING.contains(&name))
        },
        line: "shares its processes with other containers and has CAP_SYS_ADMIN or CAP_SYS_PTRACE, by which its program could reach the \
               sandbox's own through them: leave out these capabilities, or --pid=container:NAME (shareProcessNamespace)",
    },
    Refusal {
        is_asked: |specification, _| !has_processes(specification),
        line: "has no /proc, which a sandbox is made by: have the specification mount one (type proc)",
    },
    Refusal {
        is_asked: |specification, _| has_further_processes(specification),
        line: "mounts a second /proc at another place, which would show the sandbox's own processes: leave that mount (type proc) out",
    },
    Refusal {
        is_asked: |_, asked| has_nodes_of(asked, Driver::Tegra),
        line: "has nodes of the driver of NVIDIA's systems on a chip, which Ringfence does not know: leave them out, or run it with the \
               engine's own runtime",
    },
    Refusal {
        is_asked: |_, asked| has_nodes_of(asked, Driver::GpuDirect),
        line: "has nodes by which other devices reach GPU memory around the sandbox: leave /dev/nvidia-fs* and /dev/gdrdrv out \
               (NVIDIA_GDS, NVIDIA_GDRCOPY), or run it with the engine's own runtime",
    },
    Refusal {
        is_asked: |specification, asked| {
            has_nodes_of(asked, Driver::Imex) || asks_hook(specification, asked, &[CHANNELS])
        },
        line: "has channels of NVIDIA's IMEX (/dev/nvidia-caps-imex-channels), by which a program reaches memory that others export, on this machine \
               and on others, and that no limit counts: leave NVIDIA_IMEX_CHANNELS out, or run it with the engine's own runtime",
    },
    Refusal {
        is_asked: |specification, asked| asks_hook(specification, asked, &PARTITIONING),
        line: "asks to divide GPUs, or to watch all of their parts, which no sandboxed program may: leave NVIDIA_MIG_CONFIG_DEVICES \
               and NVIDIA_MIG_MONITOR_DEVICES out",
    },
];

/// By which a program reaches a process of another process namespace, if somebody in that hands it a descriptor.
const REACHING: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"];
/// By which NVIDIA's hook is asked for channels of IMEX.
const CHANNELS: &str = "NVIDIA_IMEX_CHANNELS";
/// By which it is asked for the rights to divide GPUs, and to watch all of their parts. It grants them to who has CAP_SYS_ADMIN, which the
/// first process has (`toolkit.rs`).
const PARTITIONING: [&str; 2] = ["NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES"];
fn has_nodes_of(asked: &Asked, driver: Driver) -> bool {
    asked.nodes.iter().any(|node| node.driver == driver)
}

/// Whether NVIDIA's hook is there, and one of these variables asks it for something.
fn asks_hook(specification: &Specification, asked: &Asked, names: &[&str]) -> bool {
    let mut variables = specification.variables();
    asked.has_hook(HookKind::Legacy)
        && variables
            .any(|(name, value)| names.contains(&name) && !value.is_empty() && value != VOID)
}

/// Capabilities that all kernels of the last ten years have, from 0 to 37 (capability.h). Later ones an engine may not know.
const CAPABILITIES: [&str; 38] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
];

/// Refuses a container with GPUs that asks for what it cannot have.
pub fn expect_possible(
    container: &str,
    specification: &Specification,
    asked: &Asked,
) -> Result<(), Failure> {
    let refusal = TABLE
        .iter()
        .find(|refusal| (refusal.is_asked)(specification, asked));
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(Failure::setup(format!(
            "container {container} has GPUs ({asked}) and {}",
            refusal.line
        ))),
    }
}

/// Refuses to save a container with GPUs to a file, or to start it from one.
pub fn of_checkpoint(container: &str, command: &str, asked: &Asked) -> Failure {
    // The specification of one that runs is the rewritten one, which says no more by what it was given them.
    let ways = match asked.to_string() {
        ways if ways.is_empty() => ways,
        ways => format!(" ({ways})"),
    };
    Failure::setup(format!(
        "{command}: container {container} has GPUs{ways}, whose state nobody can save or restore: stop it, and start it anew"
    ))
}

/// Engines write no word for `--privileged`. It is what no other option comes to: every device by one rule, and every
/// capability that the engine could grant.
fn is_privileged(specification: &Specification, grantable: &BTreeSet<String>) -> bool {
    let held: BTreeSet<&str> = specification.bounding_capabilities().collect();
    let mut wanted = CAPABILITIES
        .iter()
        .filter(|name| grantable.contains(**name));
    let has_all = wanted.all(|name| held.contains(name));
    has_all && specification.device_rules().iter().any(is_for_all)
}

/// The capabilities that a container can get here: an engine that runs in a container itself may lack some, and so does what it
/// starts, this process among it.
fn grantable() -> BTreeSet<String> {
    match caps::read(None, CapSet::Bounding) {
        Ok(own) => own.iter().map(ToString::to_string).collect(),
        Err(_) => CAPABILITIES.map(str::to_owned).into(),
    }
}

/// Whether a rule lets a container do everything with every device: Docker writes no type then, podman and containerd `a`.
fn is_for_all(rule: &Value) -> bool {
    let is_allowed = rule.get("allow").and_then(Value::as_bool) == Some(true);
    let is_any_type = matches!(text(rule, "type"), None | Some("" | "a"));
    let is_any_number = number(rule, "major").is_none() && number(rule, "minor").is_none();
    let access = text(rule, "access").unwrap_or_default();
    is_allowed && is_any_type && is_any_number && "rwm".chars().all(|right| access.contains(right))
}

/// Whether the container joins the process namespace of others.
fn joins_processes(specification: &Specification) -> bool {
    let mut namespaces = specification.namespaces().iter();
    namespaces.any(|namespace| {
        let joined = text(namespace, "path").is_some_and(|path| !path.is_empty());
        text(namespace, "type") == Some("pid") && joined
    })
}

/// Whether the container has no process namespace of its own, or has that of whoever started this.
fn has_hosts_processes(specification: &Specification) -> bool {
    let mut namespaces = specification.namespaces().iter();
    let Some(namespace) = namespaces.find(|namespace| text(namespace, "type") == Some("pid"))
    else {
        return true;
    };
    let joined = text(namespace, "path").filter(|path| !path.is_empty());
    joined.is_some_and(|path| is_own_namespace(Path::new(path)))
}

/// The places at which the specification mounts a `/proc` of the kernel's.
fn places_of_processes(specification: &Specification) -> impl Iterator<Item = PathBuf> {
    let mounts = specification.mounts().iter();
    let mounts = mounts.filter(|mount| text(mount, "type") == Some("proc"));
    mounts.map(|mount| Path::new("/").join(text(mount, "destination").unwrap_or_default()))
}

/// Whether the specification mounts the kernel's `/proc`.
fn has_processes(specification: &Specification) -> bool {
    places_of_processes(specification).any(|place| place == Path::new("/proc"))
}

/// Whether it mounts one elsewhere: the program's own takes the place of that at `/proc` alone.
fn has_further_processes(specification: &Specification) -> bool {
    places_of_processes(specification).any(|place| place != Path::new("/proc"))
}

fn is_own_namespace(path: &Path) -> bool {
    let identity = |path: &Path| {
        let status = fs::metadata(path).ok()?;
        Some((status.dev(), status.ino()))
    };
    identity(path).is_some_and(|joined| Some(joined) == identity(Path::new("/proc/self/ns/pid")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn specification(rule: Value, capabilities: &[&str]) -> Specification {
        Specification(json!({
            "process": {"capabilities": {"bounding": capabilities}},
            "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}, rule]}},
        }))
    }

    fn privileged(rule: Value, capabilities: &[&str]) -> bool {
        let all = CAPABILITIES.map(str::to_owned).into();
        is_privileged(&specification(rule, capabilities), &all)
    }

    #[test]
    fn an_engine_that_lacks_a_capability_grants_the_others() {
        let rule = json!({"allow": true, "access": "rwm"});
        let granted = specification(rule, &CAPABILITIES[1..]);
        let all: BTreeSet<String> = CAPABILITIES.map(str::to_owned).into();
        assert!(!is_privileged(&granted, &all));
        let mut some = all.clone();
        some.remove(CAPABILITIES[0]);
        assert!(is_privileged(&granted, &some));
    }

    #[test]
    fn privileged_containers_of_every_engine_are_recognised() {
        let later = [
            &CAPABILITIES[..],
            &["CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"],
        ]
        .concat();
        for rule in [
            json!({"allow": true, "access": "rwm"}),
            json!({"allow": true, "type": "a", "access": "rwm"}),
            json!({"allow": true, "type": "a", "major": -1, "minor": -1, "access": "mrw"}),
        ] {
            assert!(privileged(rule.clone(), &CAPABILITIES), "{rule}");
            assert!(privileged(rule.clone(), &later), "{rule}");
            // --device-cgroup-rule 'a *:* rwm'
            assert!(!privileged(rule, &CAPABILITIES[..14]));
        }
        // --cap-add=ALL
        for rule in [
            json!({"allow": true, "type": "c", "access": "rwm"}),
            json!({"allow": true, "access": "m"}),
            json!({"allow": false, "access": "rwm"}),
            json!({"allow": true, "type": "a", "major": 195, "access": "rwm"}),
        ] {
            assert!(!privileged(rule.clone(), &CAPABILITIES), "{rule}");
        }
    }

    #[test]
    fn the_hosts_process_namespace_is_recognised() {
        for (namespaces, expected) in [
            (json!([{"type": "mount"}]), true),
            (json!([{"type": "pid"}]), false),
            (json!([{"type": "pid", "path": ""}]), false),
            (json!([{"type": "pid", "path": "/proc/self/ns/pid"}]), true),
            (json!([{"type": "pid", "path": "/proc/self/ns/uts"}]), false),
        ] {
            let specification = Specification(json!({"linux": {"namespaces": namespaces}}));
            assert_eq!(
                has_hosts_processes(&specification),
                expected,
                "{specification:?}"
            );
        }
        assert!(has_hosts_processes(&Specification(json!({}))));
    }
}
