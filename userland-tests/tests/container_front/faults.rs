//! What comes of a container with GPUs when a process of its own, of the engine's or of the sandbox's is killed at any time, and
//! that nothing stays: no process, no bundle, no cgroup, no mount.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use userland_tests::eventually;
use userland_tests::processes::Process;

use super::running::{Running, expect_nothing, own_name, run_in_foreground, state, status_of};
use super::sandboxes::{Maker, with_gpu};

const WAITS: &str = "guest close; exec sleep 1000";

#[test]
fn a_front_that_is_killed_leaves_nothing() {
    for maker in Maker::all() {
        maker.obey("launcher.front=kill");
        maker.front.specify(&with_gpu(WAITS));
        let (name, called) = (own_name(), maker.called());
        let ended = called.run(&["create", &name]);
        assert!(ended.status > 128, "{}: {ended:?}", maker.name);
        assert_eq!(state(&called, &name), None, "{}", maker.name);
        expect_nothing(maker.front.directory.path(), &name);
    }
}

/// Whether by the engine, or since the process that waits to be started was killed.
#[test]
fn a_container_that_is_never_started_leaves_nothing() {
    for maker in Maker::all() {
        for is_killed in [false, true] {
            maker.front.specify(&with_gpu(WAITS));
            let (name, called) = (own_name(), maker.called());
            assert_eq!(called.run(&["create", &name]).status, 0);
            let state = state(&called, &name).expect("a state");
            if is_killed {
                let first = Pid::from_raw(state["pid"].as_i64().expect("a number") as i32);
                kill(first, Signal::SIGKILL).expect("kill");
            }
            let removed = called.run(&["delete", "--force", &name]);
            assert_eq!(removed.status, 0, "{}: {removed:?}", maker.name);
            expect_nothing(maker.front.directory.path(), &name);
        }
    }
}

/// The low-level runtime itself waits for the container as a shim does. Without it the container goes on, as any.
#[test]
fn a_container_goes_on_without_the_engines_shim_and_leaves_nothing() {
    for maker in Maker::all() {
        let (shim, running) = run_in_foreground(&maker, &with_gpu(WAITS));
        kill(Pid::from_raw(shim.id() as i32), Signal::SIGKILL).expect("kill");
        assert_eq!(status_of(shim), 128 + 9);
        // Its parent is another now.
        let is_there = |process: Process| Process::find(process.pid).is_some();
        assert!(running.processes().into_iter().all(is_there));
        let state = state(&running.called, &running.name).expect("a state");
        assert_eq!(state["status"], "running", "{}", maker.name);
        running.remove();
    }
}

/// The status is what the engine shows. (A shell shows one more than 128 for a signal.)
#[test]
fn a_container_ends_with_its_sentry_or_its_launcher_and_leaves_nothing() {
    for maker in Maker::all() {
        let (shim, running) = run_in_foreground(&maker, &with_gpu(WAITS));
        running.kill(running.sentry);
        assert_eq!(status_of(shim), 128 + 9, "{}", maker.name);
        running.expect_gone();

        let (shim, running) = run_in_foreground(&maker, &with_gpu(WAITS));
        running.kill(running.launcher);
        let (called, name) = (maker.called(), running.name.clone());
        assert_eq!(status_of(shim), 125, "{}", maker.name);
        running.expect_gone();
        // Nobody was left to remove its bundle. Whatever container is removed or made next, it is.
        let removed = called.run(&["delete", "--force", "none"]);
        drop(removed);
        expect_nothing(maker.front.directory.path(), &name);
    }
}

/// Opens a pipe that somebody reads, or waits to read.
fn open_to_tell(pipe: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(pipe)
}

/// As `--on-server-exit fail`, which is what containers have: the program goes on without a GPU. (A container whose server ends
/// before the program runs has not started.)
#[test]
fn a_container_goes_on_without_its_server_and_leaves_nothing() {
    for maker in Maker::all() {
        let script =
            "guest close; read line </seen/go; guest close; echo $? >/seen/status; exec sleep 1000";
        let mut value = with_gpu(script);
        let seen = maker.front.path("seen");
        std::fs::create_dir_all(&seen).expect("a directory");
        let go = seen.join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let mounts = value["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/seen", "type": "bind", "source": seen, "options": ["rbind", "rw"]}));
        let running = Running::start(&maker, &value);
        // Where nobody is left to read it, a test that waits to open it would wait for ever.
        let mut pipe = None;
        eventually("it waits for a line", || {
            pipe = open_to_tell(&go).ok();
            pipe.is_some()
        });
        running.kill(running.server);
        eventually("it is gone", || !running.server.is_alive());
        let mut pipe = pipe.expect("an open pipe");
        pipe.write_all(b"\n").expect("a line");
        let status = || std::fs::read_to_string(seen.join("status")).unwrap_or_default();
        eventually("it goes on", || status().ends_with('\n'));
        assert_eq!(status(), "1\n", "{}", maker.name);
        assert!(running.program.is_alive() && running.launcher.is_alive());
        running.remove();
    }
}

#[test]
fn a_container_that_is_removed_in_the_middle_of_a_pin_leaves_nothing() {
    for maker in Maker::all() {
        for point in ["pin-checked", "pin-held", "pin-lent"] {
            maker.with_faults();
            let mut value = with_gpu("exec guest pin-among-threads");
            value["process"]["env"] = json!([
                "PATH=/bin",
                format!("RINGFENCE_FAULTS=sentry.{point}=block")
            ]);
            let running = Running::start(&maker, &value);
            running.remove();
        }
    }
}
