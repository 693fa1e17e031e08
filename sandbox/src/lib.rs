//! Enough of Kubernetes, in one process, to run this repository's workflow for real: on a bare laptop or in CI, with no
//! container engine and no root. Not a general cluster.
//!
//! In a test, [`Cluster::start`] is all there is to know: a cluster as a value, which ends with it.
//!
//! [`serve`] is the daemon: API server, controllers and node agent. It owns a folder ([`Home`]), in which everybody
//! else reads whether it runs ([`state`]) and how to reach it. What runs as pods, the ingress controller included, are
//! processes of its own; [`leash`] ends them should the daemon be killed.

pub mod addons;
mod assembly;
mod client;
mod cluster;
mod daemon;
mod error;
mod home;
mod ingress;
mod lifecycle;
mod processes;

/// Faults on purpose.
pub mod faults {
    pub use sandbox_contract::{ApiFault, Effect, Fault, ProxyFault, Refusal};
}

/// The image store, and what an image is made of.
pub mod images {
    pub use sandbox_node::{Image, ImageId, ImageLayout, ImageStore};
}

pub use assembly::NODE_NAME;
pub use cluster::{Builder, Cluster};
pub use daemon::{Options, run, serve};
pub use error::{Error, Result, Source, chain};
pub use home::Home;
pub use ingress::ingress_process;
pub use lifecycle::{Info, State, build_id, state, stop};
pub use sandbox_node::Tuning;
