mod programs;

use super::{Device, Facts, Finding, Harm, findings};
use crate::netlink::Peer;
use crate::netlink::netfilter::{
    Addresses, Chain, Hook, Matches, Rule, Ruleset, TableFamily, TableId, Verdict,
};
use crate::takeover::{Part, Running};

const POD: &str = "10.244.1.2";

fn device(name: &str, uplink: bool) -> Device {
    Device {
        name: name.to_owned(),
        forwarder: name.to_owned(),
        leads_out: uplink,
        uplink,
        mtu: 1500,
        forwards_v4: true,
        forwards_v6: Some(true),
        ..Device::default()
    }
}

/// A device in a pod.
fn peer(mtu: u32) -> Peer {
    Peer {
        netns: 3,
        name: "eth0".to_owned(),
        mtu,
    }
}

/// A node that is as it should be.
fn sound() -> Facts {
    Facts {
        served: true,
        forwards_v4: true,
        forwards_v6: true,
        devices: vec![device("veth1", false), device("eth0", true)],
        pods: vec![(POD.parse().expect("address"), "veth1".to_owned())],
        ..Facts::default()
    }
}

fn only(facts: &Facts) -> Finding {
    let mut found = findings(facts);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn nothing_is_found_on_a_sound_node() {
    assert_eq!(findings(&sound()), []);
}

/// Each change of a sound node, the name of what is found then, and what the fix says.
#[test]
fn each_fault_is_found_alone_with_its_fix() {
    type Fault = fn(&mut Facts);
    let faults: [(Fault, &str, &str); 13] = [
        (
            |facts| facts.bpffs = Some("/sys/fs/bpf".to_owned()),
            "no-bpf-file-system",
            "weir init --mount /sys/fs/bpf",
        ),
        (
            |facts| {
                let (id, in_pod) = (7, false);
                facts.kube_proxy = Some(Running::Process { id, in_pod });
            },
            "kube-proxy-runs",
            "kill 7",
        ),
        (
            |facts| facts.kube_proxy = Some(Running::Port { mode: "iptables" }),
            "kube-proxy-runs",
            "kubectl -n kube-system delete daemonset kube-proxy",
        ),
        (
            |facts| {
                facts.remains = vec![Part {
                    table: "ip kube-proxy".to_owned(),
                    chains: vec![],
                    leading: 0,
                }];
            },
            "kube-proxy-rules",
            "weir takeover",
        ),
        (
            |facts| {
                facts.forwards_v4 = false;
                facts.devices[0].forwards_v4 = false;
            },
            "forwarding-off-v4",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            |facts| facts.devices[0].forwards_v4 = false,
            "forwarding-off-v4",
            "sysctl -w net.ipv4.conf.veth1.forwarding=1",
        ),
        (
            |facts| facts.devices[1].forwards_v6 = Some(false),
            "forwarding-off-v6",
            "sysctl -w net.ipv6.conf.eth0.forwarding=1",
        ),
        (
            |facts| {
                facts.rp_filter = 1;
                facts.devices.push(device("eth0.100", true));
                facts.devices[1].rp_filter = 2;
            },
            "strict-reverse-path",
            "sysctl -w net.ipv4.conf.eth0/100.rp_filter=2",
        ),
        (
            |facts| facts.ruleset = dropping(vec![]),
            "forward-dropped",
            "weir takeover --fix-forward",
        ),
        (
            |facts| facts.lacks_cookie = true,
            "no-netns-cookie",
            "reboot # into Linux 5.14 or newer",
        ),
        (
            |facts| facts.devices[1].room = Some(1499),
            "tunnel-mtu",
            "ip link set dev eth0 mtu 1499",
        ),
        (
            |facts| facts.devices[0].peer = Some(peer(1499)),
            "veth-mtu",
            "ip link set dev veth1 mtu 1499",
        ),
        (
            |facts| facts.devices[0].peer = Some(peer(1501)),
            "veth-mtu",
            "ip link set dev veth1 mtu 1501",
        ),
    ];
    for (fault, name, fix) in faults {
        let mut facts = sound();
        fault(&mut facts);
        let found = only(&facts);
        assert_eq!((found.name, found.fix.as_str()), (name, fix));
        assert_eq!(found.harm, Harm::Certain);
    }
}

#[test]
fn one_uplink_may_be_strict() {
    let mut facts = sound();
    facts.rp_filter = 1;
    assert_eq!(findings(&facts), []);
}

/// A chain that drops what it forwards but for these rules.
fn dropping(rules: Vec<(&str, Matches, Verdict)>) -> Ruleset {
    let table = TableId::new(TableFamily::V4, "filter");
    let chain = |name: &str, hook| Chain {
        table: table.clone(),
        name: name.to_owned(),
        hook,
    };
    let forward = Hook {
        number: 2,
        priority: 0,
        kind: "filter".to_owned(),
        drops: true,
    };
    let rules = (1..)
        .zip(rules)
        .map(|(handle, (name, matches, verdict))| Rule {
            table: table.clone(),
            chain: name.to_owned(),
            handle,
            matches,
            verdict: Some(verdict),
            comment: None,
        });
    Ruleset {
        chains: vec![chain("FORWARD", Some(forward)), chain("CNI", None)],
        rules: rules.collect(),
        ..Ruleset::default()
    }
}

#[test]
fn rules_that_accept_pods_are_understood() {
    let network = |text: &str| vec![Addresses::Network(text.parse().expect("network"))];
    let from = |text: &str| Matches {
        from: network(text),
        ..Matches::default()
    };
    let to = |text: &str| Matches {
        to: network(text),
        ..Matches::default()
    };
    let any = Matches::default;
    let jump = || Verdict::Jump("CNI".to_owned());
    let established = Matches {
        states: Some(2 | 4),
        ..Matches::default()
    };
    for (rules, open) in [
        (vec![("FORWARD", any(), Verdict::Accept)], true),
        (vec![("FORWARD", established, Verdict::Accept)], false),
        (
            vec![("FORWARD", from("10.244.0.0/16"), Verdict::Accept)],
            false,
        ),
        (
            vec![
                ("FORWARD", any(), jump()),
                ("CNI", from("10.244.0.0/16"), Verdict::Accept),
                ("CNI", to("10.244.0.0/16"), Verdict::Accept),
            ],
            true,
        ),
        (
            vec![
                ("FORWARD", from(POD), Verdict::Drop),
                ("FORWARD", any(), Verdict::Accept),
            ],
            false,
        ),
        (
            vec![
                ("FORWARD", any(), jump()),
                ("CNI", any(), Verdict::Return),
                ("CNI", any(), Verdict::Accept),
            ],
            false,
        ),
        (
            vec![("FORWARD", any(), jump()), ("CNI", any(), jump())],
            false,
        ),
    ] {
        let facts = Facts {
            ruleset: dropping(rules.clone()),
            ..sound()
        };
        assert_eq!(findings(&facts).is_empty(), open, "{rules:?}");
    }
}

#[test]
fn chains_of_the_other_family_do_not_matter() {
    let mut ruleset = dropping(vec![]);
    for chain in &mut ruleset.chains {
        chain.table.family = TableFamily::V6;
    }
    let facts = Facts { ruleset, ..sound() };
    assert_eq!(findings(&facts), []);
}

#[test]
fn virtual_servers_may_be_anybodys() {
    let mut facts = sound();
    facts.ipvs.servers = 2;
    let found = only(&facts);
    assert_eq!((found.name, found.harm), ("ipvs-servers", Harm::Possible));
    assert!(found.seen.contains("2 virtual servers"));
    assert!(found.fix.starts_with("ipvsadm --clear"));
}

#[test]
fn pods_are_compared_with_the_narrowest_way_out() {
    let mut facts = sound();
    facts.devices[0].peer = Some(peer(1500));
    facts.devices.push(device("veth2", false));
    let mut tunnel = device("flannel.1", true);
    tunnel.uplink = false;
    tunnel.mtu = 1450;
    tunnel.room = Some(1450);
    facts.devices.push(tunnel);
    let found = only(&facts);
    assert_eq!((found.name, found.harm), ("pod-mtu", Harm::Possible));
    assert_eq!(
        found.fix,
        "ip -n $(ip netns list-id nsid 3 | sed 's/.*: //; s/)//') link set dev eth0 mtu 1450 && \
         ip link set dev veth1 mtu 1450 && ip link set dev veth2 mtu 1450"
    );
    for pod in [0, 2] {
        facts.devices[pod].mtu = 1450;
    }
    facts.devices[0].peer = Some(peer(1450));
    assert_eq!(findings(&facts), []);
}

/// A node whose only pod is in a bridge.
fn bridged() -> Facts {
    let mut facts = sound();
    facts.devices[0].forwarder = "cni0".to_owned();
    facts.pods[0].1 = "cni0".to_owned();
    facts
}

#[test]
fn invalid_packets_may_be_dropped_where_netfilter_sees_all() {
    let invalid = || Matches {
        states: Some(1),
        ..Matches::default()
    };
    let rules = |how| {
        vec![
            (
                "FORWARD",
                Matches::default(),
                Verdict::Jump("CNI".to_owned()),
            ),
            ("CNI", how, Verdict::Drop),
            ("FORWARD", Matches::default(), Verdict::Accept),
        ]
    };
    let fix = "sysctl -w net.bridge.bridge-nf-call-iptables=1";
    let load = format!("modprobe br_netfilter && {fix}");
    for (facts, seen, how, expected) in [
        (bridged(), Some(false), invalid(), Some(fix)),
        (bridged(), None, invalid(), Some(load.as_str())),
        (bridged(), Some(true), invalid(), None),
        (sound(), Some(false), invalid(), None),
        // What is established is not dropped by that.
        (
            bridged(),
            Some(false),
            Matches {
                states: Some(8),
                ..Matches::default()
            },
            None,
        ),
        // Nor is what goes elsewhere.
        (
            bridged(),
            Some(false),
            Matches {
                to: vec![Addresses::Network("192.0.2.0/24".parse().expect("network"))],
                ..invalid()
            },
            None,
        ),
    ] {
        let facts = Facts {
            bridges_v4: seen,
            ruleset: dropping(rules(how)),
            ..facts
        };
        let found = findings(&facts);
        let found: Vec<_> = found
            .iter()
            .filter(|found| found.name != "forward-dropped")
            .map(|found| (found.name, found.fix.as_str()))
            .collect();
        let expected = expected.map(|fix| ("bridge-past-netfilter", fix));
        assert_eq!(found, Vec::from_iter(expected));
    }
}
