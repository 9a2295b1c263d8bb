//! The program that an entry names: engines start it under this path.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringfence_sentry::failure::Failure;

use super::options::Configure;

/// What Ringfence is called as a runtime of containers.
pub const NAME: &str = "ringfence-runtime";

/// What it is called as a command.
const COMMAND: &str = "ringfence";

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
        Ok(_) if is_misnamed(Path::new(program)) => return Some(misnamed(program)),
        Ok(_) => return None,
    };
    let line = Failure::setup(format!("{program}: {problem}")).message;
    Some(format!(
        "{line}: no container can start by this runtime until Ringfence is there; --runtime-path names another place"
    ))
}

/// Whether this is Ringfence's executable under a name by which it is no runtime: it acts as one by the name that an engine calls. A
/// script that starts it can be called anything.
fn is_misnamed(program: &Path) -> bool {
    let identity = |path: &Path| {
        let status = fs::metadata(path).ok()?;
        Some((status.dev(), status.ino()))
    };
    let own = identity(Path::new("/proc/self/exe"));
    let is_own = own.is_some() && own == identity(program);
    let name = program.file_name();
    name != Some(OsStr::new(NAME)) && (is_own || name == Some(OsStr::new(COMMAND)))
}

fn misnamed(program: &str) -> String {
    let link = Path::new(program).with_file_name(NAME);
    let link = link.display();
    format!(
        "{program}: it is a runtime only by the name {NAME}: no container can start by it: make a link of that name (ln -s {program} \
         {link}), and give --runtime-path {link}"
    )
}

/// Whether an entry that names `present` can be Ringfence's, for which `asked` is wanted.
pub fn is_ours(present: &str, asked: &str) -> bool {
    let present = Path::new(present);
    let name = present.file_name();
    name.is_some_and(|name| name == NAME)
        || name == Path::new(asked).file_name()
        || is_misnamed(present)
}
