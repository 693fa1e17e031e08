//! Enough of Kubernetes, in one process, to run this repository's workflow for real: on a bare laptop or in CI, with no
//! container engine and no root. Not a general cluster.
//!
//! [`serve`] is the daemon: API server, controllers and node agent. It owns a folder ([`Home`]), in which everybody
//! else reads whether it runs ([`state`]) and how to reach it. What runs as pods, the ingress controller included, are
//! processes of its own; [`leash`] ends them should the daemon be killed.

pub mod addons;
mod daemon;
mod home;
mod ingress;
mod kubelet;
mod lifecycle;
mod processes;

/// The image store, and what an image is made of.
pub mod images {
    pub use sandbox_node::{Image, ImageId, ImageLayout, ImageStore};
}

pub use daemon::{NODE_NAME, Options, run, serve};
pub use home::Home;
pub use ingress::ingress_process;
pub use lifecycle::{Info, State, build_id, state, stop};
