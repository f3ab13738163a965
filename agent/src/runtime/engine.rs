//! Brings the kernel in line with the state: compile, plan, write, attach.

mod sandboxes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use weir_common::abi::control;

pub(super) use self::sandboxes::{Ask, Said};
use super::adopt;
use super::devices::{Devices, leading};
use super::drift::{self, Rounds};
use super::health_checks::HealthChecks;
use super::history::{self, Passage, Words};
use super::nets;
use super::queue::Queue;
use super::shared::{Moment, Shared};
use super::xdp;
use crate::cni::{Answer, Store};
use crate::compile::{self, PolicyCompiler, ServiceCompiler, Tables};
use crate::config::Established;
use crate::datapath;
use crate::flows::Directory;
use crate::metrics::Stage;
use crate::model::{
    Attachment, Change, DeviceFacts, Event, Kind, NodePorts, ObjectName, PodDevice, Snapshot,
};
use crate::netlink::Local;
use crate::plan::{Plan, PlanError, Planner, Refused, Share, refuse_excess};
use crate::state::{Rejected, State};

/// How long connections of before are entered with each device that is found: a pod whose device never is must not have all that netfilter
/// tracks read again with every other pod that comes.
const ADOPTION: Duration = Duration::from_secs(60);

/// What there is to do for a state that is another's.
const EVERYTHING: Change = Change {
    services: true,
    policies: true,
    devices: true,
};

/// Why the kernel is not in line.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// Programs are missing on devices.
    #[error("{}", .0.join("; "))]
    Attach(Vec<String>),
    /// Tables and programs failed, each for its own reason.
    #[error("{0}; {1}")]
    Both(Box<Self>, Box<Self>),
}

/// State and knowledge of the kernel.
pub(super) struct Engine {
    state: State,
    /// What the source has told so far, while the state is what an earlier agent last knew.
    told: Option<State>,
    services: ServiceCompiler,
    policies: PolicyCompiler,
    tables: Tables,
    planner: Planner,
    devices: Devices,
    /// Uplinks and tunnel devices.
    nets: Devices,
    shared: Arc<Shared>,
    health_checks: watch::Sender<HealthChecks>,
    /// What of the state is on this node.
    local: Local,
    /// What differs since the tables were compiled and the state was published. Programs are put onto devices with every sync.
    change: Change,
    /// What is queued, for metrics.
    queue: Queue,
    /// What is on its way, for those who ask later.
    passage: Passage,
    /// Services that no map can hold.
    refused: Vec<Rejected>,
    /// The largest policies, while they do not fit.
    unfit: Vec<Rejected>,
    /// Whether the kernel's maps have ever been filled, by this agent or by an earlier one, whose programs are there then.
    filled: bool,
    started: Instant,
    /// Which table is compared next with the kernel's.
    rounds: Rounds,
    /// Whether connections of before may have to be entered when programs are attached: none were when this agent began, and it
    /// has not yet found the devices of all pods.
    adopts: bool,
    /// Where sandboxes are kept for the next agent.
    store: Store,
    /// Questions about sandboxes whose answer is not yes yet.
    asked: Vec<(Attachment, oneshot::Sender<Answer>)>,
}

impl Engine {
    /// An engine that takes over what an earlier agent left.
    pub(super) fn new(
        shared: Arc<Shared>,
        node_ports: Vec<NodePorts>,
        established: Established,
        health_checks: watch::Sender<HealthChecks>,
        store: Store,
    ) -> Result<Self, datapath::Error> {
        let mut planner = Planner::new();
        if established == Established::Keep {
            planner = planner.keeping_established();
        }
        let (filled, adopts);
        {
            let datapath = shared.datapath();
            let attached =
                !(datapath.attached()?.is_empty() && datapath.attached_nets()?.is_empty());
            // An agent that ended while it took over has not entered all; and with the API server away, nobody else would
            // let packets of connections pass again.
            let interrupted = datapath.control(control::TAKING_OVER) != 0;
            datapath.set_taking_over(false);
            (filled, adopts) = (attached, !attached || interrupted);
            planner.adopt_backends(&datapath.backends()?);
            planner.set_version(datapath.control(control::VERSION));
        }
        let mut state = State::with_node_ports(shared.node.clone(), node_ports);
        for sandbox in sandboxes::restore(&store) {
            state.announce(sandbox);
        }
        Ok(Self {
            state,
            told: None,
            services: ServiceCompiler::default(),
            policies: PolicyCompiler::default(),
            tables: Tables::default(),
            planner,
            devices: Devices::default(),
            nets: Devices::default(),
            shared,
            health_checks,
            local: Local::default(),
            // Nothing has been compiled yet.
            change: EVERYTHING,
            queue: Queue::since(SystemTime::now()),
            passage: Passage::default(),
            refused: Vec::new(),
            unfit: Vec::new(),
            filled,
            started: Instant::now(),
            rounds: Rounds::new(),
            adopts,
            store,
            asked: Vec::new(),
        })
    }

    /// Takes in events; whether there is anything to do for them.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> bool {
        let mut any = false;
        let mut pods = false;
        let mut listed = BTreeSet::new();
        for event in events {
            if let Event::Replaced(kind, _) = &event {
                any |= !self.state.synced();
                listed.insert(*kind);
            }
            let told = self.told.as_mut().unwrap_or(&mut self.state);
            let tally = &self.shared.tally;
            tally.proxy(|proxy| self.queue.seen(&event, told.snapshot(), proxy));
            let trigger = history::trigger(&event);
            let change = told.apply(event);
            if self.told.is_none() {
                if change != Change::default() {
                    self.passage.asked(|| trigger, Instant::now());
                }
                pods |= change.policies;
                any |= self.note(change);
            }
        }
        if let Some(mut told) = self.told.take_if(|told| told.synced()) {
            tracing::info!("the API server has told of all objects");
            told.succeed(&self.state);
            self.state = told;
            pods = true;
            any |= self.note(EVERYTHING);
        }
        if pods {
            self.local = local(&self.state);
        }
        self.shared.publish(|published| {
            published.listed.extend(listed);
        });
        self.publish_rejections();
        any
    }

    fn publish_rejections(&self) {
        let mut rejections = self.state.rejections();
        rejections.extend(self.refused.iter().chain(&self.unfit).cloned());
        let rejections = rejections.into();
        self.shared
            .publish(|published| published.rejections = rejections);
    }

    /// Takes in what leads where; whether there is anything to do for it.
    pub(super) fn set_devices(&mut self, facts: DeviceFacts) -> bool {
        let change = self.state.set_devices(facts);
        if change != Change::default() {
            let devices = || history::other("Device", ObjectName::default());
            self.passage.asked(devices, Instant::now());
        }
        self.note(change)
    }

    fn note(&mut self, change: Change) -> bool {
        self.change.services |= change.services;
        self.change.policies |= change.policies;
        self.change.devices |= change.devices;
        if change.services {
            let tally = &self.shared.tally;
            tally.proxy(|proxy| self.queue.add(SystemTime::now(), proxy));
        }
        change != Change::default()
    }

    /// Whether nothing is known of what is there, and the kernel holds nothing of an earlier agent either.
    pub(super) fn knows_nothing(&self) -> bool {
        !self.filled && !self.state.synced()
    }

    /// Takes what an earlier agent last knew for what is there, until the source has told everything.
    pub(super) fn recall(&mut self, events: Vec<Event>) {
        let mut recalled = self.state.anew();
        for event in events {
            recalled.apply(event);
        }
        recalled.succeed(&self.state);
        self.told = Some(std::mem::replace(&mut self.state, recalled));
        self.local = local(&self.state);
        self.note(EVERYTHING);
    }

    /// Whether everything has been listed: before that the kernel is left as it is.
    pub(super) fn synced(&self) -> bool {
        self.state.synced()
    }

    /// Addresses whose devices are to be found.
    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    /// Whether a local pod's device is still to be found.
    pub(super) fn lacks_devices(&self) -> bool {
        let facts = &self.state.snapshot().devices;
        let mut pods = self.local.pods.keys();
        pods.any(|address| !facts.devices.contains_key(address))
    }

    /// Brings the kernel in line. After an error it has what it had, and calling again is right.
    pub(super) fn sync(&mut self) -> Result<(), SyncError> {
        let result = self.try_sync();
        let last_error = result.as_ref().err().map(ToString::to_string);
        self.remember(last_error.clone());
        let done = result.is_ok().then(Moment::now);
        let held = self.planner.held().cloned();
        self.shared.publish(|published| {
            published.last_sync = done.or(published.last_sync);
            published.last_error = last_error;
            published.held = held;
            published.last_attempt = Some(Instant::now());
            if done.is_some() {
                published.waiting_since = None;
            }
        });
        self.answer();
        result
    }

    /// Keeps what a sync came to for those who ask later.
    fn remember(&mut self, error: Option<String>) {
        let words = {
            let datapath = self.shared.datapath();
            Words {
                generation: datapath.control(control::SELECTED),
                version: datapath.control(control::VERSION),
                epoch: datapath.control(control::EPOCH),
            }
        };
        let skipped = self.shared.published().rejections;
        let now = Moment::now();
        let now = (now.instant, now.timestamp);
        let entry = self
            .passage
            .over(&self.shared.node, words, error, &skipped, now);
        if let Some(entry) = entry {
            self.shared.history().push(entry);
        }
    }

    /// Programs are attached whatever became of this change: a pod without them is open. But not over maps that hold nothing: there
    /// they know no pod, and would cut off all.
    fn try_sync(&mut self) -> Result<(), SyncError> {
        let start = Instant::now();
        self.look_for_drift();
        self.forget_lost();
        self.compile();
        let (plan, refused) = self.plan();
        let whole = plan.is_whole();
        let (plan, rest) = tidied_later(plan);
        let written = self.write(&plan, rest.is_empty());
        if written.is_ok() {
            self.passage.planned(&plan);
            self.passage.in_force(Instant::now());
        }
        self.count(whole, start.elapsed());
        self.filled |= self.planner.held().is_some();
        let refused = refused.map_or(Ok(()), |error| Err(error.into()));
        if !self.filled {
            return written.map(drop).and(refused);
        }
        let attached = self
            .attach()
            .inspect_err(|_| self.shared.tally.failed(Stage::Attach));
        let written = written.and_then(|took| {
            if rest.is_empty() {
                return Ok(took);
            }
            // Grace periods are long for a pod that waits to start.
            self.answer();
            let took = took + self.write(&rest, true)?;
            self.passage.planned(&rest);
            Ok(took)
        });
        if let Ok(took) = written
            && !plan.is_empty()
        {
            self.shared.tally.took(Stage::Write, took);
        }
        match (written.map(drop).and(refused), attached) {
            (Err(written), Err(attached)) => {
                Err(SyncError::Both(Box::new(written), Box::new(attached)))
            }
            (written, attached) => written.and(attached),
        }
    }

    /// Has all tables compared with the kernel's by the next sync.
    pub(super) fn suspect(&mut self) {
        self.rounds.hurry();
    }

    /// Compares tables with the kernel's, each in its turn; if one was changed by somebody else, everything is written anew.
    fn look_for_drift(&mut self) {
        let tables = self.rounds.due(Instant::now());
        if tables.is_empty() || self.planner.held().is_none() {
            return;
        }
        let datapath = self.shared.datapath();
        let mut drifted = false;
        for table in tables {
            match drift::compare(&self.planner, &datapath, table) {
                Ok(differences) if differences.is_empty() => {}
                Ok(differences) => {
                    drift::warn(table, &differences);
                    self.shared.tally.drifted(table.name(), differences.len());
                    drifted = true;
                }
                // The next round asks again.
                Err(error) => tracing::warn!(
                    "cannot compare map {} with what was written: {error}",
                    table.name()
                ),
            }
        }
        // At once: a generation that programs are sent to may not be there.
        let words = datapath.restore_words();
        if !words.is_empty() {
            for word in &words {
                tracing::warn!("somebody changed {word}; the maps are written anew");
            }
            self.shared.tally.drifted("control", words.len());
            drifted = true;
        }
        if drifted {
            let maps = || history::other("Maps", ObjectName::default());
            self.passage.asked(maps, Instant::now());
            self.planner.invalidate();
            self.planner.set_version(datapath.control(control::VERSION));
        }
    }

    /// What is to be written. Policies that do not fit leave the former ones in force, pods that come meanwhile have nothing that these do not
    /// allow, and Services are carried out all the same.
    fn plan(&mut self) -> (Plan, Option<PlanError>) {
        let start = Instant::now();
        let planned = match self.planner.plan(&self.tables) {
            Ok(plan) => (plan, None),
            Err(error) => {
                self.shared.tally.failed(Stage::Plan);
                (
                    self.planner.plan_what_fits(&self.tables, !self.filled),
                    Some(error),
                )
            }
        };
        self.shared.tally.took(Stage::Plan, start.elapsed());
        let unfit = planned
            .1
            .iter()
            .flat_map(|PlanError::TooLarge { largest, .. }| largest);
        let unfit = unfit.filter(|share| share.kind == Kind::NetworkPolicy);
        let unfit: Vec<_> = unfit
            .map(|share| too_large(self.state.snapshot(), share))
            .collect();
        if unfit != self.unfit {
            self.unfit = unfit;
            self.publish_rejections();
        }
        planned
    }

    /// Brings the maps in line, or for a part of the way that is not the last; tells how long it took.
    fn write(&mut self, plan: &Plan, last: bool) -> Result<Duration, SyncError> {
        let mut took = Duration::ZERO;
        if !plan.is_empty() {
            let start = Instant::now();
            let mut datapath = self.shared.datapath_mut();
            if let Err(error) = datapath.execute(plan) {
                self.planner.invalidate();
                self.planner.set_version(datapath.control(control::VERSION));
                self.shared.publish(|published| published.planner = None);
                self.shared.tally.failed(Stage::Write);
                return Err(error.into());
            }
            // Before anybody can read the maps: an audit must not compare them with what was written before.
            let planner = last.then(|| Arc::new(self.planner.clone()));
            self.shared.publish(|published| {
                published.syncs += u64::from(last);
                published.planner = planner;
            });
            drop(datapath);
            took = start.elapsed();
            self.end_stale_sockets();
            tracing::debug!(steps = plan.steps.len(), "wrote maps");
        }
        Ok(took)
    }

    /// Counts as kube-proxy does what a sync that took so long did for Services, if it was for them.
    fn count(&mut self, whole: bool, took: Duration) {
        if self.queue.is_empty() {
            return;
        }
        let held = self.planner.held();
        let done = held.is_some_and(|held| held.services == self.tables.services);
        self.shared.tally.proxy(|proxy| {
            proxy.took(whole, took);
            if done {
                self.queue.done(SystemTime::now(), proxy);
            }
        });
    }

    /// Ends sockets that would stay silent: of the node's processes, to backends that are gone by now.
    fn end_stale_sockets(&self) {
        match self.shared.datapath().end_stale_sockets() {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "ended UDP sockets whose backend is gone"),
            // The next plan tries again, and their processes can connect again any time.
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Compiles what changed.
    fn compile(&mut self) {
        let change = std::mem::take(&mut self.change);
        if change == Change::default() {
            return;
        }
        let start = Instant::now();
        let snapshot = self.state.snapshot();
        if change.services {
            self.tables.services = self.services.compile(snapshot).clone();
            let refused = refuse_excess(&mut self.tables.services, &self.services);
            self.refused = refused.iter().map(|it| rejected(snapshot, it)).collect();
            self.publish_rejections();
            self.health_checks
                .send_replace(Arc::new(compile::health_checks(snapshot)));
        }
        if change.policies {
            let tables = self.policies.compile(snapshot, self.state.owners());
            self.tables.policies = Arc::new(tables.clone());
        }
        self.shared.tally.took(Stage::Compile, start.elapsed());
        let directory = Arc::new(Directory::new(snapshot, self.state.owners(), &self.tables));
        let snapshot = Arc::new(snapshot.clone());
        let before = self.shared.published().snapshot;
        self.shared.hits().follow(&before, &snapshot);
        self.shared.publish(|published| {
            published.snapshot = snapshot;
            published.directory = directory;
        });
        // Every time but the first it is set already.
        let _ = self.shared.compiled.set(());
    }

    /// Programs onto devices and the cgroup: endpoints are in the maps by now, so that no packet meets a program that does not
    /// know its pod.
    fn attach(&mut self) -> Result<(), SyncError> {
        let start = Instant::now();
        let snapshot = self.state.snapshot();
        let nets = snapshot.devices.nets.iter();
        let names: BTreeMap<u32, &str> = snapshot
            .devices
            .devices
            .values()
            .map(|device| (device.ifindex, device.name.as_str()))
            .chain(nets.map(|(ifindex, net)| (*ifindex, net.name.as_str())))
            .collect();
        let mut datapath = self.shared.datapath_mut();
        let is_pod = |address: &IpAddr| self.local.pods.contains_key(address);
        let needed = leading(&snapshot.devices, is_pod);
        let before = datapath.attached()?;
        let wanted = self.devices.wanting(&before, needed);
        let needed = snapshot.devices.nets.keys().copied();
        let wanted_nets = self.nets.wanting(&datapath.attached_nets()?, needed);
        let adopts = self.adopts && !(wanted.is_empty() && wanted_nets.is_empty());
        if adopts {
            datapath.set_taking_over(true);
            adopt::connections(&datapath, snapshot);
        }
        let mut errors = Vec::new();
        if let Err(error) = datapath.set_nets(&nets::rows(&snapshot.devices.nets)) {
            errors.push(error.to_string());
        }
        let of_pods = wanted.iter().map(|device| (*device, false));
        for (device, net) in of_pods.chain(wanted_nets.iter().map(|device| (*device, true))) {
            let name = names.get(&device).copied().unwrap_or_default();
            let (attached, ours) = if net {
                (datapath.attach_net(device), &mut self.nets)
            } else {
                (datapath.attach(device), &mut self.devices)
            };
            match attached {
                Ok(()) => {
                    ours.attached(device);
                    if !net && !before.contains(&device) {
                        let since = unprotected_since(&self.state, device);
                        let time = since.and_then(|since| since.elapsed().ok());
                        if let Some(time) = time {
                            self.shared.tally.unprotected(time);
                        }
                    }
                    tracing::info!(device = name, ifindex = device, net, "attached");
                }
                // It, or its pod, ended meanwhile, which netlink is about to tell.
                Err(error) if error.is_device_gone() => {}
                Err(error) => errors.push(format!("device {name}: {error}")),
            }
        }
        if let Err(error) = datapath.attach_sockets() {
            errors.push(format!("sockets: {error}"));
        }
        if adopts {
            // Those that were opened in between.
            adopt::connections(&datapath, snapshot);
        }
        datapath.set_taking_over(false);
        let (attached, attached_nets) = (datapath.attached()?, datapath.attached_nets()?);
        // Last: what XDP leaves, the others must take.
        let mut nets = snapshot.devices.nets.clone();
        nets.retain(|ifindex, _| attached_nets.contains(ifindex));
        let before = self.shared.published().xdp;
        let xdp = xdp::attach(&datapath, &nets, &before, &mut errors);
        drop(datapath);
        self.adopts &= self.lacks_devices() && self.started.elapsed() < ADOPTION;
        self.shared.publish(|published| {
            published.attached = attached;
            published.attached_nets = attached_nets;
            published.xdp = xdp;
        });
        self.shared.tally.took(Stage::Attach, start.elapsed());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(SyncError::Attach(errors))
        }
    }
}

fn rejected(snapshot: &Snapshot, Refused { service, entries }: &Refused) -> Rejected {
    let known = snapshot.services.get(service);
    Rejected {
        kind: Kind::Service.as_str(),
        name: service.to_string(),
        uid: known.map(|known| known.uid.clone()).unwrap_or_default(),
        reason: "MapFull",
        message: format!(
            "its ports and endpoints are {entries} map entries, more than there is room for beside the other Services; it is not served: \
             use fewer ports, or several Services"
        ),
    }
}

/// A plan in two parts if programs may come onto devices in between: not if live flows wait to be judged again.
fn tidied_later(plan: Plan) -> (Plan, Plan) {
    if plan.judges_again() {
        return (plan, Plan::default());
    }
    plan.until_in_force()
}

/// Since when a device that gets its first programs leads to a pod; `None` if a CNI plugin kept the pod from starting before.
fn unprotected_since(state: &State, ifindex: u32) -> Option<SystemTime> {
    let is_it = |device: &PodDevice| device.ifindex == ifindex;
    let (snapshot, owners) = (state.snapshot(), state.owners());
    let mut sandboxes = snapshot.sandboxes.values();
    if sandboxes.any(|sandbox| sandbox.device.as_ref().is_some_and(is_it)) {
        return None;
    }
    let created = || {
        let devices = snapshot.devices.devices.iter();
        let addresses = devices.filter(|(_, device)| is_it(device));
        let pods = addresses.filter_map(|(address, _)| owners.get(address));
        let created = pods.map(|pod| pod.created).max().unwrap_or_default();
        let seconds = u64::try_from(created).ok().filter(|created| *created > 0)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let appeared = snapshot.devices.appeared.get(&ifindex).copied();
    appeared.or_else(created)
}

fn too_large(snapshot: &Snapshot, Share { name, entries, .. }: &Share) -> Rejected {
    let known = snapshot.policies.get(name);
    Rejected {
        kind: Kind::NetworkPolicy.as_str(),
        name: name.to_string(),
        uid: known.map(|known| known.uid.clone()).unwrap_or_default(),
        reason: "MapFull",
        message: format!(
            "the policies of a node's pods need more entries than its maps can have, {entries} of them this one's; the node keeps its former \
             policies, and pods that come have nothing that these do not allow: use fewer ports and peers"
        ),
    }
}

/// This node's pods by their addresses, and the node's own addresses.
fn local(state: &State) -> Local {
    let (snapshot, owners) = (state.snapshot(), state.owners().local());
    let node = snapshot.own_node();
    let strangers = snapshot.strangers().flat_map(|sandbox| {
        let uid = sandbox.stranger(&snapshot.node_name).uid;
        let addresses = sandbox.addresses.iter();
        addresses.map(move |address| (*address, uid.clone()))
    });
    Local {
        pods: owners
            .iter()
            .map(|(address, pod)| (*address, pod.uid.clone()))
            .chain(strangers)
            .collect(),
        node: node
            .map(|node| node.addresses.iter().copied().collect())
            .unwrap_or_default(),
    }
}
