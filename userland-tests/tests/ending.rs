//! A sandbox whose sentry or server was taken over, or stands still: it is ended as ever, by its program's end and by signals,
//! and nothing that these do keeps the launcher from that.
//!
//! Nor does anybody who does not take what the launcher writes.
//!
//! They are played by processes that were stopped, and by such whose first thread ends while the others go on.

use std::fs::{self, File};
use std::io::{PipeReader, Read, Write, pipe};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::processes::{Process, Tree, keeps_sigcont};
use userland_tests::{
    Ended, eventually, finish, guest, guest_program, ringfence_program, ringfence_run,
    ringfence_under, ringfence_with_faults, started, wait_for,
};

/// Who starts the tests in the background may have them ignore signals, and so what they start.
const THEN_IDLES: &str = "exec env --default-signal sh -c 'echo ready; exec sleep 100000'";

const NOT_ENDED: &str = "ringfence: the sentry did not end after the program, and was ended";

fn send(process: Process, signal: Signal) {
    kill(process.pid, signal).expect("it is there");
}

/// Runs a program that idles and asks nothing of the driver, with an executable that obeys `rules`.
fn of_faults(rules: &str) -> Command {
    let mut command = ringfence_under(rules, &[]);
    command.args(["sh", "-c", THEN_IDLES]);
    command
}

/// A sandbox with such a program, which runs.
fn idling(rules: &str) -> (Child, Tree) {
    let (child, _output) = started(&mut of_faults(rules));
    let tree = Tree::of(child.id());
    (child, tree)
}

/// Whether the launcher answers, which it does once it has done with what was sent to it before.
fn answers(tree: &Tree) -> bool {
    let mut command = Command::new(ringfence_program());
    let listed = finish(command.arg("ps")).stdout;
    listed.contains(&tree.launcher.pid.to_string())
}

#[test]
fn a_server_whose_first_thread_has_ended_is_taken_along() {
    for role in Tree::OTHERS {
        let (child, tree) = idling("server.first-thread=leave");
        tree.kill(role);
        wait_for(child);
        tree.expect_gone();
    }
}

/// The test above can fail: a signal to the first thread alone ends nothing of such a server, and the launcher waits for it.
#[test]
fn a_server_whose_first_thread_has_ended_stays_if_only_that_is_ended() {
    let (child, tree) = idling("server.first-thread=leave sentry.whole=drop");
    tree.kill(|tree| tree.program);
    eventually("all but the server is gone", || {
        tree.launcher.children() == [tree.server]
    });
    eventually("the launcher does not answer", || !answers(&tree));
    assert!(tree.server.is_alive());
    send(tree.launcher, Signal::SIGKILL);
    assert_eq!(wait_for(child).status, 137);
    tree.expect_gone();
}

/// How a sandbox ends whose sentry stands still when one process of it ends.
fn ending_without_the_sentry(role: fn(&Tree) -> Process) {
    let (child, tree) = idling("sentry.over=value:1");
    tree.sentry.stop();
    tree.kill(role);
    assert_eq!(wait_for(child), Ended::failing(125, NOT_ENDED));
    tree.expect_gone();
}

#[test]
fn the_end_of_the_program_ends_a_sandbox_whose_sentry_does_not_end() {
    ending_without_the_sentry(|tree| tree.program);
}

#[test]
fn the_end_of_init_ends_a_sandbox_whose_sentry_does_not_end() {
    ending_without_the_sentry(|tree| tree.init);
}

/// The kernel ends init with the thread that started it (`PR_SET_PDEATHSIG`).
#[test]
fn a_sentry_whose_first_thread_has_ended_is_ended() {
    let ended = finish(&mut of_faults(
        "sentry.first-thread=leave sentry.over=value:1",
    ));
    assert_eq!(
        (ended.status, ended.stderr),
        (125, format!("{NOT_ENDED}\n"))
    );
}

/// The sentry could hold init as well.
#[test]
fn signals_end_a_program_without_sentry_and_init() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let (child, tree) = idling("sentry.over=value:1");
        tree.sentry.stop();
        tree.init.stop();
        send(tree.launcher, signal);
        assert_eq!(wait_for(child), Ended::failing(125, NOT_ENDED), "{signal}");
        tree.expect_gone();
    }
}

/// Who asks for the end again does not wait as long as a recording may take to be written.
#[test]
fn a_second_signal_ends_the_sentry_of_a_program_that_has_ended() {
    let (child, _output) = started(&mut guest(&["idle"]));
    let tree = Tree::of(child.id());
    tree.sentry.stop();
    send(tree.launcher, Signal::SIGTERM);
    eventually("the program is gone", || !tree.program.is_alive());
    send(tree.launcher, Signal::SIGTERM);
    assert_eq!(wait_for(child), Ended::failing(125, NOT_ENDED));
    tree.expect_gone();
}

/// The tests above can fail: a launcher that has nothing of the program reaches it by the sentry alone, and sees no end.
#[test]
fn without_a_descriptor_of_it_a_program_is_not_reached_and_its_end_not_seen() {
    let rules = "sentry.over=value:1 sentry.program=drop";
    let (child, tree) = idling(rules);
    tree.sentry.stop();
    send(tree.launcher, Signal::SIGTERM);
    assert!(answers(&tree));
    assert!(answers(&tree));
    assert!(tree.program.is_alive());
    send(tree.program, Signal::SIGKILL);
    eventually("the program is gone", || !tree.program.is_alive());
    assert!(answers(&tree));
    assert!(tree.sentry.is_alive());
    send(tree.launcher, Signal::SIGKILL);
    assert_eq!(wait_for(child).status, 137);
    tree.expect_gone();
}

/// `ringfence server-upgrade` of this sandbox, with an executable that obeys `rules`.
fn upgrade(tree: &Tree, rules: &str) -> Ended {
    let mut command = Command::new(ringfence_with_faults());
    command.args(["server-upgrade", &tree.launcher.pid.to_string()]);
    finish(command.env("RINGFENCE_FAULTS", rules))
}

/// Upgrades until the sentry's socket is full. A message with a descriptor takes up more of it than its bytes.
#[test]
fn a_sentry_that_reads_nothing_does_not_stop_the_launcher() {
    let (child, tree) = idling("sentry.over=value:1");
    tree.sentry.stop();
    let failed = loop {
        let upgraded = upgrade(&tree, "");
        if upgraded.status != 0 {
            break upgraded;
        }
    };
    let line = format!(
        "ringfence: {}: the sandbox takes no messages; the server was not replaced",
        tree.launcher.pid
    );
    assert_eq!(failed, Ended::failing(1, &line));
    send(tree.launcher, Signal::SIGTERM);
    assert_eq!(wait_for(child), Ended::failing(125, NOT_ENDED));
    tree.expect_gone();
}

/// The test above can fail: a launcher that waits until there is room does nothing else any more.
#[test]
fn a_sentry_that_reads_nothing_stops_a_launcher_that_waits_for_it() {
    let (child, tree) = idling("sentry.unwaiting=drop");
    tree.sentry.stop();
    let upgrading = std::thread::spawn(move || while upgrade(&tree, "").status == 0 {});
    eventually("the launcher does not answer", || !answers(&tree));
    send(tree.launcher, Signal::SIGKILL);
    assert_eq!(wait_for(child).status, 137);
    tree.expect_gone();
    upgrading.join().expect("the upgrades");
}

/// While an upgrade waits for a server that says nothing, the launcher does what else there is to do.
#[test]
fn a_server_that_says_nothing_delays_nobody() {
    let (child, tree) = idling("sentry.over=value:1");
    tree.server.stop();
    let upgrading = std::thread::spawn(move || upgrade(&tree, ""));
    eventually("the new server is there", || {
        tree.launcher.children().len() == 3
    });
    assert!(answers(&tree));
    let line = format!(
        "ringfence: {}: its server is being replaced already; the server was not replaced",
        tree.launcher.pid
    );
    assert_eq!(upgrade(&tree, ""), Ended::failing(1, &line));
    send(tree.launcher, Signal::SIGTERM);
    let ended = wait_for(child);
    assert_eq!(ended.status, 143, "{ended:?}");
    tree.expect_gone();
    let line = format!(
        "ringfence: {}: it has ended; the server was not replaced",
        tree.launcher.pid
    );
    assert_eq!(
        upgrading.join().expect("the command"),
        Ended::failing(1, &line)
    );
}

/// What a server says that refuses to take over, or writes to stderr, and how that is shown.
const SAID: &str = "a\u{1b}]0;title\u{7}\u{9b}2Jb";
const SHOWN: &str = "a\\u{1b}]0;title\\u{7}\\u{9b}2Jb";

/// What the command and the sandbox write to stderr whose servers say this.
fn shown(rules: &str) -> (String, String) {
    let faults = format!("server.first-thread=garbage {rules}");
    let (child, tree) = idling(&faults);
    let mut command = Command::new(ringfence_with_faults());
    command.args(["server-upgrade", &tree.launcher.pid.to_string()]);
    let upgraded = finish(command.env("RINGFENCE_FAULTS", rules));
    send(tree.launcher, Signal::SIGTERM);
    let ended = wait_for(child);
    assert_eq!((upgraded.status, ended.status), (1, 143));
    (upgraded.stderr, ended.stderr)
}

fn refused(tree_is_unknown: &str, reason: &str) {
    let (_, after) = tree_is_unknown.split_once(": ").expect("a message");
    let (_, after) = after.split_once(": ").expect("the sandbox");
    assert_eq!(after, format!("{reason}; the server was not replaced\n"));
}

#[test]
fn no_text_of_a_server_is_obeyed_by_a_terminal() {
    let (command, sandbox) = shown("server.say=garbage");
    refused(&command, SHOWN);
    assert_eq!(sandbox, format!("{SHOWN}\n"));
}

/// The test above can fail.
#[test]
fn text_of_a_server_is_obeyed_by_a_terminal_if_it_is_left_as_it_is() {
    let (command, sandbox) = shown("server.say=garbage sentry.shown=drop");
    refused(&command, SAID);
    assert_eq!(sandbox, format!("{SAID}\n"));
}

/// What is escaped is longer than what was said; the bound is for what the caller gets.
#[test]
fn text_of_a_server_is_bounded_as_it_is_shown() {
    assert!(SAID.len() < 20 && SHOWN.len() > 20);
    let (_, sandbox) = shown("server.say=garbage sentry.messages=value:20");
    let missing =
        " WARN stderr: sentry and server wrote more than 20 bytes: what followed is missing\n";
    assert_eq!(sandbox, missing);
    let (_, sandbox) = shown("server.say=garbage sentry.messages=value:20 sentry.shown=drop");
    assert_eq!(sandbox, format!("{SAID}\n"));
}

/// Has `command` write its messages to a pipe that is full, and starts it. Returns the other end.
fn unread(command: &mut Command) -> (Child, PipeReader) {
    unread_by(OFlag::empty(), command)
}

/// The same with these flags of the description that it has of the pipe.
fn unread_by(flags: OFlag, command: &mut Command) -> (Child, PipeReader) {
    let (unread, mut full) = pipe().expect("a pipe");
    let set = |flags| fcntl(&full, FcntlArg::F_SETFL(flags)).expect("flags");
    set(OFlag::O_NONBLOCK);
    while (&full).write(&[b'x'; 4096]).is_ok() {}
    set(flags);
    full.flush().expect("a pipe");
    let child = command.stdout(Stdio::piped()).stderr(full).spawn();
    // With it goes the last end of this process that could be written to.
    command.stderr(Stdio::null());
    (child.expect("ringfence"), unread)
}

/// Has a program in `command` that is refused something, of which there are more messages than a pipe takes, and then does
/// something else.
fn refused_and_then<'a>(command: &'a mut Command, then: &str) -> &'a mut Command {
    let guest = guest_program();
    let script = format!(
        "{} flood 200 'made up' > /dev/null; {then}",
        guest.display()
    );
    command.args(["sh", "-c", &script])
}

/// Waits until a program that was started so says that it is ready.
fn ready(child: &mut Child) -> Tree {
    let mut line = [0; 6];
    let output = child.stdout.as_mut().expect("a pipe");
    output.read_exact(&mut line).expect("a line");
    assert_eq!(&line, b"ready\n");
    Tree::of(child.id())
}

#[test]
fn messages_that_nobody_reads_keep_no_sandbox_from_its_end() {
    let mut command = ringfence_run(&["--stats"]);
    let (mut child, _unread) = unread(refused_and_then(&mut command, THEN_IDLES));
    let tree = ready(&mut child);
    send(tree.launcher, Signal::SIGTERM);
    assert_eq!(wait_for(child).status, 143);
    tree.expect_gone();

    let mut command = ringfence_run(&["--stats"]);
    let (child, _unread) = unread(refused_and_then(&mut command, "exit 7"));
    assert_eq!(wait_for(child).status, 7);
}

/// A description that the program shares with its caller may be one at which nobody waits, because it has made it so.
#[test]
fn messages_are_waited_for_where_the_program_has_it_that_nobody_waits() {
    let mut command = ringfence_run(&["--stats"]);
    let (child, mut unread) = unread_by(OFlag::O_NONBLOCK, command.arg("true"));
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("it is there");
    eventually("it waits for room", || {
        !launcher.is_alive() || a_thread_waits_for_room(&launcher)
    });
    let mut text = String::new();
    unread.read_to_string(&mut text).expect("what was written");
    assert_eq!(wait_for(child).status, 0);
    let text = text.trim_start_matches('x');
    assert!(text.ends_with("refused by Ringfence: none\n"), "{text}");
}

/// The same for a reason why there is no program.
#[test]
fn a_reason_that_nobody_reads_is_not_waited_for() {
    let mut command = ringfence_run(&[]);
    let (child, _unread) = unread(command.arg("/nonexistent"));
    assert_eq!(wait_for(child).status, 127);
}

/// The test before can fail: a launcher that gives nothing up stays until somebody reads, and its sentry has to be killed.
#[test]
fn messages_that_nobody_reads_keep_a_launcher_that_gives_nothing_up() {
    let mut command = ringfence_under("sentry.untaken=drop", &["--stats"]);
    let (mut child, mut unread) = unread(refused_and_then(&mut command, THEN_IDLES));
    let tree = ready(&mut child);
    send(tree.launcher, Signal::SIGTERM);
    eventually("the program is gone", || !tree.program.is_alive());
    send(tree.launcher, Signal::SIGTERM);
    eventually("the sandbox is gone", || {
        tree.launcher.children().is_empty()
    });
    assert!(tree.launcher.is_alive());
    let mut text = Vec::new();
    unread.read_to_end(&mut text).expect("what was written");
    assert_eq!(wait_for(child).status, 125);
}

/// An end of the pipe by which the sentry speaks, as somebody has it whom it has given it to.
fn held(tree: &Tree) -> File {
    let path = format!("/proc/{}/fd/2", tree.sentry.pid);
    File::options().write(true).open(path).expect("a pipe")
}

#[test]
fn an_end_of_a_pipe_that_somebody_outside_holds_keeps_no_sandbox_from_its_end() {
    let (child, tree) = idling("");
    let _held = held(&tree);
    send(tree.launcher, Signal::SIGTERM);
    assert_eq!(wait_for(child).status, 143);
    tree.expect_gone();
}

/// The test before can fail.
#[test]
fn an_end_of_a_pipe_that_somebody_outside_holds_keeps_a_launcher_that_gives_nothing_up() {
    let (child, tree) = idling("sentry.untaken=drop");
    let held = held(&tree);
    send(tree.launcher, Signal::SIGTERM);
    eventually("the sentry is gone", || !tree.sentry.is_alive());
    // It waits for the thread that reads there, and does not go on by itself.
    eventually("the launcher waits for its thread", || {
        tree.launcher.children().is_empty() && waits_for_a_thread(&tree.launcher)
    });
    drop(held);
    assert_eq!(wait_for(child).status, 143);
}

/// Whether a thread of `process` that copies for stderr waits with poll (system call 7).
fn a_thread_waits_for_room(process: &Process) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid));
    let mut tasks = tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path());
    tasks.any(|task| {
        let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
        read("comm") == "stderr\n" && read("syscall").starts_with("7 ")
    })
}

/// Whether the first thread of `process` waits for a futex (system call 202, man 2 syscall).
fn waits_for_a_thread(process: &Process) -> bool {
    let path = format!("/proc/{}/syscall", process.pid);
    fs::read_to_string(path).is_ok_and(|call| call.starts_with("202 "))
}

/// How many threads of a process receive calls.
fn receivers_of(process: Process) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid)).expect("its threads");
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name == "receiver\n").count()
}

/// As by a key that is typed early. What the sentry has prepared by then has nobody to serve any more.
#[test]
fn a_program_that_is_ended_while_the_sentry_prepares_ends_as_it_was_ended() {
    let child = of_faults("sentry.receivers=await-sigcont")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ringfence");
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("the launcher");
    let mut sentry = None;
    eventually("the sentry receives", || {
        let children = launcher.children();
        sentry = children.into_iter().find(|child| receivers_of(*child) > 0);
        sentry.is_some()
    });
    let sentry = sentry.expect("the sentry");
    let tree = Tree::of(child.id());
    send(tree.program, Signal::SIGTERM);
    eventually("nobody is left to receive from", || {
        receivers_of(sentry) == 0 && keeps_sigcont(sentry.pid)
    });
    send(sentry, Signal::SIGCONT);
    let ended = wait_for(child);
    assert_eq!((ended.status, ended.stderr.as_str()), (143, ""));
    tree.expect_gone();
}
