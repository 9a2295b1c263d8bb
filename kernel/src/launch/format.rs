//! What the first bytes of a program's file say of it, where the kernel knows no format that it has (ENOEXEC, execve(2)).
//!
//! The files are what the program's author chose. They are read when the process is already confined as the program is to be.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::FileHeader;

/// How much of a script the kernel looks at (BINPRM_BUF_SIZE). The header of an executable is shorter.
const START: u64 = 256;
/// How much of a file bash looks at (`check_binary_file`, general.c).
const LOOKED_AT: usize = 80;

/// The file, if it is an ordinary one, and its first bytes.
pub fn start(program: &Path) -> Option<(File, Vec<u8>)> {
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
    (&file).take(START).read_to_end(&mut start).ok()?;
    Some((file, start))
}

/// Whether a shell takes a file that begins like this, and that is no executable, for a script of its own.
pub fn is_text(start: &[u8]) -> bool {
    let looked_at = start.get(..LOOKED_AT).unwrap_or(start);
    let mut lines = looked_at.split(|byte| *byte == b'\n');
    let is_text = lines.next().is_none_or(|line| !line.contains(&0));
    is_text && !start.starts_with(&elf::ELFMAG)
}

/// The architecture that an executable is for, if it says so and it is another than this machine's.
pub fn other_architecture(start: &[u8]) -> Option<Cow<'static, str>> {
    let machine = machine::<FileHeader64<Endianness>>(start)
        .or_else(|| machine::<FileHeader32<Endianness>>(start))?;
    Some(match machine {
        elf::EM_X86_64 => return None,
        elf::EM_386 => "i386".into(),
        elf::EM_ARM => "Arm".into(),
        elf::EM_AARCH64 => "AArch64".into(),
        elf::EM_PPC | elf::EM_PPC64 => "PowerPC".into(),
        elf::EM_RISCV => "RISC-V".into(),
        other => format!("{other} in its ELF header").into(),
    })
}

fn machine<Header: FileHeader>(start: &[u8]) -> Option<u16> {
    let header = Header::parse(start).ok()?;
    Some(header.e_machine(header.endian().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_bash_takes_for_one() {
        let late = [&[b' '; LOOKED_AT][..], b"\0"].concat();
        for (start, expected) in [
            (&b""[..], true),
            (b"exit", true),
            (b"exit\n\0", true),
            (b"ex\0it\n", false),
            (&late, true),
            (&late[1..], false),
            (b"\x7fELF\n", false),
        ] {
            assert_eq!(is_text(start), expected, "{start:?}");
        }
    }

    #[test]
    fn this_machines_architecture_is_no_other() {
        let own = std::env::current_exe().expect("a path");
        let (_, bytes) = start(&own).expect("an executable");
        assert_eq!(other_architecture(&bytes), None);
        assert_eq!(other_architecture(&bytes[..40]), None);
        assert!(start(Path::new("/dev/null")).is_none());
    }
}
