//! Parts of GPUs (MIG) in containers, by their nodes and by NVIDIA's ways, and nodes of NVIDIA's that no container has.
//!
//! The parts are the simulated driver's. It has no devices, so that only the server can open a node of one there: to be written, too.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use userland_tests::{Directory, Ended};

use super::nvidia::stand_ins::{FIRST_UUID, major_of_parts};
use super::nvidia::{CDI, Host, LEGACY, container};
use super::sandboxes::{Maker, plain, with_gpu};

const SCRIPT: &str = "guest parts by-server";

/// What a program says that has the first part of the first GPU, as far as its nodes go and what they are good for.
const HAS: [&str; 6] = [
    "nodes [\"nvidia-cap12\", \"nvidia-cap13\"]\n",
    "\nnvidia-cap21: ENOENT\n",
    "\ninstance 1: ok\n",
    "\ninstance 2 by the node of 1: NV_ERR_INSUFFICIENT_PERMISSIONS\n",
    "\ncompute instance 0: ok\n",
    "\ndividing GPUs: NV_ERR_INSUFFICIENT_PERMISSIONS\n",
];

fn expect_part(ended: &Ended, name: &str) {
    assert_eq!(ended.status, 0, "{name}: {ended:?}");
    for line in HAS {
        assert!(ended.stdout.contains(line), "{name}: {line} {ended:?}");
    }
}

/// As CDI's edits and device plugins give a part: by nodes, of which each has the number that the driver has given it.
fn give(value: &mut Value, capabilities: &[u16], others: &[(&str, u32, u32)]) {
    let devices = value["linux"]["devices"].as_array_mut().expect("a list");
    let nodes = capabilities.iter().map(|number| {
        let path = format!("/dev/nvidia-caps/nvidia-cap{number}");
        json!({"path": path, "type": "c", "major": major_of_parts(), "minor": number})
    });
    devices.extend(nodes);
    devices.extend(others.iter().map(
        |(path, major, minor)| json!({"path": path, "type": "c", "major": major, "minor": minor}),
    ));
}

#[test]
fn a_container_has_the_parts_whose_nodes_it_was_given() {
    for maker in Maker::all() {
        let mut value = with_gpu(SCRIPT);
        give(&mut value, &[12, 13], &[]);
        expect_part(&maker.run(&value), maker.name);
        let said = fs::read_to_string(maker.front.path("messages.log")).expect("a log");
        assert!(!said.contains("goes without"), "{}: {said}", maker.name);
    }
}

/// What a node is counts, and not what it is called.
#[test]
fn a_node_of_a_part_is_the_one_with_its_number() {
    for maker in Maker::all() {
        let mut value = with_gpu("ls /dev/nvidia-caps");
        let devices = value["linux"]["devices"].as_array_mut().expect("a list");
        devices.push(json!({
            "path": "/dev/nvidia-caps/nvidia-cap12", "type": "c", "major": major_of_parts(), "minor": 21
        }));
        let expected = Ended::printing("nvidia-cap21\n");
        assert_eq!(maker.run(&value), expected, "{}", maker.name);
    }
}

/// By a rule for all GPUs, as by others of these ways, it has parts besides, and is told of names of none.
#[test]
fn a_part_that_is_named_is_given_besides_all_gpus() {
    for host in Host::all() {
        let asking = |name: &str| {
            let mut value = host.docker(&[], name);
            value["process"]["args"] = json!(["sh", "-c", SCRIPT]);
            value["linux"]["resources"]["devices"] =
                json!([{"allow": true, "type": "c", "major": 195, "access": "rw"}]);
            host.by_front(LEGACY, &value)
        };
        expect_part(&asking(&format!("MIG-{FIRST_UUID}/1/0")), host.name());
        let name = format!("MIG-{FIRST_UUID}/9/0");
        let line = format!(
            "ringfence-runtime: container c asks NVIDIA's hook for {name}: GPU {FIRST_UUID} has no part with GI ID 9 and CI ID 0: it has 1/0, 2/0, 2/1"
        );
        assert_eq!(asking(&name), Ended::failing(1, &line), "{}", host.name());
    }
}

/// It runs without: CDI and device plugins give some of these whenever they give a GPU. The log says what is missing, and why.
#[test]
fn what_a_container_was_given_and_has_not_is_in_the_log() {
    for maker in Maker::all() {
        let mut value =
            with_gpu("ls -R /dev/nvidia-caps /dev/nvidia-modeset; guest parts by-server");
        // 1 is for who divides GPUs, and the driver has no part with the last.
        give(
            &mut value,
            &[1, 12, 13, 30],
            &[("/dev/nvidia-modeset", 195, 254)],
        );
        let ended = maker.run(&value);
        expect_part(&ended, maker.name);
        assert!(!ended.stdout.contains("modeset\n"), "{ended:?}");
        let said = fs::read_to_string(maker.front.path("messages.log")).expect("a log");
        for words in [
            "container c goes without /dev/nvidia-caps/nvidia-cap1 (a node there is for a part of a GPU (MIG), or for who divides GPUs",
            "/dev/nvidia-caps/nvidia-cap30 (",
            "/dev/nvidia-modeset (it sets modes of displays",
        ] {
            assert!(said.contains(words), "{}: {words}: {said}", maker.name);
        }
        assert!(!said.contains("nvidia-cap12"), "{said}");
    }
}

/// What an image's environment and a specification call things cannot pass for lines of the log.
#[test]
fn what_a_container_was_given_is_one_line_of_the_log_whatever_it_is_called() {
    for maker in Maker::all() {
        let mut value = with_gpu("true");
        let node = "/dev/nvidia-caps/x\nERROR forged\u{2028}";
        give(&mut value, &[], &[(node, 195, 254)]);
        let variables = value["process"]["env"].as_array_mut().expect("variables");
        variables.push(json!("NVIDIA_DRIVER_CAPABILITIES=compute,\nrdma"));
        assert_eq!(maker.run(&value).status, 0, "{}", maker.name);
        let said = fs::read_to_string(maker.front.path("messages.log")).expect("a log");
        for words in [
            "/dev/nvidia-caps/x\\nERROR forged\\u{2028}",
            "NVIDIA_DRIVER_CAPABILITIES=compute,\\nrdma: it runs without a part",
        ] {
            assert!(said.contains(words), "{}: {words}: {said}", maker.name);
        }
        assert!(said.lines().all(|line| line.contains(" c ")), "{said}");
    }
}

#[test]
fn parts_by_cdi_and_by_the_legacy_hook() {
    for host in Host::all() {
        let script = |environment: &[&str]| {
            let mut value = container(environment);
            value["process"]["args"] = json!(["sh", "-c", SCRIPT]);
            value
        };
        let by_cdi = host.by_nvidias(CDI, &script(&["NVIDIA_VISIBLE_DEVICES=0:0"]));
        expect_part(&by_cdi, host.name());
        let name = "MIG-GPU-73696d75-6c61-7465-6420-475055200000/1/0";
        let mut value = host.docker(&[], name);
        value["process"]["args"] = json!(["sh", "-c", SCRIPT]);
        expect_part(&host.by_front(LEGACY, &value), host.name());
    }
}

/// What stands in for NVIDIA's driver, with a GPU that is divided: nodes of a device that no container may open by itself, and the files in which the
/// driver says which node is for what.
fn divided() -> Directory {
    let directory = Directory::in_place(Path::new("/var/tmp"), "divided");
    let place = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        path
    };
    for name in [
        "nvidiactl",
        "nvidia0",
        "nvidia-uvm",
        "nvidia-caps/nvidia-cap12",
        "nvidia-caps/nvidia-cap13",
        "nvidia-caps/nvidia-cap21",
    ] {
        let (path, fuse) = (place(name), makedev(10, 229));
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), fuse).expect("a node");
    }
    for (name, text) in [
        (
            "gpus/0000:01:00.0/information",
            "GPU UUID: GPU-5a3e\nDevice Minor: 0\nModel: x\n",
        ),
        ("capabilities/gpu0/mig/gi1/access", "DeviceFileMinor: 12\n"),
        (
            "capabilities/gpu0/mig/gi1/ci0/access",
            "DeviceFileMinor: 13\n",
        ),
        ("capabilities/gpu0/mig/gi2/access", "DeviceFileMinor: 21\n"),
    ] {
        fs::write(place(&format!("proc/{name}")), text).expect("a file");
    }
    directory
}

/// A hook as NVIDIA's, which binds one of the container's nodes again and one that it was not given.
fn hook(maker: &Maker, nodes: &Path) -> Value {
    let hook = maker.front.path("nvidia-container-runtime-hook");
    let root = maker.front.bundle().join("rootfs");
    let script = format!(
        "#!/bin/sh -e\n\
         pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')\n\
         nsenter --mount=/proc/$pid/ns/mnt sh -ec 'for node in 12 21; do\n\
         place={root}/dev/nvidia-caps/nvidia-cap$node\n\
         : >>$place\n\
         mount --bind {nodes}/nvidia-caps/nvidia-cap$node $place; done'\n",
        root = root.display(),
        nodes = nodes.display()
    );
    fs::write(&hook, script).expect("a hook");
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).expect("a mode");
    json!({"prestart": [{"path": hook}]})
}

/// With NVIDIA's own nodes a program opens those of its parts itself, to be read, and no other; not even where a hook has put one.
#[test]
fn a_program_in_a_container_opens_the_nodes_of_its_parts_and_no_others() {
    const OPENS: &str = "cd /dev; for node in nvidia0 nvidia-caps/*; do (exec 3<$node) 2>/dev/null && echo $node: opened || echo $node: no; done";
    for maker in Maker::all() {
        let nodes = divided();
        let nodes = nodes.path();
        maker.with_nodes(nodes);
        let mut value = plain(OPENS);
        value["linux"]["devices"] =
            json!([{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}]);
        give(&mut value, &[12, 13], &[]);
        value["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
        // The first process looks there for the number of UVM's node.
        value["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": nodes, "type": "bind", "source": nodes, "options": ["bind", "ro", "nodev"],
        }));
        value["root"]["readonly"] = false.into();
        let own =
            "nvidia0: no\nnvidia-caps/nvidia-cap12: opened\nnvidia-caps/nvidia-cap13: opened\n";
        let ended = maker.run(&value);
        assert_eq!(ended, Ended::printing(own), "{}", maker.name);
        value["hooks"] = hook(&maker, nodes);
        let ended = maker.run(&value);
        let with_hook = format!("{own}nvidia-caps/nvidia-cap21: no\n");
        assert_eq!(ended, Ended::printing(&with_hook), "{}", maker.name);
    }
}
