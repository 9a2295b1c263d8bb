//! Further programs in containers with GPUs (`exec`): they enter the sandbox, and are what they would be without one.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use userland_tests::{Ended, eventually};

use super::lives::Called;
use super::sandboxes::{Maker, grant, plain, with_gpu};

const STAY: &str = "while :; do sleep 1000; done";

/// Starts a container, whose program stays.
#[track_caller]
pub fn start(called: &Called<'_>, specification: &Value) {
    start_with_faults(called, "", specification);
}

#[track_caller]
fn start_with_faults(called: &Called<'_>, faults: &str, specification: &Value) {
    called.front.specify(specification);
    let started = called.run_with_faults(faults, &["run", "--detach", "c"]);
    assert_eq!(started.status, 0, "{started:?}");
}

fn exec(called: &Called<'_>, words: &[&str]) -> Ended {
    called.run(&[&["exec"], words].concat())
}

/// Starts a program that stays, and returns the process that the engine gets for it.
fn exec_detached(called: &Called<'_>, words: &[&str]) -> Pid {
    let file = called.front.path("pid");
    let name = file.to_str().expect("text");
    let ended = exec(called, &[&["--detach", "--pid-file", name], words].concat());
    assert_eq!(ended, Ended::printing(""));
    let number = fs::read_to_string(file).expect("a number");
    Pid::from_raw(number.trim().parse().expect("a number"))
}

#[track_caller]
pub fn end(called: &Called<'_>) {
    let ended = called.run(&["delete", "--force", "c"]);
    assert_eq!(ended.status, 0, "{ended:?}");
}

/// Whether a process runs: one that has ended and was not waited for does not.
fn runs(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn sentry(called: &Called<'_>) -> Pid {
    let state: Value = serde_json::from_str(&called.run(&["state", "c"]).stdout).expect("a state");
    Pid::from_raw(state["pid"].as_i64().expect("a number") as i32)
}

#[test]
fn a_further_program_reaches_the_driver_by_the_sandbox() {
    for maker in Maker::all() {
        let called = maker.called();
        start(&called, &with_gpu(STAY));
        let script = "guest close && guest pin-among-threads; exit 7";
        let expected = Ended {
            status: 7,
            ..Ended::printing("freed 50 times\npinned 20 times: ok\n")
        };
        assert_eq!(
            exec(&called, &["c", "sh", "-c", script]),
            expected,
            "{}",
            maker.name
        );
        // By a document, as engines have it, and as another user.
        let mut process = with_gpu(script)["process"].clone();
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["args"] = json!(["guest", "close"]);
        let file = maker.front.path("process.json");
        fs::write(&file, process.to_string()).expect("a process");
        for option in ["--process", "-p"] {
            let ended = exec(&called, &[option, file.to_str().expect("text"), "c"]);
            assert_eq!(ended, Ended::printing("freed 50 times\n"), "{}", maker.name);
        }
        end(&called);
    }
}

const SHOWS: &str = "grep -e ^Cap -e ^NoNew -e ^Uid -e ^Gid -e ^Groups -e ^Umask /proc/self/status; echo $A $HOME; pwd; cat /proc/keys; \
                     ls /proc/acpi; echo x >/proc/sys/kernel/domainname; mount -t tmpfs x /tmp; exit 3";

/// Documents of processes, as engines write them.
fn documents() -> Vec<Value> {
    let mut process = plain(SHOWS)["process"].clone();
    process["env"] = json!(["PATH=/bin", "A=1"]);
    let mut of_user = process.clone();
    of_user["user"] = json!({"uid": 1000, "gid": 5, "additionalGids": [7], "umask": 0o27});
    of_user["cwd"] = json!("/tmp");
    of_user["noNewPrivileges"] = json!(true);
    let mut with_rights = process.clone();
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        with_rights["capabilities"][set] = json!(["CAP_CHOWN", "CAP_NET_ADMIN"]);
    }
    with_rights["user"] = json!({"uid": 7, "gid": 7});
    // Then it has the container's.
    let mut without = process.clone();
    without
        .as_object_mut()
        .expect("an object")
        .remove("capabilities");
    vec![process, of_user, with_rights, without]
}

#[test]
fn a_further_program_is_what_it_is_without_gpus() {
    let ways: [&[&str]; 4] = [
        &["c", "sh", "-c", SHOWS],
        &["c", "sh", "-c", "kill -9 $$"],
        &["c", "sh", "-c", "kill -TERM $$"],
        &["c", "sh", "-c", "echo $0 $1 >&2", "a b", "-c d"],
    ];
    for maker in Maker::all() {
        let file = maker.front.path("process.json");
        let mut told = Vec::new();
        for (called, mut specification) in [
            (maker.alone(), plain(STAY)),
            (maker.called(), with_gpu(STAY)),
        ] {
            grant(&mut specification, &["CAP_KILL", "CAP_SETUID"]);
            start(&called, &specification);
            let mut ended: Vec<Ended> = ways.iter().map(|words| exec(&called, words)).collect();
            for document in documents() {
                fs::write(&file, document.to_string()).expect("a process");
                let words = ["--process", file.to_str().expect("text"), "c"];
                ended.push(exec(&called, &words));
            }
            told.push(ended);
            end(&called);
        }
        for (inside, alone) in told[1].iter().zip(&told[0]) {
            assert_eq!(inside, alone, "{}", maker.name);
        }
        assert_eq!((told[0][0].status, told[0][1].status), (3, 137), "{told:?}");
    }
}

#[test]
fn what_cannot_be_executed_has_the_status_of_a_shells() {
    for maker in Maker::all() {
        let called = maker.called();
        start(&called, &with_gpu(STAY));
        for (words, status, line) in [
            (
                &["c", "nonexistent"][..],
                127,
                "nonexistent: No such file or directory",
            ),
            (
                &["c", "/proc/version"],
                126,
                "/proc/version: Permission denied",
            ),
            (
                &["--cwd", "/nowhere", "c", "ls"],
                125,
                "directory /nowhere: No such file or directory",
            ),
        ] {
            let expected = Ended::failing(status, &format!("ringfence: {line}"));
            assert_eq!(exec(&called, words), expected, "{}", maker.name);
        }
        let ended = exec(&called, &["-u", "root", "c", "ls"]);
        assert!(ended.stderr.contains("--user \"root\""), "{ended:?}");
        end(&called);
    }
}

#[test]
fn a_further_program_on_a_terminal_leads_a_session_there() {
    for maker in Maker::all() {
        let called = maker.called();
        let mut value = with_gpu(STAY);
        let mounts = value["mounts"].as_array_mut().expect("a list");
        mounts.insert(
            2,
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}),
        );
        start(&called, &value);
        fs::write(
            maker.front.bundle().join("rootfs/bin/shows"),
            "#!/bin/sh\nls -l /proc/self/fd/0\ncat </dev/tty &\nsleep 0\nguest close\nexit 5\n",
        )
        .expect("a script");
        let ended = called.run_on_terminal(&["exec", "-t", "c", "sh", "/bin/shows"]);
        assert_eq!(ended.status, 5, "{}: {ended:?}", maker.name);
        assert!(ended.stdout.contains("/dev/pts/0\r\n"), "{ended:?}");
        assert!(ended.stdout.contains("freed 50 times\r\n"), "{ended:?}");
        end(&called);
    }
}

/// The process that the engine gets stands in for the program: it is signalled, and ends, as that is and does.
#[test]
fn who_ends_the_process_of_the_engine_ends_the_program() {
    for maker in Maker::all() {
        let called = maker.called();
        start(&called, &with_gpu(STAY));
        let script =
            "trap 'echo told >/tmp/told; exit' TERM; echo >/tmp/begun; while :; do sleep 0.1; done";
        let process = exec_detached(&called, &["c", "sh", "-c", script]);
        eventually("it has begun", || {
            exec(&called, &["c", "cat", "/tmp/begun"]).status == 0
        });
        kill(process, Signal::SIGTERM).expect("signalled");
        eventually("it has ended", || !runs(process));
        let told = exec(&called, &["c", "cat", "/tmp/told"]);
        assert_eq!(told, Ended::printing("told\n"), "{}", maker.name);

        let process = exec_detached(&called, &["c", "sleep", "12345"]);
        let is_there = || {
            let script = "grep -l 12345 /proc/[0-9]*/cmdline | grep -v self; exit 0";
            let lines = exec(&called, &["c", "sh", "-c", script]).stdout;
            // Of the shell's own command line, and of grep's.
            lines.lines().count() > 2
        };
        eventually("it is there", is_there);
        kill(process, Signal::SIGKILL).expect("signalled");
        eventually("it is gone", || !is_there());
        end(&called);
    }
}

#[test]
fn a_further_program_ends_with_the_sentry() {
    for maker in Maker::all() {
        let called = maker.called();
        start(&called, &with_gpu(STAY));
        let process = exec_detached(&called, &["c", "sleep", "1000"]);
        assert!(runs(process));
        kill(sentry(&called), Signal::SIGKILL).expect("killed");
        eventually("it has ended", || !runs(process));
        eventually("the container has ended", || {
            called.status_of_container().as_deref() == Some("stopped")
        });
        let own_words = exec(&called, &["c", "ls"]);
        assert!(!own_words.stderr.contains("ringfence"), "{own_words:?}");
        assert_ne!(own_words.status, 0, "{own_words:?}");
        end(&called);
    }
}

#[test]
fn a_container_that_was_not_started_or_is_paused_takes_no_program() {
    for maker in Maker::all() {
        let called = maker.called();
        maker.front.specify(&with_gpu(STAY));
        assert_eq!(called.run(&["create", "c"]).status, 0);
        let line = "ringfence-runtime: container c has GPUs and was not started, so there is no sandbox yet to start a program in: \
                    start it first";
        assert_eq!(exec(&called, &["c", "ls"]), Ended::failing(1, line));
        assert_eq!(called.run(&["start", "c"]).status, 0);
        assert_eq!(exec(&called, &["c", "ls", "/tmp"]).status, 0);
        assert_eq!(called.run(&["pause", "c"]).status, 0);
        let paused = exec(&called, &["c", "ls"]);
        assert!(paused.stderr.contains("paused"), "{paused:?}");
        assert_eq!(called.run(&["resume", "c"]).status, 0);
        end(&called);
    }
}

#[test]
fn further_programs_leave_nothing_in_the_sentry() {
    for maker in Maker::all() {
        let called = maker.called();
        start(&called, &with_gpu(STAY));
        let sentry = sentry(&called);
        let count = |what: &str| {
            let all = fs::read_dir(format!("/proc/{sentry}/{what}"));
            all.map(Iterator::count).unwrap_or_default()
        };
        let counts = || (count("fd"), count("task"));
        assert_eq!(exec(&called, &["c", "guest", "close"]).status, 0);
        let before = counts();
        for _ in 0..20 {
            assert_eq!(exec(&called, &["c", "ls", "/tmp"]).status, 0);
        }
        eventually("nothing is left", || {
            let (descriptors, threads) = counts();
            descriptors <= before.0 && threads <= before.1
        });
        assert_eq!(exec(&called, &["c", "guest", "close"]).status, 0);
        end(&called);
    }
}

/// What executes the file in the executable's place says of process 1 that it is the sentry, which no task sees.
const REPLACED: &str = "while umount -l /proc; do :; done; mv /proc /x; mkdir -p /proc/tty; ln -s /x/self /x/thread-self /x/sys /proc; \
                        echo '#!/bin/sh' >/proc/tty/ringfence; echo 'cat /x/1/comm' >>/proc/tty/ringfence; \
                        chmod 755 /proc/tty/ringfence; echo >/tmp/done; while :; do sleep 1000; done";

/// Has a program that may mount put a file of its own where the executable is in the sentry's mount namespace, and starts another.
fn replace(maker: &Maker, faults: &str) -> Ended {
    let called = maker.called();
    let mut value = with_gpu(REPLACED);
    grant(&mut value, &["CAP_SYS_ADMIN"]);
    value["root"]["readonly"] = json!(false);
    start_with_faults(&called, faults, &value);
    let root = maker.front.bundle().join("rootfs");
    eventually("it is replaced", || {
        Path::new(&root).join("proc/tty/ringfence").exists()
    });
    let ended = exec(&called, &["c", "ls", "/bin/sh"]);
    end(&called);
    fs::remove_dir_all(root.join("proc")).expect("removed");
    let _ = fs::rename(root.join("x"), root.join("proc"));
    ended
}

#[test]
fn nothing_else_is_executed_in_place_of_the_executable() {
    for maker in Maker::all() {
        let ended = replace(&maker, "");
        assert_eq!(ended.stdout, "", "{}: {ended:?}", maker.name);
        assert_ne!(ended.status, 0, "{}: {ended:?}", maker.name);
    }
}

/// The test above can fail.
#[test]
fn what_a_program_puts_there_is_executed_if_it_can_guess_the_name() {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = replace(&maker, "launcher.entrance=drop");
        assert_eq!(
            ended.stdout, "ringfence-sentr\n",
            "{}: {ended:?}",
            maker.name
        );
    }
}

/// Looks for a process that has CAP_SYS_ADMIN, which no task of this container may have, while one is being started.
fn look_for_rights(maker: &Maker, faults: &str) -> Ended {
    let called = maker.called();
    let script = "until grep -q -E '^CapPrm:.*[2367abef][0-9a-f]{5}$' /proc/[0-9]*/status 2>/dev/null; do :; done; echo seen >/tmp/seen; \
                  while :; do sleep 1000; done";
    start(&called, &with_gpu(script));
    let mut process = with_gpu("cat /tmp/seen")["process"].clone();
    process["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={faults}")]);
    let file = maker.front.path("process.json");
    fs::write(&file, process.to_string()).expect("a process");
    let ended = exec(&called, &["--process", file.to_str().expect("text"), "c"]);
    end(&called);
    ended
}

#[test]
fn no_task_sees_a_process_that_has_rights_lent() {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = look_for_rights(&maker, "program.closed=delay:2000");
        let line = "cat: can't open '/tmp/seen': No such file or directory";
        assert_eq!(ended, Ended::failing(1, line), "{}", maker.name);
    }
}

/// The test above can fail.
#[test]
fn a_task_sees_a_process_that_has_rights_lent_if_it_is_made_early() {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = look_for_rights(&maker, "program.seen=drop program.closed=delay:2000");
        assert_eq!(ended, Ended::printing("seen\n"), "{}", maker.name);
    }
}

/// Has the container's own program, and then a further one, look at what the threads of another process have while that pins.
fn watched(maker: &Maker, faults: &str) -> [Ended; 2] {
    maker.with_faults();
    let called = maker.called();
    let mut value = with_gpu("");
    value["process"]["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={faults}")]);
    value["process"]["args"] = json!(["guest", "pin-watched"]);
    let own = maker.run(&value);
    value["process"]["args"] = json!(["sleep", "1000"]);
    start(&called, &value);
    let further = exec(&called, &["c", "guest", "pin-watched"]);
    end(&called);
    [own, further]
}

#[test]
fn no_program_of_a_container_sees_what_a_pin_lends() {
    let expected = Ended::printing(
        "saw lent ones: false, opened some: false, fetched some: false, saw any others: true\n",
    );
    for maker in Maker::all() {
        for ended in watched(&maker, "sentry.pin-checked=delay:1") {
            assert_eq!(ended, expected, "{}", maker.name);
        }
    }
}

/// The test above can fail.
#[test]
fn a_program_of_a_container_sees_what_a_pin_lends_if_no_task_is_held() {
    for maker in Maker::all() {
        for ended in watched(&maker, "sentry.hold=drop sentry.pin-checked=delay:10") {
            assert!(ended.stdout.starts_with("saw lent ones: true"), "{ended:?}");
        }
    }
}
