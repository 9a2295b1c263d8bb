//! A program that opens and looks up files: what a program's start mostly consists of, and nothing of Ringfence's.
//!
//! It can put itself under a filter that allows everything, to show what the kernel takes for having any filter at all.

use std::fs::{File, metadata};
use std::path::{Path, PathBuf};
use std::time::Instant;

use libc::{BPF_K, BPF_RET, SECCOMP_RET_ALLOW};
use nix::sys::prctl::set_no_new_privs;
use ringfence_confinement::install;

use super::Outcome;
use super::notification::statement;

/// Files that are opened, for reading, and closed.
pub const OPENS: usize = 20_000;
/// Calls of stat.
pub const LOOK_UPS: usize = 100_000;
/// Files that there have to be: each is opened more than once.
pub const FILES: usize = 1000;

/// The name of one of the files.
pub fn path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("file-{number}"))
}

/// As [`work`], under a filter that allows everything.
pub fn work_filtered(directory: &Path) -> Outcome {
    set_no_new_privs()?;
    let allow = BPF_RET | BPF_K;
    install(&[statement(allow, 0, 0, SECCOMP_RET_ALLOW)])?;
    work(directory)
}

/// Prints how many nanoseconds it took.
pub fn work(directory: &Path) -> Outcome {
    let paths: Vec<PathBuf> = (0..FILES).map(|number| path(directory, number)).collect();
    let started = Instant::now();
    for path in paths.iter().cycle().take(OPENS) {
        File::open(path)?;
    }
    for path in paths.iter().cycle().take(LOOK_UPS) {
        metadata(path)?;
    }
    println!("{}", started.elapsed().as_nanos());
    Ok(())
}
