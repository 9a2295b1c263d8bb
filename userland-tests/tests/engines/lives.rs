//! Lives of containers with GPUs under docker and podman: how they begin, what is done to them, how they end, and what is left.

use std::io::Write;
use std::process::{Command, Stdio};

use userland_tests::{Ended, eventually, wait_for};

use crate::engine::{Engine, GPU, LowLevel, Runtime};
use crate::every;
use crate::options::REQUESTS;
use crate::{docker, podman};

/// A program that goes on, and ends as it likes when it is asked to.
const HEEDS: &str = "trap 'echo asked; exit 5' TERM; guest close; while :; do sleep 0.1; done";

pub fn name(engine: &Engine, low_level: LowLevel) -> String {
    format!("{} with {}", engine.name, low_level.name())
}

/// Nothing is left of a sandbox: neither a process nor what the front has written.
#[track_caller]
fn expect_nothing_left(engine: &Engine, container: &str) {
    let shows = "ps -eo args | grep -e ^ringfence -e ^nvproxy; ls /run/ringfence/containers /run/user/*/ringfence/containers 2>/dev/null";
    eventually(&format!("{}: nothing is left", engine.name), || {
        let listed = engine.sandboxes().stdout;
        let left = engine.machine.shell(shows).stdout;
        !listed.contains(container) && !left.contains(container)
    });
}

#[test]
fn a_program_reaches_the_driver_and_its_status_is_the_containers() {
    for (engine, low_level) in every::engine_with_runtime() {
        let ringfence = Runtime::Ringfence(low_level);
        let script = "guest close && guest pin-among-threads; echo err >&2; exit 7";
        let expected = Ended {
            status: 7,
            stdout: format!("{REQUESTS}pinned 20 times: ok\n"),
            stderr: "err\n".to_owned(),
        };
        let ended = engine.run(ringfence, GPU, script);
        assert_eq!(ended, expected, "{}", name(engine, low_level));
        // A child: the kernel lets process 1 of a namespace kill itself by no signal.
        let ended = engine.run(ringfence, GPU, "sh -c 'kill -9 $$'; exit $?");
        assert_eq!(ended.status, 137, "{}: {ended:?}", name(engine, low_level));
    }
}

#[test]
fn a_gpu_is_asked_for_in_the_engines_other_ways() {
    for (engine, low_level) in every::engine_with_runtime() {
        for way in engine.ways {
            let ended = engine.run(Runtime::Ringfence(low_level), way, "guest close; exit 7");
            let expected = Ended {
                status: 7,
                ..Ended::printing(REQUESTS)
            };
            assert_eq!(ended, expected, "{}: {way:?}", name(engine, low_level));
        }
    }
}

/// Neither by a node that the program finds nor by one that it makes itself.
#[test]
fn no_node_of_the_drivers_is_opened() {
    let script = "guest close; mknod /data/node c 195 0 && cat /data/node 2>&1";
    let of_root = every::engine_with_runtime().filter(|(engine, _)| engine.is_roots);
    let second = podman::with_second_cgroups().into_iter();
    let second = second.flat_map(Engine::with_runtimes);
    for (engine, low_level) in of_root.chain(second) {
        let options = [GPU, &["--cap-add", "MKNOD"]].concat();
        let ended = engine.run(Runtime::Ringfence(low_level), &options, script);
        let refused = "cat: can't open '/data/node': Operation not permitted\n";
        let expected = format!("{REQUESTS}{refused}");
        assert_eq!(ended.stdout, expected, "{}", name(engine, low_level));
    }
}

/// Without GPUs it is the low-level runtime's container, in all that it sees.
#[test]
fn a_container_without_gpus_is_as_without_ringfence() {
    let script = "ls /dev; ls -d /proc/[0-9]*; cat /proc/1/comm; grep -e ^Cap -e ^Seccomp -e ^NoNew -e ^Uid /proc/self/status; \
                  cut -d ' ' -f 5,6,9 /proc/self/mountinfo; guest close; exit 4";
    for (engine, low_level) in every::engine_with_runtime() {
        let [alone, front] =
            [Runtime::Alone(low_level), Runtime::Ringfence(low_level)].map(|runtime| {
                // A directory of the container's own.
                let ended = engine.run(runtime, &[], script);
                let lines = ended.stdout.lines().filter(|line| !line.contains("/etc/"));
                let mut lines: Vec<_> = lines.map(str::to_owned).collect();
                // podman mounts in no order of its own.
                lines.sort();
                (ended.status, lines)
            });
        assert_eq!(front, alone, "{}", name(engine, low_level));
        assert_eq!(alone.0, 4);
        assert!(!alone.1.iter().any(|line| line.starts_with("freed")));
    }
}

/// What is typed reaches the program, and its output is a terminal's.
#[test]
fn a_program_has_the_engines_terminal() {
    for (engine, low_level) in every::engine_with_runtime() {
        let options = [&["--rm", "--interactive", "--tty"], GPU].concat();
        let runtime = Runtime::Ringfence(low_level);
        let ended = at_a_terminal(&engine.run_command(runtime, &options, TYPED_AT));
        expect_typed(&name(engine, low_level), &ended);
    }
}

/// Shows that it has a terminal.
pub const TYPED_AT: &str = "tty; guest close; read -r line; echo \"read $line\"; stty size; exit 6";

#[track_caller]
pub fn expect_typed(name: &str, ended: &Ended) {
    assert_eq!(ended.status, 6, "{name}: {ended:?}");
    let lines = [
        "/dev/pts/",
        "freed 50 times\r\n",
        "read typed\r\n",
        "33 77\r\n",
    ];
    for line in lines {
        assert!(ended.stdout.contains(line), "{name}: {line:?}: {ended:?}");
    }
}

/// Runs a command at a terminal, where somebody types a line.
pub fn at_a_terminal(command: &Command) -> Ended {
    let line = quoted(command);
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command"]);
    command.args([&format!("stty rows 33 cols 77; {line}"), "/dev/null"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script");
    let mut keys = child.stdin.take().expect("a pipe");
    keys.write_all(b"typed\n").expect("written");
    let ended = wait_for(child);
    drop(keys);
    ended
}

/// A command as a shell's line.
fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let word = word.to_str().expect("text");
        format!("'{}'", word.replace('\'', "'\\''"))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_container_is_stopped_paused_killed_and_removed() {
    for (engine, low_level) in every::engine_with_runtime() {
        let name = name(engine, low_level);
        let ringfence = Runtime::Ringfence(low_level);
        let container = engine.start(ringfence, GPU, HEEDS);
        container.wait_for_output(REQUESTS);
        if engine.is_roots {
            container.ask(&["pause"]);
            assert_eq!(container.inspect(".State.Status"), "paused", "{name}");
            container.ask(&["unpause"]);
        }
        assert_eq!(container.inspect(".State.Status"), "running", "{name}");
        let identity = container.inspect(".Id");
        container.ask(&["stop", "--time", "60"]);
        assert_eq!(container.wait(), "5", "{name}");
        container.wait_for_output("asked\n");
        // It starts anew, and the same once more.
        container.ask(&["start"]);
        eventually("it has begun anew", || {
            container.tell(&["logs"]).stdout.matches(REQUESTS).count() == 2
        });
        container.ask(&["kill"]);
        assert_eq!(container.wait(), "137", "{name}");
        expect_nothing_left(engine, &identity);

        // Removed while requests are on their way.
        let container = engine.start(
            ringfence,
            GPU,
            "guest close; while :; do guest pin-among-threads; done",
        );
        container.wait_for_output("pinned");
        let identity = container.inspect(".Id");
        let at_once = if engine.names_runtime_first {
            &["--time", "0"][..]
        } else {
            &[]
        };
        container.ask(&[&["rm", "--force"], at_once].concat());
        expect_nothing_left(engine, &identity);
    }
}

#[test]
fn a_container_is_restarted_as_its_policy_says() {
    for (engine, low_level) in every::engine_with_runtime() {
        let options = [&["--restart", "on-failure:2"], GPU].concat();
        let runtime = Runtime::Ringfence(low_level);
        let container = engine.start(runtime, &options, "guest close; exit 3");
        eventually("it was restarted twice", || {
            container.tell(&["logs"]).stdout == REQUESTS.repeat(3)
        });
        eventually("it is left alone", || {
            container.inspect(".State.Status") == "exited"
        });
        assert_eq!(container.inspect(".State.ExitCode"), "3");
    }
}

/// `ringfence ps` and the engine call it the same, and what is Ringfence's says so.
#[test]
fn a_container_is_known_by_the_engines_name() {
    for (engine, low_level) in every::engine_with_runtime() {
        let name = name(engine, low_level);
        let container = engine.start(Runtime::Ringfence(low_level), GPU, HEEDS);
        container.wait_for_output(REQUESTS);
        let identity = container.inspect(".Id");
        let listed = engine.sandboxes();
        assert!(listed.stdout.contains(&identity), "{name}: {listed:?}");
        let shown = container.ask(&["top"]);
        let lines: Vec<&str> = shown.lines().collect();
        let sentries = lines
            .iter()
            .filter(|line| line.contains("ringfence-sentry"));
        assert_eq!(sentries.count(), 1, "{name}: {shown}");
        // For a moment the shell's child is called as the shell.
        eventually("there is one program", || {
            let shown = container.ask(&["top"]);
            let programs = shown.lines().filter(|line| line.contains("sh -c trap"));
            programs.count() == 1
        });
        let seen = engine.ask(
            Runtime::Ringfence(low_level),
            &["ps", "--quiet", "--no-trunc"],
        );
        assert!(seen.lines().any(|line| line == identity), "{name}: {seen}");
    }
}

/// Where root is another user outside, a domain of Landlock's keeps the program from the driver, as in a rootless container.
#[test]
fn a_container_has_users_of_its_own() {
    let Some(engine) = docker::remapping() else {
        return;
    };
    for low_level in engine.low_levels.iter().copied() {
        let name = name(engine, low_level);
        let script =
            "guest close && guest pin-among-threads; cat /proc/self/uid_map; id -u; exit 7";
        let options = [GPU, &["--user", "1000"]].concat();
        for (options, user) in [(GPU, 0), (&options, 1000)] {
            let ended = engine.run(Runtime::Ringfence(low_level), options, script);
            let map = format!("{:>10} {:>10} {:>10}\n", 0, 200000, 65536);
            let printed = format!("{REQUESTS}pinned 20 times: ok\n{map}{user}\n");
            let expected = Ended {
                status: 7,
                ..Ended::printing(&printed)
            };
            assert_eq!(ended, expected, "{name}");
        }
        // That of the machine, for one container.
        let options = [GPU, &["--userns", "host"]].concat();
        let ended = engine.run(Runtime::Ringfence(low_level), &options, "guest close");
        assert_eq!(ended, Ended::printing(REQUESTS), "{name}");
    }
}
