//! What was left open to be read, and devices that were left open, cannot be changed in other ways, either.
//!
//! `unsafe` is here for a mapping.

#![allow(unsafe_code)]

use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::fchown;
use std::time::SystemTime;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use userland_tests::{guest_under, ringfence_under};

use super::*;

/// A file of this user's in a directory that no sandbox has.
struct Given {
    directory: Directory,
    before: State,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    content: String,
    mode: u32,
    owner: u32,
    modified: SystemTime,
    changed: (i64, i64),
}

impl Given {
    fn new(owner: Option<u32>) -> Given {
        let directory = Directory::new("given");
        let path = directory.path().join("file");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        fs::write(&path, "one\ntwo\n").expect("a file");
        let file = File::open(&path).expect("the file");
        file.set_permissions(PermissionsExt::from_mode(0o644))
            .expect("a mode");
        fchown(&file, owner, None).expect("an owner");
        let before = State::of(&path);
        Given { directory, before }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("file")
    }

    /// Opened, and one line of it read.
    fn open(&self) -> File {
        let mut file = File::open(self.path()).expect("the file");
        file.seek(SeekFrom::Start(4)).expect("a place");
        file
    }

    fn name(&self) -> String {
        text(&self.path()).to_owned()
    }
}

impl State {
    fn of(path: &Path) -> State {
        let status = fs::metadata(path).expect("its status");
        State {
            content: fs::read_to_string(path).expect("its content"),
            mode: status.mode() & 0o7777,
            owner: status.uid(),
            modified: status.modified().expect("a time"),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }
}

const ATTEMPTS: [&str; 9] = [
    "fchmod",
    "chmod",
    "fchown",
    "futimens",
    "utimensat",
    "fsetxattr",
    "setxattr",
    "FS_IOC_SETFLAGS",
    "truncate",
];

/// What the guest prints if nothing can be changed of what is called `name`, and `text` was read.
fn unchangeable(name: &str, text: &str) -> Ended {
    let outcomes = ATTEMPTS.map(|attempt| format!("{attempt}: EROFS\n"));
    Ended::printing(&format!("{name}\n{text:?}\n{}", outcomes.concat()))
}

#[test]
fn a_file_that_was_given_to_be_read_cannot_be_changed() {
    let given = Given::new(None);
    let mut command = guest_with(&[], &["given", "0", "600"]);
    command.stdin(given.open());
    let expected = unchangeable(&given.name(), "two\n");
    assert_eq!(finish(&mut command), expected);
    assert_eq!(State::of(&given.path()), given.before);
    // Any other descriptor fares as the standard streams do.
    let sandbox = guest_with(&["--preserve-fds", "1"], &["given", "3", "600"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 3<\"$0\""]).arg(given.path());
    shell.arg(sandbox.get_program()).args(sandbox.get_args());
    let expected = unchangeable(&given.name(), "one\ntwo\n");
    assert_eq!(finish(shell.stdin(Stdio::null())), expected);
    assert_eq!(State::of(&given.path()), given.before);
    if is_root() {
        let given = Given::new(Some(USER));
        let executables = Reachable::new();
        let guest = text(&executables.guest);
        let mut command = executables.command_as(USER, &[], &[guest, "given", "0", "600"]);
        command.stdin(given.open());
        assert_eq!(finish(&mut command), unchangeable(&given.name(), "two\n"));
        assert_eq!(State::of(&given.path()), given.before);
    }
}

fn with_faults(scenario: &[&str]) -> Command {
    guest_under("sentry.given=drop", scenario)
}

/// The test above can fail: on the mount that the caller opened it on a file can be changed.
#[test]
fn a_file_that_was_given_to_be_read_is_changed_if_it_is_not_opened_anew() {
    let given = Given::new(None);
    let mut command = with_faults(&["given", "0", "600"]);
    let ended = finish(command.stdin(given.open()));
    for attempt in ["fchmod", "chmod", "futimens", "utimensat"] {
        assert!(
            ended.stdout.contains(&format!("\n{attempt}: ok\n")),
            "{ended:?}"
        );
    }
    assert_eq!(State::of(&given.path()).mode, 0o600);
}

#[test]
fn root_cannot_change_devices_and_kernel_files_that_it_left_open() {
    if !is_root() {
        eprintln!("skipped: they are root's");
        return;
    }
    let mode = |path: &str| fs::metadata(path).expect("its status").mode() & 0o7777;
    let of_null = format!("{:o}", mode("/dev/null"));
    // As it is, should it not be refused.
    let scenario = ["given", "0", &of_null];
    let refused = finish(&mut guest_with(&[], &scenario));
    assert!(
        refused.stdout.contains("\nfchmod: EROFS\nchmod: EROFS\n"),
        "{refused:?}"
    );
    // The same of one that is written.
    let mut command = guest_with(&[], &["permit", "/dev/stderr"]);
    command
        .stdout(Stdio::piped())
        .stderr(File::options().write(true).open("/dev/null").expect("it"));
    let ended = wait_for(command.spawn().expect("ringfence"));
    assert_eq!(ended, Ended::printing("/dev/stderr: EROFS\n"));
    let changed = finish(&mut with_faults(&scenario));
    assert!(
        changed.stdout.contains("\nfchmod: ok\nchmod: ok\n"),
        "{changed:?}"
    );

    let file = "/proc/version";
    let version = fs::read_to_string(file).expect("a text");
    let before = mode(file);
    let mut command = guest_with(&[], &["given", "0", "600"]);
    command.stdin(File::open(file).expect("the file"));
    let ended = finish(&mut command);
    let read = format!("\n{version:?}\nfchmod: EROFS\nchmod: EROFS\n");
    assert!(ended.stdout.contains(&read), "{ended:?}");
    assert_eq!((ended.status, mode(file)), (0, before));
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_refused_if_it_could_be_changed() {
    let given = Given::new(None);
    let mut file = given.open();
    let other = given.directory.path().join("other");
    fs::hard_link(given.path(), &other).expect("another name");
    fs::remove_file(given.path()).expect("removed");
    let mut command = ringfence_run(&[]);
    let ended = finish(
        command
            .arg("cat")
            .stdin(file.try_clone().expect("a duplicate")),
    );
    let line = format!(
        "ringfence: descriptor 0 is of a file whose permissions and times the program could change, since it cannot be opened \
         anew to be read only: {} (deleted): No such file or directory: hand it over through a pipe, as with cat FILE | \
         ringfence run ...",
        given.name()
    );
    assert_eq!(ended, Ended::failing(125, &line));
    // Of one without a name nobody else takes notice.
    fs::remove_file(other).expect("removed");
    let mut command = ringfence_run(&[]);
    let ended = finish(
        command
            .arg("cat")
            .stdin(file.try_clone().expect("a duplicate")),
    );
    assert_eq!(ended, Ended::printing("two\n"));
    let mut rest = String::new();
    file.read_to_string(&mut rest).expect("the file");
    assert_eq!(rest, "");
}

/// A file in memory that says this, and the same opened to be read.
fn memory(text: &str) -> (File, File) {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create("lent", flags).expect("a file in memory"));
    memory.write_all(text.as_bytes()).expect("written");
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let to_read = File::open(path).expect("the same");
    (memory, to_read)
}

/// Writes to its standard input, and reads it.
const OVERWRITING: [&str; 3] = ["sh", "-c", "echo changed 1<>/proc/self/fd/0; cat"];

#[test]
fn a_file_in_memory_that_was_given_to_be_read_is_sealed_or_refused() {
    let (memory, to_read) = memory("as it is\n");
    let run = || {
        let stdin = to_read.try_clone().expect("a duplicate");
        finish(ringfence_run(&[]).args(OVERWRITING).stdin(stdin))
    };
    let line = "ringfence: descriptor 0 is of a file in memory that the program could write, though it was opened to be read: \
                seal it against writing, growing and shrinking (F_ADD_SEALS), or hand over what is in it through a pipe: \
                /memfd:lent (deleted)";
    assert_eq!(run(), Ended::failing(125, line));
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).expect("sealed");
    let ended = run();
    assert_eq!((ended.status, &*ended.stdout), (0, "as it is\n"));
}

/// Memory that processes share without a name is such a file, too, to who may open it.
#[test]
fn memory_that_is_shared_without_a_name_is_refused() {
    if !is_root() {
        eprintln!("skipped: only root opens what a process has mapped");
        return;
    }
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = NonZeroUsize::new(4096).expect("a page");
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let page = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) };
    let start = page.expect("a page").as_ptr() as usize;
    let path = format!("/proc/self/map_files/{start:x}-{:x}", start + 4096);
    let stdin = File::open(path).expect("the memory");
    let ended = finish(ringfence_run(&[]).args(OVERWRITING).stdin(stdin));
    let line = "ringfence: descriptor 0 is of a file in memory that the program could write, though it was opened to be read: \
                seal it against writing, growing and shrinking (F_ADD_SEALS), or hand over what is in it through a pipe: \
                /dev/zero (deleted)";
    assert_eq!(ended, Ended::failing(125, line));
}

/// The test above can fail: whoever has a file in memory to be read can open it to write.
#[test]
fn a_file_in_memory_that_was_given_to_be_read_is_written_if_it_is_not_refused() {
    let (_memory, to_read) = memory("as it is\n");
    let mut command = ringfence_under("sentry.given=drop", &[]);
    let ended = finish(command.args(OVERWRITING).stdin(to_read));
    assert_eq!((ended.status, &*ended.stdout), (0, "changed\n\n"));
}
