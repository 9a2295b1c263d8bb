//! What to do about an error of the kernel: a table, by the error and by what was attempted.
//!
//! The idea: few errors mean much by themselves. `EAGAIN` of fork(2) is a limit of processes, and of timer_create(2) one of
//! signals. But with the step that failed, most have one likely cause, and so one remedy. Whoever fails names step and error
//! (`failure.rs`), and the remedy is found here. Errors are spelled here as well, in one way, whichever library reports them.

use std::io;

use nix::errno::Errno;

/// What to do if a step fails with an error.
#[derive(Debug)]
struct Row {
    error: Errno,
    /// How the part of the message begins that names the step. Without that it is any step that no row before this one names.
    step: &'static str,
    remedy: &'static str,
}

const fn row(error: Errno, step: &'static str, remedy: &'static str) -> Row {
    Row {
        error,
        step,
        remedy,
    }
}

const PROC: &str =
    "mount -t proc proc /proc; for a chroot, mount --bind /proc DIR/proc before you enter it";
const PROCESSES: &str = "raise the limit of processes (ulimit -u), or pids.max of the control group; a sandbox takes 13 processes and \
     threads, and the program its own";
const OPEN_FILES: &str = "raise the limit of open files (ulimit -n)";
const INSTANCES: &str =
    "raise sysctl fs.inotify.max_user_instances, or the limit of open files (ulimit -n)";
const MEMORY: &str = "raise the limit of memory (ulimit -v), or memory.max of the control group";
const TMP: &str =
    "make a directory /tmp (mkdir -m 1777 /tmp), on which each process has its own files";
const NULL: &str = "make it (mknod -m 666 /dev/null c 1 3); for a chroot, mount --bind /dev DIR/dev before you enter it";
const NAMED: &str = "--name ";
const SESSION: &str =
    "have the variable XDG_RUNTIME_DIR name a directory of yours that you may write to";
const USERS: &str = "user namespaces cannot be created here";
const ALLOW_USERS: &str = "leave the chroot, if this is one, where the kernel makes none; else allow them (sysctl \
     kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0; in a container, a seccomp \
     profile that permits unshare)";

/// The first row that fits holds.
const TABLE: [Row; 37] = [
    row(Errno::EACCES, NAMED, SESSION),
    row(Errno::EPERM, NAMED, SESSION),
    row(Errno::EROFS, NAMED, SESSION),
    row(Errno::ENOENT, NAMED, SESSION),
    row(Errno::ENOTDIR, NAMED, SESSION),
    row(Errno::ENOSPC, NAMED, SESSION),
    row(Errno::EDQUOT, NAMED, SESSION),
    row(Errno::ENAMETOOLONG, NAMED, SESSION),
    row(
        Errno::ENOENT,
        "/proc/loadavg",
        "mount /proc without subset=pid",
    ),
    row(Errno::ENOENT, "/proc", PROC),
    row(Errno::ENOTDIR, "/proc/", PROC),
    row(Errno::ENOENT, "/dev/null", NULL),
    row(Errno::ENOENT, "mounting an empty root on /tmp", TMP),
    row(Errno::ENOENT, "/tmp", TMP),
    row(
        Errno::EACCES,
        "/proc/self/exe",
        "let yourself read ringfence's executable (chmod a+r), which each server is started from",
    ),
    row(
        Errno::EPERM,
        "mapping ids",
        "mount the /proc of this process namespace, to be written, too (mount -t proc proc /proc); for root in a container, \
         grant the capabilities SETUID, SETGID and SETFCAP, or run as an ordinary user",
    ),
    row(
        Errno::EACCES,
        "mapping ids",
        "mount the /proc of this process namespace, to be written, too (mount -t proc proc /proc)",
    ),
    row(
        Errno::ENOENT,
        "mapping ids",
        "mount the /proc of this process namespace (mount -t proc proc /proc)",
    ),
    row(
        Errno::EROFS,
        "mapping ids",
        "let /proc be written (mount -o remount,rw /proc)",
    ),
    row(Errno::EPERM, USERS, ALLOW_USERS),
    row(Errno::EACCES, USERS, ALLOW_USERS),
    row(
        Errno::EINVAL,
        USERS,
        "use a kernel with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_IPC_NS, CONFIG_UTS_NS and CONFIG_NET_NS",
    ),
    row(
        Errno::ENOSPC,
        "another user namespace",
        "raise sysctl user.max_user_namespaces",
    ),
    row(
        Errno::ENOSPC,
        "another mount namespace",
        "raise sysctl user.max_mnt_namespaces",
    ),
    row(
        Errno::ENOSPC,
        "another process namespace",
        "raise sysctl user.max_pid_namespaces",
    ),
    row(
        Errno::ENOSPC,
        "another IPC namespace",
        "raise sysctl user.max_ipc_namespaces",
    ),
    row(
        Errno::ENOSPC,
        "another UTS namespace",
        "raise sysctl user.max_uts_namespaces",
    ),
    row(
        Errno::ENOSPC,
        "another network namespace",
        "raise sysctl user.max_net_namespaces",
    ),
    row(Errno::EMFILE, "inotify", INSTANCES),
    row(
        Errno::ENOSPC,
        "inotify",
        "raise sysctl fs.inotify.max_user_watches",
    ),
    row(
        Errno::EAGAIN,
        "the alarm",
        "raise the limit of pending signals (ulimit -i)",
    ),
    row(Errno::EAGAIN, "starting ", PROCESSES),
    row(Errno::EAGAIN, "fork", PROCESSES),
    row(Errno::EAGAIN, "ringfence run", PROCESSES),
    row(Errno::EMFILE, "", OPEN_FILES),
    row(Errno::ENFILE, "", "raise sysctl fs.file-max"),
    row(Errno::ENOMEM, "", MEMORY),
];

/// The highest number of an error.
const LAST: i32 = 133;

/// The message with its errors spelled in one way, and with a remedy behind it if it ends in an error for which there is one.
pub fn complete(message: &str) -> String {
    let message = spelled(message);
    let Some(error) = errors().find(|error| message.ends_with(&text(*error))) else {
        return message;
    };
    // A path of the caller's is named behind its option.
    let names = |step: &str| message.starts_with(step) || message.contains(&format!(": {step}"));
    let fits = |row: &&Row| row.error == error && names(row.step);
    match TABLE.iter().find(fits) {
        Some(row) => format!("{message}: {}", row.remedy),
        None => message,
    }
}

/// A completed message without its remedy, and that.
pub fn apart(message: &str) -> (&str, Option<&'static str>) {
    let mut remedies = TABLE.iter().map(|row| row.remedy);
    remedies
        .find_map(|remedy| {
            let before = message.strip_suffix(remedy)?.strip_suffix(": ")?;
            Some((before, Some(remedy)))
        })
        .unwrap_or((message, None))
}

/// The text with each error in the C library's words alone: without the number that Rust's library puts behind them, and
/// without the name that nix puts before its own.
pub fn spelled(message: &str) -> String {
    let mut message = message.to_owned();
    for error in errors() {
        let text = text(error);
        for form in [error.to_string(), numbered(error)] {
            if message.contains(&form) {
                message = message.replace(&form, &text);
            }
        }
    }
    message
}

fn errors() -> impl Iterator<Item = Errno> {
    let all = (1..=LAST).map(Errno::from_raw);
    all.filter(|error| *error != Errno::UnknownErrno)
}

/// As Rust's library spells it.
fn numbered(error: Errno) -> String {
    io::Error::from(error).to_string()
}

fn text(error: Errno) -> String {
    let text = numbered(error);
    let number = format!(" (os error {})", error as i32);
    text.strip_suffix(&number).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_spelled_in_one_way() {
        let plain = "/x: No such file or directory: name another";
        for spelling in [
            "/x: ENOENT: No such file or directory: name another",
            "/x: No such file or directory (os error 2): name another",
            plain,
        ] {
            assert_eq!(complete(spelling), plain);
        }
        assert_eq!(
            complete("5: EBADF: Bad file number"),
            "5: Bad file descriptor"
        );
        for unchanged in ["E2: x", "x (os error 2)", "ENOENT: x"] {
            assert_eq!(complete(unchanged), unchanged);
        }
    }

    #[test]
    fn an_error_at_the_end_gets_the_remedy_of_its_step() {
        for (message, remedy) in [
            ("/proc/self/fd/9: ENOENT: No such file or directory", PROC),
            ("/dev/null: No such file or directory (os error 2)", NULL),
            (
                "mounting an empty root on /tmp: No such file or directory",
                TMP,
            ),
            ("inotify: EMFILE: Too many open files", INSTANCES),
            ("socketpair: EMFILE: Too many open files", OPEN_FILES),
            (
                "starting a thread: Cannot allocate memory (os error 12)",
                MEMORY,
            ),
            (
                "starting a thread: Resource temporarily unavailable (os error 11)",
                PROCESSES,
            ),
            (
                "the alarm of the thread that pins: EAGAIN: Try again",
                "raise the limit of pending signals (ulimit -i)",
            ),
            (
                "/proc/loadavg: No such file or directory (os error 2)",
                "mount /proc without subset=pid",
            ),
        ] {
            let completed = complete(message);
            let before = spelled(message);
            assert_eq!(completed, format!("{before}: {remedy}"));
            assert_eq!(complete(&completed), completed);
            assert_eq!(apart(&completed), (&before[..], Some(remedy)));
        }
        for other in [
            "--log /proc/x: No such file or directory",
            "/a/proc: No such file or directory",
        ] {
            assert_eq!(complete(other), other);
        }
        let other = "the socket: Resource temporarily unavailable";
        assert_eq!(complete(other), other);
        assert_eq!(apart(other), (other, None));
    }

    /// A row behind one that fits wherever it does would never be found.
    #[test]
    fn no_row_hides_another() {
        for (place, row) in TABLE.iter().enumerate() {
            let hidden = TABLE[..place]
                .iter()
                .find(|before| before.error == row.error && row.step.starts_with(before.step));
            assert!(hidden.is_none(), "{row:?}: {hidden:?}");
        }
    }
}
