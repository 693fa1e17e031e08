//! All that a client's bytes go through.
#![no_main]

mod check;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    if check::body_to_tensor(input) { Corpus::Keep } else { Corpus::Reject }
});
