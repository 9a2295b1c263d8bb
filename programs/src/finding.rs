//! Where a program is: in the directories that a shell would look in, or in a few others.

use std::path::{Path, PathBuf};

/// A program among the directories of `PATH` and a few others that it may lie in.
pub fn find(program: &str, further: &[&str]) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .chain(further.iter().map(PathBuf::from))
        .map(|directory: PathBuf| directory.join(program))
        .find(|path: &PathBuf| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}
