//! Which pod an address belongs to while pods come and go.

use weir_oracle::owner;

use crate::world::{ALLOW, DENY, HTTP, World};

/// Allows pods labelled `app: client` of the policy's namespace to reach x.
const FROM_CLIENTS: &str = "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}";

fn pod(name: &str, app: &str, phase: &str, created: &str, extra: &str) -> String {
    format!(
        "{{metadata: {{namespace: x, name: {name}, uid: uid-{name}, labels: {{app: {app}}}, creationTimestamp: '{created}' {extra}}},
           spec: {{nodeName: node-1, containers: []}},
           status: {{phase: {phase}, podIP: 10.1.1.50, podIPs: [{{ip: 10.1.1.50}}, {{ip: 'fd00:10:1::50'}}]}}}}"
    )
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-01T00:00:01Z";
const REUSED: &str = "10.1.1.50";

#[test]
fn a_pod_that_is_over_owns_no_address() {
    for phase in ["Succeeded", "Failed"] {
        let mut world = World::with("x", FROM_CLIENTS);
        world.pod(&pod("job", "client", phase, EARLY, ""));
        world.check(&[
            (REUSED, "x/a", HTTP, DENY),
            ("fd00:10:1::50", "x/a#6", HTTP, DENY),
            ("y/a", REUSED, HTTP, ALLOW),
        ]);
    }
    for phase in ["Running", "Pending", "Unknown"] {
        let mut world = World::with("x", FROM_CLIENTS);
        world.pod(&pod("job", "client", phase, EARLY, ""));
        world.check(&[(REUSED, "x/a", HTTP, ALLOW), ("y/a", REUSED, HTTP, DENY)]);
    }
}

#[test]
fn a_reused_address_is_the_live_pods_even_if_the_dead_one_is_younger() {
    for (dead_created, live_created) in [(EARLY, LATE), (LATE, EARLY)] {
        for (dead_app, live_app, expected) in
            [("client", "other", DENY), ("other", "client", ALLOW)]
        {
            let mut world = World::with("x", FROM_CLIENTS);
            world.pod(&pod("dead", dead_app, "Succeeded", dead_created, ""));
            world.pod(&pod("live", live_app, "Running", live_created, ""));
            world.check(&[(REUSED, "x/a", HTTP, expected)]);
        }
    }
}

#[test]
fn of_two_live_pods_with_one_address_the_newest_owns_it_in_any_order() {
    let mut pods = [
        pod("new", "client", "Running", LATE, ""),
        pod("old", "other", "Running", EARLY, ""),
    ];
    for _ in 0..2 {
        pods.reverse();
        let mut world = World::with("x", FROM_CLIENTS);
        for pod in &pods {
            world.pod(pod);
        }
        world.check(&[(REUSED, "x/a", HTTP, ALLOW)]);
        let owner =
            owner(&world.0, world.address(REUSED)).and_then(|pod| pod.metadata.name.as_deref());
        assert_eq!(owner, Some("new"));
    }
}

#[test]
fn of_two_equally_old_live_pods_the_greater_uid_decides() {
    let mut world = World::with("x", FROM_CLIENTS);
    for (name, app, uid) in [("aa", "client", "9"), ("zz", "other", "1")] {
        world.pod(&pod(name, app, "Running", LATE, ""));
        let newest = world.0.pods.last_mut().expect("a pod was added");
        newest.metadata.uid = Some(uid.to_owned());
    }
    world.check(&[(REUSED, "x/a", HTTP, ALLOW)]);
}

#[test]
fn a_terminating_pod_stays_restricted_and_keeps_what_is_allowed() {
    let mut world = World::with("x", FROM_CLIENTS);
    world.pod(&pod(
        "leaving",
        "client",
        "Running",
        EARLY,
        &format!(", deletionTimestamp: '{LATE}'"),
    ));
    assert!(
        world
            .find_pod("x", "leaving")
            .metadata
            .deletion_timestamp
            .is_some()
    );
    world.check(&[
        (REUSED, "x/a", HTTP, ALLOW),
        ("y/a", REUSED, HTTP, DENY),
        ("x/b", REUSED, HTTP, DENY),
    ]);
}

#[test]
fn a_pod_without_an_address_yet_is_no_peer_and_harms_nobody() {
    let mut world = World::with("x", FROM_CLIENTS);
    world.pod("{metadata: {namespace: x, name: new, labels: {app: client}}, spec: {nodeName: node-1, containers: []}}");
    world.pod(
        "{metadata: {namespace: x, name: odd, labels: {app: client}}, spec: {containers: []},
          status: {phase: Running, podIP: '', podIPs: [{ip: ''}, {ip: pending}]}}",
    );
    world.check(&[
        ("x/b", "x/a", HTTP, DENY),
        (REUSED, "x/a", HTTP, DENY),
        ("x/a", "y/a", HTTP, ALLOW),
    ]);
}

#[test]
fn every_address_of_the_status_is_the_pods() {
    let mut world = World::with("x", FROM_CLIENTS);
    world.pod(
        "{metadata: {namespace: x, name: old, labels: {app: client}}, spec: {nodeName: node-1, containers: []},
          status: {phase: Running, podIP: 10.1.1.60}}",
    );
    world.pod(
        "{metadata: {namespace: x, name: dual, labels: {app: client}}, spec: {nodeName: node-1, containers: []},
          status: {phase: Running, podIP: 'fd00:10:1::61', podIPs: [{ip: 'fd00:10:1::61'}, {ip: 10.1.1.61}]}}",
    );
    world.check(&[
        ("10.1.1.60", "x/a", HTTP, ALLOW),
        ("10.1.1.61", "x/a", HTTP, ALLOW),
        ("fd00:10:1::61", "x/a#6", HTTP, ALLOW),
        ("y/a", "10.1.1.60", HTTP, DENY),
    ]);
}

#[test]
fn a_pod_made_again_under_its_name_leaves_its_old_address_behind() {
    let mut world = World::with("x", FROM_CLIENTS);
    world.pod(&pod("db-0", "client", "Running", EARLY, ""));
    let again = world
        .0
        .pods
        .last_mut()
        .and_then(|pod| pod.status.as_mut())
        .expect("db-0 has a status");
    again.pod_ip = Some("10.1.1.51".to_owned());
    again.pod_ips = None;
    world.check(&[
        (REUSED, "x/a", HTTP, DENY),
        ("10.1.1.51", "x/a", HTTP, ALLOW),
    ]);
}
