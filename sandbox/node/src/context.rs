//! What every part of the agent needs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leash::Leash;
use sandbox_events::Recorder;
use tokio_util::sync::CancellationToken;

use crate::address::Addresses;
use crate::faults::Faults;
use crate::image::ImageStore;

/// By this variable a container's processes say whose they are: the folder of their node agent, [`NodeConfig::dir`].
pub const NODE_VARIABLE: &str = "SANDBOX_NODE_DIR";

/// The component whose events are the agent's.
pub(crate) const KUBELET: &str = "kubelet";

/// What the node agent is told.
#[derive(Clone)]
pub struct NodeConfig {
    /// The node's name.
    pub node_name: String,
    /// Where logs and the pods' folders are kept.
    pub dir: PathBuf,
    /// The images at hand; there is no registry.
    pub images: ImageStore,
    /// Images that are programs on this machine: image reference → argv prefix, to which a container's args are
    /// appended.
    pub builtin: BTreeMap<String, Vec<OsString>>,
    /// Given to builtin containers as `KUBECONFIG`.
    pub kubeconfig: PathBuf,
    /// The node's memory.
    pub memory_bytes: u64,
    /// The node's CPUs.
    pub cpus: u32,
    /// Ends the containers should this program be killed.
    pub leash: Leash,
}

/// Times that tests shorten. The default is the kubelet's, where it has one.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// First pause before a crashed container is restarted; doubles with each crash.
    pub crash_backoff: Duration,
    /// The longest such pause. A container that ran twice as long starts over with the first.
    pub crash_backoff_max: Duration,
    /// How often CPU and memory are sampled, and memory limits enforced.
    pub sample_period: Duration,
    /// How often a container that cannot be created (image, ConfigMap, Secret missing) is tried again.
    pub create_retry: Duration,
    /// Give each pod an address of its own where the system allows it. `false`: only 127.0.0.1, and ports are remapped,
    /// as on systems that have no other loopback address.
    pub pod_addresses: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            crash_backoff: Duration::from_secs(10),
            crash_backoff_max: Duration::from_secs(300),
            sample_period: Duration::from_secs(1),
            create_retry: Duration::from_secs(1),
            pod_addresses: true,
        }
    }
}

/// What every part of the agent needs.
pub(crate) struct Context {
    pub(crate) client: kube::Client,
    pub(crate) config: NodeConfig,
    pub(crate) tuning: Tuning,
    pub(crate) events: Recorder,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) faults: Faults,
    pub(crate) shutdown: CancellationToken,
}
