//! Who was where, when: pods and endpoints of a run, from what the witness saw.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Seen, earlier, later};
use crate::kubernetes::{event_time, is_ready};

/// Everything that the witness saw, by pod and by address.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// The pods, in the order in which they were seen.
    pub pods: Vec<PodStory>,
    /// The endpoints of each `address:port`, in order of time.
    pub endpoints: BTreeMap<String, Vec<EndpointAt>>,
    /// Events, in order of time.
    pub events: Vec<EventSeen>,
    /// The last that was seen of the app's Deployment.
    pub deployment: Option<Deployment>,
}

/// One pod's life.
#[derive(Clone, Debug)]
pub struct PodStory {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub ip: Option<String>,
    /// The last that was seen of it.
    pub last: Pod,
    /// How it stood, at each change.
    pub states: Vec<PodAt>,
    /// When it was first seen to be told to end, and the grace it was given.
    pub told_to_end: Option<(Timestamp, i64)>,
    /// When it was seen to be gone.
    pub gone: Option<Timestamp>,
    /// The ends of its containers' runs.
    pub exits: Vec<Exit>,
}

/// How a pod stood from a moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct PodAt {
    /// When that was seen.
    pub at: Timestamp,
    /// Whether it was Ready.
    pub ready: bool,
    /// Since when its container runs, if it does.
    pub running_since: Option<Timestamp>,
}

/// The end of one run of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// The container.
    pub container: String,
    /// When it ended; where the node does not say, when that was seen.
    pub at: Timestamp,
    /// When that run had started.
    pub started: Option<Timestamp>,
    /// Exit code.
    pub code: i32,
    /// As Kubernetes words it: `OOMKilled`, `Error`, `Completed`.
    pub reason: String,
}

/// An endpoint from a moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointAt {
    /// When that was seen.
    pub at: Timestamp,
    /// Whose address it was.
    pub pod_uid: Option<String>,
    /// The same, by name.
    pub pod: Option<String>,
    /// Whether it was in the slice at all, and ready.
    pub ready: bool,
    /// Whether it was still in the slice.
    pub present: bool,
    /// Whether it was on its way out.
    pub terminating: bool,
}

/// An event of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSeen {
    /// When it happened.
    pub at: Timestamp,
    /// Name of what it is about.
    pub about: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When it was seen, by this machine's clock.
    pub seen: Timestamp,
    /// All of it.
    pub object: Event,
}

impl EventSeen {
    /// When it happened, as exactly as is known: the cluster tells whole seconds, cut off.
    pub fn moment(&self) -> Timestamp {
        let is_fresh = self.seen.duration_since(self.at).abs() < SignedDuration::from_secs(2);
        if is_fresh { self.seen } else { self.at }
    }

    /// Whether it tells of something that went wrong.
    pub fn is_warning(&self) -> bool {
        self.object.type_.as_deref() == Some("Warning")
    }
}

impl PodStory {
    /// How it stood at a moment.
    pub fn at(&self, at: Timestamp) -> Option<&PodAt> {
        self.states.iter().rev().find(|state| state.at <= at)
    }

    /// Whether it was Ready at a moment.
    pub fn was_ready(&self, at: Timestamp) -> bool {
        self.at(at).is_some_and(|state| state.ready)
    }

    /// Whether it was gone by then.
    pub fn is_gone(&self, at: Timestamp) -> bool {
        self.gone.is_some_and(|gone| gone <= at)
    }

    /// Whether it had been told to end by then.
    pub fn was_ending(&self, at: Timestamp) -> bool {
        self.told_to_end.is_some_and(|(told, _)| told <= at) || self.gone.is_some_and(|gone| gone <= at)
    }

    /// The run of its container that was over at `at` without a new one, or that ended within `after` of it.
    pub fn exit_around(&self, at: Timestamp, after: SignedDuration) -> Option<&Exit> {
        // The node's times have whole seconds, cut off.
        let cut = SignedDuration::from_secs(1);
        self.exits.iter().rev().find(|exit| {
            let restarted = self
                .states
                .iter()
                .filter_map(|state| state.running_since)
                .filter(|since| *since >= exit.at && exit.started.is_none_or(|started| *since > started))
                .min();
            let ended_by_then = exit.at <= later(at, after);
            let still_down = restarted.is_none_or(|since| later(since, cut) >= earlier(at, cut));
            ended_by_then && still_down && exit.at >= earlier(at, SignedDuration::from_mins(10))
        })
    }

    /// When it first became Ready at or after a moment.
    pub fn ready_from(&self, from: Timestamp) -> Option<Timestamp> {
        self.states.iter().find(|state| state.at >= from && state.ready).map(|state| state.at)
    }

    /// Since when it was Ready at a moment, where it was seen to become so.
    pub fn ready_since(&self, at: Timestamp) -> Option<Timestamp> {
        let until = self.states.partition_point(|state| state.at <= at);
        let (before, _) = self.states.split_at(until);
        let since = before.iter().rposition(|state| !state.ready)? + 1;
        before.get(since).map(|state| state.at)
    }

    /// A property of its first container, by JSON-like path.
    pub fn container(&self) -> Option<&k8s_openapi::api::core::v1::Container> {
        self.last.spec.as_ref()?.containers.first()
    }

    /// What its preStop does, in words.
    pub fn pre_stop(&self) -> String {
        let hook = self.container().and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        match hook {
            None => "no preStop".to_owned(),
            Some(hook) => match &hook.sleep {
                Some(sleep) => format!("preStop sleeps {} s", sleep.seconds),
                None => "a preStop hook".to_owned(),
            },
        }
    }
}

impl Timeline {
    /// Reads it off what was seen, in order.
    pub fn new(seen: impl IntoIterator<Item = Seen>) -> Timeline {
        let mut timeline = Timeline::default();
        let mut index = HashMap::new();
        let mut slices = HashMap::new();
        for seen in seen {
            match seen.kind.as_str() {
                "Pod" => timeline.pod(&seen, &mut index),
                "EndpointSlice" => timeline.slice(&seen, &mut slices),
                "Event" if !seen.gone => timeline.event(&seen),
                "Deployment" => timeline.deployment = serde_json::from_value(seen.object).ok(),
                _ => {}
            }
        }
        timeline.events.sort_by_key(|event| event.at);
        timeline
    }

    fn pod(&mut self, seen: &Seen, index: &mut HashMap<String, usize>) {
        let Ok(pod) = serde_json::from_value::<Pod>(seen.object.clone()) else { return };
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pods = &mut self.pods;
        let place = *index.entry(uid.clone()).or_insert_with(|| {
            pods.push(PodStory {
                name: pod.metadata.name.clone().unwrap_or_default(),
                uid,
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                ip: None,
                last: Pod::default(),
                states: Vec::new(),
                told_to_end: None,
                gone: None,
                exits: Vec::new(),
            });
            pods.len() - 1
        });
        let story = &mut pods[place];
        let status = pod.status.as_ref();
        story.ip = status.and_then(|status| status.pod_ip.clone()).or_else(|| story.ip.take());
        if seen.gone {
            story.gone = Some(seen.at);
        }
        if pod.metadata.deletion_timestamp.is_some() && story.told_to_end.is_none() {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            story.told_to_end = Some((seen.at, grace));
        }
        let statuses = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let mut running_since = None;
        for container in statuses {
            let state = container.state.as_ref();
            running_since = running_since.or_else(|| {
                state?.running.as_ref().map(|running| running.started_at.as_ref().map_or(seen.at, |t| t.0))
            });
            let ended = [state, container.last_state.as_ref()];
            for ended in ended.into_iter().flatten().filter_map(|state| state.terminated.as_ref()) {
                let exit = exit(&container.name, ended, seen.at);
                let known = story.exits.iter().any(|known| {
                    known.container == exit.container
                        && known.started == exit.started
                        && (ended.finished_at.is_none() || known.at == exit.at)
                });
                if !known {
                    story.exits.push(exit);
                }
            }
        }
        let state = PodAt { at: seen.at, ready: is_ready(&pod) && !seen.gone, running_since };
        story.states.push(state);
        story.last = pod;
    }

    fn slice(&mut self, seen: &Seen, before: &mut HashMap<String, BTreeMap<String, EndpointAt>>) {
        let Ok(slice) = serde_json::from_value::<EndpointSlice>(seen.object.clone()) else { return };
        let name = slice.metadata.name.clone().unwrap_or_default();
        let mut now = BTreeMap::new();
        let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
        for port in ports.filter(|_| !seen.gone) {
            for endpoint in &slice.endpoints {
                let conditions = endpoint.conditions.as_ref();
                let target = endpoint.target_ref.as_ref();
                for address in &endpoint.addresses {
                    let at = EndpointAt {
                        at: seen.at,
                        pod_uid: target.and_then(|target| target.uid.clone()),
                        pod: target.and_then(|target| target.name.clone()),
                        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
                        present: true,
                        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                    };
                    now.insert(format!("{address}:{port}"), at);
                }
            }
        }
        let was = before.insert(name, now.clone()).unwrap_or_default();
        for (address, old) in was {
            if !now.contains_key(&address) {
                let gone = EndpointAt { at: seen.at, ready: false, present: false, ..old };
                self.endpoints.entry(address).or_default().push(gone);
            }
        }
        for (address, endpoint) in now {
            self.endpoints.entry(address).or_default().push(endpoint);
        }
    }

    fn event(&mut self, seen: &Seen) {
        let Ok(event) = serde_json::from_value::<Event>(seen.object.clone()) else { return };
        self.events.push(EventSeen {
            at: event_time(&event).unwrap_or(seen.at),
            about: event.involved_object.name.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            message: event.message.clone().unwrap_or_default(),
            seen: seen.at,
            object: event,
        });
    }

    /// The events from a moment on; one that repeats is one, with its last count and time.
    pub fn events_from(&self, from: Timestamp) -> Vec<&EventSeen> {
        let mut last: Vec<&EventSeen> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for event in self.events.iter().filter(|event| event.moment() >= from) {
            let uid = event.object.metadata.uid.as_deref();
            match uid.and_then(|uid| places.get(uid)) {
                Some(place) => last[*place] = event,
                None => {
                    places.extend(uid.map(|uid| (uid, last.len())));
                    last.push(event);
                }
            }
        }
        last.sort_by_key(|event| event.moment());
        last
    }

    /// The pod that had `address:port` at a moment, or had it last before.
    pub fn pod_at(&self, address: &str, at: Timestamp) -> Option<&PodStory> {
        let by_endpoint = self.endpoints.get(address).and_then(|history| {
            let then = history.iter().rev().find(|endpoint| endpoint.at <= at).or_else(|| history.first())?;
            let uid = then.pod_uid.as_ref()?;
            self.pods.iter().find(|pod| pod.uid == *uid)
        });
        by_endpoint.or_else(|| {
            let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_matches(['[', ']']);
            let had = |pod: &&PodStory| {
                pod.ip.as_deref() == Some(ip) && pod.states.first().is_some_and(|first| first.at <= at)
            };
            // The last that had it, alive before gone.
            self.pods.iter().filter(had).max_by_key(|pod| {
                (pod.gone.is_none_or(|gone| gone > at), pod.states.first().map(|state| state.at))
            })
        })
    }

    /// When an address was seen to leave the ready endpoints, at or after a moment.
    pub fn left_endpoints(&self, address: &str, from: Timestamp) -> Option<Timestamp> {
        let history = self.endpoints.get(address)?;
        history.iter().find(|endpoint| endpoint.at >= from && !endpoint.ready).map(|endpoint| endpoint.at)
    }
}

fn exit(container: &str, ended: &ContainerStateTerminated, seen: Timestamp) -> Exit {
    Exit {
        container: container.to_owned(),
        at: ended.finished_at.as_ref().map_or(seen, |time| time.0),
        started: ended.started_at.as_ref().map(|time| time.0),
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
    }
}
