//! Whose runtime this is: root's, or that of an ordinary user, who may be root in a user namespace of his own.

use std::fs;
use std::path::PathBuf;

use nix::unistd::geteuid;

/// Whether the caller is root of the machine. Rootless engines call a runtime as root of a user namespace (user_namespaces(7)).
pub fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    is_first && geteuid().is_root()
}

/// Where the configuration of an ordinary user is. Podman passes the second of the two variables on, and not the first.
pub fn configuration_directory() -> Option<PathBuf> {
    let named = |name| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")))
}
