//! What the parts of a sandbox agree on: what the API server asks of the node, and the vocabulary of faults.

mod faults;
mod kubelet;

pub use faults::{ApiFault, Effect, Fault, ProxyFault, Refusal};
pub use kubelet::{Kubelet, LogError, LogRequest, LogStream, PodUsage, Sample, Usage};

/// On a pod without an address of its own: which port serves each container port, as JSON,
/// `{"8000":49731,"9000":49732}`.
pub const PORTS_ANNOTATION: &str = "sandbox.local/ports";
