//! The controllers against the sandbox's API server. The test plays the node agent by writing the status of pods.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod autoscaler;
mod endpoints;
mod garbage;
mod manifests;
mod replicas;
mod rollout;
mod scheduling;
mod world;
