//! Every input of the corpus, as it is. `.ci/fuzz` goes on from there.

use std::fs;
use std::path::Path;

/// One test for all: checks may not run at the same time.
#[test]
fn everything_holds_for_every_input_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for target in fuzz_checks::TARGETS {
        let folder = corpus.join(target.name);
        let mut paths: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "{}: no inputs", folder.display());
        for path in paths {
            // Shown if it fails.
            println!("{}", path.display());
            (target.check)(&fs::read(&path).expect("an input"));
        }
    }
}
