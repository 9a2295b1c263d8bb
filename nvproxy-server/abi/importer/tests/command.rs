//! The command, as far as it goes without the driver's source: what it is given is looked at before anything takes long.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// What an import of 580.142 fails with.
fn failure(source: &Path, output: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvproxy-abi-importer"));
    command.arg("--driver-source").arg(source);
    command
        .arg("--output")
        .arg(output)
        .args(["--tag", "580.142"]);
    let ended = command.output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8(ended.stderr).expect("text")
}

/// A repository with a folder in it, and no tags.
fn repository() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let mut git = Command::new("git");
    let git = git.args(["init", "--quiet"]).arg(directory.path());
    assert!(git.status().expect("git").success());
    std::fs::create_dir(directory.path().join("folder")).expect("a folder");
    directory
}

#[test]
fn a_file_that_cannot_be_written_is_found_before_the_import() {
    let repository = repository();
    let missing = failure(repository.path(), Path::new("/missing/releases.bin"));
    let expected =
        "nvproxy-abi-importer: cannot write /missing/releases.bin: No such file or directory";
    assert!(missing.starts_with(expected), "{missing}");
    let directory = failure(repository.path(), repository.path());
    assert!(directory.contains(": Is a directory"), "{directory}");
    // A file that is not there yet is not made before there is something to write.
    let new = repository.path().join("releases.bin");
    let tagless = failure(repository.path(), &new);
    assert!(tagless.contains("has no tag 580.142"), "{tagless}");
    assert!(!new.exists());
}

#[test]
fn a_folder_of_another_repository_is_not_taken_for_a_clone() {
    let repository = repository();
    let output = repository.path().join("releases.bin");
    let inside = failure(&repository.path().join("folder"), &output);
    let expected = "folder is not a clone of the driver's source (git clone \
                    https://github.com/NVIDIA/open-gpu-kernel-modules): it is folder/ of another repository\n";
    assert!(inside.ends_with(expected), "{inside}");
    let alone = TempDir::new().expect("a directory");
    let outside = failure(alone.path(), &output);
    assert!(outside.contains("not a git repository"), "{outside}");
}
