//! The load generator. A crate of its own, compiled as a whole: what it costs itself is not there for the server.

pub mod client;
pub mod files;
pub mod record;
pub mod run;
pub mod schedule;
pub mod tally;
