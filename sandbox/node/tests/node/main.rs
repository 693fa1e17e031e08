//! The node agent with real processes, against the sandbox's API server in the same process.

#![allow(clippy::unwrap_used)]

mod config;
mod images;
mod logs;
mod node;
mod orphans;
mod restarts;
mod start;
mod stop;
mod support;
