//! The built binary on a port of its own, spoken to over real sockets.
#![allow(clippy::unwrap_used, missing_docs)]

mod connections;
mod contract;
mod drain;
mod engines;
#[path = "../model/mod.rs"]
mod model;
mod overload;
mod pictures;
mod service;
mod startup;
mod terminate;
mod uploads;
