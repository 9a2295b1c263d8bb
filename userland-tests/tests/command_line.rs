//! What `ringfence` makes of a command line: where the program begins, how sizes are written, and how what makes no sense is
//! answered.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::{Directory, Ended, finish, guest_with, ringfence_program, started, wait_for};

/// `ringfence ARGUMENTS…`
fn ringfence(arguments: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    finish(command.current_dir("/").args(arguments))
}

/// `ringfence run --driver sim ARGUMENTS…`
fn run(arguments: &[&str]) -> Ended {
    ringfence(&[&["run", "--driver", "sim"], arguments].concat())
}

/// A program that prints its arguments.
const PRINTING: [&str; 4] = ["sh", "-c", "echo $# \"$@\"", "sh"];

#[test]
fn a_program_needs_no_mark_before_it_and_has_all_that_follows() {
    for (arguments, printed) in [
        (&[][..], "0\n"),
        (&["a", "-n", "--all", "--help"], "4 a -n --all --help\n"),
        (&["a", "--", "--net"], "3 a -- --net\n"),
    ] {
        let line = [&PRINTING, arguments].concat();
        assert_eq!(run(&line), Ended::printing(printed), "{line:?}");
        let marked = [&["--"], &line[..]].concat();
        assert_eq!(run(&marked), Ended::printing(printed), "{marked:?}");
    }
}

/// It could be a limit that somebody added at the end, and thinks that it holds.
#[test]
fn what_could_be_an_option_of_ringfences_needs_the_mark() {
    for (argument, name) in [
        ("--net", "net"),
        ("--gpu-memory=4g", "gpu-memory"),
        ("--bind", "bind"),
    ] {
        let line = [&PRINTING[..], &["a", argument]].concat();
        let refused = format!(
            "ringfence: --{name} follows the program, and Ringfence has an option of this name: write it before the \
             program, or -- before the program, if it is the program's own"
        );
        assert_eq!(run(&line), Ended::failing(125, &refused));
        let marked = [&["--"], &line[..]].concat();
        assert_eq!(run(&marked), Ended::printing(&format!("2 a {argument}\n")));
    }
    let of_record = [
        "record",
        "--out",
        "/dev/null",
        "--driver",
        "sim",
        "true",
        "--keep-identifiers",
    ];
    let refused = ringfence(&of_record);
    let line = "ringfence: --keep-identifiers follows the program, ";
    assert!(
        refused.status == 125 && refused.stderr.starts_with(line),
        "{refused:?}"
    );
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let measure = ["sh", "-c", "echo $(df --output=size -B1 /tmp | tail -n 1)"];
    for (size, bytes) in [
        ("64m", 64 << 20),
        ("64Mi", 64 << 20),
        ("64MB", 64 << 20),
        ("1.5MiB", 3 << 19),
        ("67108864", 64 << 20),
    ] {
        let line = [&["--tmp-size", size][..], &measure].concat();
        assert_eq!(run(&line), Ended::printing(&format!("{bytes}\n")), "{size}");
        for option in ["--gpu-memory", "--host-memory"] {
            assert_eq!(
                run(&[option, size, "true"]),
                Ended::printing(""),
                "{option} {size}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_command_line_is_said_in_one_line() {
    for (line, problem) in [
        (
            &["nope"][..],
            "unrecognized subcommand 'nope': see ringfence --help",
        ),
        (
            &["create", "--bundle", "/b", "c"],
            "unrecognized subcommand 'create': call it by the name ringfence-runtime, as a container engine does",
        ),
        (
            &["--root", "/run/x", "--log=/l", "create", "c"],
            "unexpected argument '--root' found: call it by the name ringfence-runtime, as a container engine does",
        ),
        (
            &["--log", "/l", "features"],
            "unexpected argument '--log' found: call it by the name ringfence-runtime, as a container engine does",
        ),
        (
            &["configure", "docker"],
            "unrecognized subcommand 'configure': write ringfence runtime configure",
        ),
        (
            &["run"],
            "the following required arguments were not provided: <CMD>...: see ringfence run --help",
        ),
        (
            &["run", "--driver", "x", "true"],
            "invalid value 'x' for '--driver <DRIVER>' [possible values: auto, host, sim]",
        ),
        (
            &["run", "--drivr", "sim", "true"],
            "unexpected argument '--drivr' found: a similar argument exists: '--driver'",
        ),
        (
            &["ps", "--colour"],
            "unexpected argument '--colour' found: see ringfence ps --help",
        ),
        (
            &["run", "--uid", "me", "true"],
            "invalid value 'me' for '--uid <UID[:GID]>': 'me' is no number of a user or group: write UID or UID:GID, as in 1000:100",
        ),
        (
            &["run", "--tmp-size", "4 GiB", "true"],
            "invalid value '4 GiB' for '--tmp-size <SIZE>': '4 GiB' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G",
        ),
        (
            &["drivers", "diff", "580.142"],
            "the following required arguments were not provided: <B>: see ringfence drivers diff --help",
        ),
    ] {
        assert_eq!(
            ringfence(line),
            Ended::failing(125, &format!("ringfence: {problem}"))
        );
    }
}

/// Each with the option that it is of, and with what to write instead.
#[test]
fn a_value_that_makes_no_sense_is_named_with_its_option() {
    let bind = "--bind <SRC[:DST[:ro]]>";
    let text = "it is not text: write it in UTF-8";
    let digits = "expected digits as in 580.142 or 580.159.04";
    let version = format!("not a driver version: {digits}");
    let empty = "the path is empty: name a file or directory";
    let count = "write a number from 0 to 65535";
    let size = "is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G";
    for (option, value, shown, reason) in [
        (
            "--bind",
            "/etc:ro",
            bind,
            "ro is not an absolute path: write /etc::ro, to be read only",
        ),
        ("--bind", "", bind, empty),
        ("--bind", ":/x", bind, empty),
        ("--workdir", "", "--workdir <DIR>", empty),
        (
            "--workdir",
            "d",
            "--workdir <DIR>",
            "d is not an absolute path: write the whole path in the sandbox, from / on",
        ),
        ("--preserve-fds", "x", "--preserve-fds <N>", count),
        ("--preserve-fds", "", "--preserve-fds <N>", count),
        ("--preserve-fds", "100000", "--preserve-fds <N>", count),
        ("--preserve-fds", "-1", "--preserve-fds <N>", count),
        (
            "--tmp-size",
            "-1",
            "--tmp-size <SIZE>",
            &format!("'-1' {size}"),
        ),
        (
            "--tmp-size",
            "18446744073709551616",
            "--tmp-size <SIZE>",
            "'18446744073709551616' is more than 2^64 - 1 bytes",
        ),
        (
            "--gpus",
            "-1",
            "--gpus <all|none|0,1|GPU-uuid>",
            "'-1' is neither an index like 0, nor a UUID like GPU-5a3e..., nor a part of a GPU like 0/1/0",
        ),
        (
            "--uid",
            "-1",
            "--uid <UID[:GID]>",
            "'-1' is no number of a user or group: write UID or UID:GID, as in 1000:100",
        ),
        ("--driver-abi", "580", "--driver-abi <VERSION>", &version),
        ("--driver-abi", "-1", "--driver-abi <VERSION>", &version),
        ("--name", "\u{fffd}", "--name <NAME>", text),
        ("--gpus", "\u{fffd}", "--gpus <all|none|0,1|GPU-uuid>", text),
    ] {
        let line = format!("ringfence: invalid value '{value}' for '{shown}': {reason}");
        // Which is shown in the place of what is no text.
        let given = match value {
            "\u{fffd}" => OsStr::from_bytes(b"\xff"),
            value => OsStr::new(value),
        };
        let mut command = Command::new(ringfence_program());
        command.args(["run", "--driver", "sim", option]).arg(given);
        assert_eq!(finish(command.arg("true")), Ended::failing(125, &line));
    }
}

#[test]
fn a_long_argument_is_cut() {
    let long = "a".repeat(100_000);
    let cut = format!("{}...", "a".repeat(200));
    let line = format!(
        "ringfence: invalid value '{cut}' for '--uid <UID[:GID]>': '{cut}' is no number of a user or group: write UID or \
         UID:GID, as in 1000:100"
    );
    assert_eq!(run(&["--uid", &long, "true"]), Ended::failing(125, &line));
    let line = format!("ringfence: unrecognized subcommand '{cut}': see ringfence --help");
    assert_eq!(ringfence(&[&long]), Ended::failing(125, &line));
}

/// Without a name the sandbox works as well.
#[test]
fn where_names_cannot_be_kept_that_is_said_of_the_name_alone() {
    let nowhere = Directory::new("nowhere");
    let file = nowhere.path().join("ringfence");
    std::fs::write(&file, "").expect("a file");
    let with = |arguments: &[&str]| {
        let mut command = Command::new(ringfence_program());
        command
            .env("XDG_RUNTIME_DIR", nowhere.path())
            .current_dir("/");
        finish(command.args(arguments))
    };
    let reason = "it is not a directory of yours that only you may use: remove it";
    let line = format!("ringfence: --name abc: {}: {reason}", file.display());
    let named = ["run", "--driver", "sim", "--name", "abc", "true"];
    assert_eq!(with(&named), Ended::failing(125, &line));
    assert_eq!(
        with(&["run", "--driver", "sim", "true"]),
        Ended::printing("")
    );
    std::fs::remove_file(&file).expect("removed");
    let none = "NAME              PROCESS  DRIVER       COMMAND\n";
    assert_eq!(with(&["ps"]), Ended::printing(none));
    assert!(!file.exists(), "a list makes nothing");
    let line = "ringfence: there is no sandbox abc: none is running";
    assert_eq!(with(&["server-upgrade", "abc"]), Ended::failing(125, line));
}

/// `ps` shows name and process.
#[test]
fn a_sandbox_is_found_by_its_name_and_by_its_process() {
    let name = format!("named-{}", std::process::id());
    let (child, _output) = started(&mut guest_with(&["--name", &name], &["idle"]));
    let process = child.id().to_string();
    for sandbox in [&name, &process] {
        let Ended {
            status,
            stdout,
            stderr,
        } = ringfence(&["server-upgrade", sandbox]);
        assert_eq!((status, stderr.as_str()), (0, ""));
        assert!(stdout.starts_with(&format!("{name}: server ")), "{stdout}");
    }
    let Ended {
        status,
        stdout,
        stderr,
    } = ringfence(&["server-upgrade", "1"]);
    assert_eq!((status, stdout.as_str()), (125, ""));
    assert!(
        stderr.starts_with("ringfence: there is no sandbox 1: running are "),
        "{stderr}"
    );
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
    assert_eq!(wait_for(child).status, 143);
}

/// Engines call containers by 64 digits, and show 12 of them.
#[test]
fn a_containers_sandbox_is_listed_in_line_and_found_by_the_beginning_of_its_id() {
    // Commands find all sandboxes of this user.
    let same = format!("{:012x}", std::process::id());
    let ids = ["c", "d"].map(|digit| same.clone() + &digit.repeat(52));
    let other = format!("e{}{}", &same[1..], "e".repeat(52));
    // No engine has chosen this.
    let named = format!("x{same}");
    let names = [&ids[0], &ids[1], &other, &named];
    let mut running = names.map(|name| started(&mut guest_with(&["--name", name], &["idle"])));
    let ask = ringfence;
    let listed = ask(&["ps"]).stdout;
    let shown = |line: &&str| names.iter().any(|name| line.starts_with(name.as_str()));
    let own: Vec<&str> = listed.lines().filter(shown).collect();
    let column = own.first().and_then(|line| line.find("580.142"));
    assert!(own.len() == 4 && column.is_some(), "{listed}");
    for line in own {
        assert_eq!(line.find("580.142"), column, "{listed}");
    }
    let heading = listed.lines().next().expect("a heading");
    assert_eq!(heading.find("DRIVER"), column, "{listed}");

    for text in [&other[..12], &other[..63], &ids[1][..13], &ids[1]] {
        let ended = ask(&["server-upgrade", text]);
        let name = names.iter().find(|name| name.starts_with(text));
        let start = format!("{}: server ", name.expect("a name"));
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{text}");
        assert!(ended.stdout.starts_with(&start), "{text}: {ended:?}");
    }
    let several = format!(
        "ringfence: {same} is the beginning of {} and {}: write more of the one that you mean",
        ids[0], ids[1]
    );
    assert_eq!(
        ask(&["server-upgrade", &same]),
        Ended::failing(125, &several)
    );
    for text in [&other[..11], &named[..12]] {
        let ended = ask(&["server-upgrade", text]);
        let start = format!("ringfence: there is no sandbox {text}: running are ");
        assert!(
            ended.status == 125 && ended.stderr.starts_with(&start),
            "{ended:?}"
        );
    }
    for (child, _output) in &mut running {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
    }
    for (child, _output) in running {
        assert_eq!(wait_for(child).status, 143);
    }
}

/// Whatever stands before it in the launcher's command line, which is all that there is of a launcher that is stopped.
#[test]
fn the_command_of_a_stopped_sandbox_is_shown() {
    let guest = userland_tests::guest_program();
    let guest = guest.to_str().expect("a path in UTF-8");
    let name = format!("stopped-{}", std::process::id());
    let mut command = Command::new(ringfence_program());
    command
        .args(["run", "--driver", "sim", "--name", &name])
        .args(userland_tests::showing_the_guest());
    let (child, _output) = started(command.args([guest, "idle", "--"]));
    let launcher = Pid::from_raw(child.id() as i32);
    kill(launcher, Signal::SIGSTOP).expect("kill");
    userland_tests::eventually("ps shows it as stopped", || {
        let listed = ringfence(&["ps"]).stdout;
        let line = listed.lines().find(|line| line.starts_with(&name));
        line.is_some_and(|line| line.ends_with(&format!("  stopped      {guest} idle --")))
    });
    kill(launcher, Signal::SIGCONT).expect("kill");
    kill(launcher, Signal::SIGTERM).expect("kill");
    assert_eq!(wait_for(child).status, 143);
}
