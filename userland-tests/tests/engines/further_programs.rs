//! Further programs in containers with GPUs, as engines start them: `exec`, health checks, and a pod's probes.

use serde_json::Value;
use userland_tests::{Ended, eventually};

use crate::containerd::{self, Containerd};
use crate::engine::{Engine, GPU, LowLevel, Runtime};
use crate::every;
use crate::lives::{TYPED_AT, at_a_terminal, expect_typed, name};
use crate::options::REQUESTS;
use crate::pods::{self, Pod};

const STAYS: &str = "echo up; while :; do sleep 0.1; done";

/// Options of `exec`, and a script that shows what came of them.
const ROWS: [(&str, &str); 4] = [
    (
        "",
        "id -u; pwd; grep -e ^Cap -e ^NoNewPrivs -e ^Seccomp: /proc/self/status",
    ),
    (
        "--user 1000:1000",
        "id -u; id -g; grep ^Cap /proc/self/status",
    ),
    ("--env A=B --workdir /data", "echo $A; pwd"),
    ("--user 1000", "touch /etc/passwd 2>&1; kill -9 $$"),
];

fn exec(engine: &Engine, runtime: Runtime, options: &str, container: &str, script: &str) -> Ended {
    let options = options.split_whitespace();
    let words = ["exec"].into_iter().chain(options);
    let words: Vec<&str> = words.chain([container, "sh", "-c", script]).collect();
    engine.tell(runtime, &words)
}

#[test]
fn a_further_program_is_in_the_sandbox() {
    for (engine, low_level) in every::engine_with_runtime() {
        let alone = engine.start(Runtime::Alone(low_level), &[], STAYS);
        let sandbox = engine.start(Runtime::Ringfence(low_level), GPU, STAYS);
        for container in [&alone, &sandbox] {
            container.wait_for_output("up");
        }
        let of = |low_level: LowLevel| name(engine, low_level);
        for (options, script) in ROWS {
            let expected = exec(engine, alone.runtime, options, &alone.name, script);
            let script = format!("guest close && {{ {script}; }}");
            let Ended { status, stdout, .. } =
                exec(engine, sandbox.runtime, options, &sandbox.name, &script);
            let printed = format!("{REQUESTS}{}", expected.stdout);
            assert_eq!(
                (status, stdout),
                (expected.status, printed),
                "{}: {options}",
                of(low_level)
            );
        }
        let words = ["exec", "--interactive", "--tty", &sandbox.name, "sh", "-c"];
        let command = engine.command(sandbox.runtime, &[&words[..], &[TYPED_AT]].concat());
        expect_typed(&of(low_level), &at_a_terminal(&command));
    }
}

#[test]
fn health_checks_ask_the_driver() {
    for (engine, low_level) in every::engine_with_runtime() {
        for (command, is_healthy) in [("guest close", true), ("guest close && exit 1", false)] {
            let health = format!("--health-cmd={command}");
            let options = [
                &[&health, "--health-interval=1s", "--health-retries=1"],
                GPU,
            ]
            .concat();
            let container = engine.start(Runtime::Ringfence(low_level), &options, STAYS);
            container.wait_for_output("up");
            let expected = if is_healthy { "healthy" } else { "unhealthy" };
            // podman has systemd ask regularly, and by hand it is the same.
            if engine.names_runtime_first {
                let ended = container.tell(&["healthcheck", "run"]);
                assert_eq!(
                    ended.status == 0,
                    is_healthy,
                    "{}: {ended:?}",
                    name(engine, low_level)
                );
                continue;
            }
            eventually("its health is known", || {
                container.inspect(".State.Health.Status") != "starting"
            });
            let log = container.inspect("json .State.Health.Log");
            let status = container.inspect(".State.Health.Status");
            assert_eq!(status, expected, "{}: {log}", name(engine, low_level));
            let log: Value = serde_json::from_str(&log).expect("JSON");
            assert_eq!(log[0]["Output"], REQUESTS);
        }
    }
}

#[test]
fn ctr_starts_a_further_program_in_the_sandbox() {
    for containerd in Containerd::all() {
        for runtime in &containerd.runtimes {
            let options = [&["--detach"][..], &containerd::GPU].concat();
            let (container, ended) = containerd.run(&runtime.front, &options, STAYS);
            assert_eq!(ended.status, 0, "{}: {ended:?}", containerd.name);
            let script = "guest close; echo err >&2; exit 7";
            let words = ["task", "exec", "--exec-id", "further", &container];
            let ended = containerd.ctr(&[&words[..], &["sh", "-c", script]].concat());
            let expected = Ended {
                status: 7,
                stdout: REQUESTS.to_owned(),
                stderr: "err\n".to_owned(),
            };
            assert_eq!(ended, expected, "{}: {}", containerd.name, runtime.front);
            containerd.remove(&container);
        }
    }
}

/// By the two ways of CRI: `exec` of kubectl, and probes.
#[test]
fn a_pods_probes_are_in_the_sandbox() {
    for (containerd, crictl) in pods::engines() {
        for processes in [pods::OF_CONTAINER, pods::OF_POD] {
            let pod = Pod::new(containerd, &crictl, processes);
            let container = pod.start("gpu", pods::with_gpu(), STAYS);
            eventually("it has begun", || pod.output("gpu") == "up\n");
            for words in [&["exec", "--sync"][..], &["exec"]] {
                let of = [&container, "sh", "-c", "guest close"];
                let ended = pod.tell(&[words, &of].concat());
                // One of the two ends with empty lines of its own.
                let found = (ended.status, ended.stdout.trim_end());
                assert_eq!(
                    found,
                    (0, REQUESTS.trim_end()),
                    "{}: {words:?}: {ended:?}",
                    containerd.name
                );
            }
        }
    }
}
