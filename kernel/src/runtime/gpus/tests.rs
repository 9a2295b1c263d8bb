//! Specifications as engines, device plugins and NVIDIA's toolkit write them, cut to what matters here.

use serde_json::json;

use super::*;

/// A machine on which the driver of unified memory has major 510, and `/dev/char/195:0` leads to a GPU's node.
struct Imagined;

impl Machine for Imagined {
    fn majors(&self) -> BTreeSet<u32> {
        nvidias(
            "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n234 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n  8 nvidia-no\n",
        )
    }

    fn major_at(&self, path: &Path) -> Option<u32> {
        match path.to_str()? {
            "/dev/null" => Some(1),
            "/dev/char/195:0" => Some(195),
            _ => None,
        }
    }
}

fn asked(value: Value) -> Option<Asked> {
    recognise(&Specification(value), &Imagined)
}

/// The paths of nodes, and what is visible.
fn summary(value: Value) -> Option<(Vec<String>, Option<String>)> {
    let asked = asked(value)?;
    let paths = asked.nodes.into_iter().map(|node| node.path);
    Some((paths.collect(), asked.visible))
}

fn device(path: &str, major: u32) -> Value {
    json!({"path": path, "type": "c", "major": major, "minor": 0, "fileMode": 438, "uid": 0, "gid": 0})
}

fn with_devices(devices: &[Value]) -> Value {
    json!({"linux": {"devices": devices}})
}

fn with_mount(kind: &str, source: &str, path: &str, options: &[&str]) -> Value {
    json!({"mounts": [{"destination": path, "type": kind, "source": source, "options": options}]})
}

fn with_hook(list: &str, path: &str, environment: &[&str]) -> Value {
    json!({
        "process": {"env": environment},
        "hooks": {list: [{"path": path, "args": [path, "prestart"], "env": ["PATH=/usr/bin"]}]},
    })
}

const LEGACY: &str = "/usr/bin/nvidia-container-runtime-hook";

#[test]
fn majors_are_those_of_the_kernels_list() {
    assert_eq!(Imagined.majors(), BTreeSet::from([195, 234, 510]));
    assert_eq!(nvidias(""), BTreeSet::from([MAJOR]));
}

#[test]
fn a_plain_container_has_none() {
    for value in [
        json!({}),
        json!({"linux": null, "mounts": {}, "process": {"env": [1, "PATH=/bin"]}, "hooks": []}),
        with_devices(&[device("/dev/fuse", 10), device("/dev/dri/renderD128", 226)]),
        // By NVIDIA's images, under an engine without NVIDIA's toolkit.
        json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]}}),
        with_mount("bind", "/data", "/data", &["rbind"]),
        with_mount("tmpfs", "tmpfs", "/dev/nvidia-x", &["nosuid"]),
        with_mount("bind", "/dev/null", "/dev/nvidia0", &["bind"]),
        with_hook(
            "prestart",
            "/usr/bin/other-hook",
            &["NVIDIA_VISIBLE_DEVICES=all"],
        ),
        // Docker's and containerd's own rules.
        json!({"linux": {"resources": {"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
            {"allow": true, "type": "c", "major": -1, "minor": -1, "access": "m"},
        ]}}}),
    ] {
        assert_eq!(asked(value.clone()), None, "{value}");
    }
}

/// `docker run --device`, k8s-device-plugin with `PASS_DEVICE_SPECS`, GKE's plugin, CDI.
#[test]
fn nodes_that_are_made_are_recognised() {
    let nodes = [
        device("/dev/nvidiactl", 195),
        device("/dev/nvidia0", 195),
        device("/dev/nvidia-uvm", 510),
        device("/dev/nvidia-uvm-tools", 510),
        device("/dev/nvidia-modeset", 195),
        device("/dev/nvidia-caps/nvidia-cap1", 234),
        device("/dev/nvidia-caps-imex-channels/channel0", 235),
    ];
    let paths = nodes.iter().filter_map(|node| text(node, "path"));
    let paths: Vec<String> = paths.map(str::to_owned).collect();
    let all = with_devices(&nodes);
    assert_eq!(summary(all), Some((paths, None)));
    // Another name in the container: by the number.
    for (major, is_found) in [(195, true), (510, true), (10, false)] {
        let renamed = with_devices(&[device("/dev/gpu", major)]);
        assert_eq!(asked(renamed).is_some(), is_found, "{major}");
    }
    // CDI may leave the numbers to the low-level runtime.
    let bare = with_devices(&[json!({"path": "/dev/nvidia0"})]);
    assert!(asked(bare).is_some());
}

/// Rootless podman mounts what `--device` names; NVIDIA's operator has the nodes below a root of its own.
#[test]
fn nodes_that_are_mounted_are_recognised() {
    for (source, path) in [
        ("/dev/nvidia0", "/dev/nvidia0"),
        ("/dev//./nvidia0", "/gpu"),
        ("/dev/nvidia-caps", "/dev/nvidia-caps"),
        ("/run/nvidia/driver/dev/nvidiactl", "/dev/nvidiactl"),
        ("/dev/char/195:0", "/dev/gpu"),
    ] {
        let expected = Some((vec![path.to_owned()], None));
        for (kind, options) in [("bind", &["ro"][..]), ("none", &["rbind"]), ("", &["bind"])] {
            let value = with_mount(kind, source, path, options);
            assert_eq!(summary(value), expected, "{source}");
        }
    }
}

/// Podman's and Docker's `--device-cgroup-rule`, with which root makes the node in the container.
#[test]
fn a_rule_that_lets_a_node_be_made_is_recognised() {
    let with_rule = |rule: Value| json!({"linux": {"resources": {"devices": [rule]}}});
    let rule = json!({"allow": true, "type": "c", "major": 195, "access": "rwm"});
    let found = asked(with_rule(rule)).expect("a GPU");
    assert_eq!(found.rules, ["c 195:*"]);
    assert_eq!(found.to_string(), "the rule c 195:*");
    let rule = json!({"allow": true, "major": 510, "minor": 0, "access": "r"});
    assert_eq!(asked(with_rule(rule)).expect("a GPU").rules, ["a 510:0"]);
    for rule in [
        json!({"allow": false, "type": "c", "major": 195, "access": "rwm"}),
        json!({"allow": true, "type": "b", "major": 195, "access": "rwm"}),
    ] {
        assert_eq!(asked(with_rule(rule.clone())), None, "{rule}");
    }
}

/// `docker run --gpus`, and NVIDIA's runtime in its legacy mode.
#[test]
fn nvidias_hook_counts_if_it_is_asked() {
    for (environment, visible) in [
        (&["NVIDIA_VISIBLE_DEVICES=all"][..], Some("all")),
        (
            &["NVIDIA_VISIBLE_DEVICES=GPU-4cf8db2d,1:0"],
            Some("GPU-4cf8db2d,1:0"),
        ),
        (&["NVIDIA_VISIBLE_DEVICES="], None),
        (&["NVIDIA_VISIBLE_DEVICES=void"], None),
        (&["NVIDIA_VISIBLE_DEVICES=none"], Some("none")),
        (&["PATH=/bin"], None),
        (
            &["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=none"],
            Some("none"),
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=none", "NVIDIA_VISIBLE_DEVICES=0"],
            Some("0"),
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=void"],
            Some("0"),
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=none", "NVIDIA_VISIBLE_DEVICES=void"],
            Some("none"),
        ),
    ] {
        for list in ["prestart", "createRuntime"] {
            let found = asked(with_hook(list, LEGACY, environment));
            let expected = visible.map(|visible| Asked {
                hooks: vec![Hook {
                    path: LEGACY.to_owned(),
                    kind: HookKind::Legacy,
                }],
                visible: Some(visible.to_owned()),
                ..Asked::default()
            });
            assert_eq!(found, expected, "{environment:?}");
        }
    }
    for path in [
        "/usr/bin/nvidia-container-toolkit",
        "/usr/local/nvidia/toolkit/nvidia-container-runtime-hook.real",
        "/usr/bin/nvidia-container-cli",
    ] {
        let value = with_hook("createRuntime", path, &["NVIDIA_VISIBLE_DEVICES=0"]);
        assert!(asked(value).is_some(), "{path}");
    }
}

/// `ctr run --gpus` has containerd itself start NVIDIA's program (`WithGPUs` in its contrib/nvidia/nvidia.go).
#[test]
fn a_hook_by_which_another_program_starts_nvidias_counts_unasked() {
    let mut value = with_hook("createRuntime", "/usr/bin/containerd", &[]);
    let arguments = |program: &str| json!(["containerd", "oci-hook", "--", program, "configure"]);
    value["hooks"]["createRuntime"][0]["args"] = arguments("/usr/bin/nvidia-container-cli");
    let found = asked(value.clone()).expect("GPUs");
    assert_eq!(found.to_string(), "the hook /usr/bin/containerd");
    value["hooks"]["createRuntime"][0]["args"] = arguments("/usr/bin/other");
    assert_eq!(asked(value), None);
}

/// What NVIDIA's hook takes for a request, besides its usual variable.
#[test]
fn the_hook_can_be_asked_in_other_ways() {
    for (environment, is_asked) in [
        (&["CUDA_VERSION=8.0.61"][..], true),
        (
            &["CUDA_VERSION=12.4", "NVIDIA_REQUIRE_CUDA=cuda>=12.4"],
            false,
        ),
        (
            &["CUDA_VERSION=8.0.61", "NVIDIA_VISIBLE_DEVICES=void"],
            false,
        ),
        (
            &["DOCKER_RESOURCE_GPU=0", "NVIDIA_VISIBLE_DEVICES=void"],
            true,
        ),
    ] {
        let found = asked(with_hook("prestart", LEGACY, environment));
        assert_eq!(found.is_some(), is_asked, "{environment:?}");
    }
    // k8s-device-plugin's strategy volume-mounts.
    let path = "/var/run/nvidia-container-devices/GPU-4cf8db2d";
    let mut value = with_mount("bind", "/dev/null", path, &["bind"]);
    assert_eq!(asked(value.clone()), None);
    value["hooks"] = with_hook("prestart", LEGACY, &[])["hooks"].clone();
    assert!(asked(value).is_some());
}

/// What `nvidia-ctk cdi generate` writes, as an engine has put it into the specification.
#[test]
fn edits_of_cdi_are_recognised() {
    let cdi = "/usr/bin/nvidia-cdi-hook";
    let environment = ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"];
    let mut value = with_hook("createContainer", cdi, &environment);
    value["linux"] = with_devices(&[device("/dev/nvidia0", 195)])["linux"].clone();
    let found = asked(value).expect("a GPU");
    assert_eq!(found.visible.as_deref(), Some("all"));
    assert_eq!(found.hooks[0].kind, HookKind::Cdi);
    assert_eq!(
        found.to_string(),
        "/dev/nvidia0, the hook /usr/bin/nvidia-cdi-hook"
    );

    let alone = with_hook(
        "createContainer",
        "/usr/bin/nvidia-ctk",
        &["NVIDIA_VISIBLE_DEVICES=void"],
    );
    assert_eq!(summary(alone), Some((Vec::new(), None)));
}

/// NVIDIA's runtime in mode csv.
#[test]
fn nodes_of_tegra_are_told_apart() {
    let found = asked(with_devices(&[
        device("/dev/nvhost-gpu", 505),
        device("/dev/nvmap", 10),
    ]));
    let found = found.expect("nodes");
    assert!(found.nodes.iter().all(|node| node.driver == Driver::Tegra));
}

#[test]
fn a_line_names_few_of_many_ways() {
    let nodes: Vec<Value> = (0..8)
        .map(|number| device(&format!("/dev/nvidia{number}"), 195))
        .collect();
    let shown = asked(with_devices(&nodes)).expect("GPUs").to_string();
    assert_eq!(shown, "/dev/nvidia0, /dev/nvidia1, /dev/nvidia2 and 5 more");
}
