//! What policies cost, however many pods and policies there are: changes on their way from the API to the kernel's maps, packets
//! at a pod, and memory.

mod packets;
mod population;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir::compile::{PolicyCompiler, Tables};
use weir::datapath::{AttachMode, KernelDatapath, Options};
use weir::model::{DeviceFacts, Event, Kind, Object, PodDevice};
use weir::plan::{Plan, Planner};
use weir::state::State;
use weir_tests::kernel::{Place, veth};

use self::packets::Packets;
use self::population::{NODE, Population, address};
use crate::process;
use crate::table::{median, millis, table};

/// What `weir-bench policies` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many pods the cluster has, step by step
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    pods: Vec<u32>,
    /// How many policies, step by step for each number of pods
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    policies: Vec<u32>,
    /// Changes of each kind
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Rounds in which packets are measured
    #[arg(long, default_value_t = 11)]
    rounds: u32,
}

/// Measures step by step, packets then of all sizes in turns, and prints a table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let place = Place::new().context("measuring needs root and an agent with kernel programs")?;
    let device = veth("pod");
    let mut measured = Vec::new();
    for &pods in &args.pods {
        for &policies in &args.policies {
            let population = Population { pods, policies };
            let (datapath, row) = changes(args, population, &place, device)?;
            measured.push((datapath, row, Packets::default()));
        }
    }
    for _ in 0..args.rounds {
        for (datapath, _, packets) in &mut measured {
            packets.round(datapath, device)?;
        }
    }
    let rows = measured.into_iter().map(|(_, mut row, packets)| {
        row.extend(packets.medians().map(|median| format!("{median:.0}")));
        row
    });
    let head = [
        "pods",
        "policies",
        "from the lists to a plan",
        "labels of a pod elsewhere, to a plan",
        "p99",
        "policy of 50 pods, in force",
        "p99",
        "and done",
        "resident, all of it",
        "established, ns",
        "first packet, ns",
    ];
    table(&head, &rows.collect::<Vec<_>>());
    Ok(())
}

/// Measures changes; leaves the programs as they are then.
fn changes(
    args: &Args,
    population: Population,
    place: &Place,
    device: u32,
) -> Result<(KernelDatapath, Vec<String>)> {
    ensure!(population.pods > 0, "there is no pod");
    let options = Options {
        flow_capacity: 1 << 12,
        bpffs: place
            .directory()
            .with_file_name(format!("{}-{}", population.pods, population.policies)),
        ..place.options(AttachMode::Auto)
    };
    let mut node = Node {
        state: State::new(NODE),
        compiler: PolicyCompiler::default(),
        planner: Planner::new(),
        datapath: KernelDatapath::open(&options)?,
    };
    let start = Instant::now();
    let cold = {
        node.list(population, device);
        let plan = node.plan()?;
        let cold = start.elapsed();
        node.datapath.execute(&plan)?;
        cold
    };
    let mut relabelled = Vec::new();
    for change in 0..args.changes {
        let Some(pod) = population.remote(change / 2) else {
            break;
        };
        let pod = population.pod(pod, change % 2 == 0);
        let start = Instant::now();
        node.state.apply(Event::Applied(Object::Pod(pod)));
        let plan = node.plan()?;
        relabelled.push(start.elapsed());
        node.datapath.execute(&plan)?;
    }
    let (mut in_force, mut done) = (Vec::new(), Vec::new());
    for change in 1..=args.changes {
        let policy = population.policy(0, change);
        let start = Instant::now();
        node.state.apply(Event::Applied(Object::Policy(policy)));
        let (before, after) = node.plan()?.until_in_force();
        ensure!(!after.is_empty(), "an edit changed nothing");
        node.datapath.execute(&before)?;
        in_force.push(start.elapsed());
        node.datapath.execute(&after)?;
        done.push(start.elapsed());
    }
    let [relabelled, in_force, done] = [relabelled, in_force, done].map(|times| Times::of(&times));
    let row = vec![
        population.pods.to_string(),
        population.policies.to_string(),
        millis(cold),
        relabelled.median(),
        relabelled.p99(),
        in_force.median(),
        in_force.p99(),
        done.median(),
        format!("{} MiB", process::resident()? >> 20),
    ];
    Ok((node.datapath, row))
}

/// An agent's way of a change, without its sources.
struct Node {
    state: State,
    compiler: PolicyCompiler,
    planner: Planner,
    datapath: KernelDatapath,
}

impl Node {
    fn list(&mut self, population: Population, device: u32) {
        let namespaces = population.all_namespaces().map(Object::Namespace);
        let pods = (0..population.pods).map(|it| Object::Pod(population.pod(it, false)));
        let policies = (0..population.policies).map(|it| Object::Policy(population.policy(it, 0)));
        for (kind, objects) in [
            (Kind::Namespace, namespaces.collect()),
            (Kind::Pod, pods.collect()),
            (Kind::NetworkPolicy, policies.collect::<Vec<_>>()),
        ] {
            self.state.apply(Event::Replaced(kind, objects));
        }
        let mut facts = DeviceFacts::default();
        let device = PodDevice {
            ifindex: device,
            name: "pod".to_owned(),
        };
        facts.devices.insert(address(0), device);
        self.state.set_devices(facts);
    }

    fn plan(&mut self) -> Result<Plan> {
        let rejections = self.state.rejections();
        ensure!(rejections.is_empty(), "{rejections:?}");
        let (snapshot, owners) = (self.state.snapshot(), self.state.owners());
        let policies = self.compiler.compile(snapshot, owners).clone();
        let tables = Tables {
            policies: policies.into(),
            ..Tables::default()
        };
        Ok(self.planner.plan(&tables)?)
    }
}

/// Times of one kind of change, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of(times: &[Duration]) -> Self {
        let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    fn median(&self) -> String {
        micros(median(&self.0), &self.0)
    }

    fn p99(&self) -> String {
        let index = self.0.len() * 99 / 100;
        micros(self.0.get(index).copied().unwrap_or_default(), &self.0)
    }
}

fn micros(seconds: f64, of: &[f64]) -> String {
    if of.is_empty() {
        "none".to_owned()
    } else {
        format!("{:.0} µs", seconds * 1e6)
    }
}
