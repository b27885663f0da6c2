//! Goes once through the corpus of every target, without a fuzzer: what has been found stays
//! found, on every machine that runs the tests.

use std::fs;
use std::path::Path;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in &locule_fuzz::TARGETS {
        let folder = corpus.join(target.name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{folder:?} is empty");
        for path in &paths {
            // Said before: a target that aborts has no chance to.
            println!("{}", path.strip_prefix(&corpus).unwrap().display());
            (target.run)(&fs::read(path).unwrap());
        }
    }
    locule_fuzz::clean_up();
}
