//! What stands in for what this machine lacks: nodes of the driver's, its libraries, CDI's description of them, and the program that
//! NVIDIA's legacy hook starts. NVIDIA's own runtime and hooks are the real ones.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use userland_tests::finish;

use super::super::sandboxes::Maker;

/// The UUIDs of the simulated driver's GPUs.
pub const FIRST_UUID: &str = "GPU-73696d75-6c61-7465-6420-475055200000";
pub const SECOND_UUID: &str = "GPU-73696d75-6c61-7465-6420-475055200001";

/// The major number of nodes of parts of GPUs: the driver's, if there is one, since by another no number is a part's.
pub fn major_of_parts() -> u64 {
    let devices = fs::read_to_string("/proc/devices").expect("a list");
    let mut lines = devices.lines();
    let found = lines.find_map(|line| line.trim().strip_suffix(" nvidia-caps"));
    found.map_or(508, |major| major.parse().expect("a number"))
}

/// The nodes that NVIDIA's driver has on a machine with two GPUs: major numbers other than 195 it is given by the kernel.
const NODES: [(&str, u64, u64); 9] = [
    ("nvidiactl", 195, 255),
    ("nvidia0", 195, 0),
    ("nvidia1", 195, 1),
    ("nvidia-modeset", 195, 254),
    ("nvidia-uvm", 507, 0),
    ("nvidia-caps/nvidia-cap1", 508, 1),
    ("nvidia-caps/nvidia-cap12", 508, 12),
    ("nvidia-caps/nvidia-cap13", 508, 13),
    ("nvhost-gpu", 505, 1),
];

/// In place of nvidia-container-cli: it binds the nodes of the GPUs that it is asked for into the root, as libnvidia-container's
/// nvc_mount.c does, and lets the container's cgroup open NVIDIA's unless it is told otherwise.
const CLI: &str = r#"#!/bin/sh -e
here=$(dirname "$(readlink -f "$0")")
echo "$*" >>"$here/asked.log"
cgroups=yes devices=
for word in "$@"; do
    case $word in
    --device=*) devices=${word#--device=} ;;
    --pid=*) pid=${word#--pid=} ;;
    --no-cgroups) cgroups= ;;
    esac
    root=$word
done
. "$here/manners"
nodes="nvidiactl nvidia-uvm"
for device in $(echo "$devices" | tr , ' '); do
    case $device in
    all) nodes="$nodes nvidia0 nvidia1" ;;
    0 | *0000) nodes="$nodes nvidia0" ;;
    1 | *0001) nodes="$nodes nvidia1" ;;
    MIG-GPU-*0000/1/0) nodes="$nodes nvidia0 nvidia-caps/nvidia-cap12 nvidia-caps/nvidia-cap13" ;;
    *)
        echo "nvidia-container-cli: device error: $device: unknown device" >&2
        exit 1
        ;;
    esac
done
nsenter --mount="/proc/$pid/ns/mnt" sh -ec '
    here=$1 root=$2
    shift 2
    for node; do
        mkdir -p "$(dirname "$root/dev/$node")"
        : >>"$root/dev/$node"
        mount --bind "$here/driver/dev/$node" "$root/dev/$node"
    done' sh "$here" "$root" $nodes
if test "$cgroups"; then
    group=$(sed -n 's/.*:devices:\(.*\)/\1/p' "/proc/$pid/cgroup")
    echo 'c 195:* rw' >"/sys/fs/cgroup/devices$group/devices.allow"
fi
"#;

/// A hook that does what it is told not to.
pub const HOSTILE: &str = "cgroups=yes devices=all\n";

/// In place of an engine, which makes a container, starts it and waits: a runtime's `run` NVIDIA's runtime does not look at.
const ENGINE: &str = r#"#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export XDG_CONFIG_HOME="$here/configuration"
read -r runtime <"$here/runtime"
root=$2
"$runtime" --root "$root" create --bundle . c || exit
"$runtime" --root "$root" start c || exit
while "$runtime" --root "$root" state c | grep -Eq '"status": *"(created|running)"'; do
    sleep 0.1
done
"$runtime" --root "$root" delete c 2>"$here/deleted.log"
"#;

/// NVIDIA's toolkit, and what it needs to find.
pub struct Toolkit {
    /// Where its programs are.
    programs: PathBuf,
    /// Where all else is.
    directory: PathBuf,
}

/// What is in NVIDIA's configuration besides.
#[derive(Clone, Copy, Debug)]
pub struct Configured {
    pub mode: &'static str,
    /// Lines at the top.
    pub lines: &'static str,
    pub no_cgroups: bool,
}

impl Configured {
    pub const fn mode(mode: &'static str) -> Configured {
        Configured {
            mode,
            lines: "",
            no_cgroups: true,
        }
    }
}

/// Where `.ci/go-programs` has NVIDIA's programs. `None`, and a line that says so, if it has none.
pub fn programs() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/go-programs");
    let ended = finish(Command::new(script).args(["--folder", "nvidia"]));
    if ended.status != 0 {
        eprintln!(
            "skipped: NVIDIA's container toolkit is not here (.ci/go-programs nvidia builds it)"
        );
        return None;
    }
    Some(ended.stdout.trim_end().into())
}

impl Toolkit {
    pub fn new(maker: &Maker, programs: &Path) -> Toolkit {
        let directory = maker.front.path("nvidia");
        let toolkit = Toolkit {
            programs: programs.to_owned(),
            directory,
        };
        let devices = toolkit.path("driver/dev");
        for (name, major, minor) in NODES {
            let node = devices.join(name);
            fs::create_dir_all(node.parent().expect("a directory")).expect("a directory");
            let mode = Mode::from_bits_truncate(0o666);
            let major = match name.starts_with("nvidia-caps/") {
                true => major_of_parts(),
                false => major,
            };
            mknod(&node, SFlag::S_IFCHR, mode, makedev(major, minor)).expect("a node");
        }
        for directory in [
            "driver/lib64",
            "configuration/nvidia-container-runtime",
            "cdi",
            "csv",
        ] {
            fs::create_dir_all(toolkit.path(directory)).expect("a directory");
        }
        toolkit.write("driver/lib64/libcuda.so.580.142", "the driver's library\n");
        toolkit.write("manners", "");
        toolkit.script("nvidia-container-cli", CLI);
        toolkit.script("engine", ENGINE);
        toolkit.describe();
        toolkit
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One of NVIDIA's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    pub fn script(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).expect("a mode");
    }

    /// What the hook has asked of nvidia-container-cli since the last look, without what differs from run to run.
    pub fn asked(&self) -> Option<String> {
        let log = self.path("asked.log");
        let text = fs::read_to_string(&log).ok()?;
        fs::remove_file(&log).expect("removed");
        let words = text.split_whitespace();
        let is_told = |word: &&str| word.starts_with("--device=") || *word == "--no-cgroups";
        Some(words.filter(is_told).collect::<Vec<_>>().join(" "))
    }

    /// Writes NVIDIA's configuration, and has the engine call this runtime.
    pub fn configure(&self, configured: Configured, runtime: &Path, front: &Path) {
        let Configured {
            mode,
            lines,
            no_cgroups,
        } = configured;
        let shown = |name: &str| self.path(name).display().to_string();
        let program = |name: &str| self.program(name).display().to_string();
        self.write(
            "configuration/nvidia-container-runtime/config.toml",
            &format!(
                "{lines}
[nvidia-container-cli]
root = {:?}
path = {:?}
load-kmods = false
no-cgroups = {no_cgroups}
[nvidia-container-runtime]
mode = {mode:?}
log-level = \"error\"
runtimes = [{front:?}]
[nvidia-container-runtime.modes.cdi]
spec-dirs = [{:?}]
default-kind = \"nvidia.com/gpu\"
[nvidia-container-runtime.modes.csv]
mount-spec-path = {:?}
[nvidia-container-runtime-hook]
path = {:?}
[nvidia-ctk]
path = {:?}
",
                shown("driver"),
                shown("nvidia-container-cli"),
                shown("cdi"),
                shown("csv"),
                program("nvidia-container-runtime-hook"),
                program("nvidia-cdi-hook"),
            ),
        );
        self.write("runtime", &format!("{}\n", runtime.display()));
    }

    fn node(&self, name: &str) -> Value {
        let source = self.path("driver/dev").join(name);
        json!({"path": format!("/dev/{name}"), "hostPath": source})
    }

    /// Describes the devices as `nvidia-ctk cdi generate` does, which needs a driver.
    fn describe(&self) {
        let device = |name: &str, nodes: &[&str]| {
            let nodes: Vec<Value> = nodes.iter().map(|node| self.node(node)).collect();
            json!({"name": name, "containerEdits": {"deviceNodes": nodes}})
        };
        let library = "/usr/lib/libcuda.so.580.142";
        let control = ["nvidiactl", "nvidia-uvm", "nvidia-modeset"].map(|name| self.node(name));
        let common = json!({
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": control,
            "mounts": [{
                "hostPath": self.path("driver/lib64/libcuda.so.580.142"), "containerPath": library,
                "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
            }],
            "hooks": [{
                "hookName": "createContainer", "path": self.program("nvidia-cdi-hook"),
                "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "libcuda.so.580.142::/usr/lib/libcuda.so.1"],
            }],
        });
        let gpus = json!({
            "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "containerEdits": common,
            "devices": [
                device("0", &["nvidia0"]), device("1", &["nvidia1"]), device("all", &["nvidia0", "nvidia1"]),
                device(FIRST_UUID, &["nvidia0"]), device(SECOND_UUID, &["nvidia1"]),
                device(
                    "0:0",
                    &["nvidia0", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"],
                ),
            ],
        });
        let every = [
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-modeset",
            "nvidia0",
            "nvidia1",
            "nvidia-caps/nvidia-cap1",
        ];
        let management = json!({
            "cdiVersion": "0.5.0", "kind": "management.nvidia.com/gpu",
            "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}, "devices": [device("all", &every)],
        });
        self.write("cdi/nvidia.json", &gpus.to_string());
        self.write("cdi/management.json", &management.to_string());
    }
}
