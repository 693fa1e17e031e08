//! The sandbox's node agent: a pod's container is a process, with probes, restarts, limits and logs.
//!
//! It plays the kubelet's part: watches the pods that are bound to its node, runs their containers, and writes what it
//! sees into the pods' status and into events, worded as the kubelet words them. It talks to the API through
//! [`kube::Client`] alone. What a process cannot have without a container engine (mounts, users, a network of its own)
//! it does without; see [`NodeAgent`].

mod address;
mod agent;
mod container;
mod events;
mod faults;
mod group_use;
mod image;
mod logs;
mod node;
mod pod;
mod sampler;
mod usage;

pub use agent::{NodeAgent, NodeConfig, Tuning};
pub use faults::Refusal;
pub use image::{Image, ImageId, ImageLayout, ImageStore, InvalidReference};
pub use logs::{LogError, LogRequest, LogStream};
pub use pod::PORTS_ANNOTATION;
pub use usage::{PodUsage, Sample, Usage};

/// By this variable a container's processes say whose they are: the folder of their node agent, [`NodeConfig::dir`].
pub const NODE_VARIABLE: &str = "SANDBOX_NODE_DIR";
