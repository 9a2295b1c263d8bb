//! What a program needs besides itself: the interpreter that the first line of a script names, or the loader that an
//! executable names.
//!
//! If that is missing, the kernel says of the program that it is (execve(2)), which leads nobody to the cause.
//!
//! The files are what the program's author chose. They are read when the process is already confined as the program is to be.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use super::format;

/// How many interpreters of interpreters the kernel follows (`exec_binprm`, fs/exec.c, Linux 6.12).
const DEPTH: usize = 5;
/// How a script begins that names its interpreter.
const MARK: &[u8] = b"#!";

/// The interpreter because of which `program` could not be executed, which ended with `errno`. `None` if it was not that.
pub fn to_blame(program: &Path, errno: Errno) -> Option<PathBuf> {
    if errno == Errno::ENOEXEC {
        return last(program);
    }
    access(program, AccessFlags::X_OK).ok()?;
    let mut program = program.to_owned();
    for _ in 0..DEPTH {
        let interpreter = of(&program)?;
        match access(&interpreter, AccessFlags::X_OK) {
            Ok(()) => program = interpreter,
            Err(reason) => return (reason == errno).then_some(interpreter),
        }
    }
    None
}

/// What is to interpret a script, and is none itself.
fn last(script: &Path) -> Option<PathBuf> {
    let mut last = None;
    for _ in 0..DEPTH {
        let (_, start) = format::start(last.as_deref().unwrap_or(script))?;
        match of_script(&start) {
            Some(next) => last = Some(next),
            None => break,
        }
    }
    last
}

fn of(program: &Path) -> Option<PathBuf> {
    let (file, start) = format::start(program)?;
    match start.starts_with(MARK) {
        true => of_script(&start),
        false => loader(file).map(path),
    }
}

/// The interpreter that a file that begins like this names, if it is a script.
pub fn of_script(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(MARK)?;
    named_in(line).map(|name| path(name.to_owned()))
}

fn path(name: Vec<u8>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&name))
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
        // The test's own executable is static.
        let loader = of(Path::new("/bin/sh")).expect("a loader");
        assert!(
            loader.is_absolute() && loader.exists(),
            "{}",
            loader.display()
        );
        assert_eq!(of(Path::new("/dev/null")), None);
    }
}
