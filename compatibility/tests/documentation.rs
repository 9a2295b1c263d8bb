//! docs/COMPATIBILITY.md is what the tool makes of the files in the repository.

use std::fs;
use std::path::{Path, PathBuf};

use ringfence_compatibility::document::{Sources, document};
use ringfence_compatibility::programs::{self, parse};
use ringfence_compatibility::reasons::Reasons;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files with results and findings, as a shell lists them. There may be none yet.
fn seen() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("seen")).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.collect();
    files.sort();
    files
}

#[test]
fn the_document_is_made_of_the_files() {
    let mut sources = Sources {
        reasons: Reasons::parse(&read(&folder().join("reasons.toml"))).expect("reasons"),
        ..Sources::default()
    };
    for path in seen() {
        let name = path.to_string_lossy();
        sources.add(&name, &read(&path)).expect("results");
    }
    let kept = read(&folder().join("../docs/COMPATIBILITY.md"));
    assert!(
        kept == document(&sources),
        "replace docs/COMPATIBILITY.md by what cargo run -p ringfence-compatibility -- table compatibility/seen/* prints"
    );
}

#[test]
fn the_table_of_programs_can_be_read_and_has_its_sources() {
    let table = folder().join("programs.toml");
    let programs = parse(&read(&table)).expect("a table");
    assert!(programs.len() > 20, "{}", programs.len());
    let sources = programs::sources(&table);
    let is_source = |word: &&str| {
        [".cu", ".c", ".py", ".gdb"]
            .iter()
            .any(|end| word.ends_with(end))
    };
    for program in &programs {
        let words = program.command.shown() + " " + program.build.as_deref().unwrap_or_default();
        for name in words.split_whitespace().filter(is_source) {
            assert!(sources.join(name).is_file(), "{}: {name}", program.name);
        }
    }
}
