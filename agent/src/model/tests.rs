//! Words and numbers that others rely on.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every word of an option reads as what it prints, and no other word reads.
fn words<T>(words: &[&str])
where
    T: FromStr<Err = String> + Display,
{
    for word in words {
        assert_eq!(
            word.parse::<T>().map(|it| it.to_string()).as_deref(),
            Ok(*word)
        );
    }
    let Err(error) = "none of them".parse::<T>() else {
        panic!("one of {words:?}");
    };
    assert!(error.ends_with(&words.join(", ")), "{error}");
}

#[test]
fn options_read_as_they_print() {
    words::<AttachMode>(&["auto", "tcx", "clsact"]);
    words::<SocketLb>(&["host", "all", "none"]);
    words::<XdpMode>(&["off", "auto"]);
}

#[test]
fn objects_are_called_as_the_api_calls_them() {
    let directions = [Direction::Ingress, Direction::Egress];
    assert_eq!(directions.map(Direction::as_str), ["ingress", "egress"]);
    assert_eq!(
        [Tier::Admin, Tier::Baseline].map(Tier::as_str),
        ["Admin", "Baseline"]
    );
    let actions = [Action::Accept, Action::Deny, Action::Pass];
    assert_eq!(actions.map(Action::as_str), ["Accept", "Deny", "Pass"]);
    let optional: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_optional())
        .collect();
    assert_eq!(optional, [Kind::ClusterNetworkPolicy, Kind::ServiceCidr]);
    let kinds = Kind::ALL.map(|kind| format!("{} {}", kind.api_version(), kind.as_str()));
    assert_eq!(
        kinds,
        [
            "v1 Service",
            "discovery.k8s.io/v1 EndpointSlice",
            "networking.k8s.io/v1 NetworkPolicy",
            "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy",
            "v1 Pod",
            "v1 Namespace",
            "v1 Node",
            "networking.k8s.io/v1 ServiceCIDR",
        ]
    );
}

/// Flows, events and backends of a former agent are told by them.
#[test]
fn ids_are_the_same_in_every_version() {
    let web = ObjectName::new("shop", "web");
    let port = service_port_id(&web, "http", Protocol::Tcp);
    assert_eq!(
        (endpoint_id("4a7e"), port),
        (1_628_524_293_881_143_777, 16_682_433_069_958_807_073)
    );
    let backend = fingerprint(port, address("10.0.0.1"), 8080);
    let rule = rule_id(&web, "4a7e", Direction::Egress, 1, 0);
    assert_eq!((backend, rule), (2_037_364_627, 3_951_037_130));
}

#[test]
fn nobody_is_in_a_rule_for_nobody() {
    let rule = Rule::nobody();
    assert!(!rule.peers.is_empty(), "no peers would be everybody");
    for labels in [vec![], vec![("", "")], vec![("app", "web")]] {
        let labels: Labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        for peer in &rule.peers {
            let Peer::Pods {
                pods: Some(pods), ..
            } = peer
            else {
                panic!("{peer:?}");
            };
            assert!(!pods.matches(&labels), "{labels:?}");
        }
    }
}
