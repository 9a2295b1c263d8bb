//! Who a program is, and what it may not do whoever it is.

use std::io::{BufRead, BufReader};

use userland_tests::processes::Tree;

use super::*;

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

/// The server opens the nodes that this user may open. (And NVIDIA's driver can be told to look at users: docs/ARCHITECTURE.md, Pins.)
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
fn what_administers_the_machine_is_refused() {
    let expected = "acct: EPERM\nadd_key: EPERM\nbpf: EPERM\nchroot: EPERM\nclock_settime: EPERM\n\
                    clone into a user namespace: EPERM\nclone into a network namespace: EPERM\nclone3: ENOSYS\n\
                    delete_module: EPERM\nfanotify_init: EPERM\nfcntl F_NOTIFY: EINVAL\nfcntl F_SETFL O_ASYNC: EINVAL\nfcntl F_SETLEASE: EINVAL\n\
                    fcntl F_SETSIG: EINVAL\nfcntl F_SET_RW_HINT: EINVAL\nfcntl F_SET_FILE_RW_HINT: EINVAL\nfinit_module: EPERM\nfsmount: EPERM\nfsopen: EPERM\n\
                    init_module: EPERM\nio_uring_setup: ENOSYS\nioperm: EPERM\niopl: EPERM\nkcmp of init: EPERM\n\
                    kexec_file_load: EPERM\nkexec_load: EPERM\nkeyctl: EPERM\nmount: EPERM\n\
                    mount_setattr: EPERM\nmove_mount: EPERM\nopen_by_handle_at: EPERM\nopen_tree: EPERM\n\
                    perf_event_open: EPERM\npersonality without randomization: EPERM\npivot_root: EPERM\nprlimit64 of init: EPERM\nptrace of init: EPERM\nquotactl: EPERM\nreboot: EPERM\n\
                    request_key: EPERM\nsethostname: EPERM\nsetns: EPERM\nsetsockopt SO_ATTACH_FILTER: EPERM\nsettimeofday: EPERM\n\
                    AF_ALG: EAFNOSUPPORT\nAF_PACKET: EAFNOSUPPORT\nAF_VSOCK: EAFNOSUPPORT\nraw AF_INET: EPERM\n\
                    swapon: EPERM\nsyslog: EPERM\numount2: EPERM\nunshare into a user namespace: EPERM\nuserfaultfd: EPERM\nvhangup: EPERM\n";
    as_root_and_user(&[], &["forbidden"], &Ended::printing(expected));
}
