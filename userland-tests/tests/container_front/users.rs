//! Containers with GPUs whose processes are of several users: requests and pins of each.
//!
//! The driver does not ask who issues a request, but on which description (`rmclientValidate_IMPL`,
//! src/nvidia/src/kernel/rmapi/client.c, 580.142), and the simulated one neither.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use userland_tests::{Ended, eventually, finish, ringfence_program};

use super::sandboxes::{Maker, grant, with_gpu};

/// A script in a container that starts as `user` and may become others.
fn starting_as(user: u32, script: &str) -> Value {
    let mut value = with_gpu(script);
    grant(&mut value, &["CAP_SETUID", "CAP_SETGID"]);
    value["process"]["user"] = json!({"uid": user, "gid": user});
    value
}

/// A container that starts as root, of which each user pins for a client of its own.
const OF_SEVERAL: &str = "guest pin-as-users 0 1000 65534 4294967294";
const PINNED: &str = "itself: ok\n0: ok\n1000: ok\n65534: ok\n4294967294: ok\nitself again: ok\n";

#[test]
fn each_user_of_a_container_pins() {
    for maker in Maker::all() {
        let ended = maker.run(&starting_as(0, OF_SEVERAL));
        assert_eq!(ended, Ended::printing(PINNED), "{}", maker.name);
        let ended = maker.run(&starting_as(1000, "guest pin-as-users"));
        let expected = Ended::printing("itself: ok\nitself again: ok\n");
        assert_eq!(ended, expected, "{}", maker.name);
    }
}

/// To the driver it is the description that a client is used by, whoever uses it.
#[test]
fn another_user_pins_for_a_client_that_it_was_left() {
    for maker in Maker::all() {
        let ended = maker.run(&starting_as(0, "guest pin-as-another 1000"));
        let expected = "a child: ok\nitself: ok\nfor a new client: ok\n";
        assert_eq!(ended, Ended::printing(expected), "{}", maker.name);
    }
}

/// In a user namespace of the container's own, no process has a user that the server could be.
#[test]
fn users_of_a_namespace_of_the_containers_own_pin() {
    for maker in Maker::all() {
        let bundle = maker.front.bundle();
        for path in [bundle.parent().expect("a directory"), &bundle] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
        }
        let mut value = starting_as(0, "guest pin-as-users 0 1000 65535");
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        value["linux"]["uidMappings"] = map.clone();
        value["linux"]["gidMappings"] = map;
        let namespaces = value["linux"]["namespaces"].as_array_mut();
        namespaces.expect("a list").push(json!({"type": "user"}));
        let ended = maker.run(&value);
        let expected = "itself: ok\n0: ok\n1000: ok\n65535: ok\nitself again: ok\n";
        assert_eq!(ended, Ended::printing(expected), "{}", maker.name);
    }
}

#[test]
fn users_pin_before_and_after_another_server_takes_over() {
    for maker in Maker::all() {
        let shared = maker.front.path("shared");
        fs::create_dir(&shared).expect("a directory");
        let script = "exec guest pin-as-users 1000 /shared/waits 1000 1001";
        let mut value = starting_as(0, script);
        let mount = json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["bind", "rw"]});
        value["mounts"].as_array_mut().expect("a list").push(mount);
        maker.front.specify(&value);
        // Commands find a sandbox by its name, and there are others.
        let name = format!("users-{}-{}", maker.name, std::process::id());
        let waits = shared.join("waits");
        let called = maker.called();
        let ended = thread::scope(|scope| {
            let running = scope.spawn(|| called.run(&["run", &name]));
            eventually("it waits", || waits.exists() || running.is_finished());
            let mut upgrade = Command::new(ringfence_program());
            let upgraded = finish(upgrade.args(["server-upgrade", &name]));
            // Whatever has come of that, nobody is to wait any more.
            let _ = fs::remove_file(&waits);
            let ended = running.join().expect("its end");
            let replaced = format!("{name}: server ");
            assert!(
                upgraded.stdout.starts_with(&replaced),
                "{upgraded:?} {ended:?}"
            );
            ended
        });
        let expected = "itself: ok\n1000: ok\n1000: ok\n1001: ok\nitself again: ok\n";
        assert_eq!(ended, Ended::printing(expected), "{}", maker.name);
    }
}

/// As the driver keeps processes apart that make their clients themselves, but for those of one user, which may share.
#[test]
fn no_user_of_a_container_reaches_anothers_memory() {
    for maker in Maker::all() {
        let ended = maker.run(&starting_as(0, "guest users-apart 1000"));
        let expected = "\
a child copies: ok
a child maps: ok
a stranger copies: NV_ERR_INVALID_OBJECT_HANDLE
a stranger maps: NV_ERR_INVALID_CLIENT
a stranger who may copies: ok
a stranger who may maps: NV_ERR_INVALID_CLIENT
itself copies: ok
itself maps: ok
";
        assert_eq!(ended, Ended::printing(expected), "{}", maker.name);
    }
}

/// The test above can fail: to the driver all clients of a container are one process's.
#[test]
fn users_of_a_container_reach_one_anothers_memory_if_nobody_looks() {
    for maker in Maker::all() {
        maker.with_faults_on_the_host("server.related=drop");
        let ended = maker.run(&starting_as(0, "guest users-apart 1000"));
        for told in ["a stranger copies: ok", "a stranger maps: ok"] {
            let mut lines = ended.stdout.lines();
            assert!(lines.any(|line| line == told), "{told}: {ended:?}");
        }
    }
}

/// The same, by handles that the driver would export for anybody.
fn exporting(maker: &Maker) -> Ended {
    exporting_under(maker, "")
}

/// The same, where the sentry obeys these rules.
fn exporting_under(maker: &Maker, rules: &str) -> Ended {
    let allowed = "[\"compute\", \"utility\", \"rdma\"]";
    let settings = fs::read_to_string(maker.front.settings()).expect("settings");
    let settings = format!("{settings}[containers]\ndriver-capabilities = {allowed}\n");
    maker.front.set(&settings);
    let mut value = starting_as(0, "guest dma-buf-apart 1000");
    let variables = value["process"]["env"].as_array_mut();
    let variables = variables.expect("an environment");
    variables.push(json!("NVIDIA_DRIVER_CAPABILITIES=compute,utility,rdma"));
    variables.push(json!(format!("RINGFENCE_FAULTS={rules}")));
    maker.run(&value)
}

#[test]
fn no_user_of_a_container_exports_anothers_memory() {
    for maker in Maker::all() {
        let ended = exporting(&maker);
        let expected = "\
a child exports: ok
a stranger exports: NV_ERR_INVALID_OBJECT_HANDLE
itself: ok
";
        assert_eq!(ended, Ended::printing(expected), "{}", maker.name);
    }
}

/// A request of which nobody knows who makes it would be everybody's.
#[test]
fn nothing_is_exported_and_no_client_made_for_nobody() {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = exporting_under(&maker, "sentry.issuer=drop");
        assert_eq!(ended.stdout, "", "{}", maker.name);
        assert!(ended.stderr.contains("EIO"), "{ended:?}");
    }
}

/// The test above can fail.
#[test]
fn users_of_a_container_export_one_anothers_memory_if_nobody_looks() {
    for maker in Maker::all() {
        maker.with_faults_on_the_host("server.related=drop");
        let ended = exporting(&maker);
        let expected = "a child exports: ok\na stranger exports: ok\nitself: ok\n";
        assert_eq!(ended.stdout, expected, "{}", maker.name);
    }
}
