//! A clone of the driver's repository, and the tree of one release taken out of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nvproxy_abi_catalogue::version::DriverVersion;
use tempfile::TempDir;

use crate::error::Error;

/// What an import reads of the driver's tree, as patterns of `git archive`.
const NEEDED: [&str; 7] = [
    "src/common/sdk/nvidia/inc",
    "src/nvidia/arch/nvalloc/unix/include",
    "src/nvidia/generated/g_*_nvoc.c",
    "src/nvidia/inc/kernel/rmapi/control.h",
    "src/nvidia/src/kernel/rmapi",
    "kernel-open/common/inc",
    "kernel-open/nvidia-uvm/*.h",
];

/// A clone of NVIDIA/open-gpu-kernel-modules, bare or not.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
}

impl Source {
    /// # Errors
    /// `path` is not a git repository, or lies inside one, whose tags would be taken for the driver's.
    pub fn open(path: &Path) -> Result<Source, Error> {
        let source = Source {
            path: path.to_owned(),
        };
        let reason = match source.git(&["rev-parse", "--show-prefix"]) {
            Ok(inside) if inside.trim().is_empty() => return Ok(source),
            Ok(inside) => Error::new(format!("it is {} of another repository", inside.trim())),
            Err(error) => error,
        };
        Err(reason.within(format_args!(
            "{} is not a clone of the driver's source (git clone https://github.com/NVIDIA/open-gpu-kernel-modules)",
            path.display()
        )))
    }

    /// Every release that has a tag, oldest first. Tags that are no release numbers are passed over.
    pub fn releases(&self) -> Result<Vec<DriverVersion>, Error> {
        let tags = self.git(&["tag", "--list"])?;
        let mut releases: Vec<DriverVersion> =
            tags.lines().filter_map(|tag| tag.parse().ok()).collect();
        releases.sort();
        Ok(releases)
    }

    /// Takes what an import needs of one release out of the repository.
    pub fn extract(&self, version: &DriverVersion) -> Result<Tree, Error> {
        let directory = TempDir::new()
            .map_err(|error| Error::new(format!("cannot make a temporary directory: {error}")))?;
        let failed = |what: &str, reason: String| {
            Error::new(format!(
                "{what} of tag {version} of {} failed: {reason}",
                self.path.display()
            ))
        };
        let mut archive = Command::new("git")
            .arg("-C")
            .arg(&self.path)
            .args([
                "archive",
                "--format=tar",
                &format!("refs/tags/{version}"),
                "--",
            ])
            .args(NEEDED)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("git archive", error.to_string()))?;
        let unpacked = match archive.stdout.take() {
            Some(stream) => Command::new("tar")
                .args(["-x", "-C"])
                .arg(directory.path())
                .stdin(stream)
                .status(),
            None => return Err(failed("git archive", "it has no output".to_owned())),
        };
        let archived = archive
            .wait()
            .map_err(|error| failed("git archive", error.to_string()))?;
        if !archived.success() {
            return Err(failed("git archive", archived.to_string()));
        }
        match unpacked {
            Ok(status) if status.success() => Ok(Tree { directory }),
            Ok(status) => Err(failed("unpacking with tar", status.to_string())),
            Err(error) => Err(failed("unpacking with tar", error.to_string())),
        }
    }

    fn git(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.path)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::new(format!("cannot run git: {error}")))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(Error::new(format!("git failed: {}", reason.trim())))
        }
    }
}

/// The source of one release, in a temporary directory that goes with it.
#[derive(Debug)]
pub struct Tree {
    directory: TempDir,
}

impl Tree {
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The text of a file of the tree.
    pub fn read(&self, path: &str) -> Result<String, Error> {
        read(&self.root().join(path)).map_err(|error| error.within("the release's source"))
    }

    /// The files under a directory of the tree whose names `wanted` accepts, sorted, as paths in the tree.
    pub fn files(&self, under: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut directories = vec![PathBuf::from(under)];
        while let Some(directory) = directories.pop() {
            let failed = |error: std::io::Error| {
                Error::new(format!("cannot list {}: {error}", directory.display()))
            };
            for entry in fs::read_dir(self.root().join(&directory)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = directory.join(&name);
                if entry.file_type().map_err(failed)?.is_dir() {
                    directories.push(path);
                } else if wanted(&name) {
                    found.push(path.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path)
        .map_err(|error| Error::new(format!("cannot read {}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
