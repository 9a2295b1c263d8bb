//! Parts of GPUs (MIG) in containers, by their nodes and by NVIDIA's ways, and nodes of NVIDIA's that no container has.
//!
//! The parts are the simulated driver's. It has no devices, so that only the server can open a node of one there: to be written, too.

use std::fs;

use serde_json::{Value, json};
use userland_tests::Ended;

use super::nvidia::{CDI, Host, LEGACY, container};
use super::sandboxes::{Maker, with_gpu};

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
        json!({"path": path, "type": "c", "major": 508, "minor": number})
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
