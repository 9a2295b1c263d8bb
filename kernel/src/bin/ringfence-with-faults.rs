//! `ringfence` as the fault-injection tests run it: the same program under a name of its own, so that a build for tests
//! never takes the place of one that somebody installs. Only this one obeys `RINGFENCE_FAULTS`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::cli::main()
}
