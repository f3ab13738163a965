//! What there is before and after.

use std::collections::BTreeSet;

use super::super::worlds::Worlds;
use super::*;
use crate::model::Snapshot;

fn pods(snapshot: &Snapshot) -> BTreeSet<String> {
    let pods = snapshot
        .pods
        .values()
        .filter(|pod| pod.name.namespace == "shop");
    pods.map(|pod| format!("{} {}", pod.name.name, pod.labels["app"]))
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_pod_is_in_both_worlds() {
    let worlds = Worlds::new(&proposal(CLUSTER, SHOP));
    let all = set(&[
        "deploy/front front",
        "deploy/front (another) front",
        "sts/back back",
        "sts/back (another) back",
    ]);
    assert_eq!(
        (pods(&worlds.before), pods(&worlds.after)),
        (all.clone(), all)
    );
    assert_eq!(worlds.fresh.len(), 4);
    assert!(worlds.complete && !worlds.assumed_dns);
}

#[test]
fn a_workload_takes_the_place_of_the_pods_that_it_made() {
    let cluster = format!(
        "{CLUSTER}{}{}{}",
        made("front-abc-x1", "old", "10.1.0.20"),
        made("front-abc-x2", "old", "10.1.0.21"),
        made("other-abc-x1", "old", "10.1.0.22")
    );
    let worlds = Worlds::new(&proposal(&cluster, SHOP));
    let name = ObjectName::new("shop", "deploy/front");
    let (was, is) = (&worlds.before.pods[&name], &worlds.after.pods[&name]);
    assert_eq!(
        (&was.labels["app"][..], &is.labels["app"][..]),
        ("old", "front")
    );
    assert!(was.ips == is.ips && !was.ips.is_empty(), "{was:?} {is:?}");
    assert!(!worlds.fresh.contains(&name));
    for world in [&worlds.before, &worlds.after] {
        let names = pods(world);
        assert!(names.contains("other-abc-x1 old"), "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("front-")),
            "{names:?}"
        );
    }
    // In a dump of the cluster the pods tell more than what made them.
    let dump = Worlds::new(&proposal(&format!("{cluster}---{SHOP}"), ""));
    let names = pods(&dump.after);
    assert!(
        names.contains("front-abc-x1 old") && !names.contains("deploy/front front"),
        "{names:?}"
    );
}

#[test]
fn objects_that_go_are_gone_where_the_manifests_are_all_there_will_be() {
    let mut proposal = proposal(&format!("{SHOP}{}", policy("a", "podSelector: {}")), SHOP);
    assert_eq!(Worlds::new(&proposal).after.policies.len(), 1);
    proposal.replaces = true;
    let worlds = Worlds::new(&proposal);
    assert_eq!(
        (worlds.before.policies.len(), worlds.after.policies.len()),
        (1, 0)
    );
    assert!(worlds.fresh.is_empty());
}

#[test]
fn addresses_are_nobodys_and_of_the_clusters_families() {
    for (cluster, ranges, expected) in [
        ("", &[][..], &["10.244.0."][..]),
        (CLUSTER, &[], &["10.1.0."]),
        (
            CLUSTER,
            &["10.9.0.0/16", "fd09::/64"],
            &["10.9.0.", "fd09::"],
        ),
        ("", &["fd09::/64"], &["fd09::"]),
    ] {
        let mut proposal = proposal(cluster, SHOP);
        proposal.pod_ranges = ranges
            .iter()
            .map(|range| range.parse().expect("a range"))
            .collect();
        let worlds = Worlds::new(&proposal);
        let mut seen = BTreeSet::new();
        for (name, pod) in &worlds.after.pods {
            assert!(
                pod.ips.iter().all(|ip| seen.insert(*ip)),
                "{name} has an address of another"
            );
            if name.namespace == "shop" {
                assert_eq!(pod.ips, worlds.before.pods[name].ips);
                assert_eq!(pod.ips.len(), expected.len(), "{pod:?}");
                for (ip, start) in pod.ips.iter().zip(expected) {
                    assert!(ip.to_string().starts_with(start), "{pod:?}");
                }
            }
        }
    }
}

#[test]
fn addresses_that_a_rule_singles_out_are_not_given() {
    let block = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/30}}, {ipBlock: {cidr: 10.244.0.5/32}}, {ipBlock: {cidr: 10.244.0.0/16}}]}]";
    let worlds = Worlds::new(&proposal(SHOP, &policy("a", block)));
    let pods = worlds.after.pods.values();
    let given: BTreeSet<String> = pods.map(|pod| pod.ips[0].to_string()).collect();
    assert_eq!(
        given,
        [4, 6, 7, 8, 9]
            .map(|last| format!("10.244.0.{last}"))
            .into()
    );
}

#[test]
fn namespaces_that_are_only_mentioned_have_their_name_for_a_label() {
    let namespace =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    for (cluster, team) in [("", None), (namespace, Some("a"))] {
        let worlds = Worlds::new(&proposal(cluster, SHOP));
        let labels = &worlds.after.namespaces["shop"].labels;
        assert_eq!(labels["kubernetes.io/metadata.name"], "shop");
        assert_eq!(labels.get("team").map(String::as_str), team);
    }
}
