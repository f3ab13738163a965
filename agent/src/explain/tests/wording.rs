//! Rules in words.

use proptest::prelude::*;

use crate::compile::testing::selector;
use crate::explain::wording::{self, peer, port, requirement};
use crate::model::{Operator, Peer, PolicyPort, PortMatch, Protocol, Requirement, Selector};

#[test]
fn peers_read_like_sentences() {
    let all = || Some(Selector::default());
    let app = || Some(selector(&[("app", "web")]));
    let team = || Some(selector(&[("team", "shop")]));
    let block = |except: &[&str]| Peer::Block {
        cidr: "10.0.0.0/8".parse().unwrap(),
        except: except.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let pods = |namespaces, pods| Peer::Pods { namespaces, pods };
    for (rule, words) in [
        (block(&[]), "10.0.0.0/8"),
        (
            block(&["10.1.0.0/16", "10.2.0.0/16"]),
            "10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16",
        ),
        (Peer::Nodes(Selector::default()), "all nodes"),
        (Peer::Nodes(selector(&[("zone", "a")])), "nodes zone=a"),
        (pods(None, all()), "all pods in the policy's namespace"),
        (pods(None, app()), "pods app=web in the policy's namespace"),
        (pods(all(), None), "all pods in all namespaces"),
        (pods(all(), all()), "all pods in all namespaces"),
        (pods(all(), app()), "pods app=web in all namespaces"),
        (pods(team(), None), "all pods in namespaces team=shop"),
        (pods(team(), app()), "pods app=web in namespaces team=shop"),
    ] {
        assert_eq!(peer(Some(&rule)), words);
    }
    assert_eq!(peer(None), "every peer");
}

#[test]
fn ports_and_labels_read_as_they_are_written() {
    for (rule, words) in [
        (PortMatch::All, "every UDP port"),
        (PortMatch::Range(53, 53), "UDP 53"),
        (PortMatch::Range(53, 54), "UDP 53-54"),
        (PortMatch::Named("dns".to_owned()), "UDP dns"),
    ] {
        let rule = PolicyPort {
            protocol: Protocol::Udp,
            port: rule,
        };
        assert_eq!(port(Some(&rule)), words);
    }
    assert_eq!(port(None), "every port");
    let values = |values: &[&str]| values.iter().map(|it| (*it).to_owned()).collect();
    for (operator, words) in [
        (Operator::In(values(&["a"])), "app=a"),
        (Operator::In(values(&["a", "b"])), "app in (a,b)"),
        (Operator::NotIn(values(&["a"])), "app!=a"),
        (Operator::NotIn(values(&["a", "b"])), "app notin (a,b)"),
        (Operator::Exists, "app"),
        (Operator::DoesNotExist, "!app"),
    ] {
        let key = "app".to_owned();
        assert_eq!(requirement(&Requirement { key, operator }), words);
    }
}

fn selectors() -> impl Strategy<Value = Selector> {
    let values = proptest::collection::btree_set("[a-z0-9]{0,3}", 1..3);
    let operator = (values, 0..4).prop_map(|(values, form)| match form {
        0 => Operator::In(values),
        1 => Operator::NotIn(values),
        2 => Operator::Exists,
        _ => Operator::DoesNotExist,
    });
    let requirement = ("([a-z]{1,3}/)?[a-z]{1,3}", operator);
    let requirement = requirement.prop_map(|(key, operator)| Requirement { key, operator });
    proptest::collection::vec(requirement, 0..4).prop_map(|mut requirements| {
        requirements.sort();
        Selector { requirements }
    })
}

proptest! {
    #[test]
    fn a_selector_that_is_shown_is_read_again(selector in selectors()) {
        let text = wording::selector(&selector);
        prop_assert_eq!(text.parse(), Ok(selector), "{}", text);
    }
}
