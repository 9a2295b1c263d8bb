//! Importing many releases, several at a time.
//!
//! The parts of a release are shared by `Rc`, which stays on one thread. A worker therefore hands its release over as
//! the bytes of a catalogue, which are also what makes the result independent of who was done first.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_catalogue::{Catalogue, Release};

use crate::error::Error;
use crate::release;
use crate::source::Source;

/// A catalogue of one release, encoded.
type Outcome = Result<Vec<u8>, Error>;

/// Imports these releases, `jobs` at a time, and says one line about each to `progress`.
pub fn import(
    source: &Source,
    versions: &[DriverVersion],
    jobs: usize,
    progress: impl Fn(&str) + Sync,
) -> Result<Vec<Release>, Error> {
    let results: Vec<OnceLock<Outcome>> = versions.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for _worker in 0..jobs.max(1) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((version, result)) = versions.get(index).zip(results.get(index))
                    else {
                        break;
                    };
                    let imported = one(source, *version, &progress);
                    if imported.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    // Each release is one worker's.
                    let _ = result.set(imported);
                }
            });
        }
    });
    let mut releases = Vec::new();
    for result in results {
        // After a failure the releases that were not begun have no result; the failure is among the rest.
        if let Some(bytes) = result.into_inner() {
            releases.extend(decode(&bytes?)?.releases);
        }
    }
    Ok(releases)
}

fn one(source: &Source, version: DriverVersion, progress: &(impl Fn(&str) + Sync)) -> Outcome {
    let tree = source.extract(&version)?;
    let imported = release::import(&tree, version).map_err(|error| error.within(version))?;
    let release = imported.release;
    progress(&format!(
        "{version}: {} escapes, {} UVM requests, {} control commands, {} classes, {} structures",
        release.frontend.len(),
        release.uvm.len(),
        release.controls.len(),
        release.classes.len(),
        release.structures.len(),
    ));
    for (what, commands) in [
        ("no buffer was found", imported.cases_without_copies),
        ("the command is not exported", imported.cases_not_exported),
    ] {
        if !commands.is_empty() {
            let commands = commands.join(", ");
            progress(&format!(
                "{version}: warning: embeddedParamCopyIn has cases for which {what}: {commands}"
            ));
        }
    }
    let releases = vec![release];
    Ok(Catalogue { releases }.encode())
}

/// Puts releases into a catalogue, in the place of those of the same version.
pub fn merge(catalogue: &mut Catalogue, releases: Vec<Release>) {
    for release in releases {
        catalogue
            .releases
            .retain(|known| known.version != release.version);
        catalogue.releases.push(release);
    }
    catalogue.releases.sort_by_key(|release| release.version);
}

/// Reads a catalogue, an empty one if there is no such file.
pub fn read(path: &Path) -> Result<Catalogue, Error> {
    match std::fs::read(path) {
        Ok(bytes) => decode(&bytes).map_err(|error| {
            error.within(format_args!(
                "{} (without --tag it is written anew)",
                path.display()
            ))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Catalogue::default()),
        Err(error) => Err(Error::new(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

fn decode(bytes: &[u8]) -> Result<Catalogue, Error> {
    Catalogue::decode(bytes).map_err(|error| Error::new(error.to_string()))
}
