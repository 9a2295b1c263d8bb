//! What a sandbox has of the host: nothing that it was not given. And what it is given.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use userland_tests::processes::Tree;
use userland_tests::{
    Directory, Ended, Reachable, finish, guest_program, guest_with, ringfence_program,
    ringfence_run, wait_for,
};

/// Nobody.
const USER: u32 = 65534;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a scenario of the guest as this user and, if that is root, as another. It has to do the same.
fn as_root_and_user(options: &[&str], scenario: &[&str], expected: &Ended) {
    assert_eq!(&finish(&mut guest_with(options, scenario)), expected);
    if is_root() {
        let executables = Reachable::new();
        let mut arguments = vec![text(&executables.guest)];
        arguments.extend(scenario);
        assert_eq!(
            &executables.run_as(USER, options, &arguments),
            expected,
            "as user {USER}"
        );
    }
}

/// Sockets of the host: a port, a path, an abstract name.
struct Sockets {
    port: TcpListener,
    path: PathBuf,
    name: String,
    _directory: Directory,
    _listeners: [UnixListener; 2],
}

impl Sockets {
    fn new(name: &str) -> Sockets {
        let directory = Directory::new(name);
        let path = directory.path().join("socket");
        let name = format!("ringfence-test-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        Sockets {
            port: TcpListener::bind("127.0.0.1:0").expect("a port"),
            _listeners: [
                UnixListener::bind(&path).expect("a socket"),
                UnixListener::bind_addr(&address).expect("a socket"),
            ],
            path,
            name,
            _directory: directory,
        }
    }

    fn tried_with(&self, options: &[&str]) -> String {
        let port = self
            .port
            .local_addr()
            .expect("an address")
            .port()
            .to_string();
        let scenario = ["network", &port, text(&self.path), &self.name];
        let ended = finish(&mut guest_with(options, &scenario));
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
        ended.stdout
    }
}

#[test]
fn the_hosts_network_and_sockets_are_out_of_reach() {
    let sockets = Sockets::new("unreachable");
    let expected =
        "only lo: true\nport: ECONNREFUSED\npath: ENOENT\nabstract: ECONNREFUSED\nitself: ok\n";
    assert_eq!(sockets.tried_with(&[]), expected);
}

#[test]
fn the_callers_network_can_be_given() {
    let sockets = Sockets::new("reachable-network");
    let stdout = sockets.tried_with(&["--net"]);
    let (_, stdout) = stdout.split_once('\n').expect("several lines");
    assert_eq!(stdout, "port: ok\npath: ENOENT\nabstract: ok\nitself: ok\n");
}

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
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
    ];
    let settings: Vec<&str> = settings
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(!settings.is_empty());
    let scenario: Vec<&str> = ["write"]
        .into_iter()
        .chain(settings.iter().copied())
        .collect();
    let expected: String = settings
        .iter()
        .map(|path| format!("{path}: EROFS\n"))
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

#[test]
fn what_the_kernel_tells_root_alone_is_hidden() {
    let expected = "/proc/acpi: []\n/proc/scsi: []\n/sys/firmware: []\n/proc/keys: \"\"\n/proc/timer_list: \"\"\n";
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
    assert_eq!(
        finish(&mut guest_with(&[], &scenario)),
        Ended::printing(&expected)
    );
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
    let expected = "/proc/self/fd/0: EACCES\n/dev/stdin: EACCES\n";
    assert_eq!(finish(&mut command), Ended::printing(expected));
    assert_eq!(
        fs::read_to_string(&file).ok().as_deref(),
        Some("of the host\n")
    );
    // What was given to be written can be opened anew, as shell scripts do.
    let given = File::options().append(true).open(&file).expect("the file");
    let mut command = guest_with(&[], &["write", "/dev/stderr"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(given)
        .spawn()
        .expect("ringfence");
    assert_eq!(wait_for(child), Ended::printing("/dev/stderr: ok\n"));
    assert_eq!(
        fs::read_to_string(&file).ok().as_deref(),
        Some("of the host\nwritten\n")
    );
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

#[test]
fn binds_that_cannot_be_are_explained() {
    let directory = Directory::new("no-binds");
    let here = text(directory.path());
    let run = |bind: &str| finish(ringfence_run(&["--bind", bind]).arg("true"));
    assert_eq!(
        run("/nowhere/at-all"),
        Ended::failing(
            125,
            "ringfence: --bind /nowhere/at-all: name a file or directory that is there: ENOENT: No such file or directory"
        )
    );
    assert_eq!(
        run(&format!("{here}:/etc/at-all")),
        Ended::failing(
            125,
            &format!(
                "ringfence: --bind {here}:/etc/at-all: in the sandbox, Read-only file system (os error 30): create it, \
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

/// A root directory with the guest in it, and the libraries that it and this program are linked with.
fn root_directory() -> Directory {
    let directory = Directory::new("root");
    let root = directory.path();
    for name in ["proc", "dev", "tmp", "sys", "own"] {
        fs::create_dir(root.join(name)).expect("a directory");
    }
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let libraries = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    for library in libraries.filter(|path| path.contains(".so")) {
        // Where the loader looks for it may be another name of the same directory.
        let name = Path::new(library).file_name().expect("a name");
        for place in ["lib64", "lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.join(place)).expect("a directory");
            fs::copy(library, root.join(place).join(name)).expect("a copy");
        }
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
        finish(
            command
                .env_clear()
                .env("LD_LIBRARY_PATH", "/lib64")
                .stdin(Stdio::null()),
        )
    };
    let expected = "/: [\"dev\", \"guest\", \"lib\", \"lib64\", \"own\", \"proc\", \"sys\", \"tmp\"]\n/tmp: []\n/own: []\n";
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

    fs::remove_dir(directory.path().join("proc")).expect("removed");
    let expected = format!(
        "ringfence: --rootfs {root}: it has no directory 'proc': create one, empty, to mount the sandbox's own there"
    );
    assert_eq!(run(&[], &["close"]), Ended::failing(125, &expected));
}

/// `ringfence run` in `directory`, with these options and nothing that the tests otherwise give it.
fn run_in(directory: &Path, options: &[&str], program: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    command
        .args(["run", "--driver=sim"])
        .args(options)
        .arg("--")
        .args(program);
    finish(command.current_dir(directory).stdin(Stdio::null()))
}

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
fn root_can_run_a_program_as_another_user() {
    if !is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let directory = Directory::new("owned");
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
    let here = text(directory.path());
    let file = directory.path().join("file");
    let options = ["--clear-env", "--uid", "1234:5678", "--bind", here];
    let run = |scenario: &[&str]| {
        let executables = Reachable::new();
        let mut arguments = vec![text(&executables.guest)];
        arguments.extend(scenario);
        executables.run_as(0, &options, &arguments)
    };
    assert_eq!(
        run(&["surroundings"]),
        Ended::printing("1234:5678 in /\n[]\n")
    );
    assert_eq!(
        run(&["write", text(&file)]),
        Ended::printing(&format!("{}: ok\n", text(&file)))
    );
    let made = fs::metadata(&file).expect("the file");
    assert_eq!((made.uid(), made.gid()), (1234, 5678));
    assert_eq!(
        run(&["pin-private"]).stdout.lines().next(),
        Some("pinned: ok")
    );
}

/// NVIDIA's driver, unlike the simulated one, lets only the user who made a client pin memory for it.
#[test]
fn all_that_serves_a_program_is_the_same_user() {
    if !is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let executables = Reachable::new();
    let mut command = Command::new(&executables.ringfence);
    command
        .args(["run", "--driver=sim", "--workdir=/", "--uid=1234"])
        .args(["--", "sh", "-c", "echo ready; exec sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("ringfence");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut String::new()).expect("a line");
    let tree = Tree::of(child.id());
    for process in [tree.sentry, tree.server, tree.init, tree.program] {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("a status");
        let users = status.lines().find(|line| line.starts_with("Uid:"));
        assert_eq!(users, Some("Uid:\t1234\t1234\t1234\t1234"), "{process:?}");
    }
    tree.kill(|tree| tree.program);
    assert_eq!(wait_for(child).status, 137);
}

#[test]
fn an_ordinary_user_can_go_by_another_number() {
    if !is_root() {
        eprintln!("skipped: only root can become another user, to be nobody");
        return;
    }
    let executables = Reachable::new();
    let run = |scenario: &str| {
        let options = ["--clear-env", "--uid", "0:7"];
        executables.run_as(USER, &options, &[text(&executables.guest), scenario])
    };
    assert_eq!(run("surroundings"), Ended::printing("0:7 in /\n[]\n"));
    assert_eq!(run("pin-private").stdout.lines().next(), Some("pinned: ok"));
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
    let line = "ringfence: --preserve-fds 3: descriptor 5: EBADF: Bad file number: open it, as with 5<FILE in a shell\n";
    assert_eq!(
        run(&["--preserve-fds", "3"]),
        (125, String::new(), line.to_owned())
    );
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
fn what_administers_the_machine_is_refused() {
    let expected = "acct: EPERM\nadd_key: EPERM\nbpf: EPERM\nchroot: EPERM\nclock_settime: EPERM\n\
                    clone into a user namespace: EPERM\nclone into a network namespace: EPERM\nclone3: ENOSYS\n\
                    delete_module: EPERM\nfanotify_init: EPERM\nfcntl F_OFD_SETLK: EINVAL\n\
                    fcntl F_OFD_SETLKW: EINVAL\nfinit_module: EPERM\nfsmount: EPERM\nfsopen: EPERM\n\
                    init_module: EPERM\nio_uring_setup: ENOSYS\nioperm: EPERM\niopl: EPERM\nkcmp: EPERM\n\
                    kexec_file_load: EPERM\nkexec_load: EPERM\nkeyctl: EPERM\nmbind: EPERM\nmount: EPERM\n\
                    mount_setattr: EPERM\nmove_mount: EPERM\nopen_by_handle_at: EPERM\nopen_tree: EPERM\n\
                    perf_event_open: EPERM\npersonality without randomization: EPERM\npidfd_getfd: EPERM\n\
                    pivot_root: EPERM\nprocess_madvise: EPERM\nptrace of init: EPERM\nquotactl: EPERM\nreboot: EPERM\n\
                    request_key: EPERM\nset_mempolicy: EPERM\nsethostname: EPERM\nsetns: EPERM\nsettimeofday: EPERM\n\
                    AF_ALG: EAFNOSUPPORT\nAF_PACKET: EAFNOSUPPORT\nAF_VSOCK: EAFNOSUPPORT\nraw AF_INET: EPERM\n\
                    swapon: EPERM\nsyslog: EPERM\numount2: EPERM\nunshare: EPERM\nuserfaultfd: EPERM\nvhangup: EPERM\n";
    as_root_and_user(&[], &["forbidden"], &Ended::printing(expected));
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
