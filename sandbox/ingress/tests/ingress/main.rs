//! The ingress controller against an API server, over real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod controller;
mod lease;
