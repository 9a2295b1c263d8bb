//! Lines as engines write them, and as they could be written.

use super::*;

fn read(line: &str) -> CommandLine {
    CommandLine::read(line.split(' ').map(OsString::from).collect())
}

fn shown(value: &Option<OsString>) -> &str {
    let value = value.as_deref().and_then(OsStr::to_str);
    value.unwrap_or("")
}

/// As containerd's shim, dockerd, conmon and CRI-O's monitor write them.
#[test]
fn lines_of_engines_are_read() {
    let line = read(
        "--root /run/containerd/runc/k8s.io --log /run/c/log.json --log-format json --systemd-cgroup create \
         --bundle /run/c --pid-file /run/c/init.pid --console-socket /tmp/pty abc",
    );
    assert_eq!(line.command.as_deref(), Some("create"));
    assert_eq!(line.globals, 7);
    assert_eq!(line.given.len(), 15);
    for (value, expected) in [
        (&line.root, "/run/containerd/runc/k8s.io"),
        (&line.log, "/run/c/log.json"),
        (&line.log_format, "json"),
        (&line.bundle, "/run/c"),
        (&line.pid_file, "/run/c/init.pid"),
        (&line.console_socket, "/tmp/pty"),
        (&line.container, "abc"),
    ] {
        assert_eq!(shown(value), expected);
    }
    assert_eq!(
        line.specification_path(),
        PathBuf::from("/run/c/config.json")
    );

    let line = read(
        "--cgroup-manager cgroupfs --log-format=json --log=/l create --bundle /b --preserve-fds 2 c1",
    );
    assert_eq!(line.command.as_deref(), Some("create"));
    assert_eq!(shown(&line.preserve_fds), "2");
    assert_eq!(shown(&line.container), "c1");

    let line = read("--root=/r exec --process /p.json --detach -t abc --bundle /x");
    assert_eq!(shown(&line.process), "/p.json");
    assert_eq!(shown(&line.container), "abc");
    assert_eq!(line.bundle, None);

    let line = read("exec -u 1:2 --env A=b -d abc sh -p x");
    assert_eq!(shown(&line.container), "abc");
    assert_eq!(line.process, None);
}

#[test]
fn every_way_of_writing_a_bundle_is_read() {
    for line in [
        "run --bundle /b x",
        "run --bundle=/b x",
        "run -bundle /b x",
        "run -bundle=/b x",
        "run -b /b x",
        "run -b=/b x",
        "run -d -b /b x",
        "run -no-subreaper -keep -b /b x",
        "run --no-subreaper --no-pivot -b /b x",
        "run x --bundle /b",
        "run --bundle /a --bundle /b x",
        "run --bund /b x",
        "run -db /b x",
        "-debug -root /r run -b /b -- x",
    ] {
        let read = read(line);
        assert_eq!(shown(&read.bundle), "/b", "{line}");
        assert_eq!(shown(&read.container), "x", "{line}");
    }
    assert_eq!(shown(&read("run -b/b x").bundle), "/b");
    assert_eq!(shown(&read("run -db/b x").bundle), "/b");
    assert_eq!(
        shown(&read("run -f other.json x").specification),
        "other.json"
    );
    assert_eq!(read("run x").bundle_directory(), PathBuf::from("."));
}

#[test]
fn what_is_asked_before_a_command_is_seen() {
    assert!(read("--version").asks_for_version);
    assert!(read("--debug -v").asks_for_version);
    assert!(read("--root /x --help").asks_for_help);
    let line = read("run --help");
    assert!(!line.asks_for_help);
    assert_eq!(line.command.as_deref(), Some("run"));
    assert_eq!(CommandLine::read(Vec::new()), CommandLine::default());
}

#[test]
fn an_unknown_option_hides_no_command() {
    for line in [
        "--new value create -b /b x",
        "--new=value create -b /b x",
        "--new create -b /b x",
        "--rootless true --systemd-cgroup create -b /b x",
    ] {
        let read = read(line);
        assert_eq!(read.command.as_deref(), Some("create"), "{line}");
        assert_eq!(shown(&read.bundle), "/b", "{line}");
    }
}
