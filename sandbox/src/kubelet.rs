//! The node agent as the API server wants it.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sandbox_apiserver::{Kubelet, LogError, LogRequest, NodeFault, PodUsage, Sample, Usage};
use sandbox_node::{NodeAgent, Refusal};

/// A node agent in this process.
pub(crate) struct LocalNode(pub(crate) NodeAgent);

type LogBytes<B> = BoxStream<'static, std::io::Result<B>>;

impl Kubelet for LocalNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogBytes<bytes::Bytes>, LogError>> {
        let node = self.0.clone();
        let request = sandbox_node::LogRequest {
            namespace: request.namespace,
            pod: request.pod,
            container: request.container,
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines,
            since_seconds: request.since_seconds,
            limit_bytes: request.limit_bytes,
        };
        async move {
            node.logs(request).await.map_err(|error| match error {
                sandbox_node::LogError::NotFound(message) => LogError::NotFound(message),
                sandbox_node::LogError::BadRequest(message) => LogError::BadRequest(message),
            })
        }
        .boxed()
    }

    fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> BoxFuture<'static, std::io::Result<tokio::net::TcpStream>> {
        let (node, namespace, pod) = (self.0.clone(), namespace.to_string(), pod.to_string());
        async move { node.connect(&namespace, &pod, port).await }.boxed()
    }

    fn usage(&self) -> Usage {
        let usage = self.0.usage();
        let pods = usage.pods.into_iter().map(|pod| PodUsage {
            namespace: pod.namespace,
            pod: pod.pod,
            containers: pod.containers.into_iter().map(|(name, used)| (name, sample(used))).collect(),
        });
        Usage { node: sample(usage.node), pods: pods.collect() }
    }

    fn fault(&self, fault: NodeFault) -> Result<(), String> {
        match fault {
            NodeFault::Kill { namespace, pod } if !self.0.kill(&namespace, &pod) => {
                return Err(format!("no container of pod {namespace}/{pod} runs here"));
            }
            NodeFault::Kill { .. } => {}
            NodeFault::RefuseImage { image, never_pull } => {
                self.0.refuse_image(&image, if never_pull { Refusal::Never } else { Refusal::NotFound });
            }
            NodeFault::FailProbes { namespace, time } => self.0.fail_probes(&namespace, time),
            NodeFault::Clear => self.0.clear_faults(),
        }
        Ok(())
    }
}

fn sample(sample: sandbox_node::Sample) -> Sample {
    Sample {
        cpu_nanocores: sample.cpu_nanocores,
        memory_bytes: sample.memory_bytes,
        at: sample.at,
        window: sample.window,
    }
}
