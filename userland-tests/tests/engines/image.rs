//! The image of all containers here, as a file that every engine takes: busybox, and the guest that makes requests.
//!
//! The form is that of `docker save` (moby, image/spec), since docker, ctr and podman load it. There is no registry.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use userland_tests::{Directory, finish, guest_program};

/// What the image is called.
pub const IMAGE: &str = "docker.io/library/ringfence-test:latest";

pub const BUSYBOX: &str = "/bin/busybox";

/// Writes the image to a file.
pub fn write(file: &Path) {
    let directory = Directory::new("image");
    let root = directory.path().join("root");
    let parts = directory.path().join("parts");
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "data"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::create_dir(&parts).expect("a directory");
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
    let applets = finish(Command::new(BUSYBOX).arg("--list"));
    for applet in applets.stdout.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    copy_guest(&root.join("bin/guest"));
    // `su` and set-user-ID programs look users up.
    let users = "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).expect("a file");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("a file");

    let tar = |from: &Path, to: &Path, names: &[&str]| {
        let mut command = Command::new("tar");
        command.args(["--owner=0", "--group=0", "-C"]).arg(from);
        let ended = finish(command.arg("-cf").arg(to).args(names));
        assert_eq!(ended.status, 0, "{ended:?}");
    };
    let layer = parts.join("layer.tar");
    tar(&root, &layer, &["."]);
    let sum = finish(Command::new("sha256sum").arg(&layer)).stdout;
    let sum = sum.split_whitespace().next().expect("a sum");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        // A pod's first container does what the image says.
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(parts.join("config.json"), config.to_string()).expect("a file");
    fs::write(parts.join("manifest.json"), manifest.to_string()).expect("a file");
    tar(&parts, file, &["config.json", "manifest.json", "layer.tar"]);
}

/// The guest, without what only a debugger reads of it, since engines copy the image for each container.
fn copy_guest(to: &Path) {
    let mut command = Command::new("strip");
    command.arg("-o").arg(to).arg(guest_program());
    if !command.status().is_ok_and(|status| status.success()) {
        fs::copy(guest_program(), to).expect("the guest");
    }
}
