//! Random clusters: the oracle's verdict on every flow is the agent's, with the same policies and a rule that does allow it.
//!
//! `WEIR_CASES` sets how many clusters (seeds from 0 on), `WEIR_SEED` replays one. The test of the loaded programs needs root and
//! an agent built with them; it says SKIP otherwise.

// xtask: soak

use std::collections::BTreeSet;

use weir::datapath::{AttachMode, KernelDatapath, Options};
use weir::explain::{Atom, Atoms, judge_atoms};
use weir::model::{Direction, Peer, Policy};
use weir::plan::{MemoryMaps, Plan, Planner, Step};
use weir_common::abi::control;
use weir_oracle::generate::{cluster, flows};
use weir_oracle::{Cluster, Flow, judge, minimise, protocol};
use weir_tests::fixture::edit;
use weir_tests::kernel::{Place, veth};
use weir_tests::policy::{DEVICES, Loaded, Trouble, View, explainer, packets, tables};
use weir_tests::simulator::Simulator;
use weir_tests::soaks;

const CASES: u64 = 1_000;
/// With `cargo xtask soak`.
const SOAK_CASES: u64 = 20_000;
/// Threads that share the seeds of the user-space levels.
const WORKERS: u64 = 2;
/// Flows of each cluster that go past the simulator's hooks as packets.
const PACKETS: usize = 200;
/// Flows of each cluster that are explained.
const EXPLAINED: usize = 20;
/// One cluster in so many goes into the kernel,
const LOADED: u64 = 20;
/// and this many flows of it.
const LOADED_PACKETS: usize = 200;

/// Questions of an audit.
const QUESTIONS: usize = 20_000;

/// Devices that need not exist.
const IMAGINED: [u32; DEVICES] = [101, 102, 103, 104, 105, 106, 107, 108, 109, 110];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn seeds() -> Vec<u64> {
    match number("WEIR_SEED") {
        Some(seed) => vec![seed],
        None => {
            let usual = if soaks() { SOAK_CASES } else { CASES };
            (0..number("WEIR_CASES").unwrap_or(usual)).collect()
        }
    }
}

/// Every `n`th of the flows, so that about `count` of them remain, starting elsewhere for each seed.
fn sample(flows: &[Flow], count: usize, seed: u64) -> impl Iterator<Item = &Flow> {
    let stride = (flows.len() / count).max(1);
    flows.iter().skip(seed as usize % stride).step_by(stride)
}

fn nodes(cluster: &Cluster) -> BTreeSet<String> {
    let names = cluster.nodes.iter().map(|node| node.metadata.name.clone());
    names.flatten().collect()
}

/// Sample every first packet.
fn sample_all() -> Plan {
    let (index, value) = (control::SAMPLE, 1);
    Plan {
        steps: vec![Step::Control { index, value }],
    }
}

/// What user space makes of clusters that come one after the other to the same agents.
struct Agent {
    planner: Planner,
    simulator: Simulator,
}

impl Agent {
    fn new() -> Self {
        let mut maps = MemoryMaps::new();
        maps.execute(&sample_all()).expect("control word");
        Self {
            planner: Planner::new(),
            simulator: Simulator::new(maps, 250),
        }
    }

    fn install(&mut self, view: &View) {
        let plan = self.planner.plan(&view.tables).expect("plan");
        self.simulator.maps.execute(&plan).expect("execute");
    }

    /// Tables, packets and explanations of each node. `spoil` may damage what the agent has compiled.
    fn check(
        &mut self,
        cluster: &Cluster,
        seed: u64,
        spoil: impl Fn(&mut View),
    ) -> Result<usize, Trouble> {
        let flows = flows(cluster);
        for node in nodes(cluster) {
            let mut view = View::new(cluster, &node, &IMAGINED)?;
            spoil(&mut view);
            self.install(&view);
            let here = |flow: &&Flow| flow.observer_node == node;
            let tell = |flow: &Flow, text| Trouble::Disagreement(format!("{flow:?}\n{text}"));
            for flow in flows.iter().filter(here) {
                tables(&view, flow, &judge(cluster, flow)).map_err(|text| tell(flow, text))?;
            }
            for flow in sample(&flows, PACKETS, seed).filter(here) {
                let wanted = judge(cluster, flow);
                packets(&mut self.simulator, &view, flow, &wanted)
                    .map_err(|text| tell(flow, text))?;
            }
            for flow in sample(&flows, EXPLAINED, seed).filter(here) {
                explainer(cluster, &view, flow).map_err(|text| tell(flow, text))?;
            }
        }
        Ok(flows.len())
    }
}

fn unspoilt(_: &mut View) {}

/// Makes a failing cluster small and tells of it.
fn fail(seed: u64, trouble: Trouble) -> ! {
    let disagrees = |cluster: &Cluster| match Agent::new().check(cluster, seed, unspoilt) {
        Err(Trouble::Disagreement(text)) => Some(text),
        Err(Trouble::Rejected(_)) | Ok(_) => None,
    };
    let whole = cluster(seed);
    if disagrees(&whole).is_none() {
        panic!("seed {seed}, not with fresh maps: {trouble:?}");
    }
    let small = minimise(whole, |cluster| disagrees(cluster).is_some());
    let text = disagrees(&small).unwrap_or_default();
    panic!("seed {seed}: {text}\n{}", yaml(&small));
}

fn yaml(cluster: &Cluster) -> String {
    fn documents<T: serde::Serialize>(items: &[T]) -> impl Iterator<Item = String> {
        items
            .iter()
            .map(|item| serde_saphyr::to_string(item).expect("YAML"))
    }
    documents(&cluster.namespaces)
        .chain(documents(&cluster.nodes))
        .chain(documents(&cluster.pods))
        .chain(documents(&cluster.policies))
        .chain(documents(&cluster.cluster_policies))
        .collect::<Vec<_>>()
        .join("---\n")
}

#[test]
fn tables_packets_and_explanations_agree_with_the_oracle() {
    let seeds = seeds();
    let work = |worker: u64| {
        let mut agent = Agent::new();
        let mut judged = 0;
        for &seed in seeds.iter().filter(|seed| *seed % WORKERS == worker) {
            match agent.check(&cluster(seed), seed, unspoilt) {
                Ok(flows) => judged += flows,
                Err(trouble) => fail(seed, trouble),
            }
        }
        judged
    };
    let judged: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("worker"))
            .sum()
    });
    println!("{} clusters, {judged} flows", seeds.len());
    assert!(judged > 1_000 * seeds.len(), "too few flows to mean much");
}

#[test]
fn the_loaded_programs_agree_with_the_oracle() {
    let Some(place) = Place::new() else { return };
    let devices: [u32; DEVICES] = std::array::from_fn(|index| veth(&format!("pod{index}")));
    let options = Options {
        replay: true,
        ..place.options(AttachMode::Auto)
    };
    let mut datapath = KernelDatapath::open(&options).expect("open");
    datapath.execute(&sample_all()).expect("control word");
    let mut planner = Planner::new();
    let mut sent = 0;
    let replayed = number("WEIR_SEED").is_some();
    for seed in seeds()
        .into_iter()
        .filter(|seed| replayed || seed % LOADED == 0)
    {
        let cluster = cluster(seed);
        let flows = flows(&cluster);
        for node in nodes(&cluster) {
            let view = View::new(&cluster, &node, &devices).expect("usable objects");
            let plan = planner.plan(&view.tables).expect("plan");
            datapath.execute(&plan).expect("execute");
            let events = datapath.events().expect("events");
            let mut loaded = Loaded {
                datapath: &datapath,
                events,
            };
            let here = |flow: &&Flow| flow.observer_node == node;
            for flow in sample(&flows, LOADED_PACKETS, seed).filter(here) {
                let wanted = judge(&cluster, flow);
                sent += 1;
                if let Err(text) = packets(&mut loaded, &view, flow, &wanted) {
                    panic!("seed {seed}, {flow:?}\n{text}\n{}", yaml(&cluster));
                }
            }
        }
    }
    println!("{sent} flows");
    assert!(sent > 0, "nothing was sent");
}

/// Forgets the first exception of the first address block that has one.
fn drop_an_exception(view: &mut View) {
    fn cut(policy: &mut Policy) -> bool {
        let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
        let mut peers = rules.flatten().flat_map(|rule| &mut rule.peers);
        peers.any(|peer| match peer {
            Peer::Block { except, .. } if !except.is_empty() => {
                except.remove(0);
                true
            }
            Peer::Block { .. } | Peer::Pods { .. } | Peer::Nodes(_) => false,
        })
    }
    let mut wrong = view.snapshot.clone();
    let mut done = false;
    edit(&mut wrong.policies, |policy| done = done || cut(policy));
    view.tables = weir::compile::compile(&wrong);
}

#[test]
fn an_audit_agrees_with_right_tables_and_not_with_wrong_ones() {
    let (mut asked, mut caught) = (0, 0);
    for seed in 0..60 {
        let cluster = cluster(seed);
        for node in nodes(&cluster) {
            let mut view = View::new(&cluster, &node, &IMAGINED).expect("usable objects");
            let judged = judge_atoms(&view.snapshot, &view.tables.policies, QUESTIONS);
            assert_eq!(judged.disagreements, Vec::<String>::new(), "seed {seed}");
            asked += judged.asked;
            drop_an_exception(&mut view);
            let judged = judge_atoms(&view.snapshot, &view.tables.policies, QUESTIONS);
            caught += usize::from(!judged.disagreements.is_empty());
        }
    }
    println!("{asked} questions, {caught} wrong tables");
    assert!(asked > 10_000 && caught > 0);
}

/// The question as a flow that the pod's node judges, and the same of protocols without ports once for each pair.
fn asked_of_the_oracle(atom: Atom, node: &str) -> impl Iterator<Item = Flow> {
    let (source, destination) = match atom.direction {
        Direction::Ingress => (atom.peer, atom.pod),
        Direction::Egress => (atom.pod, atom.peer),
    };
    let number = atom.protocol.number();
    let first = (number, atom.port) == (protocol::TCP, 1);
    let without_ports = [
        (protocol::ICMP, 0),
        (protocol::ICMPV6, 0),
        (protocol::GRE, 0),
    ];
    let without_ports = without_ports.into_iter().filter(move |_| first);
    let each = std::iter::once((number, atom.port)).chain(without_ports);
    let node = node.to_owned();
    each.map(move |(protocol, destination_port)| Flow {
        source,
        destination,
        protocol,
        destination_port,
        observer_node: node.clone(),
        born_on_node: false,
    })
}

#[test]
fn the_oracle_agrees_with_the_tables_on_every_question_of_an_audit() {
    let clusters = if soaks() { 400 } else { 40 };
    let mut asked = 0;
    for seed in 0..clusters {
        let cluster = cluster(seed);
        for node in nodes(&cluster) {
            let view = View::new(&cluster, &node, &IMAGINED).expect("usable objects");
            let atoms = Atoms::of(&view.snapshot, &view.tables.policies);
            assert_eq!(atoms.count(), atoms.iter().count(), "seed {seed}");
            for flow in atoms
                .iter()
                .flat_map(|atom| asked_of_the_oracle(atom, &node))
            {
                asked += 1;
                if let Err(text) = tables(&view, &flow, &judge(&cluster, &flow)) {
                    panic!("seed {seed}, {flow:?}\n{text}\n{}", yaml(&cluster));
                }
            }
        }
    }
    println!("{asked} questions");
    assert!(asked > 1_000 * clusters, "too few questions to mean much");
}

#[test]
fn a_lost_exception_is_caught() {
    let caught = |cluster: &Cluster, seed| {
        let checked = Agent::new().check(cluster, seed, drop_an_exception);
        matches!(checked, Err(Trouble::Disagreement(_)))
    };
    let seed = (0..200)
        .find(|seed| caught(&cluster(*seed), *seed))
        .expect("one cluster in 200 in which it matters");
    let small = minimise(cluster(seed), |cluster| caught(cluster, seed));
    let text = yaml(&small);
    assert!(text.contains("except:"), "{text}");
    assert!(small.policies.len() <= 2 && small.pods.len() <= 3, "{text}");
}
