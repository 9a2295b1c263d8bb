//! A server that is replaced while programs run: they notice nothing, and if it cannot be done the old one serves on.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::unistd::Pid;
use ringfence_ipc::typed::Format;
use ringfence_ipc::{Message, Socket};
use serde::{Deserialize, Serialize};
use userland_tests::conversation::Conversation;
use userland_tests::{
    Directory, Ended, finish, guest, guest_program, guest_under, guest_with, ringfence_program,
    ringfence_run, started, wait_for,
};

/// The end of a program that ends by itself.
fn by_itself() -> Ended {
    by_itself_after("")
}

/// The same after Ringfence has said something.
fn by_itself_after(stderr: &str) -> Ended {
    Ended {
        stderr: stderr.to_owned(),
        ..Ended::printing("")
    }
}

/// `ringfence server-upgrade SANDBOX OPTIONS…`
fn server_upgrade(sandbox: &str, options: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    finish(command.args(["server-upgrade", sandbox]).args(options))
}

/// Replaces the server; it is another process then, and the others are the same.
fn upgrade(conversation: &Conversation) {
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    let Ended {
        status,
        stdout,
        stderr,
    } = server_upgrade(&sandbox, &[]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let after = conversation.tree();
    let replaced = format!(
        "{sandbox}: server {} was replaced by {} in ",
        before.server.pid, after.server.pid
    );
    assert!(stdout.starts_with(&replaced), "{stdout}");
    assert_ne!(before.server, after.server);
    assert_eq!(
        [before.launcher, before.sentry, before.init, before.program],
        [after.launcher, after.sentry, after.init, after.program]
    );
}

#[test]
fn a_busy_program_does_not_notice_a_hundred_upgrades() {
    let conversation = Conversation::with("load", &[]);
    for _ in 0..100 {
        upgrade(&conversation);
    }
    let tree = conversation.tree();
    assert_eq!(
        conversation.end(),
        Ended::printing("every answer was right\n")
    );
    tree.expect_gone();
}

#[test]
fn an_idle_program_goes_on_with_what_it_has() {
    let mut conversation = Conversation::begin(&[]);
    for _ in 0..3 {
        upgrade(&conversation);
        for line in ["use", "open", "start over", "use second"] {
            assert_eq!(conversation.ask(line), "ok", "{line}");
        }
    }
    assert_eq!(conversation.end(), by_itself());
}

#[test]
fn an_event_comes_from_whichever_server_there_is() {
    let mut conversation = Conversation::begin(&[]);
    assert_eq!(conversation.ask("wait for an event"), "waiting");
    upgrade(&conversation);
    assert_eq!(conversation.ask("trigger it"), "events: Ok(1)");
    assert_eq!(conversation.end(), by_itself());
}

#[test]
fn a_request_that_takes_long_is_waited_for() {
    let mut conversation = Conversation::begin(&[]);
    assert_eq!(conversation.ask("keep registering"), "asked");
    for _ in 0..3 {
        upgrade(&conversation);
        assert_eq!(
            conversation.ask("use"),
            "ok",
            "and the other request still waits"
        );
    }
    assert_eq!(conversation.end(), by_itself());
}

#[test]
fn a_replaced_server_can_be_lost_like_any() {
    let mut conversation = Conversation::begin(&["--on-server-exit", "restart"]);
    upgrade(&conversation);
    conversation.tree().kill(|tree| tree.server);
    while conversation.ask("use") == "ok" {}
    assert_eq!(conversation.ask("use"), "EIO");
    assert_eq!(conversation.ask("start over"), "ok");
    upgrade(&conversation);
    assert_eq!(conversation.ask("use second"), "ok");
    let stderr = " WARN the server ended unexpectedly: what is open fails with EIO from now on, and another server is asked for\n";
    assert_eq!(conversation.end(), by_itself_after(stderr));
}

#[test]
fn a_new_server_that_does_not_start_changes_nothing() {
    let mut conversation = Conversation::begin(&[]);
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    let reasons = [
        ("/bin/false", "the new server ended before it was ready"),
        ("/bin/true", "the new server ended before it was ready"),
    ];
    for (executable, reason) in reasons {
        let line = format!("ringfence: {sandbox}: {reason}; the server was not replaced");
        let ended = server_upgrade(&sandbox, &["--executable", executable]);
        assert_eq!(ended, Ended::failing(1, &line));
        assert_eq!(conversation.ask("use"), "ok");
    }
    for (file, reason) in [
        ("/nowhere", "No such file or directory"),
        ("/tmp", "it is no ordinary file"),
        ("/etc/passwd", "Permission denied"),
    ] {
        let line = format!(
            "ringfence: --executable {file}: {reason}: name a file that you may read and execute"
        );
        let ended = server_upgrade(&sandbox, &["--executable", file]);
        assert_eq!(ended, Ended::failing(125, &line));
    }
    assert_eq!(conversation.tree().server, before.server);
    upgrade(&conversation);
    assert_eq!(conversation.ask("use"), "ok");
    assert_eq!(conversation.end(), by_itself());
}

#[test]
fn a_server_that_does_not_answer_is_not_replaced() {
    let mut conversation = Conversation::begin(&[]);
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    before.server.stop();
    let mut upgrade_command = Command::new(ringfence_program());
    upgrade_command.args(["server-upgrade", &sandbox]);
    let waiting = std::thread::spawn(move || finish(&mut upgrade_command));
    // It waits for the old server, which is lost meanwhile.
    userland_tests::eventually("a second server", || before.launcher.children().len() == 3);
    before.kill(|tree| tree.server);
    let line = format!(
        "ringfence: {sandbox}: the old server ended before it was ready; the server was not replaced"
    );
    let ended = waiting.join().expect("the command");
    assert_eq!(ended, Ended::failing(1, &line));
    while conversation.ask("use") == "ok" {}
    let line = format!(
        "ringfence: {sandbox}: it has no server: the last one ended unexpectedly; the server was not replaced"
    );
    assert_eq!(server_upgrade(&sandbox, &[]), Ended::failing(1, &line));
    let stderr = " WARN the server ended unexpectedly: every request to the driver fails with EIO from now on\n";
    assert_eq!(conversation.end(), by_itself_after(stderr));
}

#[test]
fn sandboxes_are_known_by_name() {
    let name = format!("test-{}", std::process::id());
    let conversation = Conversation::begin(&["--name", &name]);
    let launcher = conversation.launcher();
    let listed = || {
        let mut command = Command::new(ringfence_program());
        let Ended { status, stdout, .. } = finish(command.arg("ps"));
        assert_eq!(status, 0);
        let guest = guest_program();
        let line = format!(
            "{name:<16} {launcher:>8}  580.142      {} converse",
            guest.display()
        );
        stdout.lines().any(|listed| listed == line)
    };
    assert!(listed());
    let taken =
        format!("ringfence: --name {name}: a sandbox of this name is running: choose another name");
    let second = finish(ringfence_run(&["--name", &name]).arg("true"));
    assert_eq!(second, Ended::failing(125, &taken));
    assert_eq!(server_upgrade(&name, &[]).status, 0);
    conversation.tree().kill(|tree| tree.launcher);
    assert_eq!(conversation.end().status, 137);
    assert!(!listed(), "its launcher was killed");
    let Ended { status, stderr, .. } = server_upgrade(&name, &[]);
    assert_eq!(status, 125);
    let absent = format!("ringfence: there is no sandbox {name}: ");
    assert!(stderr.starts_with(&absent), "{stderr}");
    let third = finish(ringfence_run(&["--name", &name]).arg("true"));
    assert_eq!(third, Ended::printing(""), "the name is free again");
}

#[test]
fn the_next_start_takes_away_the_doors_of_killed_launchers() {
    let directory = Directory::new("doors");
    let doors = || {
        let entries = std::fs::read_dir(directory.path().join("ringfence")).expect("doors");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("a door")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    let mut running: Vec<Child> = ["alive", "dead"]
        .into_iter()
        .map(|name| idling(&mut guest_with(&["--name", name], &["idle"]), &directory))
        .collect();
    running.push(idling(&mut guest(&["idle"]), &directory));
    assert_eq!(doors().len(), 3);
    for child in running.drain(1..) {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).expect("kill");
        assert_eq!(wait_for(child).status, 137);
    }
    assert_eq!(doors().len(), 3, "nobody could take them away yet");
    let ended = finish(guest(&["raise", "15"]).env("XDG_RUNTIME_DIR", directory.path()));
    assert_eq!(ended.status, 143);
    assert_eq!(doors(), ["alive.sock"]);
    for child in running {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
        assert_eq!(wait_for(child).status, 143);
    }
    assert!(doors().is_empty());
}

/// A sandbox with its door below `directory`.
fn idling(command: &mut Command, directory: &Directory) -> Child {
    started(command.env("XDG_RUNTIME_DIR", directory.path())).0
}

#[test]
fn a_sandboxed_program_cannot_replace_a_server() {
    let mut conversation = Conversation::begin(&[]);
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    let mut command = ringfence_run(&[]);
    command.arg(ringfence_program());
    let ended = finish(command.args(["server-upgrade", &sandbox]));
    assert_eq!((ended.status, ended.stdout.as_str()), (125, ""));
    assert_eq!(conversation.tree().server, before.server);
    assert_eq!(conversation.ask("use"), "ok");
    drop(conversation.end());
}

/// A sandbox whose processes obey `rules`.
fn faulty(rules: &str) -> Conversation {
    Conversation::of(guest_under(rules, &["converse"]))
}

/// What a server that was taken over does: it says that it stays for the next one's sake, and goes on serving.
#[test]
fn a_server_that_does_not_go_is_ended() {
    let mut conversation = faulty("server.departure=drop");
    upgrade(&conversation);
    for line in ["use", "open", "use second"] {
        assert_eq!(conversation.ask(line), "ok", "{line}");
    }
    assert_eq!(conversation.end(), by_itself());
}

#[test]
fn a_server_that_does_not_go_stays_if_nobody_ends_it() {
    let conversation = faulty("server.departure=drop sentry.departure=drop");
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    let Ended { status, stdout, .. } = server_upgrade(&sandbox, &[]);
    assert_eq!(status, 0);
    assert!(stdout.contains(" was replaced by "), "{stdout}");
    let children = before.launcher.children();
    assert_eq!(children.len(), 3);
    assert!(children.contains(&before.server));
    drop(conversation.end());
}

/// What the old server says of it does not count.
#[test]
fn a_server_is_replaced_if_the_new_one_says_so() {
    let mut conversation = faulty("server.handover=drop");
    let before = conversation.tree();
    let sandbox = conversation.launcher().to_string();
    let Ended {
        status,
        stdout,
        stderr,
    } = server_upgrade(&sandbox, &[]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    let reason = format!("ringfence: {sandbox}: waiting for the state: ");
    assert!(stderr.starts_with(&reason), "{stderr}");
    assert_eq!(conversation.tree().server, before.server);
    assert_eq!(conversation.ask("use"), "ok");
    assert_eq!(conversation.end(), by_itself());
}

/// What a command of another release may ask.
#[derive(Serialize, Deserialize)]
enum Wish {
    Sing,
}

impl Message for Wish {
    const MAXIMUM_BYTES: usize = 64;
    const FORMAT: Format = Format::Json;
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Failed(String),
}

impl Message for Reply {
    const MAXIMUM_BYTES: usize = 4096;
    const FORMAT: Format = Format::Json;
}

#[test]
fn a_launcher_that_does_not_know_a_request_says_so() {
    let mut conversation = Conversation::begin(&[]);
    let launcher = conversation.launcher();
    // The name that the door had first.
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("sockets");
    let unnamed = format!("/.{launcher}");
    let mut paths = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let path = paths.find(|path| path.ends_with(&unnamed)).expect("a door");
    let path = Path::new(path).with_file_name(format!("{launcher}.sock"));
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let address = UnixAddr::new(&path).expect("an address");
    connect(socket.as_raw_fd(), &address).expect("an open door");
    let socket = Socket::from(socket);
    socket.say(&Wish::Sing, None).expect("sent");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (reply, _) = socket.hear_until::<Reply>(deadline).expect("a reply");
    let expected = format!(
        "its launcher, of release {}, does not know what was asked: \
         unknown variant `Sing`, expected `Describe` or `Upgrade` at line 1 column 6",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(reply, Reply::Failed(expected));
    assert_eq!(conversation.ask("use"), "ok");
    assert_eq!(conversation.end(), by_itself());
}

/// `ringfence ARGUMENTS…` where sandboxes are found in this directory.
fn looking_in(directory: &Directory, arguments: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    command.args(arguments).stdin(Stdio::null());
    finish(command.env("XDG_RUNTIME_DIR", directory.path()))
}

/// As those of a rootless engine: they are listed where their launchers live, and counted elsewhere.
#[test]
fn sandboxes_of_another_user_namespace_are_counted() {
    let directory = Directory::new("doors");
    let mut apart = Command::new("unshare");
    apart.arg("--map-root-user").arg(ringfence_program());
    apart.args(["run", "--driver=sim", "--name=apart", "--workdir=/", "--"]);
    apart.args(["sh", "-c", "echo ready; read line"]);
    apart.env("XDG_RUNTIME_DIR", directory.path());
    let (mut child, _output) = started(apart.stdin(Stdio::piped()));
    let heading = "NAME              PROCESS  DRIVER       COMMAND\n";
    let line = "ringfence: 1 sandbox is in another user namespace, as containers of a rootless engine are: podman unshare ringfence ps \
                lists those of podman\n";
    let outside = Ended {
        stderr: line.to_owned(),
        ..Ended::printing(heading)
    };
    assert_eq!(looking_in(&directory, &["ps"]), outside);

    let launcher = child.id().to_string();
    let mut inside = Command::new("nsenter");
    inside.args(["--user", "--preserve-credentials", "--target", &launcher]);
    inside.arg(ringfence_program()).arg("ps");
    inside.env("XDG_RUNTIME_DIR", directory.path());
    let ended = finish(inside.stdin(Stdio::null()));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let listed = ended.stdout.strip_prefix(heading).expect("a heading");
    assert!(listed.starts_with("apart "), "{listed}");

    drop(child.stdin.take());
    child.wait().expect("it ends");
    assert_eq!(looking_in(&directory, &["ps"]), Ended::printing(heading));
}

/// A socket that nobody takes a connection from, with as many waiting as there is room for.
fn without_room(path: &Path) -> OwnedFd {
    let made = || {
        socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
    };
    let address = UnixAddr::new(path).expect("an address");
    let listener = made().expect("a socket");
    bind(listener.as_raw_fd(), &address).expect("a name");
    listen(&listener, Backlog::new(1).expect("a number")).expect("to listen");
    while connect(made().expect("a socket").as_raw_fd(), &address) != Err(Errno::EAGAIN) {}
    listener
}

/// As a launcher is silent that was stopped, when programs have connected to it that can reach its socket.
#[test]
fn sandboxes_that_have_no_room_for_a_question_are_not_waited_for() {
    let directory = Directory::new("doors");
    let mut heard = ringfence_run(&["--name", "heard"]);
    heard.env("XDG_RUNTIME_DIR", directory.path());
    heard.args(["sh", "-c", "echo ready; read line"]);
    let (mut child, _output) = started(heard.stdin(Stdio::piped()));
    // Several, so that some come first in the directory.
    let silent = ["mute", "silent", "still"];
    let door = |name| directory.path().join(format!("ringfence/{name}.sock"));
    let _listeners = silent.map(|name| without_room(&door(name)));

    let ended = looking_in(&directory, &["ps"]);
    let lines = silent.map(|name| {
        format!("ringfence: sandbox {name}: its ringfence process does not answer: continue it, if it is stopped\n")
    });
    assert_eq!((ended.status, ended.stderr), (0, lines.concat()));
    let listed = ended
        .stdout
        .lines()
        .skip(1)
        .map(|line| line.split(' ').next());
    assert_eq!(listed.collect::<Vec<_>>(), [Some("heard")]);

    let ended = looking_in(&directory, &["server-upgrade", "silent"]);
    let line =
        "ringfence: silent: its ringfence process does not answer: continue it, if it is stopped";
    assert_eq!(ended, Ended::failing(125, line));

    let sandbox = ["run", "--driver=sim", "--name=silent", "--", "true"];
    let line = "ringfence: --name silent: a sandbox of this name is running: choose another name";
    assert_eq!(looking_in(&directory, &sandbox), Ended::failing(125, line));

    drop(child.stdin.take());
    assert_eq!(wait_for(child).status, 1);
}
