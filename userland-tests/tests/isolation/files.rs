//! Files: the host's, the sandbox's own, and those that were given.

use std::os::unix::fs::symlink;

use userland_tests::{guest_program, guest_under_with};

use super::*;

#[test]
fn the_hosts_files_cannot_be_written() {
    let scenario = [
        "write",
        "/etc/ringfence-test",
        "/usr/ringfence-test",
        "/ringfence-test",
        "/sys/ringfence-test",
    ];
    let expected: String = scenario[1..]
        .iter()
        .map(|path| format!("{path}: EROFS\n"))
        .collect();
    as_root_and_user(&[], &scenario, &Ended::printing(&expected));
}

#[test]
fn root_cannot_change_the_kernels_settings_or_the_hosts_devices() {
    if !is_root() {
        eprintln!("skipped: only root could");
        return;
    }
    let settings = [
        ("/proc/sys/kernel/core_pattern", "EROFS"),
        ("/proc/sys/kernel/hostname", "EROFS"),
        // Covered, as what not every user may read.
        ("/proc/sysrq-trigger", "the null device"),
    ];
    let settings: Vec<(&str, &str)> = settings
        .into_iter()
        .filter(|(path, _)| Path::new(path).exists())
        .collect();
    assert!(!settings.is_empty());
    let scenario: Vec<&str> = ["write"]
        .into_iter()
        .chain(settings.iter().map(|(path, _)| *path))
        .collect();
    let expected: String = settings
        .iter()
        .map(|(path, outcome)| format!("{path}: {outcome}\n"))
        .collect();
    assert_eq!(
        finish(&mut guest_with(&[], &scenario)),
        Ended::printing(&expected)
    );

    let devices = ["/dev/null", "/dev/tty", "/dev/nvidia0"];
    let mode = |path| fs::metadata(path).map(|found| found.mode()).ok();
    let before = mode("/dev/null");
    let expected: String = devices
        .iter()
        .map(|path| format!("{path}: EROFS\n"))
        .collect();
    let scenario: Vec<&str> = ["permit"].into_iter().chain(devices).collect();
    assert_eq!(
        finish(&mut guest_with(&[], &scenario)),
        Ended::printing(&expected)
    );
    assert_eq!(mode("/dev/null"), before);
}

/// Whoever writes there asks to be told of pressure, and the kernel starts a thread for that.
#[test]
fn pressure_is_read_and_not_written() {
    let files = ["cpu", "io", "memory"].map(|name| format!("/proc/pressure/{name}"));
    let there = |path: &&String| File::open(path).is_ok();
    let files: Vec<&String> = files.iter().filter(there).collect();
    if files.is_empty() {
        eprintln!("skipped: this kernel does not tell of pressure");
        return;
    }
    let mut scenario = vec!["write"];
    scenario.extend(files.iter().map(|path| path.as_str()));
    let each = files.iter().map(|path| format!("{path}: EROFS\n"));
    as_root_and_user(&[], &scenario, &Ended::printing(&each.collect::<String>()));
    // They are there.
    let script = "for file; do while read -r word rest; do echo \"$word\"; done <\"$file\"; done";
    let mut command = vec!["sh", "-c", script, "sh"];
    command.extend(&scenario[1..]);
    let ended = finish(ringfence_run(&[]).args(command));
    assert_eq!(ended, Ended::printing(&"some\nfull\n".repeat(files.len())));
    // Outside every user may write what is no request.
    for path in files {
        let outside = File::options().write(true).open(path);
        assert!(outside.is_ok(), "{path} cannot be written anyhow");
    }
}

#[test]
fn what_tells_of_the_machine_and_its_users_is_hidden() {
    let expected = "/proc/acpi: []\n/proc/scsi: []\n/proc/interrupts: \"\"\n/proc/keys: \"\"\n/proc/key-users: \"\"\n/proc/timer_list: \"\"\n/proc/locks: \"\"\n";
    let there: Vec<&str> = expected
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, _)| path)
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(!there.is_empty());
    let scenario: Vec<&str> = ["read"].into_iter().chain(there.iter().copied()).collect();
    let expected: String = expected
        .lines()
        .filter(|line| {
            there
                .iter()
                .any(|path| line.starts_with(&format!("{path}:")))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    as_root_and_user(&[], &scenario, &Ended::printing(&expected));
}

#[test]
fn temporary_directories_are_the_sandboxs_own() {
    let seen = |path: &str| format!("{path}/ringfence-test");
    let files = ["/tmp", "/var/tmp", "/run", "/dev/shm"].map(seen);
    let expected: String = files.iter().map(|path| format!("{path}: ok\n")).collect();
    let mut scenario = vec!["write"];
    scenario.extend(files.iter().map(String::as_str));
    as_root_and_user(&[], &scenario, &Ended::printing(&expected));
    assert!(files.iter().all(|path| !Path::new(path).exists()));
    // Nothing is left for the next one, or is there of the host's.
    let expected = "/var/tmp: []\n/run: []\n/dev/shm: []\n/dev/pts: [\"ptmx\"]\n";
    let scenario = ["read", "/var/tmp", "/run", "/dev/shm", "/dev/pts"];
    assert_eq!(
        finish(&mut guest_with(&[], &scenario)),
        Ended::printing(expected)
    );
    let _of_the_host = Directory::in_place(Path::new("/tmp"), "of-the-host");
    let listed = run_in(Path::new("/"), &[], &["ls", "-A", "/tmp"]);
    assert_eq!(listed, Ended::printing(""));
}

#[test]
fn temporary_directories_share_one_size() {
    let each = |path: &str, mode: &str| format!("{path}: mode {mode}, 8 MiB\n");
    let places = [
        ("/tmp", "1777"),
        ("/var/tmp", "1777"),
        ("/run", "755"),
        ("/dev/shm", "1777"),
    ];
    let shown: String = places.iter().map(|(path, mode)| each(path, mode)).collect();
    let expected = shown
        + "\
/tmp: 3 MiB
/var/tmp: 3 MiB
/run: 2 MiB
/dev/shm: 0 MiB
/tmp emptied: 3 MiB for /dev/shm
executed in /dev/shm: EACCES
files in /tmp: bounded
files in /dev: bounded
";
    as_root_and_user(
        &["--tmp-size", "8MiB"],
        &["fill"],
        &Ended::printing(&expected),
    );
    let ended = finish(&mut guest_with(&["--tmp-size", "much"], &["fill"]));
    let line = ended.stderr.lines().next().unwrap_or_default();
    let problem = "'much' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G";
    assert_eq!(
        (ended.status, line),
        (
            125,
            &*format!("ringfence: invalid value 'much' for '--tmp-size <SIZE>': {problem}")
        )
    );
}

#[test]
fn files_are_linked_and_moved_from_one_directory_to_another() {
    let directory = Directory::new("moved");
    let bound = text(directory.path());
    let script = "cd \"$0\" && mkdir a b && echo x > a/x && ln a/x b/y && mv a/x b/z && ls b";
    for place in ["/tmp", bound] {
        let mut command = ringfence_run(&["--bind", bound]);
        let ended = finish(command.args(["sh", "-c", script, place]));
        assert_eq!(ended, Ended::printing("y\nz\n"), "{place}");
    }
}

#[test]
fn a_file_that_was_given_to_be_read_cannot_be_written() {
    let directory = Directory::new("given");
    let file = directory.path().join("file");
    fs::write(&file, "of the host\n").expect("a file");
    let given = File::open(&file).expect("the file");
    let mut command = guest_with(&[], &["write", "/proc/self/fd/0", "/dev/stdin"]);
    command.stdin(given);
    let expected = "/proc/self/fd/0: EROFS\n/dev/stdin: EROFS\n";
    assert_eq!(finish(&mut command), Ended::printing(expected));
    let mut content = "of the host\n".to_owned();
    assert_eq!(fs::read_to_string(&file).ok().as_ref(), Some(&content));
    // What was given to be written can be opened anew, as shell scripts do.
    let given = File::options().append(true).open(&file).expect("the file");
    let mut command = guest_with(&[], &["write", "/dev/stderr"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(given)
        .spawn()
        .expect("ringfence");
    assert_eq!(wait_for(child), Ended::printing("/dev/stderr: ok\n"));
    content += "written\n";
    assert_eq!(fs::read_to_string(&file).ok(), Some(content));
}

#[test]
fn binds_are_written_or_read_as_they_were_given() {
    let directory = Directory::new("binds");
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
    let (here, file) = (text(directory.path()), directory.path().join("file"));
    fs::write(&file, "of the host\n").expect("a file");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("permissions");
    let read_only = format!("{here}:/tmp/a/b:ro");
    let alone = format!("{}:/run/alone", text(&file));
    let options = ["--bind", here, "--bind", &read_only, "--bind", &alone];
    let written = format!("{here}/written");
    let scenario = [
        "write",
        &written,
        "/tmp/a/b/written",
        "/run/alone",
        "/tmp/a/c",
    ];
    let expected =
        format!("{written}: ok\n/tmp/a/b/written: EROFS\n/run/alone: ok\n/tmp/a/c: ok\n");
    assert_eq!(
        finish(&mut guest_with(&options, &scenario)),
        Ended::printing(&expected)
    );
    assert_eq!(
        fs::read_to_string(&written).ok().as_deref(),
        Some("written\n")
    );
    assert_eq!(
        fs::read_to_string(&file).ok().as_deref(),
        Some("of the host\nwritten\n")
    );
    let expected =
        "/tmp/a/b/file: \"of the host\\nwritten\\n\"\n/run/alone: \"of the host\\nwritten\\n\"\n";
    as_root_and_user(
        &options,
        &["read", "/tmp/a/b/file", "/run/alone"],
        &Ended::printing(expected),
    );
}

/// What a bind is to cover can be in what was bound before, and nowhere on the host.
#[test]
fn binds_are_placed_in_what_was_bound_before() {
    let directory = Directory::new("placed");
    let (first, second) = (
        directory.path().join("first"),
        directory.path().join("second"),
    );
    fs::create_dir_all(first.join("below/deeper")).expect("directories");
    fs::create_dir(&second).expect("a directory");
    fs::write(second.join("file"), "of the second\n").expect("a file");
    let first = format!("{}:/etc", text(&first));
    let bound = |target: &str| {
        let second = format!("{}:{target}:ro", text(&second));
        let options = ["--bind", &first, "--bind", &second, "--workdir=/"];
        let program = ["cat", "/etc/below/deeper/file"];
        run_in(directory.path(), &options, &program)
    };
    assert_eq!(
        bound("/etc/below/deeper"),
        Ended::printing("of the second\n")
    );
    // Nothing is created in it.
    let line = format!(
        "ringfence: --bind {}:/etc/below/other: in the sandbox, Read-only file system: create it, or choose a \
         place in /tmp",
        text(&second)
    );
    assert_eq!(bound("/etc/below/other"), Ended::failing(125, &line));
    assert!(!directory.path().join("first/below/other").exists());
}

/// The modes of what a guest made in a directory that it was given, by name.
fn modes(directory: &Directory) -> Vec<(String, u32)> {
    let entries = fs::read_dir(directory.path()).expect("a directory");
    let entries = entries.map(|entry| {
        let entry = entry.expect("a file");
        let name = entry.file_name().into_string().expect("a name");
        (name, entry.metadata().expect("its status").mode() & 0o7777)
    });
    entries.collect()
}

#[test]
fn no_file_is_left_set_user_id() {
    let directory = Directory::new("set-ids");
    let here = text(directory.path());
    let ended = finish(&mut guest_with(&["--bind", here], &["set-ids", here]));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let mut count = 0;
    for line in ended.stdout.lines() {
        let (attempt, outcome) = line.rsplit_once(": ").expect("an outcome");
        let expected = match attempt.rsplit_once(' ') {
            Some(("openat2", _)) => "ENOSYS",
            Some((_, "755")) => "ok",
            _ => "EPERM",
        };
        // Linux has it since 6.6.
        let is_missing = attempt.starts_with("fchmodat2 ") && outcome == "ENOSYS";
        assert!(outcome == expected || is_missing, "{line}");
        count += 1;
    }
    assert_eq!(count, 33);
    let modes = modes(&directory);
    assert!(modes.len() > 11, "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o755), "{modes:?}");
}

/// The test above can fail: a process without the filter leaves such files, of root if root has started it.
#[test]
fn files_are_left_set_user_id_without_the_filter() {
    let directory = Directory::new("set-ids");
    let path = text(directory.path());
    let scenario = ["set-ids", path, "beside"];
    let rules = "sentry.filter=duplicate";
    let ended = finish(&mut guest_under_with(rules, &["--bind", path], &scenario));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let left = modes(&directory);
    let left = left.iter().filter(|(_, mode)| mode & 0o6000 != 0);
    let mut left: Vec<&str> = left.map(|(name, _)| name.as_str()).collect();
    left.sort_unstable();
    for name in [
        "chmod",
        "fchmod",
        "fchmodat",
        "creat",
        "open",
        "openat",
        "openat of a file without a name",
        "openat2",
        "mknod",
        "mknodat",
    ] {
        for mode in ["4755", "2755"] {
            let name = format!("unfiltered {name} {mode}");
            assert!(left.contains(&&*name), "{name}, of {left:?}");
        }
    }
    assert!(left.iter().all(|name| name.starts_with("unfiltered ")));
}

#[test]
fn binds_that_cannot_be_are_explained() {
    let directory = Directory::new("no-binds");
    let here = text(directory.path());
    let run = |bind: &str| finish(ringfence_run(&["--bind", bind]).arg("true"));
    assert_eq!(
        run("/nowhere/at-all"),
        Ended::failing(
            125,
            "ringfence: --bind /nowhere/at-all: No such file or directory: name a file or directory that is there"
        )
    );
    assert_eq!(
        run(&format!("{here}:/etc/at-all")),
        Ended::failing(
            125,
            &format!(
                "ringfence: --bind {here}:/etc/at-all: in the sandbox, Read-only file system: create it, \
                 or choose a place in /tmp"
            )
        )
    );
    assert_eq!(
        run(&format!("{here}:/etc/passwd")),
        Ended::failing(
            125,
            &format!(
                "ringfence: --bind {here}:/etc/passwd: in the sandbox, a directory can cover only a directory, and a file \
                 only a file"
            )
        )
    );
    let refused = run("/etc:etc");
    assert_eq!((refused.status, refused.stdout.as_str()), (125, ""));
    assert!(
        refused.stderr.contains("etc is not an absolute path"),
        "{refused:?}"
    );
}

/// A root directory with the guest in it, which needs no libraries.
pub fn root_directory() -> Directory {
    let directory = Directory::new("root");
    let root = directory.path();
    for name in ["proc", "dev", "tmp", "sys", "own"] {
        fs::create_dir(root.join(name)).expect("a directory");
    }
    fs::copy(guest_program(), root.join("guest")).expect("a copy");
    directory
}

#[test]
fn another_directory_can_be_the_root() {
    let directory = root_directory();
    let root = text(directory.path());
    let run = |options: &[&str], scenario: &[&str]| {
        let mut command = Command::new(ringfence_program());
        command.args(["run", "--driver=sim", "--rootfs", root, "--workdir=/"]);
        command.args(options).args(["--", "/guest"]).args(scenario);
        finish(command.env_clear().stdin(Stdio::null()))
    };
    let expected =
        "/: [\"dev\", \"guest\", \"own\", \"proc\", \"sys\", \"tmp\"]\n/tmp: []\n/own: []\n";
    assert_eq!(
        run(&[], &["read", "/", "/tmp", "/own"]),
        Ended::printing(expected)
    );
    let expected = "/own/file: EROFS\n/tmp/file: ok\n";
    assert_eq!(
        run(&[], &["write", "/own/file", "/tmp/file"]),
        Ended::printing(expected)
    );
    assert_eq!(run(&[], &["close"]), Ended::printing("freed 50 times\n"));
    let shared = Directory::new("shared");
    let bind = format!("{}:/own", text(shared.path()));
    assert_eq!(
        run(&["--bind", &bind], &["write", "/own/file"]),
        Ended::printing("/own/file: ok\n")
    );
    assert!(shared.path().join("file").exists());

    // Nor is a link one: it would lead elsewhere by the time that something is mounted there.
    for name in ["proc", "dev", "tmp"] {
        let place = directory.path().join(name);
        let expected = format!(
            "ringfence: --rootfs {root}: it has no directory '{name}': create one, empty, to mount the sandbox's own there"
        );
        fs::remove_dir(&place).expect("removed");
        assert_eq!(run(&[], &["close"]), Ended::failing(125, &expected));
        symlink("own", &place).expect("a link");
        assert_eq!(run(&[], &["close"]), Ended::failing(125, &expected));
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("a directory");
    }
}

/// Whoever made the directory that is the root has put links there: they lead to what is in it, and to nothing of the host's.
#[test]
fn links_in_another_root_lead_nowhere_else() {
    let directory = root_directory();
    let (root, outside) = (directory.path(), Directory::new("outside"));
    fs::write(outside.path().join("secret"), "a secret").expect("a file");
    let up = format!("/../..{}", text(outside.path()));
    symlink(&up, root.join("up")).expect("a link");
    symlink("/proc/1/root", root.join("first")).expect("a link");
    let run = |bind: &str| {
        let mut command = Command::new(ringfence_program());
        command.args(["run", "--driver=sim", "--rootfs", text(root), "--workdir=/"]);
        command.args(["--bind", bind, "--", "/guest"]);
        command.args(["read", "/up/secret", "/first/own"]);
        finish(command.env_clear().stdin(Stdio::null()))
    };
    let shared = Directory::new("shared");
    let bound = format!("{}:/own", text(shared.path()));
    let ended = run(&bound);
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    assert!(
        ended.stdout.starts_with("/up/secret: ENOENT\n"),
        "{ended:?}"
    );

    // Behind a link that leads up nothing is placed, neither there nor on the host.
    let ended = run(&format!("{}:/up/secret:ro", text(shared.path())));
    assert_eq!(ended.status, 125, "{ended:?}");
}

/// Nothing is placed behind links in a root that programs can have changed.
#[test]
fn nothing_is_placed_behind_links_in_a_root_that_is_given() {
    let directory = root_directory();
    let root = directory.path();
    symlink("own", root.join("elsewhere")).expect("a link");
    fs::create_dir(root.join("own/sub")).expect("a directory");
    let shared = Directory::new("shared");
    let mut command = Command::new(ringfence_program());
    command.args(["run", "--driver=sim", "--rootfs", text(root), "--workdir=/"]);
    let bind = format!("{}:/elsewhere/sub:ro", text(shared.path()));
    command.args([
        "--bind",
        text(root),
        "--bind",
        &bind,
        "--",
        "/guest",
        "close",
    ]);
    let ended = finish(command.env_clear().stdin(Stdio::null()));
    assert_eq!(ended.status, 125, "{ended:?}");
    let reason = "a symbolic link in /, where programs can put one, is not followed";
    assert!(ended.stderr.contains(reason), "{ended:?}");
}
