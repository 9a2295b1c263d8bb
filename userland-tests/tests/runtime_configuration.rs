//! `ringfence runtime configure`: what it makes of each engine's configuration, that nothing else in it changes, and that each
//! engine that is installed here takes the result.
//!
//! CRI-O is not asked: its file is compared with what crio.conf(5) says.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use userland_tests::{Directory, Ended, Reachable, finish, ringfence_program};

/// The first line of a file that was not there.
const HEADING: &str =
    "# Written by `ringfence runtime configure`, which takes its entry out again with --remove.\n";

/// What is printed last.
const DOCKER: &str =
    "next: systemctl reload docker (of a rootless dockerd: systemctl --user reload docker)\n";

/// A directory with a configuration, and with a program that could be the runtime.
struct Place {
    directory: Directory,
    engine: &'static str,
    file: PathBuf,
}

impl Place {
    /// That of an engine whose file, which is not there, has this name.
    fn new(engine: &'static str, name: &str) -> Place {
        let directory = Directory::new("runtime-configuration");
        let program = directory.path().join("ringfence-runtime");
        fs::copy("/bin/true", program).expect("a program");
        Place {
            file: directory.path().join("etc").join(name),
            directory,
            engine,
        }
    }

    /// The same with a file that has this text.
    fn with(engine: &'static str, name: &str, text: &str) -> Place {
        let place = Place::new(engine, name);
        fs::create_dir_all(place.file.parent().expect("a directory")).expect("a directory");
        fs::write(&place.file, text).expect("written");
        place
    }

    fn program(&self) -> String {
        let path = self.directory.path().join("ringfence-runtime");
        path.to_str().expect("text").to_owned()
    }

    /// `ringfence runtime configure ENGINE --config FILE --runtime-path PROGRAM OPTIONS…`
    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(ringfence_program());
        command.args(["runtime", "configure", self.engine, "--config"]);
        command.arg(&self.file);
        if !options.contains(&"--runtime-path") {
            command.args(["--runtime-path", &self.program()]);
        }
        command.args(options).stdin(Stdio::null());
        command
    }

    fn configure(&self, options: &[&str]) -> Ended {
        finish(&mut self.command(options))
    }

    /// The same, which succeeds and says nothing to stderr. Returns what is in the file then.
    fn configured(&self, options: &[&str]) -> String {
        let ended = self.configure(options);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// A path beside the file.
    fn beside(&self, behind: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(behind);
        name.into()
    }

    /// Fails unless the file becomes `expected`, stays so when it is configured again, and becomes what it was when the entry
    /// is removed: by what was kept, and mostly without that.
    fn expect_there_and_back(&self, options: &[&str], expected: &str) {
        let expected = expected.replace("PROGRAM", &self.program());
        let before = fs::read_to_string(&self.file).ok();
        let (text, kept) = (self.configured(options), self.beside(".before-ringfence"));
        assert_eq!(text, expected);
        assert_eq!(fs::read_to_string(&kept).ok(), before);

        let again = self.configure(options);
        let file = self.file.display();
        let line = format!("{file} is configured already: runtime ringfence\n");
        assert_eq!(again, Ended::printing(&line));
        assert_eq!(fs::read_to_string(&self.file).ok(), Some(expected));

        self.configured(&["--remove"]);
        assert_eq!(fs::read_to_string(&self.file).ok(), before);
        let again = self.configure(&["--remove"]);
        let line = format!("{file} has no runtime ringfence\n");
        assert_eq!(again, Ended::printing(&line));
        assert_eq!(fs::read_to_string(&self.file).ok(), before);
    }
}

const DOCKER_NEW: &str = r#"{
  "runtimes": {
    "ringfence": {
      "path": "PROGRAM"
    }
  }
}
"#;

const PODMAN_NEW: &str = r#"[engine.runtimes]
ringfence = ["PROGRAM"]
"#;

const CONTAINERD_NEW: &str = r#"version = VERSION

[plugins."PLUGIN".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."PLUGIN".containerd.runtimes.ringfence]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["dev.ringfence.*"]
container_annotations = ["dev.ringfence.*"]

[plugins."PLUGIN".containerd.runtimes.ringfence.options]
BinaryName = "PROGRAM"
"#;

#[test]
fn a_file_that_is_not_there_is_made_and_taken_away_again() {
    let place = Place::new("docker", "docker/daemon.json");
    place.expect_there_and_back(&[], DOCKER_NEW);
    let place = Place::new("podman", "containers.conf.d/ringfence.conf");
    place.expect_there_and_back(&[], &format!("{HEADING}{PODMAN_NEW}"));
    for (version, plugin) in [
        ("2", "io.containerd.grpc.v1.cri"),
        ("3", "io.containerd.cri.v1.runtime"),
        ("4", "io.containerd.cri.v1.runtime"),
    ] {
        let place = Place::new("containerd", "containerd/config.toml");
        let expected = CONTAINERD_NEW.replace("VERSION", version);
        let expected = format!("{HEADING}{}", expected.replace("PLUGIN", plugin));
        place.expect_there_and_back(&["--version", version], &expected);
    }
}

#[test]
fn what_is_not_there_becomes_the_default_and_is_taken_away_again() {
    for (engine, name, default) in [
        (
            "docker",
            "daemon.json",
            "  \"default-runtime\": \"ringfence\"\n",
        ),
        (
            "podman",
            "ringfence.conf",
            "[engine]\nruntime = \"ringfence\"\n",
        ),
        (
            "crio",
            "50-ringfence.conf",
            "[crio.runtime]\ndefault_runtime = \"ringfence\"\n",
        ),
        (
            "containerd",
            "config.toml",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"ringfence\"\n",
        ),
    ] {
        let version: &[&str] = match engine {
            "containerd" => &["--version", "2"],
            _ => &[],
        };
        let place = Place::new(engine, name);
        let at_once = place.configured(&[version, &["--set-as-default"]].concat());
        assert!(at_once.contains(default), "{at_once}");
        place.configured(&["--remove"]);
        assert!(!place.file.exists());

        // Afterwards, as well.
        place.configured(version);
        assert_eq!(place.configured(&["--set-as-default"]), at_once);
        // And it stays if nothing is said of it.
        assert_eq!(place.configured(&[]), at_once);
        place.configured(&["--remove"]);
        assert!(!place.file.exists());
        let left = fs::read_dir(place.file.parent().expect("a directory")).expect("entries");
        assert_eq!(left.count(), 0, "{engine}");
    }
}

const DAEMON: &str = r#"{
    "log-driver": "json-file",
    "runtimes": {
        "nvidia": {
            "args": [],
            "path": "nvidia-container-runtime"
        }
    },
    "default-runtime": "nvidia",
    "exec-opts": ["native.cgroupdriver=systemd"]
}"#;

#[test]
fn the_rest_of_a_daemons_json_stays_as_it_was_written() {
    let entry = r#"            "path": "nvidia-container-runtime"
        },
        "ringfence": {
            "path": "PROGRAM"
        }"#;
    let present = "            \"path\": \"nvidia-container-runtime\"\n        }";
    let configured = DAEMON.replace(present, entry);
    let place = Place::with("docker", "daemon.json", DAEMON);
    place.expect_there_and_back(&[], &configured);
    let default = "\"default-runtime\": \"ringfence\"";
    let configured = configured.replace("\"default-runtime\": \"nvidia\"", default);
    place.expect_there_and_back(&["--set-as-default"], &configured);

    // However it is written.
    for text in [
        "{}",
        "{\"debug\":true}",
        "\n",
        "{\r\n\t\"debug\": true\r\n}\r\n",
    ] {
        let place = Place::with("docker", "daemon.json", text);
        place.configured(&["--set-as-default"]);
        place.configured(&["--remove"]);
        assert_eq!(fs::read_to_string(&place.file).expect("text"), text);
    }
}

const CONTAINERD: &str = r#"# What the cluster's nodes have.
version = 2 # not 3 yet
imports = []

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.k8s.io/pause:3.9" # mirrored
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc" # kept by hand

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2" # the shim

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          # kubelet's driver
          SystemdCgroup = true

  # GPUs
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
      BinaryName = "/usr/bin/nvidia-container-runtime"

# the end
"#;

const CONTAINERD_ENTRY: &str = r#"      BinaryName = "/usr/bin/nvidia-container-runtime"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ringfence]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["dev.ringfence.*"]
container_annotations = ["dev.ringfence.*"]

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ringfence.options]
SystemdCgroup = true
BinaryName = "PROGRAM"
"#;

/// The new entry has the control groups that the ordinary one has.
#[test]
fn comments_and_order_of_containerds_configuration_stay() {
    let present = "      BinaryName = \"/usr/bin/nvidia-container-runtime\"\n";
    let configured = CONTAINERD.replace(present, CONTAINERD_ENTRY);
    let place = Place::with("containerd", "config.toml", CONTAINERD);
    place.expect_there_and_back(&[], &configured);
    let default = "default_runtime_name = \"ringfence\" # kept";
    let configured = configured.replace("default_runtime_name = \"runc\" # kept", default);
    place.expect_there_and_back(&["--set-as-default"], &configured);

    let rename = |text: &str| {
        let text = text.replace("version = 2 # not 3 yet", "version = 3");
        text.replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
    };
    let place = Place::with("containerd", "config.toml", &rename(CONTAINERD));
    place.expect_there_and_back(&["--set-as-default"], &rename(&configured));
}

/// A list that is there gets one entry more.
#[test]
fn annotations_that_containerd_hands_on_already_it_goes_on_to_hand_on() {
    let ours =
        "pod_annotations = [\"dev.ringfence.*\"]\ncontainer_annotations = [\"dev.ringfence.*\"]\n";
    let place = Place::new("containerd", "config.toml");
    assert!(place.configured(&["--version", "3"]).contains(ours));
    let table = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
    let text = format!(
        "version = 3\n\n{table}pod_annotations = [\"org.example.*\", \"com.example\"]\ncontainer_annotations = []\n"
    );
    let place = Place::with("containerd", "config.toml", &text);
    let program = place.program();
    let entry = table.replace("runc]", "ringfence]");
    let options = entry.replace("ringfence]", "ringfence.options]");
    let options = options.replace("runtime_type = \"io.containerd.runc.v2\"\n", "");
    let expected = format!(
        "{text}\n{entry}pod_annotations = [\"org.example.*\", \"com.example\", \"dev.ringfence.*\"]\n\
         container_annotations = [\"dev.ringfence.*\"]\n\n{options}BinaryName = \"{program}\"\n"
    );
    place.expect_there_and_back(&[], &expected);
    // What was added to the entry by hand stays.
    place.configured(&[]);
    let more = expected.replace(
        "\"com.example\", \"dev.ringfence.*\"]",
        "\"dev.ringfence.*\", \"more\"]",
    );
    fs::write(&place.file, &more).expect("written");
    assert_eq!(place.configured(&[]), more);
}

/// Whatever else was written since, and though no copy is left.
#[test]
fn removing_takes_out_nothing_but_the_entry() {
    for (engine, name, text) in [
        ("docker", "daemon.json", DAEMON),
        ("containerd", "config.toml", CONTAINERD),
        ("crio", "crio.conf", CRIO),
        ("podman", "containers.conf", PODMAN),
    ] {
        let place = Place::with(engine, name, text);
        place.configured(&[]);
        fs::remove_file(place.beside(".before-ringfence")).expect("removed");
        assert_eq!(place.configured(&["--remove"]), text, "{engine}");
        let changed = text.replace("nvidia", "other");
        assert_ne!(changed, text);
        let configured = place.configured(&[]).replace("nvidia", "other");
        fs::write(&place.file, configured).expect("written");
        assert_eq!(place.configured(&["--remove"]), changed, "{engine}");
    }
}

#[test]
fn what_was_the_default_is_so_again_whatever_else_was_written_since() {
    for (engine, name, text) in [
        ("docker", "daemon.json", DAEMON),
        ("containerd", "config.toml", CONTAINERD),
        ("crio", "crio.conf", CRIO),
        ("podman", "containers.conf", PODMAN),
    ] {
        let place = Place::with(engine, name, text);
        let configured = place.configured(&["--set-as-default"]);
        let change = |text: &str| text.replace("container-runtime", "container-runtime.cdi");
        fs::write(&place.file, change(&configured)).expect("written");
        assert_eq!(place.configured(&["--remove"]), change(text), "{engine}");
    }
}

/// As tables in a line, with dotted keys, with ends of lines from Windows, and with a mark at the beginning.
#[test]
fn toml_stays_in_whichever_way_it_is_written() {
    for (text, configured) in [
        (
            "engine = { runtime = \"crun\" }\n",
            "engine = { runtime = \"crun\" , runtimes = { ringfence = [\"PROGRAM\"] } }\n",
        ),
        (
            "engine.runtime = \"crun\" # x\nengine.runtimes.a = [\"b\"]\n",
            "engine.runtime = \"crun\" # x\nengine.runtimes.a = [\"b\"]\nengine.runtimes.ringfence = [\"PROGRAM\"]\n",
        ),
        (
            "[engine]\r\nruntime = \"crun\" # x\r\n",
            "[engine]\r\nruntime = \"crun\" # x\r\n\r\n[engine.runtimes]\r\nringfence = [\"PROGRAM\"]\r\n",
        ),
        (
            "\u{feff}[engine]\nruntime = \"crun\"\n",
            "\u{feff}[engine]\nruntime = \"crun\"\n\n[engine.runtimes]\nringfence = [\"PROGRAM\"]\n",
        ),
        (
            "[engine]\nruntime = \"crun\"",
            "[engine]\nruntime = \"crun\"\n\n[engine.runtimes]\nringfence = [\"PROGRAM\"]\n",
        ),
    ] {
        let place = Place::with("podman", "containers.conf", text);
        place.expect_there_and_back(&[], configured);
        place.configured(&[]);
        fs::remove_file(place.beside(".before-ringfence")).expect("removed");
        // But for blanks within a line, and an end of the last one.
        let words = |text: &str| text.trim_end().replace(' ', "");
        assert_eq!(words(&place.configured(&["--remove"])), words(text));
    }
}

/// Docker's packages of containerd bring such a file.
#[test]
fn a_configuration_of_the_first_version_is_edited_as_one_and_what_it_disables_is_said() {
    let text = "#   Copyright\n\ndisabled_plugins = [\"cri\"]\n";
    let place = Place::with("containerd", "config.toml", text);
    let ended = place.configure(&[]);
    let warning = format!(
        "ringfence: {}: disabled_plugins has cri, without which containerd heeds no runtimes: take it out there\n",
        place.file.display()
    );
    assert_eq!((ended.status, ended.stderr), (0, warning));
    let expected = CONTAINERD_NEW.replace("version = VERSION\n", text);
    let expected = expected
        .replace("\"PLUGIN\"", "cri")
        .replace("PROGRAM", &place.program());
    assert_eq!(fs::read_to_string(&place.file).expect("text"), expected);
    place.configured(&["--remove"]);
    assert_eq!(fs::read_to_string(&place.file).expect("text"), text);
}

#[test]
fn comments_alone_stay_at_the_beginning() {
    let text = "# Nothing yet.\n";
    let place = Place::with("podman", "containers.conf", text);
    place.expect_there_and_back(&[], &format!("{text}\n{HEADING}{PODMAN_NEW}"));
}

#[test]
fn imports_stay_and_one_that_takes_the_sections_place_is_named() {
    let text = "version = 2\nimports = [\"conf.d/*.toml\"] # ours\n";
    let place = Place::with("containerd", "config.toml", text);
    let imported = place.file.with_file_name("conf.d");
    fs::create_dir(&imported).expect("a directory");
    let other = "version = 2\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/opt\"\n";
    fs::write(imported.join("a.toml"), other).expect("written");
    assert!(place.configured(&[]).starts_with(text));
    place.configured(&["--remove"]);
    let other = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n";
    fs::write(imported.join("b.toml"), other).expect("written");
    let expected = format!(
        "ringfence: {}: its section of io.containerd.grpc.v1.cri takes the place of that in {} before containerd 2.1: see \
         containerd config dump, and if the runtime is not in it, name this file with --config\n",
        imported.join("b.toml").display(),
        place.file.display()
    );
    assert_eq!(place.configure(&[]).stderr, expected);
}

const PODMAN: &str = r#"# podman
[engine]
runtime = "crun" # fast

[engine.runtimes]
# GPUs
nvidia = ["/usr/bin/nvidia-container-runtime"]

[network]
default_subnet = "10.88.0.0/16"
"#;

#[test]
fn podmans_own_configuration_can_be_edited() {
    let entry = "-runtime\"]\nringfence = [\"PROGRAM\"]\n\n[network]";
    let configured = PODMAN.replace("-runtime\"]\n\n[network]", entry);
    let place = Place::with("podman", "containers.conf", PODMAN);
    place.expect_there_and_back(&[], &configured);
    let configured = configured.replace("\"crun\" # fast", "\"ringfence\" # fast");
    place.expect_there_and_back(&["--set-as-default"], &configured);
}

const CRIO: &str = r#"[crio.runtime]
default_runtime = "crun"

[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
monitor_path = "/opt/crio/conmon" # packaged
monitor_cgroup = "pod"

[crio.runtime.runtimes.nvidia]
runtime_path = "/usr/bin/nvidia-container-runtime"
"#;

/// CRI-O reads every file in the directory of drop-ins: a copy there would undo what is new.
#[test]
fn crios_drop_in_has_the_monitor_of_the_others_and_its_copy_lies_outside() {
    let place = Place::new("crio", "crio.conf.d/50-ringfence.conf");
    let drop_ins = place.file.parent().expect("a directory");
    fs::create_dir_all(drop_ins).expect("a directory");
    fs::write(drop_ins.join("10-crio.conf"), CRIO).expect("written");
    let expected = format!(
        "{HEADING}[crio.runtime.runtimes.ringfence]\nruntime_type = \"oci\"\nruntime_path = \"PROGRAM\"\n\
         monitor_path = \"/opt/crio/conmon\"\nmonitor_cgroup = \"pod\"\n"
    );
    place.expect_there_and_back(&[], &expected);

    let text = "[crio.runtime]\nlog_level = \"debug\"\n";
    fs::write(&place.file, text).expect("written");
    place.configured(&[]);
    let files = fs::read_dir(drop_ins).expect("entries");
    assert_eq!(files.count(), 2);
    let kept = drop_ins.with_file_name("50-ringfence.conf.before-ringfence");
    assert_eq!(fs::read_to_string(kept).expect("a copy"), text);
    eprintln!("skipped: CRI-O is not asked whether it takes this");
}

#[test]
fn the_difference_is_shown_and_a_dry_run_does_no_more() {
    let place = Place::with("docker", "daemon.json", DAEMON);
    let file = place.file.display();
    let program = place.program();
    let difference = format!(
        r#"--- {file}
+++ {file}
@@ -4,6 +4,9 @@
         "nvidia": {{
             "args": [],
             "path": "nvidia-container-runtime"
+        }},
+        "ringfence": {{
+            "path": "{program}"
         }}
     }},
     "default-runtime": "nvidia",
"#
    );
    let ended = place.configure(&["--dry-run"]);
    assert_eq!(ended, Ended::printing(&difference));
    assert_eq!(fs::read_to_string(&place.file).expect("text"), DAEMON);
    assert!(!place.beside(".before-ringfence").exists());

    let kept = place.beside(".before-ringfence");
    let kept = format!("what was there is kept in {}\n", kept.display());
    let ended = place.configure(&[]);
    assert_eq!(
        ended,
        Ended::printing(&format!("{difference}{kept}{DOCKER}"))
    );
    let configured = fs::read_to_string(&place.file).expect("text");
    place.configured(&["--remove", "--dry-run"]);
    assert_eq!(fs::read_to_string(&place.file).expect("text"), configured);
    // dockerd forgets no runtime by a signal.
    let ended = place.configure(&["--remove"]);
    let next = "\nnext: systemctl restart docker (of a rootless dockerd: systemctl --user restart docker)\n";
    assert!(ended.stdout.ends_with(next), "{ended:?}");

    // As the runtime of all it is that of privileged containers, too.
    let ended = place.configure(&["--set-as-default"]);
    let note = "\nnote: on a machine with GPUs a privileged container has them all, and is refused: give it the engine's own runtime \
                (--runtime=runc)\n";
    assert!(
        ended.stdout.ends_with(&format!("{note}{DOCKER}")),
        "{ended:?}"
    );

    let place = Place::new("docker", "docker/daemon.json");
    place.configured(&["--dry-run"]);
    assert!(!place.directory.path().join("etc").exists());
}

#[test]
fn what_cannot_be_read_is_named_by_its_line_and_left_alone() {
    for (engine, text, reason) in [
        (
            "docker",
            "{\n  \"debug\": true,\n}\n",
            "trailing comma at line 3 column 1",
        ),
        ("docker", "[]\n", "it is no object: { is expected"),
        ("docker", "{\"runtimes\": 1}\n", "runtimes is no object"),
        (
            "containerd",
            "version = 2\n[plugins\n",
            "line 2: unclosed table, expected `]`",
        ),
        (
            "containerd",
            "version = 9\n",
            "its version is none of 1 to 4, the versions of the format that Ringfence knows",
        ),
        ("podman", "engine = 1\n", "engine is no table"),
        (
            "crio",
            "[crio.runtime]\nruntimes = 1\n",
            "runtimes is no table",
        ),
    ] {
        let place = Place::with(engine, "file", text);
        let file = place.file.display();
        let refused =
            format!("ringfence: {file}: {reason}: correct the file first; nothing was written");
        assert_eq!(place.configure(&[]), Ended::failing(1, &refused), "{text}");
        assert_eq!(fs::read_to_string(&place.file).expect("text"), text);
        assert!(!place.beside(".before-ringfence").exists());
    }
    let place = Place::with("docker", "daemon.json", "");
    fs::write(&place.file, b"{\n\"a\": \"\xff\"}").expect("written");
    let refused = format!(
        "ringfence: {}: line 2: it is not text in UTF-8: name another file with --config, or correct this one",
        place.file.display()
    );
    assert_eq!(place.configure(&[]), Ended::failing(1, &refused));
}

#[test]
fn an_entry_of_another_runtime_is_left_alone() {
    let place = Place::with("docker", "daemon.json", DAEMON);
    let file = place.file.display();
    for options in [&["--name", "nvidia"][..], &["--name", "nvidia", "--remove"]] {
        let refused = format!(
            "ringfence: {file}: its runtime nvidia is nvidia-container-runtime, which is not Ringfence: choose another with \
             --name, or name that program with --runtime-path if it is"
        );
        assert_eq!(place.configure(options), Ended::failing(1, &refused));
        assert_eq!(fs::read_to_string(&place.file).expect("text"), DAEMON);
    }
    // Ringfence's own moves.
    let named = place.configured(&["--name", "fenced"]);
    assert!(named.contains("\"fenced\": {"), "{named}");
    let moved = place.configured(&["--name", "fenced", "--runtime-path", "/bin/true"]);
    assert_eq!(moved, named.replace(&place.program(), "/bin/true"));
}

#[test]
fn no_kept_copy_is_overwritten() {
    let place = Place::with("docker", "daemon.json", "{\"debug\": true}\n");
    let kept = place.beside(".before-ringfence");
    fs::write(&kept, "older").expect("written");
    place.configured(&[]);
    assert_eq!(fs::read_to_string(&kept).expect("text"), "older");
    let newer = fs::read_to_string(place.beside(".before-ringfence.1"));
    assert_eq!(newer.expect("text"), "{\"debug\": true}\n");
    // What is kept already is not kept again.
    place.configured(&["--remove"]);
    place.configured(&[]);
    assert!(!place.beside(".before-ringfence.2").exists());
}

#[test]
fn mode_and_owner_stay_and_a_link_stays_one() {
    let place = Place::with("docker", "daemon.json", DAEMON);
    fs::set_permissions(&place.file, Permissions::from_mode(0o640)).expect("a mode");
    let owner = match geteuid().is_root() {
        true => (1234, 5678),
        false => {
            eprintln!("skipped: only root can give a file to somebody else");
            (geteuid().as_raw(), nix::unistd::getegid().as_raw())
        }
    };
    chown(&place.file, Some(owner.0), Some(owner.1)).expect("an owner");
    let link = place.beside(".link");
    symlink(&place.file, &link).expect("a link");
    let linked = Place {
        file: link.clone(),
        ..Place::new("docker", "unused")
    };
    assert!(linked.configured(&[]).contains("ringfence"));
    assert!(link.is_symlink());
    for file in [place.file.clone(), place.beside(".before-ringfence")] {
        let status = fs::symlink_metadata(&file).expect("a file");
        let found = (status.mode(), status.uid(), status.gid());
        assert_eq!(found, (0o100640, owner.0, owner.1), "{}", file.display());
    }

    // A new one can be read by everybody.
    let place = Place::new("docker", "daemon.json");
    place.configured(&[]);
    let status = fs::metadata(&place.file).expect("a file");
    assert_eq!(status.mode(), 0o100644);
}

#[test]
fn a_user_at_a_terminal_is_asked() {
    for (answer, options, status) in [
        ("n\n", &[][..], 1),
        ("\n", &[], 1),
        ("y\n", &[], 0),
        ("", &["--yes"], 0),
    ] {
        let place = Place::with("docker", "daemon.json", DAEMON);
        let (mut terminal, other_end) = terminal();
        terminal.write_all(answer.as_bytes()).expect("typed");
        let mut command = place.command(options);
        command.stdin(other_end.try_clone().expect("a duplicate"));
        command.stderr(other_end).stdout(Stdio::null());
        let ended = command.status().expect("ringfence");
        assert_eq!(ended.code(), Some(status), "{answer:?}");
        let text = fs::read_to_string(&place.file).expect("text");
        assert_eq!(text == DAEMON, status == 1, "{answer:?}");
    }
}

#[test]
fn what_somebody_else_writes_while_the_user_is_asked_is_not_lost() {
    let place = Place::with("docker", "daemon.json", DAEMON);
    let (mut terminal, other_end) = terminal();
    let mut command = place.command(&[]);
    command.stdin(other_end.try_clone().expect("a duplicate"));
    command.stderr(other_end).stdout(Stdio::null());
    let mut child = command.spawn().expect("ringfence");
    let mut shown = String::new();
    while !shown.contains("[y/N]") {
        let mut bytes = [0; 100];
        let count = terminal.read(&mut bytes).expect("a question");
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    fs::write(&place.file, "{}").expect("written");
    terminal.write_all(b"y\n").expect("typed");
    assert_eq!(child.wait().expect("an end").code(), Some(1));
    assert_eq!(fs::read_to_string(&place.file).expect("text"), "{}");
}

/// A terminal, and what is on it.
fn terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).expect("a terminal");
    unlockpt(&terminal).expect("a terminal");
    let other_end = ioctl_tiocgptpeer(&terminal, flags).expect("its other end");
    (terminal.into(), other_end.into())
}

#[test]
fn a_program_that_is_not_there_is_said_and_one_without_a_root_is_refused() {
    let place = Place::new("docker", "daemon.json");
    let ended = place.configure(&["--runtime-path", "/nowhere/ringfence-runtime"]);
    let warning = "ringfence: /nowhere/ringfence-runtime: No such file or directory: no container can start by this runtime \
                   until Ringfence is there; --runtime-path names another place\n";
    assert_eq!((ended.status, ended.stderr.as_str()), (0, warning));

    let refused = "ringfence: --runtime-path ringfence-runtime: engines start it from another directory: write the path from / on";
    let ended = place.configure(&["--runtime-path", "ringfence-runtime"]);
    assert_eq!(ended, Ended::failing(1, refused));
    let refused = "ringfence: --version is of containerd's format: leave it out";
    let ended = place.configure(&["--version", "2"]);
    assert_eq!(ended, Ended::failing(1, refused));
}

/// A script that starts it can be called anything.
#[test]
fn a_program_whose_name_makes_it_no_runtime_is_said() {
    let place = Place::new("docker", "daemon.json");
    let beside = |name: &str| {
        let path = place.directory.path().join(name);
        path.to_str().expect("text").to_owned()
    };
    let (own, copy) = (beside("fenced"), beside("ringfence"));
    symlink(ringfence_program(), &own).expect("a link");
    fs::copy("/bin/true", &copy).expect("a program");
    let link = place.program();
    for program in [&own, &copy] {
        let ended = place.configure(&["--runtime-path", program]);
        let warning = format!(
            "ringfence: {program}: it is a runtime only by the name ringfence-runtime: no container can start by it: make a link of \
             that name (ln -s {program} {link}), and give --runtime-path {link}\n"
        );
        assert_eq!((ended.status, ended.stderr), (0, warning));
    }
    // What is said helps.
    fs::remove_file(&link).expect("removed");
    symlink(&copy, &link).expect("a link");
    let text = place.configured(&["--runtime-path", &link]);
    assert_eq!(text, DOCKER_NEW.replace("PROGRAM", &link));
    let script = beside("starts-ringfence");
    fs::copy("/bin/true", &script).expect("a program");
    place.configured(&["--name", "other", "--runtime-path", &script]);
}

/// The program that is named is the one beside the executable, if it is there.
#[test]
fn the_program_beside_the_executable_is_found() {
    let reachable = Reachable::new();
    let program = reachable.ringfence.with_file_name("ringfence-runtime");
    let directory = Directory::new("runtime-configuration");
    let file = directory.path().join("daemon.json");
    let configure = || {
        let mut command = Command::new(&reachable.ringfence);
        command.args(["runtime", "configure", "docker", "--config"]);
        finish(command.arg(&file));
        fs::read_to_string(&file).expect("a file")
    };
    let ordinary = DOCKER_NEW.replace("PROGRAM", "/usr/local/bin/ringfence-runtime");
    assert_eq!(configure(), ordinary);
    symlink("ringfence", &program).expect("a link");
    let beside = program.to_str().expect("text");
    assert_eq!(configure(), DOCKER_NEW.replace("PROGRAM", beside));
}

#[test]
fn a_user_has_a_podman_of_their_own_and_is_told_to_be_root_for_the_rest() {
    const USER: u32 = 12321;
    if !geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let reachable = Reachable::new();
    let home = Directory::new("home");
    chown(home.path(), Some(USER), Some(USER)).expect("an owner");
    let configure = |arguments: &[&str]| {
        let mut command = Command::new(&reachable.ringfence);
        command.args(["runtime", "configure"]).args(arguments);
        command
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME");
        finish(command.uid(USER).gid(USER).current_dir("/"))
    };
    let ended = configure(&["podman", "--runtime-path", "/bin/true"]);
    let next = "\nnext: nothing, each podman command reads it; its service: systemctl --user restart podman\n";
    assert!(
        ended.status == 0 && ended.stdout.ends_with(next),
        "{ended:?}"
    );
    let file = home
        .path()
        .join(".config/containers/containers.conf.d/ringfence.conf");
    let text = fs::read_to_string(file).expect("a file");
    assert_eq!(
        text,
        format!("{HEADING}{}", PODMAN_NEW.replace("PROGRAM", "/bin/true"))
    );

    let secret = Place::with("docker", "daemon.json", DAEMON);
    fs::set_permissions(&secret.file, Permissions::from_mode(0o600)).expect("a mode");
    let everyone = Permissions::from_mode(0o755);
    fs::set_permissions(secret.directory.path(), everyone).expect("a mode");
    let file = secret.file.to_str().expect("text");
    let refused = format!(
        "ringfence: {file}: Permission denied: run this as root, or for a rootless dockerd give --config \
         ~/.config/docker/daemon.json"
    );
    assert_eq!(
        configure(&["docker", "--config", file]),
        Ended::failing(1, &refused)
    );
    fs::set_permissions(&secret.file, Permissions::from_mode(0o644)).expect("a mode");
    let ended = configure(&["docker", "--config", file, "--runtime-path", "/bin/true"]);
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("Permission denied: run this as root"),
        "{ended:?}"
    );
    assert_eq!(fs::read_to_string(file).expect("text"), DAEMON);
}

#[test]
fn without_containerd_the_version_is_one_that_each_reads() {
    let place = Place::new("containerd", "config.toml");
    let ended = finish(place.command(&[]).env("PATH", ""));
    let warning = "ringfence: no containerd is found here that says what version its configuration has: version 2 is written, \
                   which each reads; --version chooses another\n";
    assert_eq!((ended.status, ended.stderr.as_str()), (0, warning));
    let text = fs::read_to_string(&place.file).expect("text");
    assert!(text.contains("\nversion = 2\n"), "{text}");
}

/// What an installed engine prints. `None` if it is not installed, or has no such option, which is said.
fn engine(command: &mut Command) -> Option<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Err(error) => {
            eprintln!("skipped: {name}: {error}");
            None
        }
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            if stderr.contains("unknown flag") {
                eprintln!("skipped: {name} of this release cannot be asked: {stderr}");
                return None;
            }
            assert!(output.status.success(), "{command:?}: {stderr}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
    }
}

#[test]
fn dockerd_takes_it() {
    for text in ["{}", DAEMON] {
        let place = Place::with("docker", "daemon.json", text);
        place.configured(&["--set-as-default"]);
        let mut command = Command::new("dockerd");
        engine(
            command
                .args(["--validate", "--config-file"])
                .arg(&place.file),
        );
    }
}

/// With its own runtime as well, which releases before 2.0 forget as soon as a file names another.
#[test]
fn containerd_takes_it() {
    let place = Place::new("containerd", "config.toml");
    let dump = |file: &Path| {
        let mut command = Command::new("containerd");
        engine(command.arg("-c").arg(file).args(["config", "dump"]))
    };
    if dump(Path::new("/dev/null")).is_none() {
        return;
    }
    for text in [
        None,
        Some("version = 2\n"),
        Some("root = \"/var/lib/containerd\"\n"),
        Some(CONTAINERD),
    ] {
        match text {
            None => assert!(!place.file.exists()),
            Some(text) => fs::write(&place.file, text).expect("written"),
        }
        place.configured(&["--set-as-default"]);
        let dumped = dump(&place.file).expect("a configuration");
        let dumped = dumped.replace('\'', "\"");
        for part in [
            format!("BinaryName = \"{}\"", place.program()),
            "default_runtime_name = \"ringfence\"".to_owned(),
            ".containerd.runtimes.runc]".to_owned(),
            ".containerd.runtimes.ringfence]".to_owned(),
        ] {
            assert!(dumped.contains(&part), "{part} in {dumped}");
        }
    }
}

#[test]
fn podman_takes_it() {
    let place = Place::new("podman", "ringfence.conf");
    place.configured(&[]);
    let mut command = Command::new("podman");
    command.args(["--runtime", "ringfence", "info", "--format"]);
    command.arg("{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}");
    command.env("CONTAINERS_CONF", &place.file);
    if let Some(printed) = engine(&mut command) {
        assert_eq!(printed, format!("ringfence {}\n", place.program()));
    }
}
