//! What options of `docker run` and `podman run` do to a container with GPUs: the same as to any other.
//!
//! A row is an option, and a script that prints what came of it. It runs in a container with a GPU, whose program first makes requests of
//! the driver, and in one without, which the low-level runtime makes alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use userland_tests::Ended;

use crate::engine::{Engine, GPU, Runtime};
use crate::every;

/// What the guest prints when its requests have succeeded.
pub const REQUESTS: &str = "freed 50 times\n";

struct Row {
    /// Where `PLACE` stands for the machine's directory.
    options: &'static str,
    script: &'static str,
    /// What is printed. `None`: what a container without GPUs prints, which differs from one machine or engine to another.
    expected: Option<&'static str>,
}

const ROWS: &[Row] = &[
    Row {
        options: "--env A=B --workdir /data --hostname here --tmpfs /mnt",
        script: "echo $A; pwd; hostname; grep -c ' /mnt tmpfs ' /proc/mounts",
        expected: Some("B\n/data\nhere\n1\n"),
    },
    Row {
        options: "--ipc host",
        script: "cat /dev/shm/of-the-machine",
        expected: Some("of the machine\n"),
    },
    // Beside a limit that is asked for podman sets these two, to what not everybody may.
    Row {
        options: "--shm-size 8m --ulimit memlock=65536:65536 --ulimit nofile=1024:1024 --ulimit nproc=1024:1024",
        script: "df -k /dev/shm | awk 'END { print $2 }'; ulimit -l",
        expected: Some("8192\n64\n"),
    },
    Row {
        options: "--network host",
        script: "readlink /proc/self/ns/net",
        expected: None,
    },
    Row {
        options: "--read-only",
        script: "touch /data/new 2>&1",
        expected: Some("touch: /data/new: Read-only file system\n"),
    },
    Row {
        options: "--user 1000:1000 --security-opt no-new-privileges",
        script: "id -u; id -g; grep -e ^Cap -e ^NoNewPrivs /proc/self/status",
        expected: None,
    },
    Row {
        options: "--cap-add SYS_NICE --cap-drop CHOWN",
        script: "grep ^Cap /proc/self/status; chown 1 /data 2>&1; true",
        expected: None,
    },
    Row {
        options: "--security-opt seccomp=PLACE/profile.json",
        script: "mkdir /data/new 2>&1; unshare -u true 2>&1; rmdir /data && echo the rest is open",
        expected: Some(
            "mkdir: can't create directory '/data/new': Operation not permitted\n\
             unshare: unshare(0x4000000): Operation not permitted\nthe rest is open\n",
        ),
    },
    Row {
        options: "--volume PLACE/volume:/data --volume PLACE/volume:/mnt:ro",
        script: "echo out >/data/out; cat /data/given; cat /mnt/out; touch /mnt/new 2>&1",
        expected: Some("given\nout\ntouch: /mnt/new: Read-only file system\n"),
    },
    Row {
        options: "--init",
        script: "cat /proc/1/comm",
        expected: None,
    },
];

/// What rows find on the machine.
fn furnish(engine: &Engine) {
    let place = engine.machine.path("volume");
    if place.exists() {
        return;
    }
    fs::create_dir(&place).expect("a directory");
    fs::write(place.join("given"), "given\n").expect("a file");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("a mode");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat", "unshare"], "action": "SCMP_ACT_ERRNO"}],
    });
    let file = engine.machine.path("profile.json");
    fs::write(file, profile.to_string()).expect("a file");
    engine
        .machine
        .tell("echo of the machine >/dev/shm/of-the-machine");
}

#[test]
fn what_options_do_they_do_with_a_gpu() {
    for (engine, low_level) in every::engine_with_runtime() {
        furnish(engine);
        for row in ROWS {
            if row.options == "--init" && !engine.has_init {
                eprintln!(
                    "skipped: {}: --init: it has no program for that here",
                    engine.name
                );
                continue;
            }
            let place = engine.machine.name_of("");
            let options = row.options.replace("PLACE", place.trim_end_matches('/'));
            let options: Vec<&str> = options.split(' ').collect();
            let expected = match row.expected {
                Some(expected) => expected.to_owned(),
                None => {
                    let alone = engine.run(Runtime::Alone(low_level), &options, row.script);
                    assert!(alone.stderr.is_empty(), "{alone:?}");
                    alone.stdout
                }
            };
            let script = format!("guest close; {}", row.script);
            let options = [GPU, &options].concat();
            let ended = engine.run(Runtime::Ringfence(low_level), &options, &script);
            let Ended { stdout, stderr, .. } = &ended;
            let name = format!("{} with {}: {}", engine.name, low_level.name(), row.options);
            assert_eq!(
                *stdout,
                format!("{REQUESTS}{expected}"),
                "{name}: {ended:?}"
            );
            assert_eq!(stderr, "", "{name}");
        }
    }
}
