//! Programs on a terminal, started from a shell with job control: what is typed reaches the program or its neighbours,
//! as it would without a sandbox, and whatever a task does to its terminal, the shell keeps its own.
//!
//! Each test types what a user would and waits for what has to be shown. The lines are such that what is typed, which
//! the terminal shows as well, is not what is waited for.
//!
//! `unsafe` is here because of what happens between fork and exec.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, setsid, tcgetpgrp};
use rustix::io::ioctl_fionread;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::stdin;
use rustix::termios::{Winsize, tcsetwinsize};
use userland_tests::processes::{Process, Tree};
use userland_tests::{
    Directory, LIMIT, eventually, guest_program, ringfence_program, ringfence_with_faults,
};

/// A user at a terminal with a shell.
struct User {
    terminal: File,
    shell: Child,
    /// What was shown and has not been waited for.
    shown: String,
    /// What was waited for and came, for who asks what went wrong.
    seen: String,
    directory: Directory,
}

impl User {
    fn sit_down() -> User {
        User::sit_down_with(ringfence_program(), "")
    }

    /// The user's `ringfence` is this, which obeys `rules`.
    fn sit_down_with(ringfence: PathBuf, rules: &str) -> User {
        let directory = Directory::new("terminal");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("a terminal");
        unlockpt(&terminal).expect("a terminal");
        let program = ioctl_tiocgptpeer(&terminal, flags).expect("its other end");
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&program, size).expect("a size");
        let stream = || program.try_clone().expect("a duplicate");
        let mut command = Command::new("bash");
        command
            .args(["--norc", "--noprofile", "--noediting", "-i"])
            .env("PS1", "[ready] ")
            .env("RUN", run_line(ringfence))
            .env("RINGFENCE_FAULTS", rules)
            .env("GUEST", guest_program())
            .env("REPORT", directory.path().join("report"))
            .env("XDG_RUNTIME_DIR", directory.path())
            .current_dir("/")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream());
        // SAFETY: between fork and exec this makes two system calls and touches no memory.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                ioctl_tiocsctty(stdin())?;
                Ok(())
            })
        };
        let shell = command.spawn().expect("bash");
        let mut user = User {
            terminal: File::from(terminal),
            shell,
            shown: String::new(),
            seen: String::new(),
            directory,
        };
        user.sees("[ready] ");
        user
    }

    fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits until this is shown, and takes what was shown up to there.
    fn sees(&mut self, awaited: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(place) = self.shown.find(awaited) {
                let rest = self.shown.split_off(place + awaited.len());
                let seen = std::mem::replace(&mut self.shown, rest);
                self.seen.push_str(&seen);
                return seen;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let ready = poll(
                &mut [PollFd::new(
                    std::os::fd::AsFd::as_fd(&self.terminal),
                    PollFlags::POLLIN,
                )],
                timeout,
            );
            assert_eq!(
                ready,
                Ok(1),
                "not {awaited:?} but {:?}, after {:?}",
                self.shown,
                self.seen
            );
            let mut piece = [0; 4096];
            let length = self.terminal.read(&mut piece).unwrap_or(0);
            assert!(
                length > 0,
                "hung up instead of {awaited:?}: {:?}",
                self.shown
            );
            let text = String::from_utf8_lossy(&piece[..length]);
            self.shown.push_str(&text);
            // As a terminal ends lines, once.
            self.shown = self.shown.replace("\r\n", "\n");
        }
    }

    /// Has the shell do something.
    fn enters(&mut self, line: &str) {
        self.types(&format!("{line}\n"));
        self.sees(line);
    }

    /// The shell is there, in the foreground, with its terminal as it was, and says how the last command ended.
    fn is_back(&mut self, status: i32) {
        self.sees("[ready] ");
        self.enters("echo status=$?.");
        self.sees(&format!("status={status}.\n[ready] "));
        assert!(self.has_an_ordinary_terminal());
    }

    /// Whether keys are shown, and those for signals are signals.
    fn has_an_ordinary_terminal(&self) -> bool {
        let settings = tcgetattr(&self.terminal).expect("settings");
        let modes = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        settings.local_flags.contains(modes)
    }

    /// The process group in the foreground.
    fn foreground(&self) -> Pid {
        tcgetpgrp(&self.terminal).expect("TIOCGPGRP")
    }

    fn shell(&self) -> Pid {
        Pid::from_raw(self.shell.id() as i32)
    }

    /// Tells a program that the shell is where it is to be.
    fn lets_go(&self) {
        fs::write(self.directory.path().join("report"), "go\n").expect("the report");
    }

    fn report(&self) -> String {
        fs::read_to_string(self.directory.path().join("report")).unwrap_or_default()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The beginning of a command line that runs a program in a sandbox.
fn run_line(ringfence: PathBuf) -> OsString {
    let mut line = ringfence.into_os_string();
    line.push(" run --driver=sim --workdir=/ --bind ");
    line.push(guest_program());
    line.push("::ro --");
    line
}

#[test]
fn what_is_typed_reaches_a_program_that_reads_and_the_shell_after_it() {
    let mut user = User::sit_down();
    user.enters("$RUN sh -c 'read -r word; echo read:$word; stty size'");
    user.types("abc\n");
    user.sees("read:abc\n30 100\n");
    user.is_back(0);
    user.enters("$RUN cat");
    user.types("to the end\n");
    user.sees("to the end\nto the end\n");
    user.types("\x04");
    user.is_back(0);
}

/// Neither reads itself, nor is stopped when what it has started reads; so nobody would notice that keys are wanted.
#[test]
fn who_starts_a_program_that_reads_need_not_read_itself() {
    let mut user = User::sit_down();
    let ignoring = "sh -c 'trap \"\" TTIN TTOU; env --default-signal=TTIN,TTOU sh -c cat'";
    for starter in ["timeout 1000 cat", ignoring] {
        user.enters(&format!("$RUN {starter}"));
        user.types("abc\n");
        user.sees("abc\nabc\n");
        user.types("\x04");
        user.is_back(0);
    }
}

#[test]
fn a_program_that_has_the_terminal_sets_it_up_though_it_minds_no_stop() {
    let mut user = User::sit_down();
    // It fails if a handler interrupts it, as that of SIGTTOU would if it were in the background.
    user.enters(
        "$RUN bash -c 'trap : TTOU; [[ $(ps -o tpgid= -p $$) -eq $$ ]] && stty -echo && echo set:$?'",
    );
    user.sees("set:0\n");
    user.is_back(0);
    assert!(user.has_an_ordinary_terminal());
}

/// A shell ignores SIGTTIN when it substitutes a command: reads in the background fail then, and nothing is stopped.
#[test]
fn a_program_of_a_pipeline_whose_caller_ignores_that_it_is_stopped_has_keys() {
    let mut user = User::sit_down();
    for ignoring in ["x=$(%); echo $x", "(trap '' TTIN TTOU; % | cat)"] {
        let program = "echo a | $RUN sh -c 'read -r k </dev/tty; echo key:$k'";
        user.enters(&ignoring.replace('%', program));
        user.types("abc\n");
        user.sees("key:abc\n");
        user.is_back(0);
    }
}

#[test]
fn lines_of_a_program_that_does_not_have_the_terminal_end_once() {
    let mut user = User::sit_down();
    user.enters("$RUN printf 'a\\nb\\n' </dev/null");
    user.sees("\na\nb\n[ready] ");
}

#[test]
fn an_end_of_input_that_is_typed_early_is_one() {
    let mut user = User::sit_down();
    user.types("$RUN cat\nabc\n\x04");
    user.sees("abc\n");
    user.is_back(0);
}

/// The test above can fail: a terminal that keeps no lines gives its mark of an end as a byte.
#[test]
fn an_end_of_input_that_is_typed_early_is_a_byte_if_lines_are_not_taken() {
    let mut user = User::sit_down_with(ringfence_with_faults(), "sentry.typed=drop");
    user.types("$RUN cat\nabc\n\x04");
    user.sees("^@");
    user.types("\x03");
    user.is_back(130);
}

#[test]
fn an_interrupt_ends_a_program_whether_it_has_read_or_not() {
    let mut user = User::sit_down();
    user.enters("$RUN sh -c 'echo up:$((1+1)); exec sleep 1000'");
    user.sees("up:2");
    user.types("\x03");
    user.is_back(130);
    user.enters("$RUN cat");
    user.types("x\n");
    user.sees("x\nx\n");
    user.types("\x03");
    user.is_back(130);
    user.enters("$RUN cat");
    user.types("x\n");
    user.sees("x\nx\n");
    user.types("\x1c");
    user.is_back(131);
}

#[test]
fn a_program_is_stopped_and_continued_in_foreground_and_background() {
    let mut user = User::sit_down();
    for reads in [true, false] {
        let program = if reads {
            "$RUN sh -c 'echo up:$((1+1)); exec cat'"
        } else {
            // It starts nothing: a shell whose child is stopped before it executes waits unstoppably in vfork.
            "$RUN sh -c 'echo up:$((1+1)); exec sleep 1000'"
        };
        user.enters(program);
        user.sees("up:2");
        if reads {
            user.types("one\n");
            user.sees("one\none\n");
        }
        user.types("\x1a");
        user.sees("Stopped");
        user.is_back(148);
        user.enters("bg");
        user.sees("[ready] ");
        if reads {
            // It wants to read, which it may not there.
            user.enters("until jobs | grep Stopp''ed; do sleep 0.1; done");
            user.sees("Stopped");
        } else {
            user.enters("jobs");
            user.sees("Running");
        }
        user.sees("[ready] ");
        user.enters("fg");
        if reads {
            user.sees("$RUN sh");
            user.types("two\n");
            user.sees("two\ntwo\n");
            user.types("\x04");
            user.is_back(0);
        } else {
            user.sees("$RUN sh");
            // Which the shell shows before it gives the terminal away.
            eventually("it is in the foreground", || {
                user.foreground() != user.shell()
            });
            user.types("\x03");
            user.is_back(130);
        }
    }
}

#[test]
fn a_shell_in_a_sandbox_has_jobs_of_its_own() {
    let mut user = User::sit_down();
    user.enters("$RUN env PS1='[inside] ' sh -i");
    user.sees("[inside] ");
    user.enters("sh -c 'echo up:$((1+1)); exec cat'");
    user.sees("up:2\n");
    user.types("\x1a");
    user.sees("Stopped");
    user.sees("[inside] ");
    user.enters("fg");
    user.sees("cat");
    // It reads only when it is in the foreground, which the shell says beforehand.
    user.types("x\n");
    user.sees("x\nx\n");
    user.types("\x03");
    user.sees("[inside] ");
    user.enters("exit 9");
    user.is_back(9);
}

#[test]
fn a_background_program_that_reads_is_stopped_until_it_may() {
    let mut user = User::sit_down();
    user.enters("$RUN cat &");
    user.sees("[ready] ");
    user.enters("until jobs | grep Stopp''ed; do sleep 0.1; done");
    user.sees("Stopped");
    user.sees("[ready] ");
    assert_eq!(user.foreground(), user.shell());
    user.enters("fg");
    user.sees("cat\n");
    user.types("at last\n");
    user.sees("at last\nat last\n");
    user.types("\x04");
    user.is_back(0);
}

#[test]
fn others_of_a_pipeline_have_the_terminal_and_are_interrupted_with_the_program() {
    let mut user = User::sit_down();
    user.enters(
        "$RUN sh -c 'echo piped; exec sleep 1000' | sh -c 'read -r p; read -r k </dev/tty; echo $p-$k; exec cat'",
    );
    user.types("key\n");
    user.sees("piped-key\n");
    user.types("\x03");
    user.is_back(130);
    // In the middle of one, and with the terminal: what is typed interrupts the others, too.
    user.enters("sleep 1000 | $RUN sh -c 'read -r k </dev/tty; echo key:$k; exec cat' | cat");
    user.types("key\n");
    user.sees("key:key\n");
    user.types("\x03");
    user.is_back(130);
}

#[test]
fn a_script_is_interrupted_with_the_program_that_it_runs() {
    let mut user = User::sit_down();
    for program in ["exec sleep 1000", "exec cat"] {
        user.enters(&format!(
            "sh -c \"$RUN sh -c 'echo up:$((1+1)); {program}'; echo went on\""
        ));
        user.sees("up:2");
        if program.ends_with("cat") {
            user.types("x\n");
            user.sees("x\nx\n");
        }
        user.types("\x03");
        let shown = user.sees("[ready] ");
        assert!(!shown.contains("\nwent on"), "{shown:?}");
        user.types("\n");
        user.is_back(130);
    }
}

/// What a program did to its terminal when it was told to do its worst.
const STOLEN: &str = "\
go
TIOCSCTTY: EPERM
TIOCSPGRP: ok
TIOCSWINSZ: ok
TIOCSTI: EPERM
tcsetattr: ok
done
";

#[test]
fn nothing_that_a_task_does_to_its_terminal_is_done_to_its_callers() {
    let mut user = User::sit_down();
    user.enters("touch $REPORT; $RUN true");
    user.sees("[ready] ");
    let line = "${RUN% --} --bind ${REPORT%/*} -- $GUEST steal $REPORT &";
    user.enters(line);
    user.sees("[ready] ");
    user.lets_go();
    eventually("it did its worst", || user.report().contains("done\n"));
    assert_eq!(user.report(), STOLEN);
    assert_eq!(user.foreground(), user.shell());
    user.enters("read -r secret; echo \"i read $secret\"; stty size");
    user.types("a secret\n");
    user.sees("i read a secret\n30 100\n");
    user.sees("[ready] ");
    assert_eq!(user.report(), STOLEN);
    let settings = tcgetattr(&user.terminal).expect("settings");
    assert!(settings.local_flags.contains(LocalFlags::ICANON));
    // With the caller's terminal its own is gone, in the background as well.
    user.terminal = File::open("/dev/null").expect("/dev/null");
    eventually("its terminal is gone", || {
        user.report().ends_with("done\nhung up\n")
    });
}

/// The test above can fail: a program that has its caller's terminal takes it from the shell.
#[test]
fn without_a_sandbox_a_program_takes_the_terminal_from_the_shell() {
    let mut user = User::sit_down();
    // A shell would take it back as soon as it reads what the thief has typed.
    user.enters("$GUEST steal $REPORT & exec sleep 1000");
    let name = || fs::read_to_string(format!("/proc/{}/comm", user.shell()));
    eventually("there is no shell", || {
        name().is_ok_and(|name| name == "sleep\n")
    });
    user.lets_go();
    eventually("it did its worst", || user.report().contains("done\n"));
    assert_ne!(user.foreground(), user.shell());
    kill(user.foreground(), Signal::SIGKILL).expect("the thief");
}

/// What is typed is on its way to a program of a shell in the sandbox.
fn at_work_inside() -> User {
    let mut user = User::sit_down();
    user.enters("$RUN env PS1='[inside] ' sh -i");
    user.sees("[inside] ");
    user.enters("sh -c 'echo up:$((1+1)); exec sleep 1000'");
    user.sees("up:2\n");
    user
}

#[test]
fn a_sandbox_ends_when_its_terminal_is_hung_up_or_its_launcher_killed() {
    for hang_up in [true, false] {
        let mut user = at_work_inside();
        let launcher = Process::find(user.foreground()).expect("the launcher");
        let all = launcher.descendants();
        assert!(all.len() >= 6, "{all:?}");
        if hang_up {
            user.terminal = File::open("/dev/null").expect("/dev/null");
        } else {
            kill(launcher.pid, Signal::SIGKILL).expect("kill");
            user.sees("Killed");
            user.sees("[ready] ");
        }
        eventually("all of it is gone", || {
            all.iter().all(|process| !process.is_alive())
        });
    }
}

/// A script that has left a sandbox behind which has the terminal.
fn left_by_a_script(mut user: User) -> User {
    user.enters(
        "PROGRAM='read -r k </dev/tty; echo key:$k; exec sleep 1000' sh -c '$RUN sh -c \"$PROGRAM\" & until [ -s $REPORT ]; do sleep 0.1; done'",
    );
    user.types("abc\n");
    user.sees("key:abc\n");
    user.lets_go();
    user.sees("[ready] ");
    user
}

#[test]
fn a_sandbox_that_a_script_leaves_behind_leaves_the_terminal_as_it_was() {
    let mut user = left_by_a_script(User::sit_down());
    eventually("its settings are back", || user.has_an_ordinary_terminal());
    user.enters("read -r word; echo \"i read $word\"");
    user.types("a word\n");
    user.sees("i read a word\n");
    user.is_back(0);
}

/// The test above can fail: if nobody looks who has the terminal, its settings stay.
#[test]
fn a_sandbox_that_a_script_leaves_behind_leaves_a_raw_terminal_if_nobody_looks() {
    let user = User::sit_down_with(ringfence_with_faults(), "sentry.left=drop");
    let mut user = left_by_a_script(user);
    for _ in 0..10 {
        user.types("echo sum:$((1+1))\n");
        user.sees("sum:2");
        user.sees("[ready] ");
    }
    assert!(!user.has_an_ordinary_terminal());
}

/// Has a program read from its terminal while another of its pipeline has that show no keys for a moment, as to ask for a
/// password.
fn beside_one_that_hides_keys(user: &mut User) {
    let program = "until grep go $REPORT; do sleep 0.1; done >/dev/null 2>&1; read -r k </dev/tty; echo key:$k >/dev/tty";
    let beside = "found=$(stty -g </dev/tty); stty -echo </dev/tty; echo go >$REPORT; \
         until stty -a </dev/tty | grep -q -- -icanon; do sleep 0.1; done; \
         stty $found </dev/tty; echo back >>$REPORT; cat >/dev/null";
    user.enters(&format!("PROGRAM='{program}'"));
    user.sees("[ready] ");
    user.enters(&format!("BESIDE='{beside}'"));
    user.sees("[ready] ");
    user.enters("${RUN% --} --bind ${REPORT%/*} -- sh -c \"$PROGRAM\" | sh -c \"$BESIDE\"");
    eventually("the other has changed it back", || {
        user.report().contains("back\n")
    });
    user.types("abc\n");
    user.sees("key:abc\n");
    user.sees("[ready] ");
}

#[test]
fn what_another_of_its_job_changes_for_a_moment_is_not_put_back() {
    let mut user = User::sit_down();
    beside_one_that_hides_keys(&mut user);
    assert!(user.has_an_ordinary_terminal());
}

/// The test above can fail: what was found was another's, and is put back after that has changed it back.
#[test]
fn what_another_of_its_job_changes_for_a_moment_stays_if_all_is_put_back() {
    let mut user = User::sit_down_with(ringfence_with_faults(), "sentry.settings=drop");
    beside_one_that_hides_keys(&mut user);
    assert!(!user.has_an_ordinary_terminal());
}

/// Has a program stop itself, and then a process that it has started do this to it. Returns the launcher.
fn stopped_by_itself(user: &mut User, then: &str) -> Pid {
    let child =
        format!("until grep go $REPORT; do sleep 0.1; done >/dev/null 2>&1; kill -{then} $$");
    user.enters(&format!(
        "${{RUN% --}} --bind ${{REPORT%/*}} -- sh -c 'sh -c \"{child}\" & kill -STOP $$; echo on >>$REPORT; echo on:$((1+1)); exec sleep 1000'"
    ));
    user.sees("Stopped");
    user.sees("[ready] ");
    user.enters("echo job:$(jobs -p).");
    user.sees("job:");
    let number = user.sees(".");
    user.sees("[ready] ");
    let number = number.trim_end_matches('.').parse().expect("a number");
    Pid::from_raw(number)
}

#[test]
fn a_program_that_another_of_its_sandbox_continues_goes_on_for_the_shell() {
    let mut user = User::sit_down();
    stopped_by_itself(&mut user, "CONT");
    user.lets_go();
    user.sees("on:2\n");
    user.enters("jobs");
    user.sees("Running");
    user.enters("kill %%; wait %%; echo ended:$?.");
    user.sees("ended:143.");
}

#[test]
fn a_stopped_program_that_another_of_its_sandbox_ends_has_ended_for_the_shell() {
    let mut user = User::sit_down();
    let launcher = stopped_by_itself(&mut user, "KILL");
    user.lets_go();
    eventually("the launcher has ended", || {
        Process::find(launcher).is_none_or(|launcher| !launcher.is_alive())
    });
    user.enters("jobs");
    user.sees("Exit 137");
}

/// So soon that it may not have been seen to stop.
#[test]
fn a_program_that_is_stopped_and_soon_continued_by_another_goes_on() {
    let mut user = User::sit_down();
    user.enters(
        "$RUN sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sh -c \"kill -STOP $$; kill -CONT $$\"; done; echo on:$((1+1))'",
    );
    user.sees("on:2\n");
}

/// The test above can fail: a launcher that has stopped stays so, if nobody continues it.
#[test]
fn a_launcher_stays_stopped_if_nobody_watches_its_program() {
    let mut user = User::sit_down_with(ringfence_with_faults(), "sentry.watch=drop");
    let launcher = stopped_by_itself(&mut user, "CONT");
    user.lets_go();
    eventually("the program goes on", || user.report().contains("on\n"));
    let stat = fs::read_to_string(format!("/proc/{launcher}/stat")).expect("it is there");
    assert!(stat.contains(") T "), "{stat}");
    kill(launcher, Signal::SIGKILL).expect("kill");
}

/// A program that fills the user's terminal, of which nobody takes anything any more.
fn filling(user: &mut User) -> Tree {
    user.enters("$RUN yes");
    user.sees("y\ny\n");
    let before = Cell::new(0);
    eventually("the terminal is full", || {
        let filled = ioctl_fionread(&user.terminal).expect("FIONREAD");
        before.replace(filled) == filled && filled > 0
    });
    let shell = Process::find(user.shell()).expect("bash");
    let launcher = shell.children();
    let [launcher] = launcher[..] else {
        panic!("{launcher:?}");
    };
    Tree::of(launcher.pid.as_raw() as u32)
}

#[test]
fn a_program_that_fills_a_terminal_that_nobody_reads_is_ended() {
    let ends: [fn(&mut User, &Tree); 3] = [
        |user, _| user.types("\x03"),
        |_, tree| kill(tree.launcher.pid, Signal::SIGTERM).expect("it is there"),
        |_, tree| kill(tree.program.pid, Signal::SIGKILL).expect("it is there"),
    ];
    for end in ends {
        let mut user = User::sit_down();
        let tree = filling(&mut user);
        end(&mut user, &tree);
        eventually("the launcher is gone", || !tree.launcher.is_alive());
        tree.expect_gone();
        assert!(user.has_an_ordinary_terminal());
    }
}

/// The test above can fail: a launcher that gives nothing up stays.
#[test]
fn a_program_that_fills_a_terminal_that_nobody_reads_keeps_a_launcher_that_gives_nothing_up() {
    let mut user = User::sit_down_with(ringfence_with_faults(), "sentry.untaken=drop");
    let tree = filling(&mut user);
    // The sentry is ended by the first that comes after the launcher has noticed the end of the program.
    eventually("the sentry is gone", || {
        kill(tree.launcher.pid, Signal::SIGTERM).expect("it is there");
        !tree.sentry.is_alive()
    });
    assert!(tree.launcher.is_alive());
}

/// What a program leaves running writes no longer when that has ended, so that there is an end of what is shown.
#[test]
fn what_a_program_leaves_writing_does_not_keep_the_terminal() {
    let mut user = User::sit_down();
    user.enters("$RUN sh -c 'trap \"\" HUP; yes & sleep 1; exit 5'");
    user.is_back(5);
}
