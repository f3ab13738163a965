//! What the measured packets meet: a pod under policies, a Service, and flows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use weir::compile::compile;
use weir::datapath::{AttachMode, Floor, KernelDatapath, Options, TestRun};
use weir::flows::Directory;
use weir::model::{
    AddressOwners, DeviceFacts, Endpoint, EndpointSlice, Namespace, ObjectName, Peer, Pod,
    PodDevice, Policy, PolicyPort, PortMatch, Protocol, Rule, Selector, Service, ServicePort,
    SlicePort, Snapshot,
};
use weir::plan::Planner;
use weir_common::abi::Hook;
use weir_tests::kernel::{Place, veth};

use super::case;

/// The measured pod.
pub(super) const POD: [&str; 2] = ["10.0.1.1", "fd00:1::1"];
/// A pod on another node, behind the Service.
pub(super) const BACKEND: [&str; 2] = ["10.0.2.1", "fd00:2::1"];
/// Virtual addresses of the Service.
pub(super) const SERVICE: [&str; 2] = ["10.96.0.10", "fd96::10"];
/// Port of the backend.
pub(super) const PORT: u16 = 8080;

const NODE: &str = "node1";
/// Clients outside, each with a Service and a backend of its own, numbered from 1.
pub(crate) const LANES: u8 = 2;

/// Virtual address of a lane's Service.
pub(crate) const fn lane_service(lane: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 1, lane)
}

/// A lane's backend.
pub(crate) const fn lane_backend(lane: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 3, lane)
}

/// Programs over filled maps.
pub(super) struct World {
    pub(super) datapath: KernelDatapath,
    pub(super) floor: Floor,
    /// The pod's.
    pub(super) device: u32,
    /// Names of what the maps are about.
    pub(super) directory: Directory,
    flows: u32,
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant address")
}

impl World {
    pub(super) fn new(place: &Place) -> Result<Self> {
        let device = veth("pod");
        let options = Options {
            flow_capacity: 1 << 18,
            xdp: true,
            ..place.options(AttachMode::Auto)
        };
        let mut datapath = KernelDatapath::open(&options)?;
        let snapshot = snapshot(device);
        let tables = compile(&snapshot);
        datapath.execute(&Planner::new().plan(&tables)?)?;
        Ok(Self {
            floor: datapath.floor()?,
            datapath,
            device,
            directory: Directory::new(&snapshot, &AddressOwners::of(&snapshot), &tables),
            flows: 0,
        })
    }

    /// Opens flows until the table holds `count`.
    pub(super) fn fill(&mut self, count: u32) -> Result<()> {
        for number in self.flows..count {
            self.send(&case::opening(false, number))?;
        }
        self.flows = count;
        let mut found = 0;
        self.datapath.for_each_flow(|_, _| found += 1)?;
        ensure!(found >= count, "{found} of {count} flows are in the table");
        Ok(())
    }

    /// Flows that [`Self::fill`] has opened: numbers below this.
    pub(super) const fn flows(&self) -> u32 {
        self.flows
    }

    /// Sends a packet that must pass.
    pub(super) fn send(&self, packet: &[u8]) -> Result<()> {
        let run = TestRun::new(packet, self.device, self.device);
        let output = self.datapath.test_run(Hook::FromPod, &run)?;
        ensure!(
            output.action == -1,
            "a packet did not pass: {}",
            output.action
        );
        Ok(())
    }
}

fn pod(name: &str, node: &str, ips: [&str; 2]) -> Pod {
    Pod {
        name: ObjectName::new("shop", name),
        uid: name.to_owned(),
        mirrors: None,
        scraped: None,
        labels: BTreeMap::new(),
        ips: ips.map(address).to_vec(),
        host_network: false,
        terminal: false,
        node: node.to_owned(),
        ports: vec![],
        created: 0,
    }
}

/// Egress of the pod is isolated: it may reach some blocks on many ranges of ports, `PORT` in the middle.
fn policy() -> Policy {
    let range = |low: u16| PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(low, low + 10),
    };
    let block = |cidr: &str| Peer::Block {
        cidr: cidr.parse().expect("a constant network"),
        except: vec![],
    };
    Policy {
        name: ObjectName::new("shop", "egress"),
        uid: String::new(),
        labels: [].into(),
        pod_selector: Selector::default(),
        ingress: None,
        egress: Some(vec![Rule {
            peers: ["10.0.2.0/24", "10.0.3.0/24", "10.9.0.0/16", "fd00:2::/64"]
                .map(block)
                .to_vec(),
            ports: (0..16)
                .map(|index| range(8080 - 8 * 100 + index * 100))
                .collect(),
        }]),
    }
}

fn snapshot(device: u32) -> Snapshot {
    let mut snapshot = Snapshot {
        node_name: NODE.to_owned(),
        ..Snapshot::default()
    };
    let namespace = Namespace {
        name: "shop".to_owned(),
        ..Namespace::default()
    };
    snapshot
        .namespaces
        .insert(namespace.name.clone(), namespace.into());
    for pod in [pod("client", NODE, POD), pod("backend", "node2", BACKEND)] {
        snapshot.pods.insert(pod.name.clone(), pod.into());
    }
    let policy = policy();
    snapshot.policies.insert(policy.name.clone(), policy.into());
    let service = Service {
        name: ObjectName::new("shop", "service"),
        cluster_ips: SERVICE.map(address).to_vec(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: PORT.to_string(),
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    for (index, backend) in BACKEND.into_iter().enumerate() {
        let slice = EndpointSlice {
            name: ObjectName::new("shop", format!("service-{index}")),
            service: service.name.clone(),
            endpoints: vec![Endpoint {
                node: Some("node2".to_owned()),
                ..Endpoint::new(address(backend))
            }],
            ports: vec![SlicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: PORT,
            }],
            trigger: None,
        };
        snapshot.slices.insert(slice.name.clone(), slice.into());
    }
    snapshot
        .services
        .insert(service.name.clone(), service.into());
    for lane in 1..=LANES {
        let name = ObjectName::new("shop", format!("lane{lane}"));
        let service = Service {
            name: name.clone(),
            cluster_ips: vec![lane_service(lane).into()],
            ports: vec![ServicePort {
                protocol: Protocol::Udp,
                port: 80,
                target_port: PORT.to_string(),
                ..ServicePort::default()
            }],
            ..Service::default()
        };
        let slice = EndpointSlice {
            name: name.clone(),
            service: name,
            endpoints: vec![Endpoint {
                node: Some("node2".to_owned()),
                ..Endpoint::new(lane_backend(lane).into())
            }],
            ports: vec![SlicePort {
                name: String::new(),
                protocol: Protocol::Udp,
                port: PORT,
            }],
            trigger: None,
        };
        snapshot
            .services
            .insert(service.name.clone(), service.into());
        snapshot.slices.insert(slice.name.clone(), slice.into());
    }
    let mut facts = DeviceFacts::default();
    for ip in POD.map(address) {
        let name = "pod".to_owned();
        facts.devices.insert(
            ip,
            PodDevice {
                ifindex: device,
                name,
            },
        );
    }
    snapshot.devices = facts;
    snapshot
}
