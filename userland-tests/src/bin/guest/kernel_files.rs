//! What the kernel shows of itself: all that can be opened in `/proc` and `/sys` but what belongs to processes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Outcome;

/// What is tried with each file.
#[derive(Clone, Copy)]
enum Trial {
    /// It is opened. Nothing is read, since that may have effects.
    Open,
    /// A byte is read.
    Read,
    /// It is given the mode that it has.
    Permit,
}

/// Prints each file of which an argument's trial succeeds: without one opening it, with `read` reading, with `permit`
/// changing its mode. Prints besides each directory that can be listed and has something in it.
pub fn list(arguments: &[String]) -> Outcome {
    let trial = match arguments {
        [] => Trial::Open,
        [trial] if trial == "read" => Trial::Read,
        [trial] if trial == "permit" => Trial::Permit,
        _ => return Err("nothing, \"read\" or \"permit\"".into()),
    };
    let mut output = BufWriter::new(std::io::stdout().lock());
    for root in ["/proc", "/sys"] {
        walk(Path::new(root), trial, &mut output)?;
    }
    Ok(output.flush()?)
}

fn walk(directory: &Path, trial: Trial, output: &mut impl Write) -> Outcome {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    let mut is_empty = true;
    for entry in entries {
        // A directory can be gone once it is read.
        let Ok(entry) = entry else { break };
        is_empty = false;
        let name = entry.file_name();
        if name.as_encoded_bytes().iter().all(u8::is_ascii_digit) && directory == Path::new("/proc")
        {
            continue;
        }
        let path = entry.path();
        let Ok(status) = entry.metadata() else {
            continue;
        };
        if status.is_dir() {
            walk(&path, trial, output)?;
        } else if succeeds(trial, &path, &status) {
            writeln!(output, "{}", path.display())?;
        }
    }
    if !is_empty {
        writeln!(output, "{}/", directory.display())?;
    }
    Ok(())
}

fn succeeds(trial: Trial, path: &Path, status: &Metadata) -> bool {
    // A link leads to what is tried where it lies, and what covers a file is a device.
    let is_opened = || status.is_file().then(|| open(path)).flatten();
    match trial {
        Trial::Open => is_opened().is_some(),
        Trial::Read => is_opened().is_some_and(|mut file| {
            let _ = file.read(&mut [0]);
            true
        }),
        Trial::Permit => {
            !status.is_symlink() && fs::set_permissions(path, status.permissions()).is_ok()
        }
    }
}

/// Opens a file so that neither this nor what is read of it waits.
fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).ok()
}
