//! Where a program starts, and what it takes to start it: what is missing is named.
//!
//! `unsafe` is here for what is done between fork(2) and the execution.

use std::os::unix::process::CommandExt;

use userland_tests::guest_program;

use super::files::root_directory;
use super::*;

/// A root that is given is another system: nobody expects the caller's directory in it, and nothing could be done about it.
#[test]
fn another_root_has_a_directory_to_start_in() {
    let directory = root_directory();
    let root = text(directory.path());
    let start = |from: &str| {
        let mut command = Command::new(ringfence_program());
        command.args([
            "run",
            "--driver=sim",
            "--rootfs",
            root,
            "--",
            "/guest",
            "read",
            ".",
        ]);
        let command = command.env_clear().env("LD_LIBRARY_PATH", "/lib64");
        finish(command.current_dir(from).stdin(Stdio::null()))
    };
    let all = ".: [\"dev\", \"guest\", \"lib\", \"lib64\", \"own\", \"proc\", \"sys\", \"tmp\"]\n";
    assert_eq!(start("/usr/share"), Ended::printing(all));
    fs::create_dir_all(directory.path().join("usr/share/only-here")).expect("a directory");
    assert_eq!(start("/usr/share"), Ended::printing(".: [\"only-here\"]\n"));
}

#[test]
#[allow(unsafe_code)]
fn a_removed_directory_is_told() {
    for place in ["/tmp", "/dev/shm"] {
        let directory = Directory::in_place(Path::new(place), "removed");
        let path = directory.path().to_owned();
        let mut command = Command::new(ringfence_program());
        command.args(["run", "--driver=sim", "--", "pwd"]);
        command.current_dir(&path).stdin(Stdio::null());
        // SAFETY: between fork and exec this makes one system call.
        unsafe {
            command.pre_exec(move || {
                Ok(nix::unistd::unlinkat(
                    nix::fcntl::AT_FDCWD,
                    &path,
                    nix::unistd::UnlinkatFlags::RemoveDir,
                )?)
            })
        };
        let warning = " WARN the program starts in /, because the caller's directory was removed: name another with \
                       --workdir\n";
        let expected = Ended {
            status: 0,
            stdout: "/\n".to_owned(),
            stderr: warning.to_owned(),
        };
        assert_eq!(finish(&mut command), expected, "{place}");
    }
}

/// Makes an executable file in the directory.
fn script(directory: &Directory, name: &str, content: &[u8]) {
    let path = directory.path().join(name);
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn a_missing_interpreter_is_named() {
    let directory = Directory::in_place(Path::new("/tmp"), "interpreters");
    let here = text(directory.path());
    script(&directory, "lost", b"#!/usr/bin/nope -x\n");
    script(&directory, "windows", b"#!/bin/sh\r\nexit\r\n");
    script(&directory, "closed", b"#! /etc/passwd\n");
    script(&directory, "nested", format!("#!{here}/lost\n").as_bytes());
    script(&directory, "unseen", b"#!/var/tmp/nope\n");
    script(&directory, "fine", b"#!/bin/sh\nexit 3\n");
    let mut foreign = fs::read(guest_program()).expect("an executable");
    let loader = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = foreign
        .windows(loader.len())
        .position(|part| part == loader)
        .expect("its loader");
    foreign[at..at + loader.len()].copy_from_slice(b"/lib64/ld-musl-x86_64.so.1\0\0");
    script(&directory, "foreign", &foreign);

    let run = |program: &str| run_in(directory.path(), &["--bind", "."], &[program]);
    let missing = "No such file or directory";
    for (program, status, reason) in [
        (
            "./lost",
            127,
            format!("its interpreter /usr/bin/nope: {missing}"),
        ),
        (
            "./windows",
            127,
            format!(
                "its interpreter /bin/sh\\r: {missing}: the carriage return at the end of the line is taken for part of the \
                 name: remove it"
            ),
        ),
        (
            "./closed",
            126,
            "its interpreter /etc/passwd: Permission denied".to_owned(),
        ),
        (
            "./nested",
            127,
            format!("its interpreter /usr/bin/nope: {missing}"),
        ),
        (
            "./unseen",
            127,
            format!(
                "its interpreter /var/tmp/nope: {missing} in the sandbox: use --bind to show it what the host has there"
            ),
        ),
        (
            "./foreign",
            127,
            format!("its interpreter /lib64/ld-musl-x86_64.so.1: {missing}"),
        ),
    ] {
        let line = format!("ringfence: {program}: {reason}");
        assert_eq!(run(program), Ended::failing(status, &line));
    }
    assert_eq!(run("./fine").status, 3);
    // Found in PATH, as a shell would.
    let path = format!("PATH=/usr/bin:{here}");
    let ended = run_in(
        directory.path(),
        &["--bind", ".", "--env", &path],
        &["lost"],
    );
    let line = format!("ringfence: lost: its interpreter /usr/bin/nope: {missing}");
    assert_eq!(ended, Ended::failing(127, &line));
}
