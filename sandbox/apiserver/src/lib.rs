//! The sandbox's API server: Kubernetes' REST API for the kinds this repository uses.
//!
//! Objects are JSON values in memory ([`store`]); [`rest`] is what can be done to them. One place, [`server`], sees
//! every request, whether it came over TLS or from the in-process client.

mod admission;
mod apply;
mod call;
mod causes;
mod columns;
mod decode;
mod defaults;
mod discovery;
mod faults;
mod fields;
mod health;
mod kind;
mod kinds;
mod managed;
mod meta;
mod metrics;
mod names;
mod namespaces;
mod openapi;
mod patch;
mod portforward;
mod presence;
mod protobuf;
mod render;
mod request;
mod rest;
mod round_trip;
mod schema;
mod selectors;
mod server;
mod size;
mod state;
mod status;
mod store;
mod table;
mod time;
mod tls;
mod typed;
mod validate;
mod views;
mod watch;
mod yaml;

pub use server::ApiServer;
pub use tls::Tls;
