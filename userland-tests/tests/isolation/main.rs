//! What a sandbox has of the host: nothing that it was not given. And what it is given.

mod crashes;
mod files;
mod given;
mod inputs;
mod kernel_files;
mod kernel_mounts;
mod network;
mod outputs;
mod sources;
mod starting;
mod surroundings;
mod users;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use userland_tests::linux::{self, Feature};
use userland_tests::{
    Directory, Ended, Reachable, finish, guest_with, ringfence_program, ringfence_run,
    ringfence_under, ringfence_with_faults, wait_for,
};

/// Nobody.
const USER: u32 = 65534;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a scenario of the guest as this user and, if that is root, as another. It has to do the same.
fn as_root_and_user(options: &[&str], scenario: &[&str], expected: &Ended) {
    assert_eq!(&finish(&mut guest_with(options, scenario)), expected);
    if is_root() {
        let executables = Reachable::new();
        let mut arguments = vec![text(&executables.guest)];
        arguments.extend(scenario);
        assert_eq!(
            &executables.run_as(USER, options, &arguments),
            expected,
            "as user {USER}"
        );
    }
}

/// `ringfence run` in `directory`, with these options and nothing that the tests otherwise give it.
fn run_in(directory: &Path, options: &[&str], program: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    command
        .args(["run", "--driver=sim"])
        .args(options)
        .arg("--")
        .args(program);
    finish(command.current_dir(directory).stdin(Stdio::null()))
}
