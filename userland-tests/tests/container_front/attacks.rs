//! Attacks on the driver from inside a container, as root with the capabilities that help, over devices that stand in for the
//! driver's nodes: as `attack.rs` of these tests has them in a sandbox of `ringfence run`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use userland_tests::linux::{self, Feature};
use userland_tests::{Directory, Ended};

use super::sandboxes::{HOOK, Maker, grant, plain};

/// Nodes of devices that stand in for the driver's. (runc lets every container open that of tun.)
fn stand_ins() -> Directory {
    let directory = Directory::in_place(Path::new("/var/tmp"), "stand-ins");
    let (fuse, tun) = (makedev(10, 229), makedev(10, 200));
    for (name, device) in [("nvidiactl", fuse), ("nvidia0", fuse), ("nvidia-uvm", tun)] {
        let mode = Mode::from_bits_truncate(0o666);
        let path = directory.path().join(name);
        mknod(&path, SFlag::S_IFCHR, mode, device).expect("a node");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a mode");
    }
    directory
}

/// Runs a program and, beside it, the same without a filter (guest/unfiltered.rs), with these capabilities. `opened` are the
/// devices that a hook lets the container open.
fn unfiltered(maker: &Maker, capabilities: &[&str], opened: Option<&str>, rules: &str) -> Ended {
    let nodes = stand_ins();
    let nodes = nodes.path();
    maker.with_nodes(nodes);
    let mut value = plain("exec guest unfiltered");
    grant(&mut value, capabilities);
    let mounts = value["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs"}));
    // The first process looks there for the number of UVM's node.
    mounts.push(json!({
        "destination": nodes, "type": "bind", "source": nodes, "options": ["bind", "ro", "nodev"],
    }));
    value["process"]["env"] = json!([
        "PATH=/bin",
        "NVIDIA_VISIBLE_DEVICES=all",
        format!("RINGFENCE_FAULTS=sentry.filter=duplicate {rules}")
    ]);
    value["linux"]["resources"]["devices"] =
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"}]);
    value["root"]["readonly"] = false.into();
    // What has the container have all GPUs.
    let hook = maker.front.path("nvidia-container-runtime-hook");
    let script = opened.map_or("#!/bin/sh\n".to_owned(), |opened| {
        HOOK.replace("195:*", opened)
    });
    fs::write(&hook, script).expect("a hook");
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).expect("a mode");
    value["hooks"] = json!({"prestart": [{"path": hook}]});
    maker.run(&value)
}

/// What was reached before, during and after pins, without what these came to, which the devices decide.
fn expect_withheld(maker: &Maker, ended: Ended) {
    let is_pins = |line: &&str| line.starts_with("50 pins: {\"Err(Errno(");
    assert_eq!(ended.stdout.lines().filter(is_pins).count(), 1, "{ended:?}");
    let others = ended.stdout.lines().filter(|line| !is_pins(line));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    let expected = "before: withheld\nbefore, UVM: reached\nduring: withheld\nduring, UVM: reached\nafter: withheld\n\
                    after, UVM: reached\n";
    let found = (ended.status, others.as_str(), ended.stderr.as_str());
    assert_eq!(found, (0, expected, ""), "{}", maker.name);
}

const ALL: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD"];
const WITHOUT_MOUNTS: [&str; 2] = ["CAP_SYS_PTRACE", "CAP_MKNOD"];

/// Whether this machine can show it; a line says so if not.
fn is_shown() -> bool {
    let is_there = linux::has(Feature::LandlockIoctlDev);
    if !is_there {
        eprintln!("skipped: where Landlock cannot withhold ioctl the filter is the only wall");
    }
    is_there
}

#[test]
fn in_a_container_no_request_reaches_the_resource_manager_without_a_filter() {
    if is_shown() {
        for maker in Maker::all() {
            let ended = unfiltered(&maker, &ALL, None, "sentry.pin-checked=delay:1");
            expect_withheld(&maker, ended);
        }
    }
}

/// The test above can fail: what a pin lends is found and used if the other tasks are not held.
#[test]
fn in_a_container_a_task_gets_at_what_a_pin_lends_if_it_is_not_held() {
    if is_shown() {
        for maker in Maker::all() {
            let rules = "sentry.hold=drop sentry.pin-checked=delay:10";
            let ended = unfiltered(&maker, &ALL, None, rules);
            assert!(
                ended.stdout.contains("\nduring: reached: {"),
                "{}: {ended:?}",
                maker.name
            );
        }
    }
}

/// A hook has opened the devices to the container, which makes nodes of its own.
#[test]
fn nodes_that_a_hook_has_opened_are_of_no_use() {
    if is_shown() && has_hook() {
        for maker in Maker::all() {
            let rules = "sentry.pin-checked=delay:1";
            let ended = unfiltered(&maker, &WITHOUT_MOUNTS, Some("10:*"), rules);
            expect_withheld(&maker, ended);
        }
    }
}

/// The test above can fail.
#[test]
fn nodes_that_a_hook_has_opened_reach_the_driver_without_a_domain() {
    if is_shown() && has_hook() {
        for maker in Maker::all() {
            let ended = unfiltered(&maker, &WITHOUT_MOUNTS, Some("10:*"), "sentry.domain=drop");
            assert!(
                ended.stdout.starts_with("before: reached: {"),
                "{}: {ended:?}",
                maker.name
            );
        }
    }
}

fn has_hook() -> bool {
    let has = Path::new("/sys/fs/cgroup/devices").exists();
    if !has {
        eprintln!("skipped: the hook knows cgroups of version 1 only");
    }
    has
}
