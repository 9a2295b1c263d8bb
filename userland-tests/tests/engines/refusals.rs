//! What a container with GPUs cannot have: the engine shows its user one line that names the way out.

use userland_tests::{Ended, eventually};

use crate::engine::{GPU, Runtime};
use crate::every;
use crate::options::REQUESTS;

const ROWS: [(&str, &str); 2] = [
    (
        "--privileged",
        "is privileged, and could reach the driver around the sandbox: leave out --privileged",
    ),
    (
        "--pid=host",
        "has the host's process namespace, and a sandbox needs one of its own: leave out --pid=host",
    ),
];

/// What a privileged program would go around the sandbox by.
const AROUND: &str =
    "mount -t tmpfs none /mnt || mknod /tmp/node c 195 0 || mknod /node c 195 0 || echo denied";

#[test]
fn the_engine_shows_what_is_refused() {
    for (engine, low_level) in every::engine_with_runtime() {
        for (option, line) in ROWS {
            if option == "--privileged" && !engine.is_roots {
                // It grants no right over the machine's devices. So it is in a sandbox as any other.
                let options = [GPU, &[option]].concat();
                let ended = engine.run(Runtime::Ringfence(low_level), &options, "guest close");
                assert_eq!(ended, Ended::printing(REQUESTS), "{}", engine.name);
                let ended = engine.run(Runtime::Ringfence(low_level), &options, AROUND);
                assert_eq!(ended.stdout, "denied\n", "{}: {ended:?}", engine.name);
                continue;
            }
            let options = [GPU, &[option]].concat();
            let ended = engine.run(Runtime::Ringfence(low_level), &options, "echo ran");
            assert_eq!(ended.stdout, "", "{}: {ended:?}", engine.name);
            assert!(ended.status != 0, "{}: {ended:?}", engine.name);
            let shown = ended.stderr.lines().any(|shown| {
                shown.contains("ringfence-runtime: container ") && shown.contains(line)
            });
            assert!(shown, "{}: {option}: {ended:?}", engine.name);
        }
        // Without a GPU it is nobody's concern. A privileged container has all nodes of the machine.
        let ended = engine.run(Runtime::Ringfence(low_level), &["--pid=host"], "echo ran");
        assert_eq!(ended.stdout, "ran\n", "{}: {ended:?}", engine.name);
    }
}

#[test]
fn no_engine_saves_a_container_with_gpus() {
    for (engine, low_level) in every::engine_with_runtime() {
        if engine.names_runtime_first {
            eprintln!(
                "skipped: {}: checkpoint: podman asks CRIU first",
                engine.name
            );
            continue;
        }
        let script = "guest close; while :; do sleep 0.1; done";
        let container = engine.start(Runtime::Ringfence(low_level), GPU, script);
        container.wait_for_output(REQUESTS);
        let words = ["checkpoint", "create", &container.name, "saved"];
        let ended = engine.tell(container.runtime, &words);
        assert!(ended.status != 0, "{}: {ended:?}", engine.name);
        let line = " has GPUs, whose state nobody can save or restore: stop it, and start it anew";
        assert!(ended.stderr.contains(line), "{}: {ended:?}", engine.name);
        // The engine has paused it meanwhile.
        eventually("it goes on", || {
            container.inspect(".State.Status") == "running"
        });
    }
}
