//! Where the container's first process is executed from: a place that nothing of the container's can exchange.
//!
//! The idea: who decides what lies at the path that the low-level runtime executes has what is lent to the first process. An
//! image decides where its links lead, to `/dev` or `/proc` too, and with them where a volume is mounted. Another container can
//! rename directories of a volume while this one starts. So the executable is mounted on a directory of the kernel's own `/proc`,
//! which nobody renames or removes, when everything else has been mounted. That is done by a hook (`createContainer` of the OCI
//! specification), which the low-level runtime starts in the container's view of mounts, before it enters the container's root.
//!
//! The hook follows no link on the way from the root, and looks that this is the root which the front has seen, and that nothing is
//! mounted over what the container's `/proc` says of a process. The root's own
//! directory is the container's alone: nobody else writes there while the container is made.
//!
//! The caller is the low-level runtime, by the words that the front has written. Nothing of the image's has run before.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::log;
use ringfence_sentry::system_calls::exit_at_once;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, mkdirat, openat, openat2};
use serde_json::{Value, json};

use super::told::PLACE;
use crate::launch::mountinfo::Mount;
use crate::launch::mounts::{READ_ONLY, Tree, mount_of};

/// The word that asks for the hook: `ringfence container-seat ROOT DEVICE:INODE EXECUTABLE [NAME NODE]...`
const WORD: &str = "container-seat";
/// What the executable is called in its place.
const NAME: &str = "ringfence";
/// The place without the mechanism, as anything is mounted in a container.
const ORDINARY: &str = "/dev/.ringfence";

/// Whether a test has the place be one that the container decides about, to show that it would notice.
fn is_ordinary() -> bool {
    ringfence_faults::at(Point::Seat) == Some(Act::Drop)
}

/// The first process's executable, as it is called in the container.
pub fn executable() -> String {
    let place = if is_ordinary() { ORDINARY } else { PLACE };
    format!("{place}/{NAME}")
}

/// The hook, as a specification names it. `root` is the container's, and `executable` this one; both from the host's root.
/// `beside` are what else is in the first process's place, each with a name there: nodes that nothing can be opened by.
pub fn hook(
    root: &Path,
    executable: &Path,
    beside: &[(String, PathBuf)],
) -> Result<Value, Failure> {
    let identity = identity(&fs::metadata(root).attempt(root.display())?);
    let mut words = vec![
        json!(NAME),
        json!(WORD),
        json!(root),
        json!(identity),
        json!(executable),
    ];
    words.extend(
        beside
            .iter()
            .flat_map(|(name, source)| [json!(name), json!(source)]),
    );
    Ok(json!({
        "path": executable,
        "args": words,
        "env": ringfence_faults::environment(),
    }))
}

fn identity(found: &fs::Metadata) -> String {
    format!("{}:{}", found.dev(), found.ino())
}

/// Acts as the hook, if this was started as that.
pub fn if_asked(words: impl Iterator<Item = OsString>) {
    let mut words = words.skip(1);
    if words.next().is_none_or(|word| word != WORD) {
        return;
    }
    let words: Vec<OsString> = words.collect();
    let done = match &words[..] {
        [root, expected, executable, beside @ ..] => {
            seat(root.as_ref(), expected, executable.as_ref(), beside)
        }
        _ => Err(Failure::setup(format!("{WORD}: words are missing"))),
    };
    let status = match done {
        Ok(()) => 0,
        Err(failure) => {
            log::print(&format!("ringfence: {failure}\n"));
            failure.status
        }
    };
    exit_at_once(i32::from(status))
}

fn seat(
    root: &Path,
    expected: &OsStr,
    executable: &Path,
    beside: &[OsString],
) -> Result<(), Failure> {
    // Containers that share a process namespace see this process.
    prctl::set_dumpable(false).attempt("prctl")?;
    // The low-level runtime writes the container's state there, and gives up a container whose hook does not take it.
    let read = io::copy(&mut io::stdin(), &mut io::sink());
    read.attempt("the container's state")?;
    let root = fs::File::open(root).attempt(root.display())?;
    let found = root.metadata().attempt("the container's root")?;
    if *identity(&found) != *expected {
        return Err(Failure::setup(
            "something is mounted over the container's root: mount no volume where the image leads it there",
        ));
    }
    expect_no_process_covered(&root)?;
    let place = place(&root)?;
    // Whoever the program is, the first process tries there whether a node can be opened. The program has another view.
    let options = [("size", "64k"), ("mode", "1777")];
    let seat =
        Tree::in_memory(&options, libc::MOUNT_ATTR_NOSUID).attempt("the first process's place")?;
    seat.attach_to(place.as_fd())
        .attempt("the first process's place")?;
    for pair in beside.chunks_exact(2) {
        let (name, node) = (Path::new(&pair[0]), Path::new(&pair[1]));
        show(&seat, name, node, READ_ONLY | libc::MOUNT_ATTR_NOEXEC)?;
    }
    // To be read only: who has got at it by /proc/PID/exe would write to the host's otherwise.
    let attributes = match ringfence_faults::at(Point::Written) {
        Some(Act::Drop) => libc::MOUNT_ATTR_NOSUID,
        _ => READ_ONLY,
    };
    show(&seat, Path::new(NAME), executable, attributes)
}

/// Fails if something is mounted over what `/proc` says of a process: whoever reads it there, as libraries do, would be told by the
/// image. crun mounts a volume where an image's link leads.
fn expect_no_process_covered(root: &fs::File) -> Result<(), Failure> {
    const DOING: &str = "the container's mounts";
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Covered) == Some(Act::Drop) {
        return Ok(());
    }
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strictly = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    // What is no directory there is refused next.
    let Ok(processes) = openat2(root, "proc", how, Mode::empty(), strictly) else {
        return Ok(());
    };
    let own = mount_of(processes.as_fd()).attempt(DOING)?.id;
    let list = fs::read("/proc/self/mountinfo").attempt(DOING)?;
    let mounts: Vec<Mount<'_>> = list
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::of)
        .collect();
    let point = mounts.iter().find(|mount| mount.id == own);
    let point = point.map(Mount::path).unwrap_or_default();
    let below = mounts.iter().filter(|mount| mount.parent == own);
    for mount in below {
        let path = mount.path();
        let name = path.strip_prefix(&point).unwrap_or(&path).iter().next();
        let name = name.unwrap_or_default().as_bytes();
        let is_process = name.first().is_some_and(u8::is_ascii_digit);
        if is_process || [&b"self"[..], b"thread-self"].contains(&name) {
            return Err(Failure::setup(format!(
                "something is mounted over {}, where the container's /proc is to tell of a process: mount no volume where the image leads it there",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Mounts a copy of `source` under this name, which is new. It may be in a directory of its own.
fn show(seat: &Tree, name: &Path, source: &Path, attributes: u64) -> Result<(), Failure> {
    let directory = name.parent().filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory {
        match mkdirat(seat, directory, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).attempt("the first process's place"),
        }
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(seat, name, flags, Mode::RUSR | Mode::XUSR);
    let file = file.attempt("the first process's place")?;
    Tree::copy(source)
        .and_then(|copy| copy.with_attributes(attributes))
        .and_then(|copy| copy.attach_to(file.as_fd()))
        .attempt(source.display())
}

/// The directory on which the place is mounted.
fn place(root: &fs::File) -> Result<OwnedFd, Failure> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if is_ordinary() {
        let place = ORDINARY.trim_start_matches('/');
        mkdirat(root, place, Mode::RWXU).attempt(ORDINARY)?;
        return openat(root, place, how, Mode::empty()).attempt(ORDINARY);
    }
    let strictly = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let of_kernel = |path: &str| {
        let place = openat2(root, path, how, Mode::empty(), strictly).ok()?;
        let found = fstatfs(&place).ok()?;
        (found.f_type == PROC_SUPER_MAGIC).then_some(place)
    };
    // That of all processes; what is below can be covered by mounts.
    of_kernel("proc")
        .and_then(|_| of_kernel(PLACE.trim_start_matches('/')))
        .ok_or_else(|| {
            Failure::setup(
                "the container's /proc is not the kernel's: have the specification mount it on a directory, and nothing over it",
            )
        })
}
