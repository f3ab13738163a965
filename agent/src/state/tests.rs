//! The state as its users see it.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::model::{
    ClusterPolicy, EndpointSlice, Labels, Namespace, NetDevice, Node, Object, Pod, PodDevice,
    Policy, Selector, Service, ServiceCidr, Tier,
};

const NOTHING: Change = Change {
    services: false,
    policies: false,
    devices: false,
};
const SERVICES: Change = Change {
    services: true,
    ..NOTHING
};
const POLICIES: Change = Change {
    policies: true,
    ..NOTHING
};
const DEVICES: Change = Change {
    devices: true,
    ..NOTHING
};
const BOTH: Change = Change {
    services: true,
    ..POLICIES
};

/// An object of a kind; objects with different versions differ.
fn object(kind: Kind, name: &str, version: u8) -> Object {
    let labels: Labels = [("version".to_owned(), version.to_string())].into();
    let name = ObjectName::new("n", name);
    match kind {
        Kind::Service => Object::Service(Service {
            name,
            cluster_ips: vec![],
            ports: vec![],
            selector: labels,
            ..Service::default()
        }),
        Kind::EndpointSlice => Object::EndpointSlice(EndpointSlice {
            name,
            service: ObjectName::new("n", version.to_string()),
            endpoints: vec![],
            ports: vec![],
            trigger: None,
        }),
        Kind::NetworkPolicy => Object::Policy(Policy {
            name,
            uid: version.to_string(),
            labels: [].into(),
            pod_selector: Selector::default(),
            ingress: None,
            egress: None,
        }),
        Kind::ClusterNetworkPolicy => Object::ClusterPolicy(ClusterPolicy {
            name,
            uid: String::new(),
            labels: [].into(),
            tier: Tier::Admin,
            priority: version.into(),
            namespaces: Selector::default(),
            pods: Selector::default(),
            ingress: vec![],
            egress: vec![],
        }),
        Kind::Pod => Object::Pod(pod(&name.name, version.into())),
        Kind::Namespace => Object::Namespace(Namespace {
            name: name.name,
            labels,
        }),
        Kind::Node => Object::Node(Node {
            name: name.name,
            addresses: vec![[10, 0, 0, version].into()],
            ..Node::default()
        }),
        Kind::ServiceCidr => Object::ServiceCidr(ServiceCidr {
            name: name.name,
            cidrs: vec![IpNetwork::new([10, version, 0, 0].into(), 16).unwrap()],
        }),
    }
}

fn pod(name: &str, created: i64) -> Pod {
    Pod {
        name: ObjectName::new("n", name),
        uid: name.to_owned(),
        mirrors: None,
        scraped: None,
        labels: Labels::new(),
        ips: vec![[10, 0, 0, 1].into()],
        host_network: false,
        terminal: false,
        node: "node-a".to_owned(),
        ports: vec![],
        created,
    }
}

fn rejected(kind: Kind, name: ObjectName, message: &str) -> Event {
    Event::Rejected {
        kind,
        name,
        uid: String::new(),
        message: message.to_owned(),
    }
}

fn messages(state: &State) -> Vec<String> {
    let all = state.rejections().into_iter();
    all.map(|each| format!("{} {}: {}", each.kind, each.name, each.message))
        .collect()
}

#[test]
fn what_the_own_node_is_like_matters_to_services() {
    let node = |name: &str, zone: &str| {
        Event::Applied(Object::Node(Node {
            name: name.to_owned(),
            zone: zone.to_owned(),
            ..Node::default()
        }))
    };
    let mut state = State::new("node-a");
    for (event, wanted) in [
        (node("node-b", "west"), POLICIES),
        (node("node-a", "west"), BOTH),
        (node("node-a", "west"), NOTHING),
        (node("node-a", "east"), BOTH),
        (node("node-b", "east"), POLICIES),
        (
            Event::Deleted(Kind::Node, ObjectName::cluster("node-a")),
            BOTH,
        ),
    ] {
        assert_eq!(state.apply(event.clone()), wanted, "{event:?}");
    }
}

#[test]
fn a_change_names_the_tables_and_only_when_something_differs() {
    for kind in Kind::ALL {
        let wanted = match kind {
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => SERVICES,
            _ => POLICIES,
        };
        let mut state = State::new("node-a");
        let name = object(kind, "a", 1).key().1;
        let steps = [
            (Event::Applied(object(kind, "a", 1)), wanted),
            (Event::Applied(object(kind, "a", 1)), NOTHING),
            (Event::Applied(object(kind, "a", 2)), wanted),
            (Event::Replaced(kind, vec![object(kind, "a", 2)]), NOTHING),
            (Event::Replaced(kind, vec![object(kind, "a", 3)]), wanted),
            (Event::Replaced(kind, vec![object(kind, "b", 3)]), wanted),
            (Event::Replaced(kind, vec![]), wanted),
            (Event::Applied(object(kind, "a", 1)), wanted),
            (Event::Deleted(kind, name.clone()), wanted),
            (Event::Deleted(kind, name.clone()), NOTHING),
            (rejected(kind, name.clone(), "bad"), NOTHING),
            (Event::Applied(object(kind, "a", 1)), wanted),
            (rejected(kind, name, "bad"), wanted),
        ];
        for (step, (event, wanted)) in steps.into_iter().enumerate() {
            assert_eq!(state.apply(event), wanted, "{kind:?}, step {step}");
        }
        assert_eq!(state.snapshot(), &State::new("node-a").snapshot, "{kind:?}");
    }
}

#[test]
fn unchanged_objects_stay_shared() {
    let mut state = State::new("node-a");
    state.apply(Event::Applied(object(Kind::Pod, "a", 1)));
    let before = Arc::clone(&state.snapshot().pods[&ObjectName::new("n", "a")]);
    let relist = vec![object(Kind::Pod, "a", 1), object(Kind::Pod, "b", 1)];
    assert_eq!(state.apply(Event::Replaced(Kind::Pod, relist)), POLICIES);
    assert!(Arc::ptr_eq(
        &before,
        &state.snapshot().pods[&ObjectName::new("n", "a")]
    ));
}

#[test]
fn synced_when_every_kind_has_been_listed() {
    for last in Kind::ALL {
        let mut state = State::new("node-a");
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != last) {
            state.apply(Event::Replaced(kind, vec![]));
        }
        state.apply(Event::Applied(object(last, "a", 1)));
        assert!(!state.synced(), "{last:?} has not been listed");
        state.apply(Event::Replaced(last, vec![]));
        assert!(state.synced());
    }
}

#[test]
fn rejections_last_as_long_as_their_cause() {
    let mut state = State::new("node-a");
    let name = || ObjectName::new("n", "a");
    let kind = Kind::Service;
    let bad = || rejected(kind, name(), "bad");
    let flawed = || Event::Flawed {
        kind,
        name: name(),
        uid: String::new(),
        message: "flawed".to_owned(),
    };
    for cure in [
        Event::Applied(object(kind, "a", 1)),
        Event::Deleted(kind, name()),
        Event::Replaced(kind, vec![]),
    ] {
        state.apply(bad());
        assert_eq!(messages(&state), ["Service n/a: bad"]);
        assert!(state.snapshot().services.is_empty());
        state.apply(cure.clone());
        assert_eq!(messages(&state), [""; 0], "{cure:?}");

        state.apply(Event::Applied(object(kind, "a", 1)));
        assert_eq!(state.apply(flawed()), NOTHING);
        assert_eq!(messages(&state), ["Service n/a: flawed"]);
        assert_eq!(state.snapshot().services.len(), 1);
        state.apply(cure.clone());
        assert_eq!(messages(&state), [""; 0], "{cure:?}");
        state.apply(Event::Deleted(kind, name()));
    }
    // Another kind's relist cures nothing.
    state.apply(bad());
    state.apply(Event::Replaced(Kind::Pod, vec![]));
    assert_eq!(messages(&state), ["Service n/a: bad"]);

    let file = |message: Option<&str>| Event::File {
        name: "a.yaml".to_owned(),
        message: message.map(str::to_owned),
    };
    state.apply(Event::Deleted(kind, name()));
    state.apply(file(Some("line 3: broken")));
    assert_eq!(messages(&state), ["File a.yaml: line 3: broken"]);
    state.apply(file(None));
    assert_eq!(messages(&state), [""; 0]);
}

#[test]
fn of_two_live_pods_with_one_address_the_newer_owns_it() {
    let owner = |pods: Vec<Pod>| {
        let mut state = State::new("node-a");
        state.apply(Event::Replaced(
            Kind::Pod,
            pods.into_iter().map(Object::Pod).collect(),
        ));
        let owners = state.owners().all();
        let owner = owners.values().next().map(|pod| pod.name.name.clone());
        (owner, messages(&state))
    };
    let (winner, told) = owner(vec![pod("a", 2), pod("b", 1)]);
    assert_eq!(winner.as_deref(), Some("a"));
    assert_eq!(
        told,
        [
            "Pod n/b: address 10.0.0.1 is also that of pod n/a, which is newer and gets it; delete one of the two"
        ]
    );
    assert_eq!(
        owner(vec![pod("a", 1), pod("b", 2)]).0.as_deref(),
        Some("b")
    );
    assert_eq!(
        owner(vec![pod("a", 1), pod("b", 1)]).0.as_deref(),
        Some("b")
    );

    // Neither the dead nor the node's own pods own an address.
    let dead = Pod {
        terminal: true,
        ..pod("b", 2)
    };
    assert_eq!(
        owner(vec![pod("a", 1), dead]),
        (Some("a".to_owned()), vec![])
    );
    let host = Pod {
        host_network: true,
        ..pod("b", 2)
    };
    assert_eq!(
        owner(vec![pod("a", 1), host.clone()]),
        (Some("a".to_owned()), vec![])
    );
    assert_eq!(owner(vec![host]), (None, vec![]));
}

#[test]
fn devices() {
    let mut state = State::new("node-a");
    let device = PodDevice {
        ifindex: 7,
        name: "veth7".to_owned(),
    };
    let mut facts = DeviceFacts {
        devices: [([10, 0, 0, 1].into(), device)].into(),
        ..DeviceFacts::default()
    };
    assert_eq!(state.set_devices(facts.clone()), POLICIES);
    assert_eq!(state.set_devices(facts.clone()), NOTHING);
    facts.addresses.insert([10, 0, 9, 1].into());
    assert_eq!(state.set_devices(facts.clone()), NOTHING, "not its primary");
    assert_eq!(state.snapshot().devices, facts);
    let uplink = NetDevice {
        name: "eth1".to_owned(),
        v4: None,
        v6: None,
    };
    facts.nets.insert(8, uplink);
    assert_eq!(state.set_devices(facts.clone()), DEVICES);

    let mut state = State::with_node_ports("node-a", vec![NodePorts::All]);
    facts.nets.clear();
    assert_eq!(state.set_devices(facts.clone()), BOTH);
    facts.devices.clear();
    assert_eq!(state.set_devices(facts.clone()), POLICIES);
    facts.addresses.insert([10, 0, 9, 2].into());
    assert_eq!(state.set_devices(facts), SERVICES);
}

/// What the API holds of one object.
#[derive(Clone, Copy, Debug)]
enum Content {
    Good(u8),
    Bad,
    Gone,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Kind, u8, Content),
    Relist(Kind),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || any::<Index>().prop_map(|index| Kind::ALL[index.index(Kind::ALL.len())]);
    let content = prop_oneof![
        4 => (0..3u8).prop_map(Content::Good),
        1 => Just(Content::Bad),
        2 => Just(Content::Gone),
    ];
    prop_oneof![
        6 => (kind(), 0..4u8, content).prop_map(|(kind, name, content)| Step::Write(kind, name, content)),
        1 => kind().prop_map(Step::Relist),
    ]
}

type Api = BTreeMap<(Kind, u8), Content>;

fn name_of(kind: Kind, name: u8) -> ObjectName {
    object(kind, &name.to_string(), 0).key().1
}

fn write(kind: Kind, name: u8, content: Content) -> Event {
    match content {
        Content::Good(version) => Event::Applied(object(kind, &name.to_string(), version)),
        Content::Bad => rejected(kind, name_of(kind, name), "bad"),
        Content::Gone => Event::Deleted(kind, name_of(kind, name)),
    }
}

fn relist(api: &Api, kind: Kind) -> Vec<Event> {
    let of_kind = || api.iter().filter(move |((of, _), _)| *of == kind);
    let good = of_kind().filter_map(|((_, name), content)| match content {
        Content::Good(version) => Some(object(kind, &name.to_string(), *version)),
        Content::Bad | Content::Gone => None,
    });
    let mut events = vec![Event::Replaced(kind, good.collect())];
    let bad = of_kind().filter(|(_, content)| matches!(content, Content::Bad));
    events.extend(bad.map(|((_, name), content)| write(kind, *name, *content)));
    events
}

proptest! {
    /// Whatever led here, the state is that of an agent that has just started; and a change is told exactly when there is one.
    #[test]
    fn the_state_is_a_function_of_what_the_api_holds(steps in prop::collection::vec(step(), 0..60)) {
        let mut api = Api::new();
        let mut state = State::new("node-a");
        for kind in Kind::ALL {
            state.apply(Event::Replaced(kind, vec![]));
        }
        for step in steps {
            let events = match step {
                Step::Write(kind, name, content) => {
                    api.insert((kind, name), content);
                    vec![write(kind, name, content)]
                }
                Step::Relist(kind) => relist(&api, kind),
            };
            for event in events {
                let before = state.snapshot().clone();
                let change = state.apply(event);
                prop_assert_eq!(change != NOTHING, before != *state.snapshot());
            }
        }
        let mut fresh = State::new("node-a");
        for kind in Kind::ALL.into_iter().rev() {
            for event in relist(&api, kind) {
                fresh.apply(event);
            }
        }
        prop_assert_eq!(fresh.snapshot(), state.snapshot());
        prop_assert_eq!(fresh.rejections(), state.rejections());
        prop_assert!(fresh.synced());
    }

    /// Objects of different names may come in any order.
    #[test]
    fn order_between_objects_does_not_matter(
        contents in prop::collection::vec((0..Kind::ALL.len(), 0..3u8), 1..20),
        order in any::<Index>(),
    ) {
        let mut events: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(index, (kind, version))| Event::Applied(object(Kind::ALL[*kind], &index.to_string(), *version)))
            .collect();
        let apply = |events: &[Event]| {
            let mut state = State::new("node-a");
            for event in events {
                state.apply(event.clone());
            }
            state.snapshot().clone()
        };
        let straight = apply(&events);
        events.rotate_left(order.index(contents.len()));
        prop_assert_eq!(&apply(&events), &straight);
        events.reverse();
        prop_assert_eq!(&apply(&events), &straight);
    }
}

#[test]
fn a_sandbox_has_its_device_and_ends_with_what_takes_its_place() {
    use crate::model::{Attachment, PodDevice, Sandbox};

    let device = |ifindex| PodDevice {
        ifindex,
        name: format!("veth{ifindex}"),
    };
    let sandbox = |container: &str, last: u8, ifindex: u32| Sandbox {
        attachment: Attachment {
            container: container.to_owned(),
            interface: "eth0".to_owned(),
        },
        network: "pods".to_owned(),
        pod: ObjectName::new("n", container),
        uid: container.to_owned(),
        addresses: vec![[10, 0, 0, last].into()],
        device: Some(device(ifindex)),
    };
    let behind = |state: &State| -> Vec<(IpAddr, u32)> {
        let devices = state.snapshot().devices.devices.iter();
        devices
            .map(|(address, device)| (*address, device.ifindex))
            .collect()
    };
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let mut state = State::new("node-a");
    assert_eq!(state.announce(sandbox("one", 1, 11)), POLICIES);
    assert_eq!(state.announce(sandbox("one", 1, 11)), NOTHING, "again");
    // The kernel's tables still lead to a former device, and to one of a pod that nobody announced.
    let facts = DeviceFacts {
        devices: [(address(1), device(5)), (address(4), device(14))].into(),
        ..DeviceFacts::default()
    };
    assert_eq!(state.set_devices(facts), POLICIES);
    assert_eq!(behind(&state), [(address(1), 11), (address(4), 14)]);

    assert_eq!(state.announce(sandbox("two", 2, 12)), POLICIES);
    for (new, left) in [
        // Another container got the address.
        (sandbox("three", 1, 13), ["three", "two"]),
        // Another one got the device.
        (sandbox("five", 6, 12), ["five", "three"]),
    ] {
        assert_eq!(state.announce(new), POLICIES);
        let known = state.snapshot().sandboxes.values();
        let known: Vec<_> = known.map(|one| one.pod.name.as_str()).collect();
        assert_eq!(known, left);
    }
    assert_eq!(state.retire(|_| false), NOTHING);
    assert_eq!(state.retire(|one| one.pod.name == "three"), POLICIES);
    assert_eq!(
        behind(&state),
        [(address(1), 5), (address(4), 14), (address(6), 12)]
    );
    // A state that takes over knows the node as this one does.
    let mut next = state.anew();
    next.succeed(&state);
    assert_eq!(next.snapshot(), state.snapshot());
}

#[test]
fn an_address_that_was_announced_is_nobody_elses() {
    use crate::model::{Attachment, Sandbox};

    let mut state = State::new("node-a");
    state.announce(Sandbox {
        attachment: Attachment {
            container: "c".to_owned(),
            interface: "eth0".to_owned(),
        },
        network: "pods".to_owned(),
        pod: ObjectName::new("n", "announced"),
        uid: String::new(),
        addresses: vec![[10, 0, 0, 1].into()],
        device: None,
    });
    // The API has not told its address yet, and still tells it of another.
    let announced = Pod {
        ips: Vec::new(),
        ..pod("announced", 1)
    };
    let pods = [announced, pod("other", 2)].map(Object::Pod);
    state.apply(Event::Replaced(Kind::Pod, pods.into()));
    let owners = state.owners().all().values();
    let owners: Vec<_> = owners.map(|pod| pod.name.name.as_str()).collect();
    assert_eq!(owners, ["announced"]);
    assert_eq!(
        messages(&state),
        [
            "Pod n/other: address 10.0.0.1 is also that of pod n/announced, which is newer and gets it; delete one of the two"
        ]
    );
}
