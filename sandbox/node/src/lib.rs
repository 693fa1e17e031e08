//! The sandbox's node agent: a pod's container is a process, with probes, restarts, limits and logs.
//!
//! It plays the kubelet's part: watches the pods that are bound to its node, runs their containers, and writes what it
//! sees into the pods' status and into events, worded as the kubelet words them. It talks to the API through
//! [`kube::Client`] alone. What a process cannot have without a container engine (mounts, users, a network of its own)
//! it does without; see [`NodeAgent`].

mod address;
mod agent;
mod container;
mod context;
mod faults;
mod group_use;
mod image;
mod logs;
mod node;
mod pod;
mod sampler;

pub use agent::NodeAgent;
pub use context::{NODE_VARIABLE, NodeConfig, Tuning};
pub use image::{Image, ImageId, ImageLayout, ImageStore, InvalidReference};
