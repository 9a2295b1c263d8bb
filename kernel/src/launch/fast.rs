//! `--fast`: the library that is preloaded into programs, so that they make requests without the trap.
//!
//! The library is the program's, not Ringfence's: it runs in the sandbox, with the program's rights, and is believed in
//! nothing. So all there is to do is to show it to the program and to name it in `LD_PRELOAD`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::environment::Variable;
use super::grants::{Bind, Grants};
use crate::failure::{Attempt, Failure};

/// What the library is called.
const LIBRARY: &str = "libringfence_shim.so";
/// Where programs find it.
const PLACE: &str = "/run/ringfence/libringfence_shim.so";
/// What the dynamic linker reads (ld.so(8)).
const PRELOAD: &str = "LD_PRELOAD";

/// The library: beside this executable, or in `../lib` from there. Fails with what is missing and what to do.
pub fn library() -> Result<PathBuf, Failure> {
    let executable = std::env::current_exe().attempt("/proc/self/exe")?;
    let directory = executable.parent().unwrap_or(Path::new("/"));
    let places = [
        directory.join(LIBRARY),
        directory.join("../lib").join(LIBRARY),
    ];
    let found = places.iter().find(|place| place.is_file());
    found.cloned().ok_or_else(|| {
        let [beside, below] = places.map(|place| place.display().to_string());
        Failure::setup(format!(
            "--fast: there is neither {beside} nor {below}: cargo build --release makes it; install it beside the \
             executable, or leave --fast out"
        ))
    })
}

/// Gives a program the library besides what it is given anyway.
pub fn grant(grants: &mut Grants) -> Result<(), Failure> {
    let has_place = |root: &PathBuf| root.join("run").is_dir();
    if let Some(root) = grants.rootfs.as_ref().filter(|root| !has_place(root)) {
        return Err(Failure::setup(format!(
            "--fast: {} has no directory 'run', where the library is shown: create one, empty",
            root.display()
        )));
    }
    grants.binds.push(Bind {
        source: library()?,
        target: PLACE.into(),
        read_only: true,
    });
    let caller = std::env::var_os(PRELOAD).filter(|_| !grants.clear_env);
    let others = Variable::last(&grants.variables, PRELOAD).or(caller);
    let all = match others.filter(|others| !others.is_empty()) {
        Some(mut others) => {
            others.push(":");
            others.push(PLACE);
            others
        }
        None => OsString::from(PLACE),
    };
    grants.variables.push(Variable::new(PRELOAD, all));
    Ok(())
}
