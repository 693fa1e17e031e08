//! The fuzzer's check on a bounded number of inputs; `scripts/fuzz-sandbox` goes on for as long as you like.

use proptest::prelude::*;

#[path = "../../fuzz/checks/quantity.rs"]
mod check;

proptest! {
    #[test]
    fn a_quantity_and_its_canonical_form_mean_the_same(
        text in "[-+]{0,2}[0-9]{0,30}\\.?-?[0-9]{0,30}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,3}|)",
    ) {
        check::quantity(text.as_bytes());
    }

    #[test]
    fn a_small_quantity_and_its_canonical_form_mean_the_same(
        text in "-?[0-9]{1,5}(\\.[0-9]{1,4})?([numkMG]|[KMG]i|[eE][0-9]|)",
    ) {
        check::quantity(text.as_bytes());
    }

    #[test]
    fn any_text_is_read_to_an_end(text in "\\PC{0,40}") {
        check::quantity(text.as_bytes());
    }
}

/// What was worth keeping of earlier runs.
#[test]
fn the_corpus_holds() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/quantity"))
        .expect("the corpus")
    {
        check::quantity(&std::fs::read(entry.expect("listing").path()).expect("reading"));
    }
}
