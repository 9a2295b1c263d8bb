//! What a program starts with: its place, environment, descriptors and terminal.
//!
//! `unsafe` is here because of calls that have no wrapper.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::*;

#[test]
fn programs_start_where_the_caller_is_if_the_sandbox_has_that() {
    let usr = Path::new("/usr");
    assert_eq!(run_in(usr, &[], &["pwd"]), Ended::printing("/usr\n"));
    assert_eq!(
        run_in(usr, &["--workdir", "/tmp"], &["pwd"]),
        Ended::printing("/tmp\n")
    );
    let line = "ringfence: --workdir /nowhere: No such file or directory: name a directory that the sandbox has";
    assert_eq!(
        run_in(usr, &["--workdir", "/nowhere"], &["pwd"]),
        Ended::failing(125, line)
    );
}

#[test]
fn a_program_that_is_hidden_is_not_found_and_the_user_told_why() {
    let directory = Directory::in_place(Path::new("/tmp"), "hidden");
    let here = text(directory.path());
    let program = directory.path().join("program");
    fs::copy("/bin/true", &program).expect("a copy");
    let warning = format!(
        " WARN the program starts in /, because the sandbox has no {here}: No such file or directory: use --bind . to \
         show it\n"
    );
    let missing =
        "No such file or directory in the sandbox: use --bind to show it what the host has there\n";
    let ended = run_in(directory.path(), &[], &["./program"]);
    assert_eq!(
        ended.stderr,
        format!("{warning}ringfence: ./program: {missing}")
    );
    assert_eq!(ended.status, 127);
    let ended = run_in(Path::new("/"), &[], &[text(&program)]);
    assert_eq!(
        ended,
        Ended {
            status: 127,
            stdout: String::new(),
            stderr: format!("ringfence: {}: {missing}", text(&program))
        }
    );
    assert_eq!(
        run_in(directory.path(), &["--bind", "."], &["./program"]),
        Ended::printing("")
    );
}

#[test]
fn the_environment_is_the_callers_or_what_was_asked_for() {
    let run = |options: &[&str]| {
        let mut command = guest_with(options, &["surroundings"]);
        command.env_clear().env("KEPT", "1").env("OTHER", "2");
        finish(&mut command)
    };
    let expected = |variables: &str| {
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        Ended::printing(&format!("{user}:{group} in /\n{variables}[]\n"))
    };
    assert_eq!(run(&[]), expected("KEPT=1\nOTHER=2\n"));
    assert_eq!(
        run(&["--env", "OTHER=3=4", "--env", "NEW="]),
        expected("KEPT=1\nNEW=\nOTHER=3=4\n")
    );
    let options = [
        "--clear-env",
        "--env",
        "KEPT",
        "--env",
        "ABSENT",
        "--env",
        "NEW=5",
    ];
    assert_eq!(run(&options), expected("KEPT=1\nNEW=5\n"));
}

#[test]
fn programs_are_looked_up_where_the_sandboxs_path_says() {
    let path = "PATH=/usr/bin:/bin";
    let ended =
        finish(ringfence_run(&["--clear-env", "--env", path]).args(["sh", "-c", "echo $PATH"]));
    assert_eq!(ended, Ended::printing("/usr/bin:/bin\n"));
    let ended = finish(ringfence_run(&["--env", "PATH=/nowhere"]).arg("sh"));
    assert_eq!(
        ended,
        Ended::failing(127, "ringfence: sh: No such file or directory")
    );
}

#[test]
fn inherited_descriptors_are_closed_unless_asked_for() {
    let run = |options: &[&str]| {
        let sandbox = guest_with(options, &["surroundings"]);
        let mut shell = Command::new("sh");
        let script = "exec \"$@\" 3</etc/passwd 4</etc/group 9</etc/hosts";
        shell.args(["-c", script, "sh"]).arg(sandbox.get_program());
        shell.args(sandbox.get_args()).stdin(Stdio::null());
        let ended = finish(&mut shell);
        let last = ended.stdout.lines().last().unwrap_or_default().to_owned();
        (ended.status, last, ended.stderr)
    };
    assert_eq!(run(&[]), (0, "[]".to_owned(), String::new()));
    let both = "[(3, \"/etc/passwd\"), (4, \"/etc/group\")]".to_owned();
    assert_eq!(run(&["--preserve-fds", "2"]), (0, both, String::new()));
    let line = "ringfence: --preserve-fds 3: descriptor 5: Bad file descriptor: open it, as with 5<FILE in a shell\n";
    assert_eq!(
        run(&["--preserve-fds", "3"]),
        (125, String::new(), line.to_owned())
    );
}

/// From a directory of the host `..` leads through all of the host's files.
#[test]
fn a_directory_is_not_inherited() {
    let run = |options: &[&str], redirection: &str| {
        let sandbox = guest_with(options, &["surroundings"]);
        let mut shell = Command::new("sh");
        let script = format!("exec \"$@\" {redirection}");
        shell.args(["-c", &script, "sh"]).arg(sandbox.get_program());
        finish(shell.args(sandbox.get_args()).stdin(Stdio::null()))
    };
    let refused = |number: u32| {
        let line = format!(
            "ringfence: descriptor {number} is a directory, from which the program would reach all files of the host: close \
             it, as with {number}<&- in a shell, and show the directory with --bind"
        );
        Ended::failing(125, &line)
    };
    assert_eq!(run(&[], "</"), refused(0));
    assert_eq!(run(&["--preserve-fds", "1"], "3</etc"), refused(3));
    assert_eq!(run(&[], "3</etc").status, 0);
}

/// A sandbox that inherits a file opened with these flags, which show neither that it may be read nor that it may be written.
fn run_with_opened(ringfence: &Path, file: &Path, flags: nix::fcntl::OFlag) -> Ended {
    let opened = nix::fcntl::open(file, flags, nix::sys::stat::Mode::empty()).expect("a file");
    let mut shell = Command::new("sh");
    let script = format!("exec \"$@\" 3<&{}", opened.as_raw_fd());
    shell.args(["-c", &script, "sh"]).arg(ringfence);
    shell.args([
        "run",
        "--driver=sim",
        "--workdir=/",
        "--preserve-fds=1",
        "--",
        "true",
    ]);
    shell.env("RINGFENCE_FAULTS", "sentry.given=drop");
    finish(shell.stdin(Stdio::null()))
}

#[test]
fn what_is_opened_neither_to_be_read_nor_to_be_written_is_not_inherited() {
    let directory = Directory::new("neither");
    let file = directory.path().join("file");
    fs::write(&file, "content").expect("a file");
    let access_3 = nix::fcntl::OFlag::from_bits_retain(libc::O_ACCMODE);
    for (flags, reason) in [
        (nix::fcntl::OFlag::O_PATH, "of a path only (O_PATH)"),
        (
            access_3,
            "open neither to be read nor to be written (access mode 3)",
        ),
    ] {
        let ended = run_with_opened(&ringfence_program(), &file, flags);
        let beginning = format!("ringfence: descriptor 3 is {reason}, ");
        assert!(
            ended.status == 125 && ended.stderr.starts_with(&beginning),
            "{ended:?}"
        );
        // That this can fail.
        let ended = run_with_opened(&ringfence_with_faults(), &file, flags);
        assert_eq!(ended, Ended::printing(""));
    }
}

/// Those that the kernel shows as ordinary files: a message queue to be written, memory that the kernel itself does not see
/// (where the machine has such), and a namespace.
#[allow(unsafe_code)]
fn objects_like_files() -> Vec<OwnedFd> {
    let name = std::ffi::CString::new(format!("/ringfence-{}", std::process::id())).unwrap();
    let no_attributes = std::ptr::null::<libc::mq_attr>();
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    // SAFETY: the name ends with a zero byte; attributes may be missing (mq_open(3)).
    let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, no_attributes) };
    // SAFETY: as above.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    // SAFETY: no address is given.
    let memory = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) } as i32;
    assert!(queue >= 0, "{}", std::io::Error::last_os_error());
    let made = [queue, memory].into_iter().filter(|made| *made >= 0);
    // SAFETY: each was made just now, and nobody else has it.
    let made = made.map(|made| unsafe { OwnedFd::from_raw_fd(made) });
    let namespace = File::open("/proc/self/ns/net").expect("a namespace");
    made.chain([namespace.into()]).collect()
}

/// By which the kernel does something in its maker's name: an io_uring's entries, signals to a process outside.
#[test]
fn objects_of_the_kernel_are_not_inherited() {
    let run = |mut sandbox: Command, object: &OwnedFd| {
        let object = object.try_clone().expect("a descriptor");
        finish(sandbox.arg("true").stdin(Stdio::from(object)))
    };
    let process = rustix::process::getpid();
    let objects = [
        rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()),
        rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC),
    ];
    let objects = objects.map(|object| object.expect("an object of the kernel"));
    let objects = objects.into_iter().chain(objects_like_files());
    for object in objects {
        let line = "ringfence: descriptor 0 is an object of the kernel (such as an io_uring or a pidfd), by which the program \
                    could act in its maker's name: close it, as with 0<&- in a shell, and leave it out";
        let ended = run(ringfence_run(&[]), &object);
        assert_eq!(ended, Ended::failing(125, line));
        // That this can fail.
        let ended = run(ringfence_under("sentry.given=drop", &[]), &object);
        assert_eq!(ended, Ended::printing(""));
    }
    let counter = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    let ended = run(ringfence_run(&[]), &counter.expect("a counter"));
    assert_eq!(ended, Ended::printing(""));
}

/// Runs this by a caller that ignores the signal of children that end, and that of files that are too long.
fn run_ignoring(command: &Command) -> Ended {
    let mut caller = Command::new("env");
    caller.arg("--ignore-signal=CHLD,XFSZ");
    caller.arg(command.get_program()).args(command.get_args());
    finish(caller.stdin(Stdio::null()))
}

#[test]
fn what_the_caller_ignores_the_program_ignores_and_ringfence_does_not() {
    let mut sandbox = ringfence_run(&[]);
    let ended = run_ignoring(sandbox.args(["sh", "-c", "exit 7"]));
    assert_eq!((ended.status, ended.stderr.as_str()), (7, ""));
    let ignored = |ended: Ended| {
        let mut lines = ended.stdout.lines();
        lines
            .find(|line| line.starts_with("SigIgn:"))
            .map(str::to_owned)
    };
    let (mut native, mut sandbox) = (Command::new("cat"), ringfence_run(&[]));
    sandbox.arg("cat");
    for command in [&mut native, &mut sandbox] {
        command.arg("/proc/self/status");
    }
    let outside = ignored(run_ignoring(&native));
    assert_eq!(ignored(run_ignoring(&sandbox)), outside);
    assert_ne!(ignored(finish(&mut sandbox)), outside);
}

/// A sandbox whose caller has set a limit.
fn limited_by(limit: &str) -> Ended {
    let mut sandbox = ringfence_run(&[]);
    sandbox.arg("true");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
    shell.arg(sandbox.get_program()).args(sandbox.get_args());
    finish(shell.stdin(Stdio::null()))
}

/// In a shell's blocks of 512 bytes. The memory that sentry and server share counts as a file.
#[test]
fn a_limit_of_files_that_is_too_small_is_named() {
    let line = "ringfence: the limit of files (ulimit -f) is 4200 KiB, which is too little to run: raise it to 4388 KiB at \
                least";
    assert_eq!(limited_by("-f 8400"), Ended::failing(125, line));
    assert_eq!(limited_by("-f 9999"), Ended::printing(""));
    // Where the caller may raise it, Ringfence does. The program has the caller's.
    assert_eq!(limited_by("-S -f 1"), Ended::printing(""));
}

#[test]
fn a_limit_of_data_that_is_too_small_is_named() {
    let line = "ringfence: the limit of data (ulimit -d) is 8000 KiB, which is too little to run: raise it to 16384 KiB at least";
    assert_eq!(limited_by("-d 8000"), Ended::failing(125, line));
    assert_eq!(limited_by("-d 16384"), Ended::printing(""));
}

#[test]
fn terminals_can_be_made_and_nothing_typed_on_the_callers() {
    let pair = nix::pty::openpty(None, None).expect("a terminal");
    let mut command = guest_with(&[], &["terminals"]);
    command.stdin(pair.slave.try_clone().expect("a duplicate"));
    let expected = "made /dev/pts/0\nTIOCSTI: EPERM\nTIOCLINUX: EPERM\n";
    assert_eq!(finish(&mut command), Ended::printing(expected));
    drop(pair.slave);
    drop(command);
    let mut shown = String::new();
    // A terminal whose other end is closed ends in an error.
    let _ = File::from(pair.master).read_to_string(&mut shown);
    assert_eq!(shown, "");
}

#[test]
fn a_demonstration_runs_wherever_the_executable_is() {
    let executables = Reachable::new();
    let ended = finish(
        Command::new(&executables.ringfence)
            .args(["demo", "--driver=sim"])
            .current_dir("/tmp")
            .stdin(Stdio::null()),
    );
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(!ended.stderr.contains("WARN"), "{ended:?}");
}
