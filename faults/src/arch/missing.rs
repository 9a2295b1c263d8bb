//! An architecture that has no file: the build ends. Everything else can be checked on it nevertheless
//! (`.ci/architectures`). What the items are is said in `x86_64.rs`.

#[cfg(not(check_missing_architecture))]
compile_error!("ringfence-faults has no file in arch/ for this architecture");

pub fn execute_nothing_defined() -> ! {
    std::process::abort()
}
