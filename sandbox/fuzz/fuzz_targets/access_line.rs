//! Lines of the ingress's access log; what must hold is in `checks/`.
#![no_main]

// The parser's file by itself: the tool around it would take longer to compile than all the rest.
#[path = "../../../xtask/src/record/access.rs"]
#[allow(dead_code)]
mod access;
#[path = "../checks/access_line.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check::access_line(input));
