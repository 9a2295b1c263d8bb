//! Which opens are meant for the driver.
//!
//! The filter stops opens for reading and writing, so most that arrive here are of ordinary files and go on
//! natively. A task may change the path between this look and the kernel's: then the kernel opens what the path says
//! by then, and the sandbox's device nodes cannot be opened.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;
use nvproxy_abi::node::{IN_EVERY_NAME, Node};

use crate::arch::OPEN;
use crate::memory;
use crate::seccomp::listener::Notification;

/// The longest path that is looked at. Paths of device nodes are far shorter.
const MAXIMUM_PATH: usize = 256;

/// An open of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOpen {
    pub node: Node,
    /// The flags of open(2).
    pub flags: i32,
}

/// The device open that `notification` asks for; `None` if it is any other open.
pub fn recognize(notification: &Notification) -> Option<DeviceOpen> {
    let arguments = &notification.arguments;
    let (directory, path, flags) = match notification.call {
        number if Some(number) == OPEN => (libc::AT_FDCWD, arguments[0], arguments[1] as i32),
        libc::SYS_openat => (arguments[0] as i32, arguments[1], arguments[2] as i32),
        _ => return None,
    };
    let mut buffer = [0; MAXIMUM_PATH];
    let length = memory::read_some(notification.task, path, &mut buffer).ok()?;
    let end = buffer[..length].iter().position(|byte| *byte == 0)?;
    let path = &buffer[..end];
    let mark = IN_EVERY_NAME.as_bytes();
    if !path.windows(mark.len()).any(|window| window == mark) {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(path));
    let absolute = absolute(notification.task, directory, path)?;
    let name = normalized(&absolute)
        .strip_prefix("/dev")
        .ok()?
        .to_str()?
        .to_owned();
    Some(DeviceOpen {
        node: Node::from_file_name(&name)?,
        flags,
    })
}

fn absolute(task: Pid, directory: RawFd, path: &Path) -> Option<Cow<'_, Path>> {
    if path.is_absolute() {
        return Some(Cow::Borrowed(path));
    }
    let base: PathBuf = if directory == libc::AT_FDCWD {
        format!("/proc/{task}/cwd").into()
    } else {
        format!("/proc/{task}/fd/{directory}").into()
    };
    Some(Cow::Owned(std::fs::read_link(base).ok()?.join(path)))
}

/// The path without `.` and `..`, by its text alone. Symbolic links are not followed: a path through one is opened
/// natively, which fails on device nodes.
fn normalized(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normalized.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir | Component::Normal(_) => normalized.push(component),
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalized_by_their_text() {
        let normal = |path: &str| {
            normalized(Path::new(path))
                .to_str()
                .map(str::to_owned)
                .unwrap_or_default()
        };
        assert_eq!(normal("/dev/nvidia0"), "/dev/nvidia0");
        assert_eq!(normal("//dev/./x/../nvidia0"), "/dev/nvidia0");
        assert_eq!(normal("/../../dev/nvidia0"), "/dev/nvidia0");
    }
}
