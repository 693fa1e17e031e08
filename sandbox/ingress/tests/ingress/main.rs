//! The ingress controller over real sockets, and against an API server.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod controller;
mod lease;
mod proxy;
