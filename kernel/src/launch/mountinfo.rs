//! What the kernel lists of a process's mounts: a line of /proc/PID/mountinfo each (proc_pid_mountinfo(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What mountinfo says of a mount.
#[derive(Debug)]
pub struct Mount<'a> {
    pub id: u64,
    pub parent: u64,
    pub is_on_a_block_device: bool,
    /// As it is written there.
    pub point: &'a [u8],
    pub kind: &'a [u8],
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw`
    pub fn of(line: &'a [u8]) -> Option<Mount<'a>> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let is_on_a_block_device = !fields.next()?.starts_with(b"0:");
        let point = fields.nth(1)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mount {
            id,
            parent,
            is_on_a_block_device,
            point,
            kind,
        })
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&unescaped(self.point)))
    }
}

/// A path of mountinfo: of blanks and the like the octal number is written there.
fn unescaped(written: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let [first, after @ ..] = rest {
        let octal = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, byte) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Whether `path` lies below the directory `above`.
pub fn is_below(path: &[u8], above: &[u8]) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.starts_with(b"/") || above == b"/" && !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\"), b"/a b\\c\\");
        assert_eq!(unescaped(b"/\\08"), b"/\\08");
        assert!(is_below(b"/a/b", b"/a") && is_below(b"/a", b"/"));
        assert!(!is_below(b"/ab", b"/a") && !is_below(b"/a", b"/a") && !is_below(b"/", b"/"));
    }
}
