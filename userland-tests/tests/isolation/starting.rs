//! Where a program starts, and what it takes to start it: what is missing is named.
//!
//! `unsafe` is here for what is done between fork(2) and the execution.

use std::os::unix::process::CommandExt;

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
        let command = command.env_clear();
        finish(command.current_dir(from).stdin(Stdio::null()))
    };
    let all = ".: [\"dev\", \"guest\", \"own\", \"proc\", \"sys\", \"tmp\"]\n";
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
    let mut foreign = fs::read("/bin/true").expect("an executable");
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

/// The guest's executable, with these bytes at these places.
fn executable_with(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = fs::read("/bin/true").expect("an executable");
    for (at, byte) in changes {
        bytes[*at] = *byte;
    }
    bytes
}

/// As a shell has it: of what the kernel does not execute, a text is a script of the shell's, and nothing else.
#[test]
fn what_the_kernel_does_not_execute_is_named_unless_it_is_a_text() {
    let directory = Directory::in_place(Path::new("/tmp"), "formats");
    let here = text(directory.path());
    // Where the header of an executable has its machine (elf(5)).
    const MACHINE: usize = 18;
    script(&directory, "arm", &executable_with(&[(MACHINE, 183)]));
    script(&directory, "odd", &executable_with(&[(MACHINE, 0x77)]));
    // A header for 32 bits, and with the most significant byte first.
    let old = [(4, 1), (5, 2), (MACHINE, 0), (MACHINE + 1, 20)];
    script(&directory, "old", &executable_with(&old));
    script(&directory, "cut", &executable_with(&[])[..40]);
    script(&directory, "magic", b"\x7fELF\nexit 5\n");
    script(&directory, "windows", b"MZ\x90\0\x03\0\0\0\x04\0");
    script(&directory, "by-arm", format!("#!{here}/arm\n").as_bytes());
    script(&directory, "by-text", format!("#!{here}/text\n").as_bytes());
    script(&directory, "text", b"echo \"$0 $*\"; exit 3\n");
    script(&directory, "later", b"exit 4\n\0\0");
    script(&directory, "empty", b"");

    let run = |program: &str| run_in(directory.path(), &["--bind", "."], &[program, "a", "b c"]);
    for (program, reason) in [
        (
            "./arm",
            "it is for another architecture (AArch64)".to_owned(),
        ),
        (
            "./odd",
            "it is for another architecture (119 in its ELF header)".to_owned(),
        ),
        (
            "./old",
            "it is for another architecture (PowerPC)".to_owned(),
        ),
        ("./cut", "Exec format error".to_owned()),
        ("./magic", "Exec format error".to_owned()),
        ("./windows", "Exec format error".to_owned()),
        (
            "./by-arm",
            format!("its interpreter {here}/arm: it is for another architecture (AArch64)"),
        ),
        (
            "./by-text",
            format!("its interpreter {here}/text: Exec format error"),
        ),
    ] {
        let line = format!("ringfence: {program}: {reason}");
        assert_eq!(run(program), Ended::failing(126, &line));
    }
    let ended = run("./text");
    assert_eq!((ended.status, &*ended.stdout), (3, "./text a b c\n"));
    assert_eq!(run("./later").status, 4);
    assert_eq!(run("./empty"), Ended::printing(""));
}

/// As a shell has it: a file that may not be executed is found, and what is in a directory that the user may not search is
/// not.
#[test]
fn a_program_is_not_found_unless_a_file_is() {
    let directory = Directory::in_place(Path::new("/tmp"), "places");
    let here = directory.path();
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).expect("permissions");
    for (place, mode) in [("closed", 0o700), ("open", 0o755), ("last", 0o755)] {
        fs::create_dir(here.join(place)).expect("a directory");
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(here.join(place), mode).expect("permissions");
    }
    fs::create_dir(here.join("open/directory")).expect("a directory");
    fs::write(here.join("open/plain"), "exit 1\n").expect("a file");
    script(&directory, "last/plain", b"exit 3\n");
    fs::write(here.join("open/only"), "exit 1\n").expect("a file");

    let executables = Reachable::new();
    let path = |places: &[&str]| {
        let places = places
            .iter()
            .map(|place| format!("{}/{place}", here.display()));
        format!(
            "PATH={}:/usr/bin:/bin",
            places.collect::<Vec<_>>().join(":")
        )
    };
    let run = |places: &[&str], program: &str| {
        let path = path(places);
        let options = ["--bind", &format!("{}::ro", here.display()), "--env", &path];
        match is_root() {
            true => executables.run_as(USER, &options, &[program]),
            false => run_in(Path::new("/"), &options, &[program]),
        }
    };
    let missing = |program| {
        Ended::failing(
            127,
            &format!("ringfence: {program}: No such file or directory"),
        )
    };
    let places = ["closed", "open", "none", "open/plain", "last"];
    assert_eq!(run(&places, "nosuch"), missing("nosuch"));
    assert_eq!(run(&places, "directory"), missing("directory"));
    assert_eq!(run(&places, "plain").status, 3);
    let denied = "ringfence: only: Permission denied";
    assert_eq!(run(&places, "only"), Ended::failing(126, denied));
}
