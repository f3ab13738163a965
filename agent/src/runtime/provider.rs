//! What the admin socket and metrics get to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::system::uname;
use tokio::sync::broadcast;
use weir_common::abi::{BACKEND_SIDE, Flow, FlowKey, control};

use super::drift;
use super::flow_log::FlowLog;
use super::process;
use super::shared::{Published, Shared};
use super::xdp;
use crate::admin::{
    Audit, Device, DryRun, FeatureState, FirstPacket, HistoryEntry, MapFill, Pods, Provider,
    RawMaps, RecordCounts, Rejection, Sockets, Status, Watch,
};
use crate::compile::{self, WithoutLocal};
use crate::datapath::{self, KernelDatapath, TestRun, XdpState};
use crate::flows::top::Activity;
use crate::flows::{Record, RuleHits};
use crate::metrics::{self, Fill, Sample};
use crate::model::{AddressOwners, Kind, Snapshot, SocketLb};
use crate::plan::{self, Table};

/// Version of the agent.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Provider for Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.published().snapshot
    }

    fn status(&self) -> Status {
        let published = self.published();
        let entries = entries(&published);
        let datapath = self.datapath();
        let fills = fills(entries, &datapath);
        Status {
            version: VERSION.to_owned(),
            node: self.node.clone(),
            kernel: uname().release().to_string_lossy().into_owned(),
            uptime_seconds: self.started.instant.elapsed().as_secs(),
            synced: Kind::ALL.iter().all(|kind| published.listed.contains(kind)),
            generation: datapath.control(control::SELECTED),
            epoch: datapath.control(control::EPOCH),
            last_sync_seconds: published
                .last_sync
                .map(|moment| moment.instant.elapsed().as_secs_f64()),
            last_error: published.last_error.clone(),
            attach_mode: datapath.attach_mode().to_string(),
            sockets: sockets(&datapath),
            pods: pods(&published.snapshot),
            watches: Kind::ALL
                .into_iter()
                .map(|kind| Watch {
                    kind: kind.as_str().to_owned(),
                    synced: published.listed.contains(&kind),
                    objects: count(&published.snapshot, kind),
                })
                .collect(),
            devices: devices(&published),
            maps: fills
                .into_iter()
                .chain([("flow", self.conntrack(&datapath))])
                .map(|(name, fill)| MapFill {
                    name: name.to_owned(),
                    entries: fill.entries,
                    capacity: fill.capacity,
                })
                .collect(),
            events_lost: datapath.control(control::EVENTS_LOST),
            flow_log: self.flow_log().map(FlowLog::state),
            features: self
                .features
                .iter()
                .map(|feature| FeatureState {
                    name: feature.name.to_owned(),
                    present: feature.present,
                    otherwise: feature.otherwise.to_owned(),
                })
                .collect(),
            rejections: published
                .skipped()
                .map(|rejected| Rejection {
                    kind: rejected.kind.to_owned(),
                    name: rejected.name.clone(),
                    message: rejected.message.clone(),
                })
                .collect(),
        }
    }

    fn maps(&self) -> Result<RawMaps, String> {
        let datapath = self.datapath();
        let dump = |table| {
            datapath
                .dump(table)
                .map(|elements| (table, elements))
                .map_err(|error| error.to_string())
        };
        Ok(RawMaps {
            version: datapath.control(control::VERSION),
            tables: Table::all().map(dump).collect::<Result<_, _>>()?,
        })
    }

    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, String> {
        let mut flows = Vec::new();
        self.each_flow(|key, flow| flows.push((key, flow)))?;
        Ok(flows)
    }

    fn audit(&self) -> Result<Audit, String> {
        drift::audit(self)
    }

    fn dry_run(&self, packet: &FirstPacket) -> Option<DryRun> {
        let run = TestRun::new(&packet.frame, packet.ifindex, packet.ingress_ifindex);
        let output = self.datapath().dry_run(packet.hook, &run);
        let output = output
            .inspect_err(|error| tracing::warn!("a packet is not tried: {error}"))
            .ok()?;
        Some(DryRun {
            reason: output.reason?,
            frame: output.packet,
        })
    }

    fn records(&self) -> Vec<Record> {
        self.recent()
    }

    fn record_counts(&self) -> RecordCounts {
        self.record_counts_now()
    }

    fn metrics(&self) -> Result<String, String> {
        let sample = self.sample().map_err(|error| error.to_string())?;
        Ok(metrics::encode(sample, &self.tally))
    }

    fn history(&self) -> Vec<HistoryEntry> {
        Shared::history(self).to_vec()
    }

    fn hits(&self) -> Result<RuleHits, String> {
        let held = self.published().held.unwrap_or_default();
        let mut connections = FxHashMap::default();
        self.each_flow(|_, flow| {
            // Of a translated connection's two entries one.
            if flow.flags & BACKEND_SIDE == 0 {
                return;
            }
            for end in &flow.ends {
                if let Some(rule) = held.policies.rules.get(&end.rule) {
                    *connections.entry(rule.clone()).or_default() += 1;
                }
            }
        })?;
        let since = self.started.timestamp;
        Ok(self.hits().answer(&self.node, since, connections))
    }

    fn follow(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        self.follow_records()
    }

    fn top(&self) -> broadcast::Receiver<Arc<Activity>> {
        self.top.follow()
    }
}

impl Shared {
    /// Visits every tracked flow; nobody who wants to write to the kernel waits for it.
    fn each_flow(&self, mut visit: impl FnMut(FlowKey, Flow)) -> Result<(), String> {
        let table = self.datapath().flow_table();
        let table = table.map_err(|error| error.to_string())?;
        let mut walk = table.walk();
        while walk.step(&mut visit).map_err(|error| error.to_string())? {}
        Ok(())
    }

    /// The values of this moment for metrics.
    pub(super) fn sample(&self) -> Result<Sample, datapath::Error> {
        let published = self.published();
        // What takes longer with more Services comes before the guard: a change waits for it.
        let entries = entries(&published);
        let without_local = [true, false].map(|v4| {
            let held = published.held.as_deref();
            held.map_or_else(WithoutLocal::default, |held| {
                compile::without_local(&held.services, v4)
            })
        });
        let datapath = self.datapath();
        let mut rejected = BTreeMap::new();
        for object in published.skipped() {
            *rejected.entry(object.kind).or_default() += 1;
        }
        Ok(Sample {
            version: VERSION.to_owned(),
            last_sync: published
                .last_sync
                .map(|moment| moment.timestamp.as_millisecond() as f64 / 1e3),
            watches: Kind::ALL
                .map(|kind| (kind, published.listed.contains(&kind)))
                .into(),
            watch_errors: self.watch_errors(),
            rejected,
            maps: fills(entries, &datapath),
            packets: datapath.counters()?,
            conntrack: self.conntrack(&datapath),
            conntrack_inserted: datapath.flows_inserted(),
            events_lost: datapath.control(control::EVENTS_LOST),
            epoch: datapath.control(control::EPOCH),
            attached: published.attached.len() as u64,
            attached_nets: published.attached_nets.len() as u64,
            attached_xdp: {
                let states = published.xdp.values();
                states.filter(|state| **state == XdpState::Attached).count() as u64
            },
            requests: self.requests.counts(),
            process: process::usage(),
            without_local,
        })
    }

    fn conntrack(&self, datapath: &KernelDatapath) -> Fill {
        Fill {
            entries: self.flow_entries(),
            capacity: datapath.flow_capacity().into(),
        }
    }

    /// Whether the agent keeps up: no change waits longer than this for the kernel.
    pub(super) fn keeps_up(&self, limit: std::time::Duration, now: Instant) -> bool {
        let waiting = self.published().waiting_since;
        waiting.is_none_or(|since| now.saturating_duration_since(since) <= limit)
    }

    /// Whether the agent is at work: a change may wait, but not without an attempt.
    pub(super) fn is_alive(&self, limit: std::time::Duration, now: Instant) -> bool {
        self.published().is_alive(limit, now)
    }
}

/// How many entries each table has, once what it holds is known.
fn entries(published: &Published) -> BTreeMap<Table, usize> {
    let held = published.held.as_deref();
    held.map(plan::entries).unwrap_or_default()
}

/// How full each table is that the data path has.
fn fills(
    entries: BTreeMap<Table, usize>,
    datapath: &KernelDatapath,
) -> BTreeMap<&'static str, Fill> {
    let fill = |(table, entries): (Table, usize)| {
        let fill = Fill {
            entries: entries as u64,
            capacity: datapath.capacity(table)?.into(),
        };
        Some((table.name(), fill))
    };
    entries.into_iter().filter_map(fill).collect()
}

fn sockets(datapath: &KernelDatapath) -> Sockets {
    let options = datapath.socket_options();
    Sockets {
        served: match options {
            None => SocketLb::None,
            Some(options) if options.pods => SocketLb::All,
            Some(_) => SocketLb::Host,
        },
        cgroup: options.map(|options| options.cgroup.display().to_string()),
        attached: datapath.sockets_attached().unwrap_or_else(|error| {
            tracing::warn!("cannot tell whether sockets are served: {error}");
            false
        }),
    }
}

fn pods(snapshot: &Snapshot) -> Pods {
    let pods = snapshot.pods.values();
    let known = pods.filter(|pod| pod.node == snapshot.node_name && pod.owns_addresses());
    Pods {
        known: known.count(),
        announced: snapshot.sandboxes.len(),
        unknown: snapshot.strangers().count(),
    }
}

fn count(snapshot: &Snapshot, kind: Kind) -> usize {
    match kind {
        Kind::Service => snapshot.services.len(),
        Kind::EndpointSlice => snapshot.slices.len(),
        Kind::NetworkPolicy => snapshot.policies.len(),
        Kind::ClusterNetworkPolicy => snapshot.cluster_policies.len(),
        Kind::Pod => snapshot.pods.len(),
        Kind::Namespace => snapshot.namespaces.len(),
        Kind::Node => snapshot.nodes.len(),
        Kind::ServiceCidr => snapshot.service_cidrs.len(),
    }
}

/// Name of a device, also of one whose pod nobody knows any more; empty for one that is gone.
fn name_of(ifindex: u32) -> String {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None);
    let name = socket.and_then(|socket| index_to_name(&socket, ifindex));
    name.unwrap_or_default()
}

/// Devices with programs, and which pod they lead to, if to any.
fn devices(published: &Published) -> Vec<Device> {
    let owners = AddressOwners::of(&published.snapshot);
    let mut devices: BTreeMap<u32, Device> = published
        .attached
        .iter()
        .map(|ifindex| {
            let device = Device {
                name: name_of(*ifindex),
                ifindex: *ifindex,
                pod: None,
                uplink: false,
                xdp: None,
            };
            (*ifindex, device)
        })
        .collect();
    for (address, found) in &published.snapshot.devices.devices {
        if let Some(device) = devices.get_mut(&found.ifindex) {
            device.name.clone_from(&found.name);
            device.pod = owners.get(address).map(|pod| pod.name.to_string());
        }
    }
    let nets = published.snapshot.devices.nets.iter();
    let nets = nets.filter(|(ifindex, _)| published.attached_nets.contains(ifindex));
    devices.extend(nets.map(|(ifindex, net)| {
        let device = Device {
            name: net.name.clone(),
            ifindex: *ifindex,
            pod: None,
            uplink: true,
            xdp: published.xdp.get(ifindex).map(xdp::describe),
        };
        (*ifindex, device)
    }));
    devices.into_values().collect()
}
