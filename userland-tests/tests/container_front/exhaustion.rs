//! What comes of a container with GPUs whose memory is used up: the kernel kills one of its processes, and the engine is shown
//! which status that has.
//!
//! Which one it kills is the host's to say, by `oom_score_adj` (proc_pid_oom_score_adj(5)). The program takes more than the limit in one
//! piece, and no more, so that a machine without the limit bears it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use userland_tests::eventually;

use super::running::{Running, run_in_foreground, state, status_of};
use super::sandboxes::{Maker, plain, with_gpu};

const LIMIT: u64 = 128 << 20;
/// Takes four times as much.
const TAKES: &str = "dd if=/dev/zero of=/dev/null bs=512M count=1";
/// What a shell shows for SIGKILL, and engines.
const KILLED: i32 = 128 + 9;

fn limit(mut value: Value) -> Value {
    value["linux"]["resources"]["memory"] = json!({"limit": LIMIT});
    value
}

/// The low-level runtimes whose containers are limited here.
fn limiting() -> Vec<Maker> {
    let makers = Maker::all().into_iter();
    let able = makers.filter(|maker| {
        let programs = maker.front.bundle().join("rootfs/bin");
        fs::copy(super::lives::BUSYBOX, programs.join("dd")).expect("a program");
        maker.front.specify(&limit(plain(&format!("exec {TAKES}"))));
        let ended = maker.alone().run(&["run", "c"]);
        if ended.status != KILLED {
            let name = maker.name;
            eprintln!("skipped: {name}: no cgroup limits its memory here: {ended:?}");
        }
        ended.status == KILLED
    });
    able.collect()
}

/// What a container and the test share: a pipe by which the program is told to take memory, and what it then writes.
struct Shared {
    directory: PathBuf,
}

impl Shared {
    fn new(maker: &Maker) -> Shared {
        let directory = maker.front.path("seen");
        fs::create_dir_all(&directory).expect("a directory");
        let _ = fs::remove_file(directory.join("go"));
        mkfifo(&directory.join("go"), Mode::S_IRWXU).expect("a pipe");
        Shared { directory }
    }

    /// A container that makes requests, waits for [`Shared::go`], and does this.
    fn container(&self, script: &str) -> Value {
        let script = format!("guest close; read line </seen/go; {script}");
        let mut value = limit(with_gpu(&script));
        let mounts = value["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({
            "destination": "/seen", "type": "bind", "source": self.directory, "options": ["rbind", "rw"],
        }));
        value
    }

    fn go(&self) {
        fs::write(self.directory.join("go"), "\n").expect("a line");
    }

    fn status(&self) -> PathBuf {
        self.directory.join("status")
    }
}

/// A shell that survives what takes the memory, if the container does.
fn surviving() -> String {
    format!("{TAKES} 2>/dev/null; echo $? >/seen/status; exec sleep 1000")
}

/// Has the kernel kill the sentry first.
fn prefer_the_sentry(running: &Running<'_>) {
    let file = format!("/proc/{}/oom_score_adj", running.sentry.pid);
    fs::write(file, "1000").expect("a score");
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// As a container whose first process is so killed, and that is all that the engine learns. (If the kernel had killed what takes the
/// memory, the container would go on: the test below.)
#[test]
fn a_container_ends_with_a_sentry_that_is_killed_for_memory() {
    for maker in limiting() {
        let shared = Shared::new(&maker);
        let (shim, running) = run_in_foreground(&maker, &shared.container(&surviving()));
        prefer_the_sentry(&running);
        shared.go();
        assert_eq!(status_of(shim), KILLED, "{}", maker.name);
        running.expect_gone();

        let running = Running::start(&maker, &shared.container(&surviving()));
        prefer_the_sentry(&running);
        shared.go();
        eventually("it has stopped", || {
            let state = state(&running.called, &running.name);
            state.is_some_and(|state| state["status"] == "stopped")
        });
        running.expect_gone();
        running.remove();
    }
}

/// Which is what the kernel does unless somebody has said otherwise: the program has taken the most.
#[test]
fn a_program_that_is_killed_for_memory_has_its_status_told_by_the_sentry() {
    for maker in limiting() {
        let shared = Shared::new(&maker);
        let script = format!("exec {TAKES}");
        let (shim, running) = run_in_foreground(&maker, &shared.container(&script));
        shared.go();
        assert_eq!(status_of(shim), KILLED, "{}", maker.name);
        running.expect_gone();

        // A child of the program's is no more than that, and the container goes on.
        let running = Running::start(&maker, &shared.container(&surviving()));
        shared.go();
        eventually("it goes on", || text(&shared.status()).ends_with('\n'));
        assert_eq!(text(&shared.status()), format!("{KILLED}\n"));
        running.settle();
        assert!(running.processes().iter().all(|process| process.is_alive()));
        running.remove();
    }
}
