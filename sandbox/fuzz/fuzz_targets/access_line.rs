//! Lines of the ingress's access log; what must hold is in `checks/`.
#![no_main]

#[path = "../checks/access_line.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check::access_line(input));
