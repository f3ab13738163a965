//! A pod and itself, and connections the other way round.

use weir_oracle::Exemption;

use crate::world::{ALLOW, DENY, HTTP, PING, World, tcp};

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

#[test]
fn a_pod_may_always_talk_to_itself() {
    let world = World::with("x", DENY_ALL);
    world.check(&[
        ("x/a", "x/a", HTTP, ALLOW),
        ("x/a#6", "x/a#6", tcp(9), ALLOW),
        ("x/a", "x/a", PING, ALLOW),
    ]);
    let judgement = world.judge("x/a", "x/a", HTTP);
    for verdict in [judgement.egress, judgement.ingress] {
        assert_eq!(
            verdict.and_then(|verdict| verdict.exempt),
            Some(Exemption::PodToItself)
        );
    }
    world.check(&[("x/a", "x/b", HTTP, DENY)]);
}

#[test]
fn a_pod_is_itself_only_as_long_as_it_owns_the_address() {
    let mut world = World::with("x", DENY_ALL);
    let pod = world
        .0
        .pods
        .iter_mut()
        .find(|pod| pod.metadata.name.as_deref() == Some("a"))
        .expect("x/a");
    pod.status.as_mut().expect("a status").phase = Some("Failed".to_owned());
    let judgement = world.judge("x/a", "x/a", HTTP);
    assert_eq!((judgement.egress, judgement.ingress), (None, None));
}

#[test]
fn a_connection_the_other_way_needs_its_own_rule() {
    let world = World::with(
        "x",
        "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 80}]}]}",
    );
    world.check(&[
        ("x/a", "y/a", HTTP, ALLOW),
        ("y/a", "x/a", HTTP, DENY),
        ("y/a", "x/a", tcp(80), DENY),
    ]);
}

#[test]
fn of_two_pods_behind_a_service_each_is_judged_as_itself() {
    let spec = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress],
                 egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}";
    World::with("x", spec).check(&[("x/a", "x/b", HTTP, ALLOW), ("x/a", "y/b", HTTP, DENY)]);
}

#[test]
fn two_pods_of_one_label_may_be_allowed_to_each_other() {
    let mut world = World::new();
    world.pod(&crate::world::plain_pod("x", "twin", "{app: a}", 2, 1, 9));
    let same = "[{podSelector: {matchLabels: {app: a}}}]";
    world.policy(
        "x",
        "same",
        &format!(
            "{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Ingress, Egress],
                   ingress: [{{from: {same}}}], egress: [{{to: {same}}}]}}"
        ),
    );
    world.check(&[
        ("x/a", "x/twin", HTTP, ALLOW),
        ("x/twin", "x/a", HTTP, ALLOW),
        ("x/a", "x/b", HTTP, DENY),
    ]);
}
