//! What a program needs besides itself: the interpreter that the first line of a script names, or the loader that an
//! executable names.
//!
//! If that is missing, the kernel says of the program that it is (execve(2)), which leads nobody to the cause.
//!
//! The files are what the program's author chose. They are read when the process is already confined as the program is to be.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

/// How many interpreters of interpreters the kernel follows (`exec_binprm`, fs/exec.c, Linux 6.12).
const DEPTH: usize = 5;
/// How much of a script the kernel looks at (BINPRM_BUF_SIZE).
const FIRST_LINE: u64 = 256;
/// Where glibc's execvp looks without `PATH` in the environment (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The interpreter because of which `name` could not be executed, which ended with `errno`. `None` if it was not that.
pub fn to_blame(name: &OsStr, errno: Errno) -> Option<PathBuf> {
    let mut program = found(name)?;
    for _ in 0..DEPTH {
        let interpreter = of(&program)?;
        match access(&interpreter, AccessFlags::X_OK) {
            Ok(()) => program = interpreter,
            Err(reason) => return (reason == errno).then_some(interpreter),
        }
    }
    None
}

/// The file that execvp(3) finds.
fn found(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut places = std::env::split_paths(&path).map(|place| place.join(name));
    places.find(is_program)
}

fn of(program: &Path) -> Option<PathBuf> {
    // What is there could be exchanged for a pipe, for whose other end an open would wait.
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(program);
    let file = file
        .ok()
        .filter(|file| file.metadata().is_ok_and(|it| it.is_file()))?;
    let mut start = Vec::new();
    (&file).take(FIRST_LINE).read_to_end(&mut start).ok()?;
    let name = match start.strip_prefix(b"#!") {
        Some(line) => named_in(line)?.to_owned(),
        None => loader(file)?,
    };
    Some(PathBuf::from(OsStr::from_bytes(&name)))
}

/// The interpreter that a script names after `#!`.
fn named_in(line: &[u8]) -> Option<&[u8]> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.find(|word| !word.is_empty())
}

/// The loader that an executable for x86-64 names.
fn loader(file: File) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    let header = FileHeader64::<LittleEndian>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let mut segments = header.program_headers(endian, &cache).ok()?.iter();
    let name = segments.find_map(|segment| segment.interpreter(endian, &cache).ok()?);
    name.map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_what_the_kernel_takes_for_it() {
        for (line, name) in [
            ("/bin/sh\necho", Some("/bin/sh")),
            (" \t/bin/sh -e -x\n", Some("/bin/sh")),
            ("/bin/sh\r\n", Some("/bin/sh\r")),
            ("/bin/sh", Some("/bin/sh")),
            ("/bin/sh\0more", Some("/bin/sh")),
            ("\n/bin/sh", None),
            ("", None),
        ] {
            assert_eq!(
                named_in(line.as_bytes()),
                name.map(str::as_bytes),
                "{line:?}"
            );
        }
    }

    #[test]
    fn the_loader_of_an_executable_is_found() {
        let own = std::env::current_exe().expect("a path");
        let loader = of(&own).expect("a loader");
        assert!(
            loader.is_absolute() && loader.exists(),
            "{}",
            loader.display()
        );
        assert_eq!(of(Path::new("/dev/null")), None);
    }
}
