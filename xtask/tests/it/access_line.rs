//! The fuzzer's check of access-log lines on a bounded number of inputs; `scripts/fuzz-sandbox` goes on for as long as
//! you like.

use proptest::prelude::*;
use xtask::record::access;

#[path = "../../../sandbox/fuzz/checks/access_line.rs"]
mod check;

proptest! {
    #[test]
    fn no_request_forges_a_line(
        text in "([\"\\\\\\] \\[,:\\n-]|\\PC|\\] \\[\\] |10\\.6\\.6\\.6:80|502| : |, |\\\\x22){0,60}",
    ) {
        check::access_line(text.as_bytes());
    }
}

/// What was worth keeping of earlier runs.
#[test]
fn the_corpus_of_access_lines_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox/fuzz/corpus/access_line");
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        check::access_line(&std::fs::read(entry.expect("listing").path()).expect("reading"));
    }
}

#[test]
fn the_fuzzer_can_compile_the_parser_by_itself() {
    let parser = include_str!("../../src/record/access.rs");
    assert!(!parser.contains("crate::"), "sandbox/fuzz compiles this file without the tool around it");
}
