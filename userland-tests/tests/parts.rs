//! Parts of GPUs (MIG): a sandbox has the nodes of those that it was given, and uses no other.
//!
//! The parts are the simulated driver's, whose checks are those of NVIDIA's source. No GPU that is divided was to be had.

use userland_tests::{Ended, finish, guest_under_with, guest_with};

const FIRST_UUID: &str = "GPU-73696d75-6c61-7465-6420-475055200000";

/// What the scenario `parts` prints with the first part of the first GPU.
const NAMED: &str = "\
nodes [\"nvidia-cap12\", \"nvidia-cap13\"]
nvidia-cap12: ok
nvidia-cap13: ok
nvidia-cap21: ENOENT
instance 1 by the other's node: NV_ERR_INSUFFICIENT_PERMISSIONS
by no node: NV_ERR_INSUFFICIENT_PERMISSIONS
by the GPU's: NV_ERR_INSUFFICIENT_PERMISSIONS
by a number that is not open: NV_ERR_INSUFFICIENT_PERMISSIONS
by no number: NV_ERR_INSUFFICIENT_PERMISSIONS
instance 2 by the node of 1: NV_ERR_INSUFFICIENT_PERMISSIONS
the whole GPU: NV_ERR_INSUFFICIENT_PERMISSIONS
an instance that is not there: NV_ERR_INVALID_ARGUMENT
instance 1: ok
compute instance 0 by the other's node: NV_ERR_INSUFFICIENT_PERMISSIONS
by no number: NV_ERR_INSUFFICIENT_PERMISSIONS
one that is not there: NV_ERR_INVALID_ARGUMENT
compute instance 0: ok
dividing GPUs: NV_ERR_INSUFFICIENT_PERMISSIONS
watching all parts: NV_ERR_INSUFFICIENT_PERMISSIONS
freed: ok
by a node opened to be written: ok
";

fn chosen(gpus: &str, scenario: &str) -> Ended {
    finish(&mut guest_with(&["--gpus", gpus], &[scenario]))
}

#[test]
fn a_program_uses_the_part_that_was_chosen_and_no_other() {
    for name in [
        "0/1/0",
        &format!("MIG-{FIRST_UUID}/1/0"),
        &format!("{FIRST_UUID}/1/0"),
    ] {
        let expected = Ended {
            stderr: " WARN nvproxy: class 0xc637 (AMPERE_SMC_PARTITION_REF) is not passed with swizzId = 0xfffffffe\n"
                .to_owned(),
            ..Ended::printing(NAMED)
        };
        assert_eq!(chosen(name, "parts"), expected, "{name}");
    }
}

#[test]
fn without_a_part_there_is_no_node_of_one() {
    let none = "nodes []\nnvidia-cap12: ENOENT\nnvidia-cap13: ENOENT\nnvidia-cap21: ENOENT\n";
    assert_eq!(chosen("0", "parts"), Ended::printing(none));
    assert_eq!(chosen("all", "parts"), Ended::printing(none));
    let other = "nodes [\"nvidia-cap156\", \"nvidia-cap157\"]\nnvidia-cap12: ENOENT\nnvidia-cap13: ENOENT\nnvidia-cap21: ENOENT\n";
    assert_eq!(chosen("0,1/2/0", "parts"), Ended::printing(other));
}

/// The server looks which node stands behind a descriptor, wherever the program has that from.
#[test]
fn a_node_that_was_not_given_is_of_no_use() {
    let came_to = |word: &str| Ended::printing(&format!("instance 2: {word}\n"));
    assert_eq!(
        chosen("0/1/0", "parts-forged"),
        came_to("NV_ERR_INSUFFICIENT_PERMISSIONS")
    );
    let mut unchecked = guest_under_with(
        "server.not-given=drop",
        &["--gpus", "0/1/0"],
        &["parts-forged"],
    );
    assert_eq!(finish(&mut unchecked), came_to("ok"));
}

#[test]
fn parts_that_are_not_there_are_named() {
    for (name, line) in [
        (
            "0/7/0",
            "--gpus: GPU 0 has no part with GI ID 7 and CI ID 0: it has 1/0, 2/0, 2/1".to_owned(),
        ),
        (
            "GPU-1234/1/0",
            format!(
                "--gpus: this machine has no GPU GPU-1234; it has 0 ({FIRST_UUID}), 1 (GPU-73696d75-6c61-7465-6420-475055200001)"
            ),
        ),
    ] {
        let expected = Ended::failing(125, &format!("ringfence: {line}"));
        assert_eq!(chosen(name, "parts"), expected, "{name}");
    }
}

/// Only the driver could say which part this is: the line says how to find the name that is taken.
#[test]
fn a_part_by_a_uuid_of_its_own_is_refused_with_the_way_to_its_name() {
    let ended = chosen("MIG-2a3f", "parts");
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (125, ""),
        "{ended:?}"
    );
    for words in [
        "'MIG-2a3f' calls a part of a GPU by a UUID",
        "write GPU/GI/CI, as in 0/1/0",
        "nvidia-smi -L",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
}

/// What no sandbox has is refused where it is asked for, with the reason.
#[test]
fn nodes_of_other_drivers_are_refused_with_the_reason() {
    for (path, reason) in [
        (
            "/dev/dri/renderD128",
            "its nodes take requests of other kernel modules",
        ),
        ("/dev/nvidia-modeset", "it sets modes of displays"),
        (
            "/dev/nvidia-caps-imex-channels/channel0",
            "memory that others export by it",
        ),
        (
            "/dev/nvidia-caps/nvidia-cap1",
            "choose parts by --gpus, as in 0/1/0",
        ),
    ] {
        let ended = finish(&mut guest_with(&["--bind", path], &["walk"]));
        assert_eq!(
            (ended.status, ended.stdout.as_str()),
            (125, ""),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(path), "{ended:?}");
        assert!(ended.stderr.contains(reason), "{ended:?}");
    }
}
