//! Quantities; what must hold is in `checks/`.
#![no_main]

#[path = "../checks/quantity.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check::quantity(input));
