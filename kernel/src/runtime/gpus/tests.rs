//! Specifications as engines, device plugins and NVIDIA's toolkit write them, cut to what matters here.

use serde_json::json;

use super::*;

/// A machine on which the driver of unified memory has major 510, `/dev/char/195:0` leads to a GPU's node, and NVIDIA's driver is behind
/// the second card for graphics.
struct Imagined;

impl Machine for Imagined {
    fn numbers(&self) -> Numbers {
        let devices = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n234 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n  8 nvidia-no\n";
        Numbers {
            majors: nvidias(devices).map(|(major, _)| major).collect(),
            graphics: BTreeSet::from([(226, 1), (226, 129)]),
            parts: of_parts(devices),
        }
    }

    fn device_at(&self, path: &Path) -> Option<(u32, u32)> {
        match path.to_str()? {
            "/dev/null" => Some((1, 3)),
            "/dev/char/195:0" => Some((195, 0)),
            "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap12" => Some((234, 12)),
            _ => None,
        }
    }
}

fn asked(value: Value) -> Option<Asked> {
    recognise(&Specification(value), &Imagined)
}

/// The paths of nodes.
fn summary(value: Value) -> Option<Vec<String>> {
    let paths = asked(value)?.nodes.into_iter().map(|node| node.path);
    Some(paths.collect())
}

/// The GPUs whose nodes there are.
fn gpus(value: Value) -> Vec<Option<u8>> {
    let asked = asked(value).expect("GPUs");
    asked.nodes.iter().map(|node| node.gpu).collect()
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
    assert_eq!(Imagined.numbers().majors, BTreeSet::from([195, 234, 510]));
    assert_eq!(Imagined.numbers().parts, Some(234));
    let without: Vec<u32> = nvidias("").map(|(major, _)| major).collect();
    assert_eq!((without, of_parts("")), (vec![MAJOR], None));
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
    ];
    let paths = nodes.iter().filter_map(|node| text(node, "path"));
    let paths: Vec<String> = paths.map(str::to_owned).collect();
    let all = with_devices(&nodes);
    assert_eq!(summary(all), Some(paths));
    // Another name in the container: by the number.
    for (major, is_found) in [(195, true), (510, true), (10, false)] {
        let renamed = with_devices(&[device("/dev/gpu", major)]);
        assert_eq!(asked(renamed).is_some(), is_found, "{major}");
    }
    let renamed =
        |minor: u32| json!({"path": "/dev/nvidia7", "type": "c", "major": 195, "minor": minor});
    let nodes = with_devices(&[renamed(3), renamed(255), device("/dev/nvidia-uvm", 510)]);
    assert_eq!(gpus(nodes), [Some(3), None, None]);
    // CDI may leave the numbers to the low-level runtime.
    let bare = with_devices(&[json!({"path": "/dev/nvidia0"})]);
    assert_eq!(gpus(bare), [Some(0)]);
}

/// A part is what its number grants, under whatever name. A number of another driver's device grants none.
#[test]
fn a_part_is_told_by_the_number_of_its_node() {
    let parts = |value: Value| -> Vec<Option<String>> {
        let nodes = asked(value).expect("a node").nodes.into_iter();
        nodes
            .map(|node| node.part.map(node::Node::file_name))
            .collect()
    };
    let part = |number: u32| Some(format!("nvidia-caps/nvidia-cap{number}"));
    let path = "/dev/nvidia-caps/nvidia-cap12";
    for (path, major, minor, expected) in [
        (path, 234, 12, part(12)),
        (path, 234, 21, part(21)),
        ("/dev/mine", 234, 12, part(12)),
        (path, 1, 3, None),
        (path, 510, 12, None),
        (path, 195, 12, None),
        (path, 234, 0, None),
        (path, 234, 1 << 16, None),
    ] {
        let device = json!({"path": path, "type": "c", "major": major, "minor": minor});
        let found = parts(with_devices(&[device]));
        assert_eq!(found, [expected], "{path} {major}:{minor}");
    }
    for (path, expected) in [
        (path, part(12)),
        ("//dev/./nvidia-caps/nvidia-cap12", part(12)),
    ] {
        assert_eq!(parts(with_devices(&[json!({"path": path})])), [expected]);
    }
    let source = "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap12";
    let mounted = with_mount("bind", source, path, &["bind"]);
    assert_eq!(parts(mounted), [part(12)]);
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
        let expected = Some(vec![path.to_owned()]);
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
    let of = |shown: &str, gpus| Rule {
        shown: shown.to_owned(),
        gpus,
    };
    assert_eq!(found.rules, [of("c 195:*", Gpus::All)]);
    assert_eq!(found.to_string(), "the rule c 195:*");
    let rule = json!({"allow": true, "major": 510, "minor": 0, "access": "r"});
    let found = asked(with_rule(rule)).expect("a device");
    assert_eq!(found.rules, [of("a 510:0", Gpus::None)]);
    for (minor, access, gpus) in [
        (3, "rw", Gpus::One(3)),
        (255, "rw", Gpus::None),
        (3, "m", Gpus::None),
    ] {
        let rule =
            json!({"allow": true, "type": "c", "major": 195, "minor": minor, "access": access});
        assert_eq!(
            asked(with_rule(rule)).expect("a device").rules[0].gpus,
            gpus
        );
    }
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
    for (environment, is_asked) in [
        (&["NVIDIA_VISIBLE_DEVICES=all"][..], true),
        (&["NVIDIA_VISIBLE_DEVICES=GPU-4cf8db2d,1:0"], true),
        (&["NVIDIA_VISIBLE_DEVICES="], false),
        (&["NVIDIA_VISIBLE_DEVICES=void"], false),
        (&["NVIDIA_VISIBLE_DEVICES=none"], true),
        (&["PATH=/bin"], false),
        // In doubt: the hook goes by the last.
        (
            &["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=void"],
            true,
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"],
            false,
        ),
    ] {
        for list in ["prestart", "createRuntime"] {
            let found = asked(with_hook(list, LEGACY, environment));
            let expected = is_asked.then(|| Asked {
                hooks: vec![Hook {
                    path: LEGACY.to_owned(),
                    kind: HookKind::Legacy,
                }],
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
    assert_eq!(summary(alone), Some(Vec::new()));
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

/// By what CDI gives besides, and by GPUDirect's and IMEX's.
#[test]
fn nodes_of_other_drivers_of_nvidias_are_told_apart() {
    let graphics =
        |minor: u32| json!({"path": "/dev/dri/x", "type": "c", "major": 226, "minor": minor});
    let found = asked(with_devices(&[graphics(0), graphics(1), graphics(129)])).expect("nodes");
    let drivers: Vec<_> = found
        .nodes
        .iter()
        .map(|node| (node.driver, node.gpu))
        .collect();
    assert_eq!(drivers, [(Driver::Nvidia, None); 2]);
    for (path, driver) in [
        ("/dev/nvidia-fs0", Driver::GpuDirect),
        ("/dev/gdrdrv", Driver::GpuDirect),
        ("/dev/nvidia-caps-imex-channels/channel0", Driver::Imex),
    ] {
        let found = asked(with_devices(&[device(path, 510)])).expect("a node");
        assert_eq!(found.nodes[0].driver, driver, "{path}");
    }
}

#[test]
fn a_line_names_few_of_many_ways() {
    let nodes: Vec<Value> = (0..8)
        .map(|number| device(&format!("/dev/nvidia{number}"), 195))
        .collect();
    let shown = asked(with_devices(&nodes)).expect("GPUs").to_string();
    assert_eq!(shown, "/dev/nvidia0, /dev/nvidia1, /dev/nvidia2 and 5 more");
}
