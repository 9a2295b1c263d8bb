//! The program that an entry names: engines start it under this path.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringfence_sentry::failure::Failure;

use super::options::Configure;

/// What Ringfence is called as a runtime of containers.
pub const NAME: &str = "ringfence-runtime";

/// Where it is where nothing else is known.
const ORDINARY: &str = "/usr/local/bin/ringfence-runtime";

/// The path of the program, as the options have it, or as it is found beside this executable.
pub fn choose(options: &Configure) -> Result<String, Failure> {
    let path = match &options.runtime_path {
        Some(path) => path.clone(),
        None => beside_this_executable().unwrap_or_else(|| ORDINARY.into()),
    };
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Failure::setup(format!(
            "--runtime-path {shown}: engines start it from another directory: write the path from / on"
        )));
    }
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::setup(format!(
            "--runtime-path {shown}: it is not text, and a configuration is: move the program to a path in UTF-8"
        ))
    })
}

fn beside_this_executable() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name(NAME);
    beside.exists().then_some(beside)
}

/// Why the engine could not start the program, if it could not by now.
pub fn warning(program: &str) -> Option<String> {
    let problem = match fs::metadata(program) {
        Err(error) => error.to_string(),
        Ok(status) if !status.is_file() => "it is no file".to_owned(),
        Ok(status) if status.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
        Ok(_) => return None,
    };
    let line = Failure::setup(format!("{program}: {problem}")).message;
    Some(format!(
        "{line}: no container can start by this runtime until Ringfence is there; --runtime-path names another place"
    ))
}

/// Whether an entry that names `present` can be Ringfence's, for which `asked` is wanted.
pub fn is_ours(present: &str, asked: &str) -> bool {
    let name = Path::new(present).file_name();
    name.is_some_and(|name| name == NAME) || name == Path::new(asked).file_name()
}
