//! `--fast`: programs get what they get without it, by the way past the sentry, and whatever becomes of that way.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use userland_tests::conversation::Conversation;
use userland_tests::processes::Tree;
use userland_tests::{
    Directory, Ended, Reachable, eventually, finish, guest, guest_program, guest_with,
    ringfence_program, ringfence_run, shim_library, started, wait_for,
};

const FAST: &[&str] = &["--fast"];
const FAIL: &str =
    " WARN the server ended unexpectedly: every request to the driver fails with EIO from now on\n";
const RESTART: &str = " WARN the server ended unexpectedly: what is open fails with EIO from now on, and another server is started\n";

/// A scenario of the guest with `--fast` and further options.
fn fast_guest(options: &[&str], scenario: &[&str]) -> Command {
    shim_library();
    guest_with(&[FAST, options].concat(), scenario)
}

/// A sandbox with `--fast` and further options whose program waits for a line.
fn fast_conversation(options: &[&str]) -> Conversation {
    shim_library();
    Conversation::begin(&[FAST, options].concat())
}

/// How many requests a run with `--stats` made by the trap and by lanes, opens included.
fn requests(ended: &Ended) -> (u64, u64) {
    let count = |what: &str| {
        let mut lines = ended.stderr.lines();
        let number = lines.find_map(|line| line.strip_suffix(what)?.parse().ok());
        number.unwrap_or(0)
    };
    (count(" requests"), count(" requests by lanes"))
}

#[test]
fn programs_get_what_they_get_without_it() {
    const SCENARIOS: &[&[&str]] = &[
        &["walk"],
        &["statuses"],
        &["unknown", "4"],
        &["bad-pointers"],
        &["bad-descriptors"],
        &["foreign-clients"],
        &["threads"],
        &["shared-client"],
        &["processes"],
        &["blocking"],
        &["interrupted"],
        &["duplicates"],
        &["fork"],
        &["spawn"],
        &["exec"],
        &["exec-inherited"],
        &["pass"],
        &["export"],
        &["close"],
        &["close-events"],
        &["generations"],
        &["killed"],
        &["pin-private"],
        &["pin-among-threads"],
        &["pin-from-two-threads"],
        &["pin-under-signals"],
        &["uvm"],
        &["large"],
        &["ask-in-a-handler"],
        &["fork-in-a-handler"],
        &["errno"],
        &["vfork"],
        &["renumbered"],
        &["fork-among-threads"],
        &["cancelled"],
        &["other-ioctls"],
    ];
    for scenario in SCENARIOS {
        let trapped = finish(&mut guest(scenario));
        assert_eq!(trapped.status, 0, "{scenario:?}: {trapped:?}");
        assert_eq!(
            finish(&mut fast_guest(&[], scenario)),
            trapped,
            "{scenario:?}"
        );
    }
}

#[test]
fn limits_of_memory_hold() {
    for scenario in ["limit", "limit-threads", "limit-shown"] {
        let options = ["--gpu-memory", "4GiB"];
        let trapped = finish(&mut guest_with(&options, &[scenario]));
        assert_eq!(trapped.status, 0, "{scenario}");
        assert_eq!(finish(&mut fast_guest(&options, &[scenario])), trapped);
    }
}

#[test]
fn each_request_is_made_once_and_what_can_goes_by_the_lane() {
    let trapped = finish(&mut guest_with(&["--stats"], &["walk"]));
    assert_eq!(requests(&trapped), (29, 0));
    let fast = finish(&mut fast_guest(&["--stats"], &["walk"]));
    assert_eq!(fast.stdout, trapped.stdout);
    // Opens, mappings, events, what may take long, and the first request on each description.
    assert_eq!(requests(&fast), (18, 11));
}

#[test]
fn a_child_of_vfork_s_takes_the_trap() {
    let fast = finish(&mut fast_guest(&["--stats"], &["vfork"]));
    assert_eq!(requests(&fast), (21, 40));
}

#[test]
fn what_the_tables_refuse_is_refused_and_reported_by_the_sentry() {
    let fast = finish(&mut fast_guest(
        &["--stats", "--log", "/dev/null"],
        &["unknown", "4"],
    ));
    let (_, refused) = fast
        .stderr
        .split_once("refused by Ringfence: \n")
        .expect("refusals");
    let expected = "  unknown UVM ioctl 0x7e: 4\n  unknown class 0xfeed: 4\n  \
                    unknown control command 0x20800112 (NV2080_CTRL_CMD_GPU_SET_POWER): 4\n  \
                    unknown control command 0x2080ffff: 4\n  unknown ioctl 0x77: 4\n";
    assert!(refused.starts_with(expected), "{refused}");
}

#[test]
fn without_the_option_the_library_finds_nobody_to_talk_to() {
    let library = shim_library();
    let preload = format!("LD_PRELOAD={}", library.display());
    let options = ["--env", &preload, "--stats"];
    let ended = finish(&mut guest_with(&options, &["walk"]));
    assert_eq!(ended.stdout, finish(&mut fast_guest(&[], &["walk"])).stdout);
    assert_eq!(requests(&ended), (29, 0));
    assert!(!ended.stderr.contains("refused by Ringfence: \n"));
}

#[test]
fn outside_a_sandbox_the_library_changes_nothing() {
    let run = |library: Option<_>| {
        let mut command = Command::new(guest_program());
        command.arg("other-ioctls").stdin(Stdio::null());
        finish(command.envs(library.map(|library| ("LD_PRELOAD", library))))
    };
    let without = run(None);
    assert_eq!(without.status, 0);
    assert_eq!(run(Some(shim_library())), without);
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_requests_leaves_nothing() {
    for _ in 0..5 {
        let (child, _output) = started(&mut fast_guest(&[], &["busy"]));
        let tree = Tree::of(child.id());
        tree.kill(|tree| tree.program);
        let ended = wait_for(child);
        tree.expect_gone();
        assert_eq!(
            ended,
            Ended {
                status: 137,
                ..Ended::printing("")
            }
        );
    }
}

#[test]
fn requests_fail_when_the_server_is_lost() {
    for (options, stderr) in [
        (&[][..], FAIL),
        (&["--on-server-exit", "restart"][..], RESTART),
    ] {
        let mut conversation = fast_conversation(options);
        assert_eq!(conversation.ask("use"), "ok");
        // One that the server has, and does not answer.
        let tree = conversation.tree();
        tree.server.stop();
        assert_eq!(conversation.ask("request"), "asked");
        tree.kill(|tree| tree.server);
        assert_eq!(conversation.hear(), "answered: EIO");
        while conversation.ask("use") == "ok" {}
        assert_eq!(conversation.ask("use"), "EIO");
        if stderr == RESTART {
            assert_eq!(conversation.ask("start over"), "ok");
            assert_eq!(conversation.ask("use second"), "ok");
            assert_eq!(conversation.ask("use"), "EIO");
            assert_eq!(conversation.ask("mix"), "EIO");
        }
        let expected = Ended {
            stderr: stderr.to_owned(),
            ..Ended::printing("")
        };
        assert_eq!(conversation.end(), expected);
    }
}

#[test]
fn a_busy_program_does_not_notice_upgrades_and_goes_on_by_lanes() {
    shim_library();
    let conversation = Conversation::with("load", &["--fast", "--stats"]);
    let sandbox = conversation.launcher().to_string();
    for _ in 0..30 {
        let mut upgrade = Command::new(ringfence_program());
        let ended = finish(upgrade.args(["server-upgrade", &sandbox]));
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    }
    let tree = conversation.tree();
    let ended = conversation.end();
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "every answer was right\n")
    );
    let (_, by_lanes) = requests(&ended);
    assert!(by_lanes > 0);
    tree.expect_gone();
}

#[test]
fn after_an_upgrade_an_idle_program_gets_another_lane() {
    let mut conversation = fast_conversation(&["--stats"]);
    let sandbox = conversation.launcher().to_string();
    for _ in 0..3 {
        for _ in 0..20 {
            assert_eq!(conversation.ask("use"), "ok");
        }
        let mut upgrade = Command::new(ringfence_program());
        let ended = finish(upgrade.args(["server-upgrade", &sandbox]));
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    }
    let ended = conversation.end();
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
    // Of the first 20 uses all; of later ones all but the one that finds the lane closed. And what came before the first.
    let (_, by_lanes) = requests(&ended);
    assert!(by_lanes >= 20 + 19 + 19, "{by_lanes}");
}

#[test]
fn the_library_is_looked_for_beside_the_executable_and_in_lib() {
    let directory = Directory::new("installed");
    let (bin, lib) = (directory.path().join("bin"), directory.path().join("lib"));
    for place in [&bin, &lib] {
        std::fs::create_dir(place).expect("a directory");
    }
    let installed = bin.join("ringfence");
    std::fs::copy(ringfence_program(), &installed).expect("a copy");
    let run = |options: &[&str]| {
        let mut command = Command::new(&installed);
        command.args(["run", "--driver", "sim"]).args(options);
        command.args(["--", "sh", "-c", "echo $LD_PRELOAD"]);
        finish(command.current_dir("/").stdin(Stdio::null()))
    };
    let (beside, below) = (
        bin.join("libringfence_shim.so"),
        bin.join("../lib/libringfence_shim.so"),
    );
    let line = format!(
        "ringfence: --fast: there is neither {} nor {}: cargo build --release makes it; install it beside the \
         executable, or leave --fast out",
        beside.display(),
        below.display()
    );
    assert_eq!(run(FAST), Ended::failing(125, &line));
    let expected = Ended::printing("/run/ringfence/libringfence_shim.so\n");
    for place in [lib.join("libringfence_shim.so"), beside] {
        symlink(shim_library(), &place).expect("a link");
        assert_eq!(run(FAST), expected);
        std::fs::remove_file(place).expect("the link");
    }
    assert_eq!(run(&[]), Ended::printing("\n"));
}

#[test]
fn a_root_without_a_place_for_the_library_is_refused() {
    shim_library();
    let root = Directory::new("root");
    for name in ["proc", "dev", "tmp"] {
        std::fs::create_dir(root.path().join(name)).expect("a directory");
    }
    let path = root.path().to_str().expect("a path in UTF-8");
    let line = format!(
        "ringfence: --fast: {path} has no directory 'run', where the library is shown: create one, empty"
    );
    let ended = finish(ringfence_run(&["--fast", "--rootfs", path]).arg("true"));
    assert_eq!(ended, Ended::failing(125, &line));
}

#[test]
fn what_goes_past_the_sentry_is_not_recorded() {
    let directory = Directory::new("recording");
    let file = directory.path().join("recording");
    let mut command = Command::new(ringfence_program());
    command.arg("record").arg("--out").arg(&file);
    command.args(["--fast", "--driver", "sim", "--", "true"]);
    let line = "ringfence: --fast: what goes past the sentry cannot be recorded: leave --fast out";
    assert_eq!(finish(&mut command), Ended::failing(125, line));
    assert!(!file.exists());
}

#[test]
fn an_ordinary_user_can_have_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "skipped: only root can become another user; as an ordinary user all the other tests prove this"
        );
        return;
    }
    let executables = Reachable::new();
    let beside = executables.ringfence.with_file_name("libringfence_shim.so");
    std::fs::copy(shim_library(), beside).expect("a copy");
    let guest = executables.guest.to_str().expect("a path in UTF-8");
    let ended = executables.run_as(65534, &["--fast", "--stats"], &[guest, "walk"]);
    assert_eq!((ended.status, requests(&ended)), (0, (18, 11)));
}

/// Processes beyond the number of lanes make their requests by the trap.
#[test]
fn there_are_few_lanes_and_they_come_back() {
    let mut conversation = fast_conversation(&[]);
    for _ in 0..3 {
        assert_eq!(conversation.ask("have 20 children use it"), "ok");
    }
    eventually("the children's lanes are closed", || {
        let server = conversation.tree().server;
        let path = format!("/proc/{}/task", server.pid);
        let threads = std::fs::read_dir(path).expect("its threads");
        let lanes = threads.filter_map(Result::ok).filter(|thread| {
            let name = std::fs::read_to_string(thread.path().join("comm"));
            name.is_ok_and(|name| name == "lane\n")
        });
        lanes.count() == 1
    });
    let ended = conversation.end();
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
}
