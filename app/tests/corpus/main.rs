//! What the fuzzer found worth keeping, again and without it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../fuzz/fuzz_targets/check.rs"]
mod check;

use std::path::Path;

#[test]
fn every_input_of_the_fuzzers_corpus_is_taken_or_refused_in_peace() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/body_to_tensor");
    let mut inputs = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        assert!(check::body_to_tensor(&input), "{} is too short", path.display());
        inputs += 1;
    }
    assert!(inputs > 100, "{inputs} inputs in {}", corpus.display());
}
