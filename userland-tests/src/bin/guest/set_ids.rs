//! Every call that gives a file its mode, with modes that make it set-user-ID or set-group-ID.
//!
//! `unsafe` is here for the calls themselves, which the C library and others make of other arguments.

#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_long};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::Outcome;

/// Makes a file, or alters the one that is there.
type Attempt = fn(&CString, u32) -> c_long;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("chmod", |path, mode| {
        make(path);
        // SAFETY: the path outlives the call; so in all calls below.
        unsafe { libc::syscall(libc::SYS_chmod, path.as_ptr(), mode) }
    }),
    // SAFETY: no pointer is passed.
    ("fchmod", |path, mode| unsafe {
        libc::syscall(libc::SYS_fchmod, make(path), mode)
    }),
    ("fchmodat", |path, mode| {
        make(path);
        // SAFETY: see above.
        unsafe { libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, path.as_ptr(), mode) }
    }),
    ("fchmodat2", |path, mode| {
        make(path);
        // SAFETY: see above.
        unsafe { libc::syscall(libc::SYS_fchmodat2, libc::AT_FDCWD, path.as_ptr(), mode, 0) }
    }),
    // SAFETY: see above.
    ("creat", |path, mode| unsafe {
        libc::syscall(libc::SYS_creat, path.as_ptr(), mode)
    }),
    // SAFETY: see above.
    ("open", |path, mode| unsafe {
        let flags = libc::O_CREAT | libc::O_RDWR;
        libc::syscall(libc::SYS_open, path.as_ptr(), flags, mode)
    }),
    ("openat", |path, mode| {
        openat(path, libc::O_CREAT | libc::O_WRONLY, mode)
    }),
    ("openat of a file without a name", |path, mode| {
        let directory = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).parent();
        let directory = directory.map(|path| path.as_os_str().as_bytes());
        let directory = CString::new(directory.unwrap_or_default()).unwrap_or_default();
        let file = openat(&directory, libc::O_TMPFILE | libc::O_RDWR, mode);
        if file < 0 {
            return file;
        }
        let file = CString::new(format!("/proc/self/fd/{file}")).unwrap_or_default();
        let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: see above.
        unsafe { libc::linkat(here, file.as_ptr(), here, path.as_ptr(), follow) }.into()
    }),
    ("openat2", |path, mode| {
        let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, mode.into(), 0];
        let (here, size) = (libc::AT_FDCWD, size_of_val(&how));
        // SAFETY: the path and the struct, which is as large as is said, outlive the call.
        unsafe { libc::syscall(libc::SYS_openat2, here, path.as_ptr(), how.as_ptr(), size) }
    }),
    // SAFETY: see above.
    ("mknod", |path, mode| unsafe {
        libc::syscall(libc::SYS_mknod, path.as_ptr(), libc::S_IFREG | mode, 0)
    }),
    ("mknodat", |path, mode| {
        let (here, mode) = (libc::AT_FDCWD, libc::S_IFREG | mode);
        // SAFETY: see above.
        unsafe { libc::syscall(libc::SYS_mknodat, here, path.as_ptr(), mode, 0) }
    }),
];

fn openat(path: &CString, flags: c_int, mode: u32) -> c_long {
    // SAFETY: the path outlives the call.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) }
}

/// Makes an ordinary file, and returns its descriptor.
fn make(path: &CString) -> c_long {
    openat(path, libc::O_CREAT | libc::O_WRONLY, 0o755)
}

/// Tries all of them in a directory, and says what came of each. In a process without a filter it says nothing but that it
/// is done, by a file, which the other waits for if it has a further argument.
pub fn scenario(arguments: &[String]) -> Outcome {
    let [directory, further @ ..] = arguments else {
        return Err("a directory".into());
    };
    let directory = Path::new(directory);
    let is_unfiltered = std::env::var_os("RINGFENCE_UNFILTERED").is_some();
    let whose = if is_unfiltered { "unfiltered " } else { "" };
    // SAFETY: no pointer is passed.
    unsafe { libc::umask(0) };
    for (name, attempt) in ATTEMPTS {
        for mode in [0o755, 0o4755, 0o2755] {
            let path = directory.join(format!("{whose}{name} {mode:o}"));
            let path = CString::new(path.as_os_str().as_bytes())?;
            let outcome = match Errno::result(attempt(&path, mode)) {
                Ok(_) => "ok".to_owned(),
                Err(errno) => format!("{errno:?}"),
            };
            if !is_unfiltered {
                println!("{name} {mode:o}: {outcome}");
            }
        }
    }
    let done = directory.join("done");
    if is_unfiltered {
        std::fs::write(done, "")?;
    } else if !further.is_empty() {
        while !done.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    Ok(())
}
