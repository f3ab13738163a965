//! Changes of Services and endpoints on their way to the kernel, as kube-proxy counts them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::metrics::Proxy;
use crate::model::{Event, Kind, Object, ObjectName, Snapshot, Trigger};

/// What is queued.
#[derive(Debug)]
pub(super) struct Queue {
    /// Slices of before this were there already: how long they took says nothing about this agent.
    since: SystemTime,
    empty: bool,
    /// What changed endpoints of a Service.
    triggers: BTreeMap<ObjectName, Vec<Trigger>>,
}

impl Queue {
    /// Nothing is queued.
    pub(super) fn since(since: SystemTime) -> Self {
        Self {
            since,
            empty: true,
            triggers: BTreeMap::new(),
        }
    }

    /// Counts an event that the snapshot does not know yet.
    pub(super) fn seen(&mut self, event: &Event, snapshot: &Snapshot, proxy: &mut Proxy) {
        match event {
            Event::Applied(object) => self.applied(object, snapshot, proxy),
            Event::Deleted(kind, name) | Event::Rejected { kind, name, .. } => {
                self.gone(*kind, name, snapshot, proxy);
            }
            Event::Replaced(kind, objects) => {
                let mut listed = Vec::with_capacity(objects.len());
                for object in objects {
                    self.applied(object, snapshot, proxy);
                    listed.push(object.key().1);
                }
                listed.sort_unstable();
                for name in known(*kind, snapshot) {
                    if listed.binary_search(name).is_err() {
                        self.gone(*kind, name, snapshot, proxy);
                    }
                }
            }
            Event::Flawed { .. } | Event::File { .. } => {}
        }
    }

    fn applied(&mut self, object: &Object, snapshot: &Snapshot, proxy: &mut Proxy) {
        let (changes, changed) = match object {
            Object::Service(new) => {
                let old = snapshot.services.get(&new.name);
                (&mut proxy.services, old.is_none_or(|old| **old != *new))
            }
            Object::EndpointSlice(new) => {
                let old = snapshot.slices.get(&new.name);
                let changed = old.is_none_or(|old| **old != *new);
                let trigger = new.trigger.filter(|trigger| trigger.at > self.since);
                if changed && let Some(trigger) = trigger {
                    let triggers = self.triggers.entry(new.service.clone()).or_default();
                    triggers.push(trigger);
                }
                (&mut proxy.endpoints, changed)
            }
            _ => return,
        };
        changes.total += 1;
        changes.pending += u64::from(changed);
    }

    fn gone(&mut self, kind: Kind, name: &ObjectName, snapshot: &Snapshot, proxy: &mut Proxy) {
        let (changes, changed) = match kind {
            Kind::Service => (&mut proxy.services, snapshot.services.contains_key(name)),
            Kind::EndpointSlice => {
                let old = snapshot.slices.get(name);
                if let Some(old) = old {
                    // What a slice was last written for is not what made it go.
                    self.triggers.remove(&old.service);
                }
                (&mut proxy.endpoints, old.is_some())
            }
            _ => return,
        };
        changes.total += 1;
        changes.pending += u64::from(changed);
    }

    /// Something is to be carried out.
    pub(super) fn add(&mut self, now: SystemTime, proxy: &mut Proxy) {
        self.empty = false;
        proxy.queued(now);
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The kernel's maps hold everything.
    pub(super) fn done(&mut self, now: SystemTime, proxy: &mut Proxy) {
        self.empty = true;
        proxy.synced(now);
        for trigger in std::mem::take(&mut self.triggers).into_values().flatten() {
            // Clocks of the control plane and this node may differ.
            let took = now.duration_since(trigger.at).unwrap_or_default();
            proxy.programmed(trigger.v4, took);
        }
    }
}

/// Names of a kind that are known.
fn known(kind: Kind, snapshot: &Snapshot) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
    match kind {
        Kind::Service => Box::new(snapshot.services.keys()),
        Kind::EndpointSlice => Box::new(snapshot.slices.keys()),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Sample, Tally, encode};
    use crate::model::{Endpoint, EndpointSlice, Service};
    use crate::state::State;

    /// Seconds after the agent's start.
    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.0 + seconds)
    }

    /// An agent without a kernel.
    struct Agent {
        state: State,
        queue: Queue,
        tally: Arc<Tally>,
    }

    impl Agent {
        fn new() -> Self {
            Self {
                state: State::new("node-a"),
                queue: Queue::since(at(0.0)),
                tally: Arc::default(),
            }
        }

        fn told(&mut self, now: f64, event: Event) {
            let snapshot = self.state.snapshot();
            self.tally
                .proxy(|proxy| self.queue.seen(&event, snapshot, proxy));
            if self.state.apply(event).services {
                self.tally.proxy(|proxy| self.queue.add(at(now), proxy));
            }
        }

        fn wrote(&mut self, now: f64) {
            self.tally.proxy(|proxy| self.queue.done(at(now), proxy));
        }

        /// Values by metric without its `kubeproxy_` and with its labels.
        fn metric(&self, name: &str) -> String {
            let text = encode(Sample::default(), &self.tally);
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("kubeproxy_{name} ")));
            line.unwrap_or_else(|| panic!("{name} in {text}"))
                .to_owned()
        }
    }

    fn slice(name: &str, address: &str, trigger: Option<f64>) -> EndpointSlice {
        let address: IpAddr = address.parse().unwrap();
        EndpointSlice {
            name: ObjectName::new("shop", name),
            service: ObjectName::new("shop", "web"),
            endpoints: vec![Endpoint::new(address)],
            ports: Vec::new(),
            trigger: trigger.map(|seconds| Trigger {
                at: at(seconds),
                v4: address.is_ipv4(),
            }),
        }
    }

    fn applied(slice: EndpointSlice) -> Event {
        Event::Applied(Object::EndpointSlice(slice))
    }

    const SUM: &str = r#"network_programming_duration_seconds_sum{ip_family="IPv4"}"#;
    const COUNT: &str = r#"network_programming_duration_seconds_count{ip_family="IPv4"}"#;
    const COUNT_V6: &str = r#"network_programming_duration_seconds_count{ip_family="IPv6"}"#;

    #[test]
    fn a_changed_slice_is_measured_when_the_maps_hold_it() {
        let mut agent = Agent::new();
        // One that was there before the agent.
        let first = Object::EndpointSlice(slice("v4", "10.0.0.1", Some(-5.0)));
        agent.told(1.0, Event::Replaced(Kind::EndpointSlice, vec![first]));
        agent.wrote(2.0);
        assert_eq!(agent.metric(COUNT), "0");

        agent.told(10.5, applied(slice("v4", "10.0.0.2", Some(10.0))));
        agent.told(11.5, applied(slice("v4", "10.0.0.3", Some(11.0))));
        agent.told(11.5, applied(slice("v6", "fd00::3", Some(11.0))));
        // Told again, it changes nothing.
        agent.told(11.6, applied(slice("v6", "fd00::3", Some(11.0))));
        // Not measurable.
        agent.told(11.7, applied(slice("other", "10.0.0.9", None)));
        assert_eq!(agent.metric(COUNT), "0", "nothing is written yet");
        assert_eq!(
            agent.metric("sync_proxy_rules_endpoint_changes_pending"),
            "4"
        );
        agent.wrote(12.0);
        assert_eq!(agent.metric(COUNT), "2");
        assert_eq!(agent.metric(SUM), "3.0", "2 seconds and 1");
        assert_eq!(agent.metric(COUNT_V6), "1");
        assert_eq!(
            agent.metric("sync_proxy_rules_endpoint_changes_pending"),
            "0"
        );
        assert_eq!(agent.metric("sync_proxy_rules_endpoint_changes_total"), "6");
        agent.wrote(13.0);
        assert_eq!(agent.metric(COUNT), "2", "each once");
    }

    #[test]
    fn a_slice_that_goes_is_not_measured() {
        let mut agent = Agent::new();
        agent.told(1.0, applied(slice("v4", "10.0.0.1", Some(1.0))));
        agent.told(
            1.5,
            Event::Deleted(Kind::EndpointSlice, ObjectName::new("shop", "v4")),
        );
        agent.told(1.6, applied(slice("v6", "fd00::1", Some(1.5))));
        // A relist without it.
        agent.told(1.7, Event::Replaced(Kind::EndpointSlice, Vec::new()));
        agent.wrote(2.0);
        assert_eq!(agent.metric(COUNT), "0");
        assert_eq!(agent.metric(COUNT_V6), "0");
        assert_eq!(agent.metric("sync_proxy_rules_endpoint_changes_total"), "4");
    }

    #[test]
    fn a_clock_that_is_ahead_counts_as_no_time() {
        let mut agent = Agent::new();
        agent.told(1.0, applied(slice("v4", "10.0.0.1", Some(9.0))));
        agent.wrote(2.0);
        assert_eq!(agent.metric(COUNT), "1");
        assert_eq!(agent.metric(SUM), "0.0");
    }

    #[test]
    fn times_of_queueing_and_writing_tell_what_waits() {
        const QUEUED: &str = r#"sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"}"#;
        const WRITTEN: &str = r#"sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}"#;
        let mut agent = Agent::new();
        assert_eq!(agent.metric(QUEUED), "0.0");
        let service = |name| Service {
            name: ObjectName::new("shop", name),
            ..Service::default()
        };
        let event = |name| Event::Applied(Object::Service(service(name)));
        agent.told(1.0, event("web"));
        assert!(!agent.queue.is_empty());
        agent.wrote(2.0);
        assert!(agent.queue.is_empty());
        // The same once more is nothing new.
        agent.told(3.0, event("web"));
        assert!(agent.queue.is_empty());
        agent.told(4.0, event("db"));
        assert_eq!(agent.metric(QUEUED), "1700000004.0");
        assert_eq!(agent.metric(WRITTEN), "1700000002.0");
        assert_eq!(
            agent.metric("sync_proxy_rules_service_changes_pending"),
            "1"
        );
        assert_eq!(agent.metric("sync_proxy_rules_service_changes_total"), "3");
    }
}
