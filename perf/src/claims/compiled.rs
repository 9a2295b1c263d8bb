//! Programs of CUDA's, which are compiled for the GPU of the machine that they are measured on.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use ringfence_programs::finding::find;

use super::{Attempt, NotMeasured, Session};

/// A file of source and its name.
pub type Source = (&'static str, &'static str);

/// Compiles a program for this machine's GPU.
pub fn compiled(session: &Session, name: &str, source: &str) -> Result<PathBuf, NotMeasured> {
    compiled_with(session, name, source, &[])
}

/// Compiles a program that includes these files.
pub fn compiled_with(
    session: &Session,
    name: &str,
    source: &str,
    included: &[Source],
) -> Result<PathBuf, NotMeasured> {
    let compiler = find("nvcc", &["/usr/local/cuda/bin"]).ok_or_else(|| {
        NotMeasured::lacking(
            "nvcc is not installed",
            "install the CUDA toolkit, or put nvcc into PATH",
        )
    })?;
    let file = session.fresh_file(&format!("{name}.cu"));
    let program = session.fresh_file(name);
    std::fs::write(&file, source).attempt("a file")?;
    for (name, text) in included {
        std::fs::write(session.directory.path().join(name), text).attempt("a file")?;
    }
    let mut command = Command::new(compiler);
    command
        .args(["-O2", "-arch=native", "-o"])
        .args([&program, &file])
        .arg("-ldl");
    let output = command.stdin(Stdio::null()).output().attempt("nvcc")?;
    if output.status.success() {
        return Ok(program);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(NotMeasured::failed(
        format!("nvcc {name}.cu"),
        complaint.lines().last().unwrap_or("it says nothing"),
    ))
}
