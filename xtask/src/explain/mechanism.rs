//! The ways in which requests fail or are slow, and what prevents each.

use serde::Serialize;

/// A way to fail, or to be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The connection never came to the proxy.
    NeverReachedProxy,
    /// The proxy ended in the middle.
    ProxyEnded,
    /// The proxy did not know the route.
    RouteNotSynced,
    /// The proxy itself refused the request.
    RefusedByProxy,
    /// The service had no ready pod.
    NoEndpoint,
    /// The service had ready pods, and the proxy had just started and did not know them yet.
    ControllerNotSynced,
    /// The pod got requests before it listened.
    NotListeningYet,
    /// The pod listened, but its model was not loaded.
    NotReadyYet,
    /// The pod closed before the proxy had stopped sending.
    ShutdownRace,
    /// The pod was killed before its last request was answered.
    GraceTooShort,
    /// The pod was deleted without any grace.
    ForcedDeletion,
    /// The container was killed for its memory.
    OutOfMemory,
    /// The liveness probe restarted the container.
    LivenessRestart,
    /// The container ended by itself.
    Crash,
    /// The pod closed an idle connection while the proxy used it.
    KeepAliveRace,
    /// The pod did not answer the proxy in time.
    UpstreamTimeout,
    /// We did not wait longer.
    ClientTimeout,
    /// The app refused more work.
    BackPressure,
    /// The app failed, by its own word.
    ApplicationError,
    /// The app refused the request as wrong.
    RequestRefused,
    /// Every sender was busy.
    SendersBusy,
    /// The run ended before.
    RunEnded,
    /// The run was stopped in the middle of it.
    RunStopped,
    /// The generator's own machine was out of something.
    GeneratorLimit,
    /// The generator's own machine was late to send it.
    GeneratorLate,
    /// The time went between client, proxy and pod.
    OnTheWay,
    /// It waited in the app's queue.
    Queued,
    /// The app itself took long.
    SlowApp,
    /// The pod took long, beyond what the app says.
    SlowPod,
    /// It was one of the pod's first requests.
    ColdPod,
    /// The container was denied the CPU by its limit.
    CpuThrottled,
    /// No evidence decides it.
    Unexplained,
}

impl Mechanism {
    /// As it is written in JSON.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }

    /// In a few words.
    pub fn title(self) -> &'static str {
        match self {
            Mechanism::NeverReachedProxy => "never reached the proxy",
            Mechanism::ProxyEnded => "the proxy ended in the middle of the request",
            Mechanism::RouteNotSynced => "the proxy did not know the route",
            Mechanism::RefusedByProxy => "the proxy itself refused the request",
            Mechanism::NoEndpoint => "the service had no ready pod",
            Mechanism::ControllerNotSynced => {
                "the ingress controller had just started and had not synced yet"
            }
            Mechanism::NotListeningYet => "the pod got the request before it listened",
            Mechanism::NotReadyYet => "the pod got the request before its model was loaded",
            Mechanism::ShutdownRace => "shutdown race: the pod closed before the proxy had stopped sending",
            Mechanism::GraceTooShort => {
                "the pod was killed at the end of its grace period, before it had answered"
            }
            Mechanism::ForcedDeletion => "the pod was deleted without a grace period",
            Mechanism::OutOfMemory => "out of memory: the container was killed at its limit",
            Mechanism::LivenessRestart => "the liveness probe restarted the container",
            Mechanism::Crash => "the container crashed",
            Mechanism::KeepAliveRace => {
                "keep-alive race: the pod closed an idle connection just as it was used again"
            }
            Mechanism::UpstreamTimeout => "the pod did not answer the proxy in time",
            Mechanism::ClientTimeout => "the client timed out waiting for the answer",
            Mechanism::BackPressure => "back-pressure: the app refused more work",
            Mechanism::ApplicationError => "the app answered with an error of its own",
            Mechanism::RequestRefused => "the app rejected the request as invalid",
            Mechanism::SendersBusy => "not sent in time: every sender was busy",
            Mechanism::RunEnded => "not sent: the run ended first",
            Mechanism::RunStopped => "not answered: the run was stopped first",
            Mechanism::GeneratorLimit => "not sent: the generator ran out of open files or ports",
            Mechanism::GeneratorLate => "the generator sent it late: its own machine was busy",
            Mechanism::OnTheWay => "slow on the way between client, proxy and pod",
            Mechanism::Queued => "it waited in the app's queue",
            Mechanism::SlowApp => "the app itself took long",
            Mechanism::SlowPod => "the pod took long to take or to answer it, beyond the app's own time",
            Mechanism::ColdPod => "one of the pod's first requests after it became Ready",
            Mechanism::CpuThrottled => "the pod was throttled at its CPU limit",
            Mechanism::Unexplained => "UNEXPLAINED",
        }
    }

    /// The protections that prevent it, by the names under which `load --without` leaves them out.
    pub fn prevented_by(self) -> &'static [&'static str] {
        match self {
            Mechanism::ShutdownRace => &["pre-stop", "grace"],
            Mechanism::GraceTooShort => &["grace"],
            Mechanism::NotListeningYet | Mechanism::NotReadyYet => &["startup-probe", "readiness-probe"],
            Mechanism::NeverReachedProxy | Mechanism::RouteNotSynced | Mechanism::ControllerNotSynced => {
                &["gates"]
            }
            _ => &[],
        }
    }

    /// The change that prevents it.
    pub fn fix(self) -> &'static str {
        match self {
            Mechanism::NeverReachedProxy => {
                "wait for the gates `ingress-controller` and `route` (`load` does); run 2 controller \
                 replicas \
                 with maxUnavailable 0"
            }
            Mechanism::ProxyEnded => {
                "give the ingress controller a second replica, and terminationGracePeriodSeconds above the \
                 slowest request"
            }
            Mechanism::RouteNotSynced => {
                "wait for the gate `route` before sending; check host and path in kubernetes/70-ingress.yaml"
            }
            Mechanism::RefusedByProxy => {
                "kubernetes/70-ingress.yaml: nginx.ingress.kubernetes.io/proxy-body-size, for 413; \
                 otherwise fix the request"
            }
            Mechanism::NoEndpoint => {
                "kubernetes/30-deployment.yaml: rollingUpdate.maxUnavailable 0, \
                 readinessProbe.failureThreshold above a busy \
                 moment; kubernetes/40-hpa.yaml: minReplicas 2 or more; wait for the gate `rollout`"
            }
            Mechanism::ControllerNotSynced => {
                "run 2 ingress controller replicas with maxUnavailable 0, so that one serves while the \
                 other syncs; after a \
                 restart wait for the gate `route` before sending (`load` does)"
            }
            Mechanism::NotListeningYet | Mechanism::NotReadyYet => {
                "kubernetes/30-deployment.yaml: startupProbe on /health with failureThreshold x \
                 periodSeconds above the \
                 slowest start (90 s), and a readinessProbe on /health"
            }
            Mechanism::ShutdownRace => {
                "kubernetes/30-deployment.yaml: lifecycle.preStop.sleep.seconds longer than the removal of \
                 an endpoint \
                 takes to reach the proxy (5), then drain on SIGTERM"
            }
            Mechanism::GraceTooShort => {
                "kubernetes/30-deployment.yaml: terminationGracePeriodSeconds at least preStop + the \
                 slowest request + a \
                 margin (45)"
            }
            Mechanism::ForcedDeletion => {
                "delete pods with their grace period (no --force, no --grace-period=0); a node that dies \
                 needs a client that retries"
            }
            Mechanism::OutOfMemory => {
                "kubernetes/30-deployment.yaml: resources.limits.memory above the peak, or less work at a \
                 time"
            }
            Mechanism::LivenessRestart => {
                "kubernetes/30-deployment.yaml: livenessProbe.failureThreshold x periodSeconds and \
                 timeoutSeconds above the \
                 longest busy moment"
            }
            Mechanism::Crash => "fix the crash: the last lines of that pod are in `logs POD --previous`",
            Mechanism::KeepAliveRace => {
                "the app's keep-alive must outlast the proxy's (upstream-keepalive-timeout, 60 s): 75 s or \
                 more"
            }
            Mechanism::UpstreamTimeout => {
                "kubernetes/70-ingress.yaml: nginx.ingress.kubernetes.io/proxy-read-timeout above the app's \
                 own deadline; \
                 kubernetes/40-hpa.yaml: more replicas"
            }
            Mechanism::ClientTimeout => {
                "more replicas (kubernetes/40-hpa.yaml) or less load; --request-timeout if the answer may \
                 take longer"
            }
            Mechanism::BackPressure => {
                "kubernetes/40-hpa.yaml: more replicas, or clients that wait for Retry-After and send again"
            }
            Mechanism::ApplicationError => "fix the app; its own message is quoted",
            Mechanism::RequestRefused => "fix the request; the app's message is quoted",
            Mechanism::SendersBusy => {
                "a lower --rate, or more replicas (kubernetes/40-hpa.yaml); a higher --concurrency only \
                 where the server has \
                 room for more at a time"
            }
            Mechanism::RunEnded => "a longer --duration, or fewer --requests",
            Mechanism::RunStopped => "let the run finish",
            Mechanism::GeneratorLimit => {
                "raise the limit of open files (`ulimit -n`), or lower --concurrency; it says nothing about \
                 the server"
            }
            Mechanism::GeneratorLate => {
                "run the generator on a machine with cores to spare; it says nothing about the server"
            }
            Mechanism::OnTheWay => {
                "look at the connections and the CPU of this machine and of the ingress controller: give \
                 that CPU, or a second replica"
            }
            Mechanism::Queued => "kubernetes/40-hpa.yaml: more replicas; or less load at a time",
            Mechanism::SlowApp => {
                "kubernetes/30-deployment.yaml: a larger resources.requests.cpu, or MODEL_THREADS in \
                 kubernetes/10-configmap.yaml; less work for each request"
            }
            Mechanism::SlowPod => {
                "kubernetes/30-deployment.yaml: a larger resources.requests.cpu; kubernetes/40-hpa.yaml: \
                 more replicas"
            }
            Mechanism::ColdPod => {
                "answer /health with 200 only when the model is loaded and has run once; a startupProbe on \
                 it in kubernetes/30-deployment.yaml"
            }
            Mechanism::CpuThrottled => {
                "kubernetes/30-deployment.yaml: no resources.limits.cpu, or a higher one"
            }
            Mechanism::Unexplained => "collect what is named as missing, and run again",
        }
    }
}
