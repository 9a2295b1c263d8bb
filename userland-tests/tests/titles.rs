//! What a sandbox's processes are called in the host's lists: each by what it is, and the program's command line with the
//! launcher alone.

use std::fs;
use std::process::Stdio;

use userland_tests::processes::Tree;
use userland_tests::{ringfence_run, started, wait_for};

/// What /proc says of a process, as one word or line.
fn said(process: &userland_tests::processes::Process, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{}/{file}", process.pid)).expect(file);
    let text = String::from_utf8(bytes).expect("text").replace('\0', " ");
    text.trim_end().to_owned()
}

#[test]
fn each_process_is_called_by_what_it_is() {
    let mut command = ringfence_run(&["--name", "titled"]);
    command.args(["sh", "-c", "echo ready; read line", "word-of-the-users"]);
    let (mut sandbox, _output) = started(command.stdin(Stdio::piped()));
    let tree = Tree::of(sandbox.id());
    let names = [
        tree.launcher,
        tree.sentry,
        tree.server,
        tree.init,
        tree.program,
    ];
    let names = names.map(|process| said(&process, "comm"));
    // The kernel keeps 15 bytes.
    let expected = [
        "ringfence",
        "ringfence-sentr",
        "nvproxy-server",
        "ringfence-init",
        "sh",
    ];
    assert_eq!(names, expected);
    assert_eq!(said(&tree.sentry, "cmdline"), "ringfence-sentry titled");
    assert_eq!(said(&tree.init, "cmdline"), "ringfence-init titled");
    let server = said(&tree.server, "cmdline");
    assert!(
        server.starts_with("ringfence-nvproxy-server nvproxy-server "),
        "{server}"
    );
    assert!(!server.contains("word-of-the-users"), "{server}");
    assert!(said(&tree.launcher, "cmdline").ends_with("word-of-the-users"));
    drop(sandbox.stdin.take());
    wait_for(sandbox);
}
