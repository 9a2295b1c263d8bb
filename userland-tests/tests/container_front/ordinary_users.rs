//! Containers in user namespaces: with ids of their own that root has mapped, and those that an ordinary user makes, without
//! root (rootless). No cgroup decides there which devices they open, and a domain of Landlock's stands in for that.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use userland_tests::linux::{self, Feature};
use userland_tests::{Ended, eventually, ringfence_program, ringfence_with_faults};

use super::sandboxes::{Maker, with_gpu};

/// An ordinary user.
const USER: u32 = 1000;
/// Whom root makes the container's root.
const MAPPED: u32 = 100_000;

fn readable(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
}

/// Has all of it belong to this user.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("an owner");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory").flatten() {
            give(&entry.path(), user);
        }
    }
}

/// A container whose root is this user, with a directory that has a device in it which everybody may open.
fn with_user(maker: &Maker, user: u32, script: &str, rules: &str) -> Value {
    let mut value = with_gpu(script);
    let nodes = maker.front.path("nodes");
    fs::create_dir(&nodes).expect("a directory");
    let node = nodes.join("node");
    mknod(&node, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(10, 200)).expect("a node");
    give(maker.front.directory.path(), user);
    readable(maker.front.directory.path());
    if user != USER {
        // The front is root, and obeys nobody else's settings.
        give(&maker.front.settings(), 0);
    }
    fs::set_permissions(&node, Permissions::from_mode(0o666)).expect("a mode");
    value["mounts"].as_array_mut().expect("mounts").push(json!({
        "destination": "/nodes", "type": "bind", "source": nodes, "options": ["rbind", "ro"],
    }));
    let count = if user == USER { 1 } else { 65536 };
    let ids = json!([{"containerID": 0, "hostID": user, "size": count}]);
    let linux = &mut value["linux"];
    linux["uidMappings"] = ids.clone();
    linux["gidMappings"] = ids;
    let kinds = ["pid", "mount", "ipc", "uts", "user"];
    linux["namespaces"] = json!(kinds.map(|kind| json!({"type": kind})));
    linux
        .as_object_mut()
        .expect("an object")
        .remove("resources");
    value["process"]["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={rules}")]);
    value
}

/// Has the front be an ordinary user, by an executable that he reaches.
fn become_ordinary(maker: &Maker, executable: &Path) {
    let runtime = maker.front.runtime();
    fs::remove_file(&runtime).expect("removed");
    fs::copy(executable, maker.front.path("ringfence")).expect("a copy");
    std::os::unix::fs::symlink("ringfence", &runtime).expect("a link");
    let own = maker.front.path("run");
    fs::create_dir(&own).expect("a directory");
    chown(&own, Some(USER), Some(USER)).expect("an owner");
    let mut variables = maker.front.variables.lock().expect("variables");
    variables.push(("XDG_RUNTIME_DIR", own.display().to_string()));
    drop(variables);
    maker.front.user.set(USER).expect("no user yet");
}

const SCRIPT: &str = "cat /proc/self/uid_map; grep CapEff /proc/self/status; guest close; guest pin-among-threads; ls -d /proc/[0-9]*; \
                      stty -F /nodes/node";
const REACHED: &str = "stty: /nodes/node: File descriptor in bad state";
const WITHHELD: &str = "stty: /nodes/node: Permission denied";

fn expected(user: u32, count: u32) -> Ended {
    let map = format!("{:>10} {user:>10} {count:>10}\n", 0);
    let told = "CapEff:\t0000000000000020\nfreed 50 times\npinned 20 times: ok\n/proc/1\n";
    let reason = match linux::has(Feature::LandlockIoctlDev) {
        true => WITHHELD,
        false => REACHED,
    };
    Ended {
        status: 1,
        stdout: format!("{map}{told}"),
        stderr: format!("{reason}\n"),
    }
}

#[test]
fn the_root_of_a_container_can_be_another_user() {
    for maker in Maker::all() {
        let value = with_user(&maker, MAPPED, SCRIPT, "");
        assert_eq!(maker.run(&value), expected(MAPPED, 65536), "{}", maker.name);
    }
}

#[test]
fn an_ordinary_user_makes_a_container_with_gpus() {
    for maker in Maker::all() {
        become_ordinary(&maker, &ringfence_program());
        let value = with_user(&maker, USER, SCRIPT, "");
        assert_eq!(maker.run(&value), expected(USER, 1), "{}", maker.name);
        let bundles = maker.front.path("run/ringfence-containers");
        let count = || fs::read_dir(&bundles).map_or(0, Iterator::count);
        eventually("its bundle is gone", || count() == 0);
    }
}

/// The tests above can fail: without a domain nothing but the filter is between a program and a device.
#[test]
fn an_ordinary_users_container_reaches_devices_without_a_domain() {
    for maker in Maker::all() {
        become_ordinary(&maker, &ringfence_with_faults());
        let value = with_user(&maker, USER, "stty -F /nodes/node", "sentry.domain=drop");
        assert_eq!(
            maker.run(&value),
            Ended::failing(1, REACHED),
            "{}",
            maker.name
        );
    }
}

/// Neither is there, or neither knows the label: the program is not started without what is to confine it.
#[test]
fn a_program_whose_label_cannot_be_set_is_not_started() {
    for maker in Maker::all() {
        for name in ["apparmorProfile", "selinuxLabel"] {
            let mut value = with_gpu("echo started");
            value["process"][name] = "a-label-that-nobody-knows".into();
            let ended = maker.run(&value);
            let is_said = ended
                .stderr
                .starts_with("ringfence: the program's security label: ")
                || ended.stderr.starts_with("ringfence: sh: ");
            assert!(
                ended.status >= 125 && ended.stdout.is_empty() && is_said,
                "{}: {ended:?}",
                maker.name
            );
        }
    }
}
