//! What the kernel shows of itself: all that can be opened in `/proc` and `/sys` but what belongs to processes.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Outcome;

/// Prints each file that can be opened, and each directory that can be listed and has something in it. With the argument
/// `read` a byte of each file is read; without, none is, since it may have effects.
pub fn list(arguments: &[String]) -> Outcome {
    let reading = arguments.iter().any(|argument| argument == "read");
    let mut output = BufWriter::new(std::io::stdout().lock());
    for root in ["/proc", "/sys"] {
        walk(Path::new(root), reading, &mut output)?;
    }
    Ok(output.flush()?)
}

fn walk(directory: &Path, reading: bool, output: &mut impl Write) -> Outcome {
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
        // What covers a file is a device.
        let Ok(status) = entry.metadata() else {
            continue;
        };
        if status.is_dir() {
            walk(&path, reading, output)?;
        } else if let Some(mut file) = status.is_file().then(|| open(&path)).flatten() {
            if reading {
                let _ = file.read(&mut [0]);
            }
            writeln!(output, "{}", path.display())?;
        }
    }
    if !is_empty {
        writeln!(output, "{}/", directory.display())?;
    }
    Ok(())
}

/// Opens a file so that neither this nor what is read of it waits.
fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).ok()
}
