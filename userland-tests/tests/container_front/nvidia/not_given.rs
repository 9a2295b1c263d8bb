//! What a container does not get by NVIDIA's ways: what no sandbox can have, and what a hook makes that was not asked for.

use std::path::Path;

use serde_json::json;
use userland_tests::Ended;

use super::super::sandboxes::grant;
use super::stand_ins::{Configured, FIRST_UUID, HOSTILE, SECOND_UUID};
use super::{Host, LEGACY, OPEN, container, give, with_nodes};

#[test]
fn what_no_sandbox_can_have_is_refused() {
    for host in Host::all() {
        let hooked = |asked: &str| host.docker(&[], asked);
        let part = |name: &str| {
            format!(
                "container c asks NVIDIA's hook for {name}, a part of a GPU (MIG), by a name that only the driver could look up: give it by \
                 CDI, or write GPU/GI/CI, as in 0/1/0: nvidia-smi -L shows the GPU of each part and its number there, and nvidia-smi the GI \
                 ID and CI ID that belong to this number, with MIG-GPU-UUID in place of the index"
            )
        };
        let unknown = |name: &str| {
            format!(
                "container c asks NVIDIA's hook for GPU {name}, and this machine has 0 ({FIRST_UUID}), 1 ({SECOND_UUID}): ask for one of these"
            )
        };
        for (value, line) in [
            (hooked("0:0"), part("0:0")),
            (hooked("0,MIG-2a3f"), part("MIG-2a3f")),
            (hooked("2"), unknown("2")),
            (hooked("0,GPU-1234"), unknown("GPU-1234")),
            (hooked("nvidia.com/gpu=0"), unknown("nvidia.com/gpu=0")),
        ] {
            let expected = Ended::failing(1, &format!("ringfence-runtime: {line}"));
            assert_eq!(host.by_front(LEGACY, &value), expected, "{}", host.name());
        }
        for (environment, node, line) in [
            (
                "NVIDIA_VISIBLE_DEVICES=0",
                Some(("nvidia-fs0", 511)),
                "has nodes by which other devices reach GPU memory around the sandbox: leave /dev/nvidia-fs* and /dev/gdrdrv out \
                 (NVIDIA_GDS, NVIDIA_GDRCOPY), or run it with the engine's own runtime",
            ),
            (
                "NVIDIA_IMEX_CHANNELS=0",
                None,
                "has channels of NVIDIA's IMEX (/dev/nvidia-caps-imex-channels), by which a program reaches memory that others export, on this machine \
                 and on others, and that no limit counts: leave NVIDIA_IMEX_CHANNELS out, or run it with the engine's own runtime",
            ),
            (
                "NVIDIA_MIG_CONFIG_DEVICES=all",
                None,
                "asks to divide GPUs, or to watch all of their parts, which no sandboxed program may: leave \
                 NVIDIA_MIG_CONFIG_DEVICES and NVIDIA_MIG_MONITOR_DEVICES out",
            ),
        ] {
            let mut value = host.docker(&[environment], "0");
            let nodes = node.map(|(name, major)| json!({"path": format!("/dev/{name}"), "type": "c", "major": major, "minor": 0}));
            let shown = node
                .map(|(name, _)| format!("/dev/{name}, "))
                .unwrap_or_default();
            value["linux"]["devices"] = nodes.into_iter().collect();
            let hook = host.toolkit.program("nvidia-container-runtime-hook");
            let line = format!(
                "container c has GPUs ({shown}the hook {}) and {line}",
                hook.display()
            );
            let expected = Ended::failing(1, &format!("ringfence-runtime: {line}"));
            assert_eq!(host.by_front(LEGACY, &value), expected, "{}", host.name());
        }
    }
}

/// The hook makes nodes of every GPU, and opens the container's cgroup, whatever it is told.
#[test]
fn a_hostile_hook_opens_nothing() {
    let seen = ["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"];
    for host in Host::all() {
        let mut value = host.docker(&[], "0");
        // The nodes that it makes are on mounts without devices.
        host.toolkit.write("manners", "devices=all\n");
        assert_eq!(
            host.by_front(LEGACY, &value),
            with_nodes(&seen, &[0]),
            "{}",
            host.name()
        );
        host.toolkit.write("manners", HOSTILE);
        if !Path::new("/sys/fs/cgroup/devices").exists() {
            eprintln!("skipped: the hook knows cgroups of version 1 only");
            continue;
        }
        // A node that the program makes can be opened, and a domain of Landlock's keeps requests from it.
        let mut expected = with_nodes(&seen, &[0]);
        expected.stderr = OPEN.to_owned();
        assert_eq!(host.by_front(LEGACY, &value), expected, "{}", host.name());
        // Where there is no such domain, the container does not start.
        grant(&mut value, &["CAP_MKNOD", "CAP_SYS_ADMIN"]);
        let line = "ringfence: the container's cgroup lets it open NVIDIA's nodes, and so go around the sandbox: where a hook of \
                    NVIDIA's has done that, set no-cgroups = true in /etc/nvidia-container-runtime/config.toml";
        let refused = Ended::failing(0, line);
        assert_eq!(host.by_front(LEGACY, &value), refused, "{}", host.name());
        // And that is what an ordinary hook does without this setting.
        host.toolkit.write("manners", "");
        let configured = Configured {
            no_cgroups: false,
            ..LEGACY
        };
        assert_eq!(
            host.by_front(configured, &value),
            refused,
            "{}",
            host.name()
        );
    }
}

/// The test above can fail: what the hook has made opens what its number says, of which there is no driver here.
#[test]
fn what_a_hostile_hook_makes_opens_if_nobody_covers_it() {
    if !Path::new("/sys/fs/cgroup/devices").exists() {
        eprintln!("skipped: the hook knows cgroups of version 1 only");
        return;
    }
    for host in Host::all() {
        host.maker.with_faults();
        host.toolkit.write("manners", HOSTILE);
        let value = host.docker(&["RINGFENCE_FAULTS=program.inert=drop"], "0");
        let mut expected = with_nodes(&["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"], &[0]);
        expected.stdout = expected.stdout.replace("nvidia1: EACCES", "nvidia1: ENXIO");
        expected.stderr = OPEN.to_owned();
        assert_eq!(host.by_front(LEGACY, &value), expected, "{}", host.name());
    }
}

/// NVIDIA's hooks put files over those of the driver's in `/proc`. The program sees them in its own.
#[test]
fn what_a_hook_mounts_in_proc_is_seen() {
    for host in Host::all() {
        let toolkit = &host.toolkit;
        toolkit.write("version", "of a hook\n");
        let hook = "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\nmount --bind \"$here/version\" \"$here/../bundle/rootfs/proc/version\"\n";
        toolkit.script("nvidia-cdi-hook", hook);
        let mut value = container(&[]);
        give(&mut value, &["nvidia0"], "rwm");
        value["process"]["args"] = json!(["cat", "/proc/version"]);
        value["hooks"] = json!({"createContainer": [{"path": toolkit.path("nvidia-cdi-hook")}]});
        let ended = host.by_front(LEGACY, &value);
        assert_eq!(ended, Ended::printing("of a hook\n"), "{}", host.name());
    }
}
