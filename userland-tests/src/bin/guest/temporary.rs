//! The directories of the sandbox's own, filled until there is no more room (`--tmp-size 8MiB`).

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::Outcome;

const MIB: usize = 1 << 20;
const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
/// More files than there can be.
const MANY: u32 = 20_000;

/// Writes up to 3 MiB into a file in `directory`, and returns how many there was room for.
fn fill(directory: &str) -> std::io::Result<usize> {
    let mut file = File::create(Path::new(directory).join("filled"))?;
    let (piece, mut written) = (vec![1; MIB / 4], 0);
    while written < 3 * MIB {
        match file.write(&piece) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written / MIB)
}

/// Whether the number of files in `directory` is limited.
fn is_bounded(directory: &str) -> bool {
    (0..MANY).any(|index| File::create(Path::new(directory).join(format!("file-{index}"))).is_err())
}

pub fn run(_: &[String]) -> Outcome {
    for place in PLACES {
        let mode = fs::metadata(place)?.permissions().mode() & 0o7777;
        let status = statvfs(place)?;
        let bytes = status.blocks() * status.fragment_size();
        println!("{place}: mode {mode:o}, {} MiB", bytes as usize / MIB);
    }
    for place in PLACES {
        println!("{place}: {} MiB", fill(place)?);
    }
    fs::remove_file("/tmp/filled")?;
    println!("/tmp emptied: {} MiB for /dev/shm", fill("/dev/shm")?);
    fs::remove_file("/var/tmp/filled")?;
    let program = "/dev/shm/program";
    fs::write(program, "#!/bin/sh\n")?;
    fs::set_permissions(program, Permissions::from_mode(0o755))?;
    let refused = Command::new(program).spawn().err();
    let refused = refused.is_some_and(|error| error.kind() == ErrorKind::PermissionDenied);
    println!(
        "executed in /dev/shm: {}",
        if refused { "EACCES" } else { "ok" }
    );
    for place in ["/tmp", "/dev"] {
        println!(
            "files in {place}: {}",
            if is_bounded(place) {
                "bounded"
            } else {
                "as many as one likes"
            }
        );
    }
    Ok(())
}
