//! Every way in which NVIDIA's programs, engines and device plugins give a container GPUs: the program reaches those that it was
//! given, by its sandbox, and no other.
//!
//! NVIDIA's runtime and its hooks are the real ones, where `.ci/go-programs` has them; what they need of a driver is in `stand_ins.rs`. They call
//! the front, and that runc or crun. The driver is the simulated one, with two GPUs.

mod not_given;
pub mod stand_ins;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use userland_tests::Ended;

use super::lives::Called;
use super::sandboxes::{Maker, grant, plain};
use stand_ins::{Configured, FIRST_UUID, SECOND_UUID, Toolkit, programs};

/// Asks for every GPU that there is, and opens a node that it has made itself, of the first GPU.
const SCRIPT: &str = "guest visible; mknod /tmp/node c 195 0; cat /tmp/node";

/// What that says of its own node: the container's cgroup lets no device of NVIDIA's be opened. Whom it lets finds that there is no driver.
const CLOSED: &str = "cat: can't open '/tmp/node': Operation not permitted\n";
const OPEN: &str = "cat: can't open '/tmp/node': No such device or address\n";

/// A container whose program may make nodes.
pub fn container(environment: &[&str]) -> Value {
    let mut value = plain(SCRIPT);
    // NVIDIA's runtime takes no field that it does not know.
    value
        .as_object_mut()
        .expect("an object")
        .remove("futureField");
    // crun makes a root read-only before CDI's hooks make links in it.
    value["root"]["readonly"] = false.into();
    grant(&mut value, &["CAP_MKNOD"]);
    let variables = ["PATH=/bin"].iter().chain(environment);
    value["process"]["env"] = json!(variables.collect::<Vec<_>>());
    value["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "access": "m"},
    ]);
    value
}

/// What the program says that has these GPUs, and sees these nodes.
fn with_nodes(nodes: &[&str], gpus: &[u32]) -> Ended {
    let opened = |minor: u32| match (
        gpus.contains(&minor),
        nodes.contains(&&*format!("nvidia{minor}")),
    ) {
        (true, _) => "ok",
        // A hook has put a node there that the sandbox has not.
        (false, true) => "EACCES",
        (false, false) => "ENOENT",
    };
    let ids: Vec<u32> = gpus.iter().map(|minor| (minor + 1) << 8).collect();
    let (first, second) = (opened(0), opened(1));
    let stdout = format!(
        "nodes {nodes:?}\nnvidiactl: ok\nnvidia0: {first}\nnvidia1: {second}\nnvidia2: ENOENT\nnvidia-uvm: ok\nprobed {ids:x?}\n\
         minors {gpus:?}\n"
    );
    Ended {
        status: 0,
        stdout,
        stderr: CLOSED.to_owned(),
    }
}

/// What the program says that has these GPUs and sees no other node.
fn with(gpus: &[u32]) -> Ended {
    let gpu_nodes: Vec<String> = gpus.iter().map(|minor| format!("nvidia{minor}")).collect();
    let nodes = ["nvidia-uvm"].into_iter();
    let nodes = nodes.chain(gpu_nodes.iter().map(String::as_str));
    with_nodes(&nodes.chain(["nvidiactl"]).collect::<Vec<_>>(), gpus)
}

/// Containers that engines make by way of NVIDIA's programs.
pub struct Host {
    maker: Maker,
    toolkit: Toolkit,
}

impl Host {
    /// One for each low-level runtime that there is here.
    pub fn all() -> Vec<Host> {
        let Some(programs) = programs() else {
            return Vec::new();
        };
        let hosts = Maker::all().into_iter().map(|maker| Host {
            toolkit: Toolkit::new(&maker, &programs),
            maker,
        });
        hosts.collect()
    }

    /// Has an engine make this container by NVIDIA's runtime in some mode.
    pub fn by_nvidias(&self, configured: Configured, specification: &Value) -> Ended {
        let runtime = self.toolkit.program("nvidia-container-runtime");
        self.made(configured, &runtime, specification)
    }

    /// Has an engine make it by the front.
    pub fn by_front(&self, configured: Configured, specification: &Value) -> Ended {
        self.made(configured, &self.maker.front.runtime(), specification)
    }

    fn made(&self, configured: Configured, runtime: &Path, specification: &Value) -> Ended {
        let front = &self.maker.front;
        self.toolkit
            .configure(configured, runtime, &front.runtime());
        front.specify(specification);
        let engine = Called {
            front,
            program: self.toolkit.path("engine"),
            root: front.path("front-root"),
        };
        engine.run(&["run", "c"])
    }

    /// As dockerd asks for GPUs by the hook, `--gpus`, besides what the image says.
    pub fn docker(&self, image: &[&str], gpus: &str) -> Value {
        let asks = format!("NVIDIA_VISIBLE_DEVICES={gpus}");
        let environment: Vec<&str> = image.iter().copied().chain([asks.as_str()]).collect();
        self.hooked(&environment)
    }

    /// A container with NVIDIA's hook.
    fn hooked(&self, environment: &[&str]) -> Value {
        let mut value = container(environment);
        let name = "nvidia-container-runtime-hook";
        let configuration = self.toolkit.path("configuration");
        let variables = [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            format!("XDG_CONFIG_HOME={}", configuration.display()),
        ];
        value["hooks"] = json!({"prestart": [
            {"path": self.toolkit.program(name), "args": [name, "prestart"], "env": variables},
        ]});
        value
    }

    pub fn name(&self) -> &str {
        self.maker.name
    }
}

pub const LEGACY: Configured = Configured::mode("legacy");
pub const CDI: Configured = Configured::mode("cdi");
const CSV: Configured = Configured::mode("csv");

#[test]
fn gpus_by_docker_and_the_legacy_hook() {
    for host in Host::all() {
        let image = ["NVIDIA_VISIBLE_DEVICES=all"];
        for (image, asked, told, gpus) in [
            // --gpus all
            (&[][..], "all", "--device=all", &[0, 1][..]),
            // --gpus '"device=1"', --gpus 1, and of an image of CUDA
            (&[], "1", "--device=1", &[1]),
            (&image, "0", "--device=0", &[0]),
            (
                &[],
                SECOND_UUID,
                "--device=GPU-73696d75-6c61-7465-6420-475055200001",
                &[1],
            ),
            (&[], "0,1", "--device=0,1", &[0, 1]),
            // --gpus 'all,"capabilities=utility"'
            (
                &["NVIDIA_DRIVER_CAPABILITIES=utility"],
                "all",
                "--device=all",
                &[0, 1],
            ),
        ] {
            let ended = host.by_front(LEGACY, &host.docker(image, asked));
            assert_eq!(ended, with(gpus), "{}: {asked}", host.name());
            assert_eq!(
                host.toolkit.asked(),
                Some(format!("--no-cgroups {told}")),
                "{asked}"
            );
        }
        // No GPU, but the driver.
        let ended = host.by_front(LEGACY, &host.docker(&[], "none"));
        assert_eq!(ended, with(&[]), "{}", host.name());
        assert_eq!(host.toolkit.asked().as_deref(), Some("--no-cgroups"));
    }
}

#[test]
fn gpus_by_nvidias_runtime_in_legacy_mode() {
    for host in Host::all() {
        for (asked, gpus) in [("all", &[0, 1][..]), ("1", &[1]), (FIRST_UUID, &[0])] {
            let variable = format!("NVIDIA_VISIBLE_DEVICES={asked}");
            let ended = host.by_nvidias(LEGACY, &container(&[&variable]));
            assert_eq!(ended, with(gpus), "{}: {asked}", host.name());
            assert!(host.toolkit.asked().is_some());
        }
    }
}

/// Plain containers: of the program that looks for nodes nothing is heard but that there are none.
#[test]
fn no_gpus_where_the_hook_is_not_asked() {
    let mut plain = with(&[]);
    plain.stdout = "nodes []\nnvidiactl: ENOENT\nnvidia0: ENOENT\nnvidia1: ENOENT\nnvidia2: ENOENT\nnvidia-uvm: ENOENT\n".to_owned();
    for host in Host::all() {
        for environment in [
            &["NVIDIA_VISIBLE_DEVICES=void"][..],
            &["NVIDIA_VISIBLE_DEVICES="],
            &[],
        ] {
            for configured in [LEGACY, CDI, CSV] {
                let ended = host.by_nvidias(configured, &container(environment));
                assert_eq!(
                    ended,
                    plain,
                    "{}: {environment:?} {configured:?}",
                    host.name()
                );
                assert_eq!(host.toolkit.asked(), None);
            }
        }
    }
}

/// A value that `void` overrides has the container in a sandbox, which has the GPUs that it was given: none.
#[test]
fn what_an_image_asks_for_is_overridden_by_void() {
    for host in Host::all() {
        let environment = ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"];
        let ended = host.by_front(LEGACY, &host.hooked(&environment));
        assert_eq!(ended, with(&[]), "{}", host.name());
        assert_eq!(host.toolkit.asked(), None);
    }
}

const LIBRARY: &str = "; readlink /usr/lib/libcuda.so.1; cat /usr/lib/libcuda.so.1";

#[test]
fn gpus_by_cdi() {
    for host in Host::all() {
        let image = "NVIDIA_VISIBLE_DEVICES=all";
        // The first is what an image of CUDA says, behind which Docker has written what its user says.
        for (environment, gpus) in [
            (&["NVIDIA_VISIBLE_DEVICES=all"][..], &[0, 1][..]),
            (&["NVIDIA_VISIBLE_DEVICES=0"], &[0]),
            (&["NVIDIA_VISIBLE_DEVICES=0,1"], &[0, 1]),
            (&["NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=1"], &[1]),
            (&[&format!("NVIDIA_VISIBLE_DEVICES={SECOND_UUID}")], &[1]),
            // CDI makes void of the last, and the image's stays.
            (&[image, "NVIDIA_VISIBLE_DEVICES=1"], &[1]),
            (
                &["NVIDIA_VISIBLE_DEVICES=management.nvidia.com/gpu=all"],
                &[0, 1],
            ),
        ] {
            let mut value = container(environment);
            let is_of_gpus = !environment[0].contains("management");
            if is_of_gpus {
                value["process"]["args"] = json!(["sh", "-c", format!("{SCRIPT}{LIBRARY}")]);
            }
            let mut expected = with(gpus);
            if is_of_gpus {
                // By CDI's mount, and its hook.
                expected.stdout += "libcuda.so.580.142\nthe driver's library\n";
            }
            let ended = host.by_nvidias(CDI, &value);
            assert_eq!(ended, expected, "{}: {environment:?}", host.name());
        }
    }
}

/// The plugin's four strategies. An engine without CDI hands the annotations on; one that has it makes the edits.
#[test]
fn gpus_by_k8s_device_plugin() {
    let hardened = Configured {
        lines: "accept-nvidia-visible-devices-as-volume-mounts = true\naccept-nvidia-visible-devices-envvar-when-unprivileged = false\n",
        ..LEGACY
    };
    let mount = |value: &mut Value, name: &str| {
        let mount = json!({
            "destination": format!("/var/run/nvidia-container-devices/{name}"), "type": "bind", "source": "/dev/null",
            "options": ["rbind", "rprivate", "ro"],
        });
        value["mounts"].as_array_mut().expect("a list").push(mount);
    };
    for host in Host::all() {
        let prepare = host
            .maker
            .front
            .bundle()
            .join("rootfs/var/run/nvidia-container-devices");
        fs::create_dir_all(prepare).expect("a directory");
        // envvar
        let value = container(&[&format!("NVIDIA_VISIBLE_DEVICES={FIRST_UUID}")]);
        assert_eq!(
            host.by_nvidias(LEGACY, &value),
            with(&[0]),
            "{}",
            host.name()
        );
        // volume-mounts
        let mut value = container(&["NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices"]);
        mount(&mut value, SECOND_UUID);
        assert_eq!(
            host.by_nvidias(hardened, &value),
            with(&[1]),
            "{}",
            host.name()
        );
        assert!(host.toolkit.asked().is_some());
        // There the image is not heard.
        let mut value = container(&["NVIDIA_VISIBLE_DEVICES=all"]);
        mount(&mut value, FIRST_UUID);
        assert_eq!(
            host.by_nvidias(hardened, &value),
            with(&[0]),
            "{}",
            host.name()
        );
        // cdi-annotations
        let mut value = container(&["NVIDIA_VISIBLE_DEVICES=all"]);
        value["annotations"] = json!({
            "cdi.k8s.io/nvidia-device-plugin_29a6a4c4-e42d-4b7c-b6a5-0f3b6a0d6a52": format!("nvidia.com/gpu={SECOND_UUID}"),
        });
        assert_eq!(host.by_nvidias(CDI, &value), with(&[1]), "{}", host.name());
        // cdi-cri, and cdi-annotations where the engine heeds them: it has made the edits.
        host.toolkit.asked();
        let mut value = container(&["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"]);
        give(&mut value, &["nvidiactl", "nvidia-uvm", "nvidia1"], "rwm");
        for configured in [LEGACY, CDI] {
            let ended = host.by_nvidias(configured, &value);
            assert_eq!(ended, with(&[1]), "{}", host.name());
        }
        assert_eq!(host.toolkit.asked(), None);
    }
}

/// Gives a container nodes, as CDI and device plugins do.
fn give(value: &mut Value, nodes: &[&str], access: &str) {
    let numbers = |name: &str| match name {
        "nvidiactl" => (195, 255),
        "nvidia-uvm" => (507, 0),
        _ => (
            195,
            name.trim_start_matches("nvidia").parse().expect("a number"),
        ),
    };
    let devices = nodes.iter().map(|name| {
        let (major, minor) = numbers(name);
        json!({"path": format!("/dev/{name}"), "type": "c", "major": major, "minor": minor, "fileMode": 438, "uid": 0, "gid": 0})
    });
    value["linux"]["devices"] = devices.collect();
    let rules = value["linux"]["resources"]["devices"].as_array_mut();
    let rules = rules.expect("a list");
    rules.extend(nodes.iter().map(|name| {
        let (major, minor) = numbers(name);
        json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": access})
    }));
}

#[test]
fn gpus_by_gkes_device_plugin() {
    for host in Host::all() {
        let mut value = container(&["LD_LIBRARY_PATH=/usr/local/nvidia/lib64"]);
        give(&mut value, &["nvidia0", "nvidiactl", "nvidia-uvm"], "mrw");
        value["mounts"].as_array_mut().expect("a list").push(json!({
            "destination": "/usr/local/nvidia", "type": "bind", "source": host.toolkit.path("driver"),
            "options": ["rbind", "rprivate", "ro"],
        }));
        let script = format!("{SCRIPT}; cat /usr/local/nvidia/lib64/libcuda.so.580.142");
        value["process"]["args"] = json!(["sh", "-c", script]);
        let mut expected = with(&[0]);
        expected.stdout += "the driver's library\n";
        assert_eq!(host.by_front(LEGACY, &value), expected, "{}", host.name());
    }
}

/// The edits are those of a list of files, of systems on a chip.
#[test]
fn nodes_by_nvidias_runtime_in_csv_mode() {
    for host in Host::all() {
        let value = container(&["NVIDIA_VISIBLE_DEVICES=all"]);
        host.toolkit.write(
            "csv/devices.csv",
            "dev, /dev/nvidiactl\ndev, /dev/nvidia-uvm\ndev, /dev/nvidia0\n",
        );
        assert_eq!(host.by_nvidias(CSV, &value), with(&[0]), "{}", host.name());
        host.toolkit.write(
            "csv/devices.csv",
            "dev, /dev/nvhost-gpu\ndev, /dev/nvidia0\n",
        );
        let line = "ringfence-runtime: container c has GPUs (/dev/nvhost-gpu, /dev/nvidia0, the rule c 195:0) and has nodes of \
                    the driver of NVIDIA's systems on a chip, which Ringfence does not know: leave them out, or run it with the engine's \
                    own runtime";
        assert_eq!(
            host.by_nvidias(CSV, &value),
            Ended::failing(1, line),
            "{}",
            host.name()
        );
    }
}
