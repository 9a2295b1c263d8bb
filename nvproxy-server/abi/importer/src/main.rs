//! The command that writes the catalogue of driver releases.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nvproxy_abi_catalogue::Catalogue;
use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_importer::error::Error;
use nvproxy_abi_importer::import::{import, merge, read};
use nvproxy_abi_importer::source::Source;

/// Derives the request ABI of NVIDIA driver releases from the driver's source.
///
/// It needs git, tar and a C compiler for x86-64 (cc). The same clone gives the same file, whatever --jobs is.
#[derive(Parser)]
#[command(
    after_help = "To add a new release, fetch its tag into the clone and name it:\n  \
    cargo run --release -p nvproxy-abi-importer -- --driver-source PATH --tag 580.142"
)]
struct Arguments {
    /// A clone, bare or not, of https://github.com/NVIDIA/open-gpu-kernel-modules
    #[arg(long, value_name = "PATH")]
    driver_source: PathBuf,
    /// The file to write
    #[arg(
        long,
        value_name = "FILE",
        default_value = "nvproxy-server/abi/data/releases.bin"
    )]
    output: PathBuf,
    /// A release to add to the file or to replace in it; may be given several times. Without it, the file is written
    /// anew with every release that has a tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<DriverVersion>,
    /// How many releases are worked on at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    jobs: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nvproxy-abi-importer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    check_writable(&arguments.output).map_err(|error| cannot_write(arguments, error))?;
    let source = Source::open(&arguments.driver_source)?;
    let known = source.releases()?;
    let mut catalogue = Catalogue::default();
    let mut versions = known.clone();
    if !arguments.tags.is_empty() {
        if let Some(tag) = arguments.tags.iter().find(|tag| !known.contains(tag)) {
            return Err(Error::new(format!(
                "{} has no tag {tag}; fetch it with git fetch --tags",
                arguments.driver_source.display()
            )));
        }
        catalogue = read(&arguments.output)?;
        versions = arguments.tags.clone();
        versions.sort();
        versions.dedup();
    }
    if versions.is_empty() {
        return Err(Error::new(format!(
            "{} has no tag that is a driver release; fetch them with git fetch --tags",
            arguments.driver_source.display()
        )));
    }
    let releases = import(&source, &versions, arguments.jobs, |line| {
        eprintln!("{line}")
    })?;
    merge(&mut catalogue, releases);

    let bytes = catalogue.encode();
    fs::write(&arguments.output, &bytes).map_err(|error| cannot_write(arguments, error))?;
    eprintln!(
        "{}: {} releases, {} bytes",
        arguments.output.display(),
        catalogue.releases.len(),
        bytes.len()
    );
    Ok(())
}

/// That a file can be written, or made where there is none: an import of all releases takes minutes.
fn check_writable(file: &Path) -> io::Result<()> {
    match File::options().write(true).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = file.parent().filter(|parent| *parent != Path::new(""));
            tempfile::tempfile_in(directory.unwrap_or(Path::new("."))).map(drop)
        }
        opened => opened.map(drop),
    }
}

fn cannot_write(arguments: &Arguments, error: io::Error) -> Error {
    let output = arguments.output.display();
    Error::new(format!("cannot write {output}: {error}"))
}
