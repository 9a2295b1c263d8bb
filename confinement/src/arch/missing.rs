//! An architecture that has no file: the build ends. Everything else can be checked on it nevertheless
//! (`.ci/architectures`).

#[cfg(not(check_missing_architecture))]
compile_error!("ringfence-confinement has no file in arch/ for this architecture");

pub(crate) const ARCHITECTURE: u32 = 0;

pub(crate) const FIRST_FOREIGN: u32 = u32::MAX;

pub const OLDER_CALLS: &[(&str, libc::c_long)] = &[];
