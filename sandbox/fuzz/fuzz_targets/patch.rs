//! Patches of every kind; what must hold is in `checks/`.
#![no_main]

#[path = "../checks/api.rs"]
#[allow(dead_code)]
mod api;

libfuzzer_sys::fuzz_target!(|input: &[u8]| api::patch(input));
