//! What containers use: CPU and memory, sampled.

use std::time::Duration;

use jiff::Timestamp;

/// The latest samples of the node and its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All containers together.
    pub node: Sample,
    /// Every running pod that has been sampled over a window.
    pub pods: Vec<PodUsage>,
}

/// The containers of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Container name and its sample.
    pub containers: Vec<(String, Sample)>,
}

/// CPU over a window, and memory at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Mean CPU use over the window, in billionths of a core.
    pub cpu_nanocores: u64,
    /// Resident memory of the container's whole process group.
    pub memory_bytes: u64,
    /// The end of the window.
    pub at: Timestamp,
    /// The window's length.
    pub window: Duration,
}
