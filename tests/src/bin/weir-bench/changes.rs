//! What a change of an endpoint costs on its way from the API to the kernel, in one process: state, compiler and planner. Nothing is
//! written.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context as _, Result};
use weir::compile::{ServiceCompiler, Tables};
use weir::model::{
    Endpoint, EndpointSlice, Event, Kind, Object, ObjectName, Protocol, Service, ServicePort,
    SlicePort,
};
use weir::plan::{Planner, refuse_excess};
use weir::state::State;

use crate::process;
use crate::table::{median, millis, table};

/// What `weir-bench changes` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many Services there are, step by step
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    services: Vec<u32>,
    /// How many endpoints each of them has
    #[arg(long, default_value_t = 25)]
    endpoints: u32,
    /// Changes of an endpoint
    #[arg(long, default_value_t = 1000)]
    changes: u32,
}

/// Measures step by step, and prints a table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for &services in &args.services {
        let start = Instant::now();
        let mut agent = Agent::default();
        let numbers = 0..services;
        let objects = numbers.clone().map(|it| Object::Service(service(it)));
        agent.take(Event::Replaced(Kind::Service, objects.collect()));
        let slices = numbers.map(|it| Object::EndpointSlice(slice(it, args.endpoints, true)));
        agent.take(Event::Replaced(Kind::EndpointSlice, slices.collect()));
        agent.sync()?;
        let cold = start.elapsed();
        let mut times = Vec::new();
        for change in 0..args.changes {
            // One after the other, all over the tables; each is taken back with the next round.
            let number = change.wrapping_mul(7919) % services;
            let slice = slice(number, args.endpoints, (change / services) % 2 == 1);
            let start = Instant::now();
            agent.take(Event::Applied(Object::EndpointSlice(slice)));
            agent.sync()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let p99 = times.get(times.len() * 99 / 100).copied();
        let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
        rows.push(vec![
            services.to_string(),
            (services * args.endpoints).to_string(),
            millis(cold),
            micros(median(&times)),
            micros(p99.unwrap_or_default()),
            format!("{} MiB", process::resident()? >> 20),
        ]);
    }
    let head = [
        "Services",
        "endpoints",
        "from the lists to a plan",
        "a change",
        "p99",
        "resident, all of it",
    ];
    table(&head, &rows);
    Ok(())
}

/// The pure part of an agent.
#[derive(Default)]
struct Agent {
    state: State,
    compiler: ServiceCompiler,
    planner: Planner,
}

impl Agent {
    fn take(&mut self, event: Event) {
        self.state.apply(event);
    }

    fn sync(&mut self) -> Result<()> {
        let mut tables = Tables {
            services: self.compiler.compile(self.state.snapshot()).clone(),
            ..Tables::default()
        };
        refuse_excess(&mut tables.services, &self.compiler);
        let plan = self.planner.plan(&tables).context("plan")?;
        anyhow::ensure!(!plan.is_empty(), "a change changed nothing");
        Ok(())
    }
}

fn name(number: u32) -> ObjectName {
    ObjectName::new("default", format!("service-{number}"))
}

fn service(number: u32) -> Service {
    Service {
        name: name(number),
        cluster_ips: vec![IpAddr::from(Ipv4Addr::from(0x0a60_0000 + number))],
        ports: vec![ServicePort {
            port: 80,
            target_port: "8080".to_owned(),
            ..ServicePort::default()
        }],
        ..Service::default()
    }
}

/// The slice of a Service, whose last endpoint may not be ready.
fn slice(number: u32, endpoints: u32, whole: bool) -> EndpointSlice {
    let first = 0x0a80_0000 + number * endpoints;
    let endpoints = (first..first + endpoints).map(|address| {
        let is_last = address + 1 == first + endpoints;
        let ready = whole || !is_last;
        Endpoint {
            ready,
            serving: ready,
            ..Endpoint::new(IpAddr::from(Ipv4Addr::from(address)))
        }
    });
    EndpointSlice {
        name: name(number),
        service: name(number),
        endpoints: endpoints.collect(),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        trigger: None,
    }
}
