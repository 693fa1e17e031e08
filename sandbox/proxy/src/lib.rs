//! What the sandbox's ingress controller sends requests with: a reverse proxy that follows a table of routes.
//!
//! As nginx has it: the choice by host and path, the retry rules, the forwarding headers, the limits of what a client
//! may send and take, the access log. It knows no cluster: the table comes from whoever watches one. A crate of its own
//! because it is compiled with optimisation: what it costs must not distort what is measured through it.

mod access_log;
mod answer;
mod entry;
mod payload;
mod proxy;
pub mod route;
mod upstream;

pub use access_log::AccessLog;
pub use entry::{Clients, LIMITS, SEND_TIMEOUT, serve, server};
pub use proxy::Proxy;
