//! The kernel's own file systems: seen in a sandbox only as Ringfence shows them, wherever the host has mounted others, and
//! whoever exchanges names in the root while it is made.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use userland_tests::processes::keeps_sigcont;
use userland_tests::{eventually, guest_program, showing_the_guest};

use super::files::root_directory;
use super::*;

/// What comes of opening, to write, a null device that covers a file where nothing is given to be written.
fn covering() -> &'static str {
    match linux::has_landlock() {
        true => "EACCES",
        false => "the null device",
    }
}

/// The processes that have placed `/proc` on this directory, which is the root of their mount namespace, and wait since. What
/// covers the root has a `/proc`, too, at the same path until then, but on itself.
fn with_a_placed_proc(root: &Path) -> Vec<Pid> {
    let name = root.file_name().expect("a name");
    let name = name.to_str().expect("a name in UTF-8");
    let has_placed = |process: &Pid| {
        let listing = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        let mounts: Vec<Vec<_>> = listing
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        let roots = mounts
            .iter()
            .filter(|mount| mount[3].ends_with(name) && mount[4] == "/");
        let mut numbers = roots.map(|mount| mount[0]);
        numbers.any(|root| {
            mounts
                .iter()
                .any(|mount| mount[1] == root && mount[4] == "/proc")
        })
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|process| has_placed(process) && keeps_sigcont(*process))
        .collect()
}

/// Exchanges the names of `/proc` and of another directory in the root of a sandbox, when the former is just placed. What
/// a program finds then in the latter.
fn exchanged(rules: &str) -> Ended {
    let directory = root_directory();
    let root = directory.path();
    fs::create_dir(root.join("elsewhere")).expect("a directory");
    let mut command = Command::new(ringfence_with_faults());
    command.args(["run", "--driver=sim", "--rootfs", text(root), "--workdir=/"]);
    command.args(["--", "/guest", "look"]);
    command.args(["/elsewhere/interrupts", "/elsewhere/version"]);
    command.env_clear();
    let rules = format!("sentry.placed=await-sigcont {rules}");
    command.env("RINGFENCE_FAULTS", rules).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("ringfence");
    let mut waiting = Vec::new();
    eventually("/proc is placed", || {
        waiting = with_a_placed_proc(root);
        !waiting.is_empty()
    });
    let name = |name| root.join(name);
    renameat_with(
        CWD,
        name("proc"),
        CWD,
        name("elsewhere"),
        RenameFlags::EXCHANGE,
    )
    .expect("exchanged");
    for process in waiting {
        kill(process, Signal::SIGCONT).expect("a process that waits");
    }
    wait_for(child)
}

#[test]
fn a_proc_that_is_moved_while_a_sandbox_starts_is_complete() {
    let covering = covering();
    let expected = format!(
        "/elsewhere/interrupts: empty, to write: {covering}\n\
         /elsewhere/version: text, to write: EACCES\n"
    );
    assert_eq!(exchanged(""), Ended::printing(&expected));
}

/// That the test above can fail.
#[test]
fn a_proc_that_is_moved_is_the_kernels_own_if_it_is_restricted_where_it_is_seen() {
    let expected = "/elsewhere/interrupts: text, to write: EACCES\n\
                    /elsewhere/version: text, to write: EACCES\n";
    assert_eq!(exchanged("sentry.staged=drop"), Ended::printing(expected));
}

/// Mounts below `/srv`, which has nothing else then: `/proc`, twice, with a part of `/sys` in it; `/sys`; a device; a namespace; a
/// `/proc` in what is hidden by another mount; and a directory in memory.
const PREPARE: &str = r#"
    set -e
    mount --make-rprivate /
    mount -t tmpfs tmpfs /srv
    mkdir -p /srv/ch/proc /srv/ch/sys /srv/ch/tmp /srv/hidden/proc
    touch /srv/ch/zero /srv/ch/net
    mount --rbind /proc /srv/ch/proc
    mount --rbind /proc /srv/ch/proc
    mount --rbind /sys/kernel /srv/ch/proc/tty
    mount --rbind /sys /srv/ch/sys
    mount --bind /dev/zero /srv/ch/zero
    mount --bind /proc/self/ns/net /srv/ch/net
    mount --rbind /proc /srv/hidden/proc
    mount -t tmpfs tmpfs /srv/hidden
    mount -t tmpfs tmpfs /srv/ch/tmp
    echo own > /srv/ch/tmp/file
"#;

/// Runs a command in a mount namespace of its own, in which the script has made such mounts.
fn with_mounts(script: &str, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let script = format!("{script}\nexec \"$@\"");
    unshare.args(["--", "sh", "-c", &script, "sh"]);
    unshare.arg(command.get_program()).args(command.get_args());
    unshare.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    unshare.stdin(Stdio::null());
    unshare
}

/// Looks at files in a sandbox with these options.
fn look(rules: &str, options: &[&str], paths: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver=sim"])
        .args(showing_the_guest());
    command.args(options).arg("--").arg(guest_program());
    command
        .arg("look")
        .args(paths)
        .env("RINGFENCE_FAULTS", rules);
    finish(&mut with_mounts(PREPARE, &command))
}

#[test]
fn what_the_host_has_mounted_elsewhere_of_the_kernels_is_covered() {
    let held = ["--bind", "/srv", "--bind", "/srv/ch/tmp::ro"];
    for (options, at, (device, file)) in [
        (&[][..], "/srv/ch", (covering(), "EROFS")),
        (&["--bind", "/srv/ch"], "/srv/ch", ("the null device", "ok")),
        (
            &["--bind", "/srv:/tmp/here:ro"],
            "/tmp/here/ch",
            ("the null device", "EROFS"),
        ),
        // The directories between are mounts of their own, with all that is mounted below.
        (&held, "/srv/ch", ("the null device", "EROFS")),
    ] {
        let absent = ["proc/version", "proc/tty/mm", "sys/kernel"];
        let covered = ["zero", "net"];
        let names = absent.into_iter().chain(covered).chain(["tmp/file"]);
        let paths: Vec<String> = names.map(|name| format!("{at}/{name}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let absent = absent.map(|name| format!("{at}/{name}: ENOENT, to write: ENOENT\n"));
        let covered = covered.map(|name| format!("{at}/{name}: empty, to write: {device}\n"));
        let kept = format!("{at}/tmp/file: text, to write: {file}\n");
        let expected = absent.concat() + &covered.concat() + &kept;
        assert_eq!(
            look("", options, &paths),
            Ended::printing(&expected),
            "{options:?}"
        );
    }
}

/// That the test above can fail.
#[test]
fn what_the_host_has_mounted_elsewhere_of_the_kernels_is_seen_if_it_is_not_covered() {
    let paths = ["/srv/ch/proc/version", "/srv/ch/proc/interrupts"];
    for options in [&[][..], &["--bind", "/srv/ch"]] {
        let ended = look("sentry.elsewhere=drop", options, &paths);
        let seen = |path: &str| ended.stdout.contains(&format!("{path}: text"));
        assert!(paths.into_iter().all(seen), "{ended:?}");
    }
}

/// A `/proc` in a directory that the program is given under two names, and that another bind hides under one of them. Moved by
/// the other, it comes to light under both. What the program finds there then.
fn revealed(rules: &str) -> Ended {
    let script = "
        set -e
        mount --make-rprivate /
        mount -t tmpfs tmpfs /srv
        mkdir -p /srv/given/hidden/x/proc /srv/other
        mount --rbind /proc /srv/given/hidden/x/proc
    ";
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver=sim"])
        .args(showing_the_guest());
    command.args(["--bind", "/srv/given", "--bind", "/srv/given:/tmp/alias"]);
    command.args(["--bind", "/srv/other:/srv/given/hidden", "--", "sh", "-c"]);
    command.arg(r#"mv /tmp/alias/hidden/x /tmp/alias/y && exec "$@""#);
    command.args(["sh", guest_program().to_str().expect("a path"), "look"]);
    command.args(["/srv/given/y/proc/version", "/tmp/alias/y/proc/version"]);
    command.env("RINGFENCE_FAULTS", rules);
    finish(&mut with_mounts(script, &command))
}

#[test]
fn what_comes_to_light_of_the_kernels_is_covered() {
    let absent = ["/srv/given", "/tmp/alias"]
        .map(|at| format!("{at}/y/proc/version: ENOENT, to write: ENOENT\n"));
    assert_eq!(revealed(""), Ended::printing(&absent.concat()));
}

/// That the test above can fail.
#[test]
fn what_comes_to_light_of_the_kernels_is_seen_if_only_what_is_seen_is_covered() {
    let ended = revealed("sentry.early=drop");
    let seen = "/srv/given/y/proc/version: text";
    assert!(ended.stdout.contains(seen), "{ended:?}");
}

/// What the caller names is shown, and nothing that is mounted below it.
#[test]
fn what_the_caller_names_of_the_kernels_is_shown() {
    let paths = [
        "/srv/ch/proc/version",
        "/srv/ch/proc/tty/mm",
        "/srv/ch/sys/kernel",
    ];
    let ended = look("", &["--bind", "/srv/ch/proc::ro"], &paths);
    let expected = "/srv/ch/proc/version: text, to write: EACCES\n\
         /srv/ch/proc/tty/mm: ENOENT, to write: ENOENT\n\
         /srv/ch/sys/kernel: ENOENT, to write: ENOENT\n";
    assert_eq!(ended, Ended::printing(expected));
}

/// A directory that the user may not enter, with a `/proc` in it, is covered itself: its owner could open it later.
#[test]
fn a_directory_that_the_user_may_not_enter_is_covered_if_it_has_the_kernels_files() {
    if !is_root() {
        eprintln!("skipped: only root has such directories");
        return;
    }
    let executables = Reachable::new();
    let directory = executables.guest.parent().expect("a directory");
    let user = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command
        .arg(&executables.ringfence)
        .args(["run", "--driver=sim", "--workdir=/"]);
    command.args(["--bind", &format!("{}::ro", text(directory)), "--"]);
    command
        .arg(&executables.guest)
        .args(["read", "/srv", "/srv/closed"]);
    let script = "
        set -e
        mount --make-rprivate /
        mount -t tmpfs -o mode=755 tmpfs /srv
        mkdir -p /srv/closed/proc
        chmod 700 /srv/closed
        mount --rbind /proc /srv/closed/proc
    ";
    let expected = "/srv: [\"closed\"]\n/srv/closed: []\n";
    let ended = finish(&mut with_mounts(script, &command));
    assert_eq!(ended, Ended::printing(expected));
}
