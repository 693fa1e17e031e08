//! The sandbox from the outside: its program, a stock kubectl, and clusters in this process.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests are tests

mod clusters;
mod examples;
mod kubectl;
mod lifecycle;
mod program;
mod support;
mod workload;
