//! What is explained is what the kernel programs find in the tables, on random clusters: which node translates, to which endpoints,
//! and why not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use weir_common::abi::{
    DROP_EXTERNAL, DROP_INTERNAL, FrontendKey, NODE_OUTSIDE, SERVICES_ONLY, SOURCE_RANGES,
    SourceKey, WILDCARD,
};

use crate::compile::testing::{EXPOSED, NODE, ip, pod, snapshots};
use crate::compile::{ServiceTables, services};
use crate::explain::{Explanation, PortName, Question, Subject, Verdict, explain};
use crate::model::{Protocol, ServiceCidr, Snapshot};

const OTHER: &str = "there";
const PORTS: [u16; 5] = [79, 80, 81, 30080, 30081];

/// By which hook a packet meets a node's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    FromPod,
    FromNet,
    Socket,
}

/// What the programs do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    NoService,
    Refused(Verdict),
    Backends(BTreeSet<(IpAddr, u16)>),
}

/// Whether the longest-prefix map of sources has a range that holds an address.
fn admits(tables: &ServiceTables, service: u64, address: IpAddr) -> bool {
    let wanted = SourceKey::client(service, address.into());
    let number = |key: &SourceKey| u128::from_be_bytes(key.scope.client.bytes());
    tables.sources.keys().any(|key| {
        let mask = u128::MAX.checked_shl(wanted.bits - key.bits).unwrap_or(0);
        key.scope.service == wanted.scope.service && number(key) & mask == number(&wanted) & mask
    })
}

/// `None` is for nobody's address.
fn read(
    tables: &ServiceTables,
    (address, port): (IpAddr, u16),
    hook: Hook,
    client: IpAddr,
) -> Option<Told> {
    let key = |port, protocol| FrontendKey {
        address: address.into(),
        port,
        protocol,
        reserved: 0,
    };
    let exact = tables.frontends.get(&key(port, 6));
    let Some(entry) = exact.or_else(|| tables.frontends.get(&key(0, 0))) else {
        return admits(tables, SERVICES_ONLY, address).then_some(Told::NoService);
    };
    let flag = |flag| entry.flags & flag != 0;
    let shut_out = match hook {
        Hook::Socket => flag(NODE_OUTSIDE),
        _ => flag(SOURCE_RANGES) && !admits(tables, entry.service, client),
    };
    let (set, drop) = match hook {
        Hook::FromNet => (&entry.external, DROP_EXTERNAL),
        _ => (&entry.internal, DROP_INTERNAL),
    };
    Some(if shut_out {
        Told::Refused(Verdict::SourceRange)
    } else if flag(WILDCARD) {
        Told::Refused(Verdict::NoServicePort)
    } else if !set.is_empty() {
        Told::Backends(set.iter().map(|it| (it.address, it.port)).collect())
    } else if flag(drop) {
        Told::Refused(Verdict::NoLocalEndpoint)
    } else {
        Told::Refused(Verdict::NoEndpoint)
    })
}

fn told(answer: &Explanation) -> Option<Told> {
    if answer.verdict == Verdict::NoService {
        return Some(Told::NoService);
    }
    let translation = answer.translations.first()?;
    let flows = answer.flows.iter();
    let reached: BTreeSet<_> = flows.map(|it| (it.destination.address, it.port)).collect();
    if reached.is_empty() {
        return Some(Told::Refused(answer.verdict));
    }
    let usable = translation.endpoints.iter();
    let usable = usable.filter(|it| it.excluded.is_none());
    let usable: BTreeSet<_> = usable
        .filter_map(|it| Some((it.address, it.port?)))
        .collect();
    assert_eq!(usable, reached);
    assert_eq!(translation.problem, None);
    Some(Told::Backends(reached))
}

/// With a client pod on each node, in both families, and ranges of Services.
fn prepared(mut snapshot: Snapshot) -> Snapshot {
    snapshot.policies.clear();
    snapshot.cluster_policies.clear();
    for (name, v4, v6) in [
        (NODE, "10.0.3.1", "fd00:3::1"),
        (OTHER, "10.0.3.2", "fd00:3::2"),
    ] {
        let mut client = pod("a", &format!("client-{name}"), "client", v4);
        client.ips.push(ip(v6));
        client.node = name.to_owned();
        snapshot.pods.insert(client.name.clone(), Arc::new(client));
    }
    let cidrs = ["172.20.0.0/24", "198.51.100.0/24"];
    let range = ServiceCidr {
        name: "some".to_owned(),
        cidrs: cidrs.map(|cidr| cidr.parse().unwrap()).into(),
    };
    let ranges = &mut snapshot.service_cidrs;
    ranges.insert(range.name.clone(), Arc::new(range));
    snapshot
}

fn addresses() -> BTreeSet<IpAddr> {
    let more = [
        "10.0.2.1",
        "10.0.2.2",
        "172.20.0.0",
        "172.20.0.2",
        "172.20.0.9",
        "fd20::1",
        "fd20::2",
    ];
    EXPOSED.into_iter().chain(more).map(ip).collect()
}

fn tables(snapshot: &Snapshot) -> BTreeMap<&'static str, ServiceTables> {
    let on = |node: &'static str| {
        let mut snapshot = snapshot.clone();
        snapshot.node_name = node.to_owned();
        (node, services(&snapshot))
    };
    [NODE, OTHER].map(on).into()
}

/// The way of a packet from tables to tables.
fn expected(
    tables: &BTreeMap<&str, ServiceTables>,
    source: (&str, Hook, IpAddr),
    to: (IpAddr, u16),
) -> Option<Told> {
    let (node, hook, client) = source;
    let owner = match to.0 {
        address if address == ip("10.0.2.1") => Some(NODE),
        address if address == ip("10.0.2.2") => Some(OTHER),
        _ => None,
    };
    if hook == Hook::FromNet {
        return read(&tables[owner.unwrap_or(node)], to, hook, client);
    }
    let own = read(&tables[node], to, hook, client);
    own.or_else(|| {
        let owner = owner.filter(|owner| *owner != node)?;
        // Nothing that arrives there may be for nobody: that was dropped before it left.
        read(&tables[owner], to, Hook::FromNet, client)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn explanations_and_programs_agree(snapshot in snapshots()) {
        let snapshot = prepared(snapshot);
        let tables = tables(&snapshot);
        for (source, node, hook) in [
            ("10.0.3.1", NODE, Hook::FromPod),
            ("fd00:3::1", NODE, Hook::FromPod),
            ("10.0.3.2", OTHER, Hook::FromPod),
            ("10.0.2.1", NODE, Hook::Socket),
            ("10.0.2.2", OTHER, Hook::Socket),
            ("203.0.113.7", NODE, Hook::FromNet),
            ("10.0.0.9", NODE, Hook::FromNet),
            ("2001:db8:9::7", NODE, Hook::FromNet),
        ] {
            let client = ip(source);
            for address in addresses().into_iter().filter(|it| it.is_ipv4() == client.is_ipv4()) {
                for port in PORTS {
                    let question = Question {
                        source: Subject::Address(client),
                        destination: Subject::Address(address),
                        port: Some(PortName::Number(port)),
                        protocol: Some(Protocol::Tcp),
                    };
                    let answer = explain(&snapshot, &question).expect("addresses always have an answer");
                    let wanted = expected(&tables, (node, hook, client), (address, port));
                    prop_assert_eq!(told(&answer), wanted, "{} -> {}:{} {:#?}", source, address, port, answer);
                }
            }
        }
    }
}
