//! A further program in a container with GPUs (`exec`): it enters the sandbox.
//!
//! The idea: the low-level runtime does all that it does of an `exec`, by another process than the caller's: this executable, which has
//! some rights lent and enters the sandbox before it makes the process of the program (`launch/container/further.rs`). What that needs of
//! the sentry comes by a socket in the shadow bundle, which nobody in the container sees. This process connects, and hands the
//! connection on.
//!
//! The executable is named by a path that is in the container only once the sentry is there (`Told::entrance`). So nothing can be executed
//! that the image has brought, whatever the container's state is, and the low-level runtime is asked all the same: of a container
//! that is paused or has ended it says so in its own words.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command_line::CommandLine;
use super::specification::{self, Specification, text};
use super::{bundles, handed, low_level, process, shadow};
use crate::launch::container::told::{self, HANDED_FURTHER, Told};

/// The socket by which further programs get in, in the shadow bundle.
const DOOR: &str = "door";
/// What is kept there of the container.
const RECORD: &str = "container.json";
/// How long the sentry of a container that has just been started may take until it admits anybody.
const START: Duration = Duration::from_secs(30);

/// What is kept of a container for its further programs.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    /// What the first process was told.
    told: T,
    /// The specification's own process.
    process: Value,
}

/// Keeps in the shadow bundle what is needed of a container later. Only its owner may read that: it says where the executable is in
/// the container.
pub fn keep(bundle: &Path, told: &Told, specification: &Specification) -> Result<(), Failure> {
    let record = Record {
        told,
        process: specification.0.get("process").cloned().unwrap_or_default(),
    };
    let path = bundle.join(RECORD);
    let text = serde_json::to_vec(&record).attempt(path.display())?;
    bundles::write_file(&path, &text)
}

/// Makes the socket by which further programs get in.
pub fn open(bundle: &Path) -> Result<OwnedFd, Failure> {
    const DOING: &str = "a socket for further programs";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let door = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).attempt(DOING)?;
    // What is bound has the mode of the socket then, whatever the caller's umask is. Who may write it gets a place in the sandbox.
    fchmod(&door, Mode::S_IRUSR | Mode::S_IWUSR).attempt(DOING)?;
    with_address(bundle, |address| bind(door.as_raw_fd(), address)).attempt(DOING)?;
    listen(&door, Backlog::MAXCONN).attempt(DOING)?;
    Ok(door)
}

/// Calls `then` with the socket's address. A path of it would be too long for one.
fn with_address<T>(
    bundle: &Path,
    then: impl FnOnce(&UnixAddr) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let directory = File::open(bundle)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let path = format!("/proc/self/fd/{}/{DOOR}", directory.as_raw_fd());
    then(&UnixAddr::new(path.as_str())?)
}

/// A container that the low-level runtime knows.
pub struct Found {
    state: Value,
    bundle: PathBuf,
}

impl Found {
    /// `None` if it knows none of that name.
    pub fn look_for(line: &CommandLine, low_level: &Path) -> Result<Option<Found>, Failure> {
        let Some(container) = &line.container else {
            return Ok(None);
        };
        let state = low_level::state(low_level, line.global_options(), container)?;
        Ok(state.and_then(|state| {
            let bundle = specification::bundle_of(&state)?;
            Some(Found { state, bundle })
        }))
    }

    /// Whether it is in a sandbox. The shadow's annotations are a part of its state.
    pub fn is_sandbox(&self) -> bool {
        let annotations = self.state.get("annotations");
        annotations.is_some_and(|annotations| text(annotations, shadow::MARK).is_some())
    }

    /// What it was made from.
    pub fn specification(&self) -> Result<Option<Specification>, Failure> {
        Specification::read(&self.bundle.join(bundles::SPECIFICATION))
    }

    fn status(&self) -> &str {
        text(&self.state, "status").unwrap_or_default()
    }
}

/// Starts the program. Returns only if that failed: otherwise the low-level runtime has taken over.
pub fn begin(line: &CommandLine, low_level: &Path, found: &Found) -> Result<Infallible, Failure> {
    let container = line.shown_container();
    if found.status() == "created" {
        return Err(Failure::setup(format!(
            "container {container} has GPUs and was not started, so there is no sandbox yet to start a program in: start it first"
        )));
    }
    if found.status() == "stopped" {
        // There is nothing left to enter, and the low-level runtime says so.
        return Err(low_level::hand_over(low_level, &line.given));
    }
    let path = found.bundle.join(RECORD);
    let record = fs::read(&path).map_err(|error| {
        Failure::setup(format!(
            "container {container}: what is known of its sandbox cannot be read: {}: {error}: start the container anew",
            path.display()
        ))
    })?;
    let record: Record<Told> = serde_json::from_slice(&record).attempt(path.display())?;
    let preserved = handed::preserved(line)?;
    let number = 3 + preserved;
    let process = process::asked(line, record.process)?;
    let (process, further) = shadow::make_further(process, &record.told, number)?;
    let connection = connection(line, low_level, found)?;
    let document = number + HANDED_FURTHER;
    let descriptors = vec![
        told::write(&further)?,
        connection.into(),
        told::write(&process)?,
    ];
    handed::hand_over(descriptors, number as RawFd)?;
    let further: [OsString; 4] = [
        line.form_of("process", 'p'),
        format!("/proc/self/fd/{document}").into(),
        "--preserve-fds".into(),
        (preserved + HANDED_FURTHER).to_string().into(),
    ];
    let mut words = line.given.clone();
    words.splice(line.options_end..line.options_end, further);
    Err(low_level::hand_over(low_level, &words))
}

/// A connection to the sentry, which admits whoever has it. One to nobody if the container does not run: then the low-level
/// runtime says so.
fn connection(line: &CommandLine, low_level: &Path, found: &Found) -> Result<Socket, Failure> {
    const DOING: &str = "the way into the sandbox";
    let flags = SockFlag::SOCK_CLOEXEC;
    let kind = (AddressFamily::Unix, SockType::SeqPacket);
    let connection = Socket::from(socket(kind.0, kind.1, flags, None).attempt(DOING)?);
    let connected = with_address(&found.bundle, |address| {
        connect(connection.as_fd().as_raw_fd(), address)
    });
    let is_running = |found: &Found| found.status() == "running";
    match connected {
        // One that is paused admits nobody until it goes on.
        Ok(()) if is_running(found) => {
            let admitted = connection.wait_readable(Instant::now() + START);
            admitted.attempt(DOING)?;
            Ok(connection)
        }
        Ok(()) => Ok(connection),
        Err(errno) => {
            let now = Found::look_for(line, low_level)?;
            if now.as_ref().is_some_and(is_running) {
                return Err(errno).attempt(format_args!(
                    "container {}: its sandbox takes no further program",
                    line.shown_container()
                ));
            }
            let (nobodys, _) = Socket::pair().attempt(DOING)?;
            Ok(nobodys)
        }
    }
}
