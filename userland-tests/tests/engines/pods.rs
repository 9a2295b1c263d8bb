//! Pods, as Kubernetes has containerd make them (CRI): by crictl, with the handler that a RuntimeClass names.
//!
//! The pod's sandbox, a first container without GPUs, is the low-level runtime's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use userland_tests::{Ended, eventually, finish};

use crate::containerd::Containerd;
use crate::engine::{built, skip};
use crate::image::IMAGE;
use crate::options::REQUESTS;

/// Whose processes a container sees (`NamespaceMode` in CRI's api.proto).
pub const OF_POD: u8 = 0;
pub const OF_CONTAINER: u8 = 1;
const OF_NODE: u8 = 2;

/// A pod that runs until this is dropped.
pub struct Pod<'a> {
    containerd: &'a Containerd,
    crictl: PathBuf,
    identity: String,
    file: PathBuf,
    logs: PathBuf,
    /// Of which the pod's namespaces are.
    options: Value,
}

pub fn engines() -> impl Iterator<Item = (&'static Containerd, PathBuf)> {
    let crictl = built("crictl").or_else(|| skip("pods", "crictl was not built (.ci/go-programs)"));
    let engines = crictl.is_some().then(Containerd::all).into_iter().flatten();
    engines.map(move |engine| (engine, crictl.clone().unwrap_or_default().join("crictl")))
}

fn crictl(containerd: &Containerd, program: &Path, words: &[&str]) -> Ended {
    let mut command = containerd.machine.command(program);
    let address = format!("unix://{}", containerd.machine.name_of("containerd.sock"));
    for option in ["--runtime-endpoint", "--image-endpoint"] {
        command.args([option, &address]);
    }
    finish(command.args(["--timeout", "60s"]).args(words))
}

impl<'a> Pod<'a> {
    #[track_caller]
    pub fn new(containerd: &'a Containerd, program: &Path, processes: u8) -> Pod<'a> {
        let context = json!({"namespace_options": {"network": OF_NODE, "pid": processes}});
        Pod::with(containerd, program, context, json!({}))
    }

    /// One with this security context and these annotations.
    #[track_caller]
    fn with(
        containerd: &'a Containerd,
        program: &Path,
        context: Value,
        annotations: Value,
    ) -> Pod<'a> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let logs = containerd.machine.path(&name);
        fs::create_dir(&logs).expect("a directory");
        let file = logs.join("pod.json");
        let text = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "attempt": 1},
            "log_directory": logs,
            "annotations": annotations,
            "linux": {
                "cgroup_parent": containerd.machine.group(),
                "security_context": context,
            },
        });
        fs::write(&file, text.to_string()).expect("a file");
        let name = file.to_str().expect("text");
        let ended = crictl(
            containerd,
            program,
            &["runp", "--runtime", "ringfence", name],
        );
        assert_eq!(ended.status, 0, "{}: {ended:?}", containerd.name);
        Pod {
            containerd,
            crictl: program.to_owned(),
            identity: ended.stdout.trim().to_owned(),
            file,
            logs,
            options: context["namespace_options"].clone(),
        }
    }

    pub fn tell(&self, words: &[&str]) -> Ended {
        crictl(self.containerd, &self.crictl, words)
    }

    /// Makes a container: this, and a shell's script.
    fn create(&self, name: &str, mut value: Value, script: &str) -> Ended {
        value["metadata"] = json!({"name": name, "attempt": 1});
        value["image"] = json!({"image": IMAGE});
        value["command"] = json!(["/bin/sh", "-c", script]);
        value["log_path"] = format!("{name}.log").into();
        value["linux"]["security_context"]["namespace_options"] = self.options.clone();
        let file = self.logs.join(format!("{name}.json"));
        fs::write(&file, value.to_string()).expect("a file");
        let [file, pod] = [&file, &self.file].map(|path| path.to_str().expect("text"));
        self.tell(&["create", "--no-pull", &self.identity, file, pod])
    }

    /// The same, which succeeds; and starts it. Returns its name for the engine.
    #[track_caller]
    pub fn start(&self, name: &str, value: Value, script: &str) -> String {
        let ended = self.create(name, value, script);
        assert_eq!(ended.status, 0, "{}: {ended:?}", self.containerd.name);
        let identity = ended.stdout.trim().to_owned();
        let ended = self.tell(&["start", &identity]);
        assert_eq!(ended.status, 0, "{}: {ended:?}", self.containerd.name);
        identity
    }

    /// What a container has printed, by the log that the kubelet would read.
    pub fn output(&self, name: &str) -> String {
        let text = fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    /// Waits until a container has ended, and all that it has printed is logged. Returns its state.
    fn wait(&self, identity: &str) -> String {
        eventually("it has ended", || {
            self.state(identity).starts_with("CONTAINER_EXITED")
        });
        self.state(identity)
    }

    fn state(&self, identity: &str) -> String {
        self.inspect("{{.status.state}} {{.status.exitCode}}", identity)
    }

    fn inspect(&self, template: &str, identity: &str) -> String {
        let words = ["inspect", "--output", "go-template", "--template"];
        let ended = self.tell(&[&words[..], &[template, identity]].concat());
        ended.stdout.trim().to_owned()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // Why a test failed is not to be hidden.
        self.tell(&["stopp", &self.identity]);
        self.tell(&["rmp", "--force", &self.identity]);
    }
}

/// A container with a GPU.
pub fn with_gpu() -> Value {
    let node = "/dev/nvidia0";
    json!({"devices": [{"container_path": node, "host_path": node, "permissions": "rwm"}]})
}

#[test]
fn containers_of_a_pod_have_gpus() {
    for (containerd, crictl) in engines() {
        let name = containerd.name;
        let pod = Pod::new(containerd, &crictl, OF_CONTAINER);
        let sandboxes = || {
            let ringfence = containerd.machine.ringfence();
            finish(containerd.machine.command(ringfence).arg("ps")).stdout
        };
        // The pod's first container is in none.
        assert!(!sandboxes().contains(&pod.identity), "{name}");
        let script = "guest close && guest pin-among-threads; exit 7";
        let container = pod.start("ends", with_gpu(), script);
        assert_eq!(pod.wait(&container), "CONTAINER_EXITED 7", "{name}");
        let expected = format!("{REQUESTS}pinned 20 times: ok\n");
        assert_eq!(pod.output("ends"), expected, "{name}");
        if containerd.knows_cdi {
            let value = json!({"CDI_devices": [{"name": "nvidia.com/gpu=all"}]});
            let container = pod.start("by-cdi", value, "guest close");
            assert_eq!(pod.wait(&container), "CONTAINER_EXITED 0", "{name}");
            assert_eq!(pod.output("by-cdi"), REQUESTS, "{name}");
        }
        let mut value = with_gpu();
        value["linux"]["security_context"]["run_as_user"] = json!({"value": 1000});
        let script = "guest close; id -u; while :; do sleep 0.1; done";
        let container = pod.start("goes-on", value, script);
        let expected = format!("{REQUESTS}1000\n");
        eventually("it has printed", || pod.output("goes-on") == expected);
        assert!(sandboxes().contains(&container), "{name}");
        let ended = pod.tell(&["stop", "--timeout", "0", &container]);
        assert_eq!(ended.status, 0, "{name}: {ended:?}");
        assert_eq!(pod.state(&container), "CONTAINER_EXITED 137", "{name}");
        eventually("nothing is left", || !sandboxes().contains(&container));
    }
}

/// As in `deploy/kubernetes/pod-with-memory-limit.yaml`.
#[test]
fn the_memory_that_a_pod_asks_for_is_the_most_that_its_containers_get() {
    for (containerd, crictl) in engines() {
        let name = containerd.name;
        let context = json!({"namespace_options": {"network": OF_NODE, "pid": OF_CONTAINER}});
        let annotations = json!({"dev.ringfence.gpu-memory": "4Gi"});
        let pod = Pod::with(containerd, &crictl, context, annotations);
        let own = json!({"dev.ringfence.gpu-memory": "2Gi"});
        for (of, annotations, most) in [("pods", json!({}), 4096), ("own", own, 2048)] {
            let mut value = with_gpu();
            value["annotations"] = annotations;
            let container = pod.start(of, value, "guest limit-shown");
            assert_eq!(pod.wait(&container), "CONTAINER_EXITED 0", "{name}");
            let output = pod.output(of);
            let expected = format!("nothing allocated: ram {most}, total {most}, ");
            assert!(output.starts_with(&expected), "{name}: {of}: {output}");
        }
        let mut value = with_gpu();
        value["annotations"] = json!({"dev.ringfence.gpu-memory": "much"});
        let ended = pod.create("wrong", value, "echo ran");
        let ended = match ended.status {
            0 => pod.tell(&["start", ended.stdout.trim()]),
            _ => ended,
        };
        let line = "annotation dev.ringfence.gpu-memory: 'much' is no size";
        assert!(ended.stderr.contains(line), "{name}: {ended:?}");
    }
}

#[test]
fn a_pods_containers_without_gpus_are_as_without_ringfence() {
    for (containerd, crictl) in engines() {
        let pod = Pod::new(containerd, &crictl, OF_CONTAINER);
        let script = "cat /proc/1/comm; ls /dev/nvidia0 2>&1";
        let container = pod.start("plain", json!({}), script);
        pod.wait(&container);
        let expected = "sh\nls: /dev/nvidia0: No such file or directory\n";
        assert_eq!(pod.output("plain"), expected, "{}", containerd.name);
    }
}

#[test]
fn a_pod_is_shown_what_is_refused() {
    for (containerd, crictl) in engines() {
        let name = containerd.name;
        let context = json!({
            "namespace_options": {"network": OF_NODE, "pid": OF_NODE},
            "privileged": true,
        });
        let pod = Pod::with(containerd, &crictl, context, json!({}));
        let mut value = with_gpu();
        value["linux"]["security_context"]["privileged"] = true.into();
        let start = |of: &str, value: Value| {
            let created = pod.create(of, value, "echo ran");
            match created.status {
                0 => pod.tell(&["start", created.stdout.trim()]),
                _ => created,
            }
        };
        let ended = start("privileged", value);
        let line = "leave out --privileged (securityContext.privileged)";
        assert!(ended.stderr.contains(line), "{name}: {ended:?}");
        let ended = start("of-node", with_gpu());
        let line = "has the host's process namespace, and a sandbox needs one of its own: leave out --pid=host (hostPID)";
        assert!(ended.stderr.contains(line), "{name}: {ended:?}");
    }
}

/// `shareProcessNamespace`: others of the pod see the sandbox's processes, and what is in the sandbox sees its own alone. There the
/// sentry is not process 1, and its end is the container's all the same.
#[test]
fn containers_of_a_pod_share_processes() {
    for (containerd, crictl) in engines() {
        let name = containerd.name;
        let pod = Pod::new(containerd, &crictl, OF_POD);
        let other = pod.start("other", json!({}), "while :; do sleep 0.1; done");
        let script = "guest close; ls -d /proc/[0-9]*; exit 5";
        let container = pod.start("ends", with_gpu(), script);
        assert_eq!(pod.wait(&container), "CONTAINER_EXITED 5", "{name}");
        let output = pod.output("ends");
        assert_eq!(output, format!("{REQUESTS}/proc/1\n"), "{name}");

        let script = "guest close; while :; do sleep 0.1; done; exit of-the-sandbox";
        let container = pod.start("goes-on", with_gpu(), script);
        eventually("it has printed", || pod.output("goes-on") == REQUESTS);
        let ps = || containerd.machine.tell("ps -eo pid,comm,args");
        assert!(ps().contains("of-the-sandbox"), "{name}: {}", ps());
        let killed = containerd
            .machine
            .tell("pkill -KILL -x ringfence-sentr; echo killed");
        assert_eq!(killed, "killed\n");
        assert_eq!(pod.wait(&container), "CONTAINER_EXITED 137", "{name}");
        eventually("its program has ended", || !ps().contains("of-the-sandbox"));
        assert_eq!(pod.state(&other), "CONTAINER_RUNNING 0", "{name}");
    }
}
