use std::collections::BTreeSet;

use super::{Change, DeviceName, Remains, plan};
use crate::netlink::netfilter::{
    Chain, Hook, Matches, Rule, Ruleset, TableFamily, TableId, Verdict,
};

fn chain(table: &TableId, name: &str) -> Chain {
    Chain {
        table: table.clone(),
        name: name.to_owned(),
        hook: None,
    }
}

fn base(table: &TableId, name: &str, number: u32, drops: bool) -> Chain {
    let hook = Some(Hook {
        number,
        priority: 0,
        kind: "filter".to_owned(),
        drops,
    });
    Chain {
        hook,
        ..chain(table, name)
    }
}

fn rule(table: &TableId, chain: &str, handle: u64, verdict: Verdict) -> Rule {
    Rule {
        table: table.clone(),
        chain: chain.to_owned(),
        handle,
        matches: Matches::default(),
        verdict: Some(verdict),
        comment: None,
    }
}

fn jump(to: &str) -> Verdict {
    Verdict::Jump(to.to_owned())
}

/// kube-proxy in one table, the kubelet and kube-router in the same, docker and a CNI plugin, and a table that only has the name.
fn mixed() -> Ruleset {
    let filter = TableId::new(TableFamily::V4, "filter");
    let others = TableId::new(TableFamily::V4, "kube-others");
    let inet = TableId::new(TableFamily::Inet, "kube-proxy");
    let own = TableId::new(TableFamily::V6, "kube-proxy");
    Ruleset {
        generation: 7,
        tables: vec![filter.clone(), others.clone(), inet.clone(), own.clone()],
        chains: vec![
            base(&filter, "FORWARD", 2, true),
            chain(&filter, "KUBE-FORWARD"),
            chain(&filter, "KUBE-SVC-ABC"),
            chain(&filter, "KUBE-FIREWALL"),
            chain(&filter, "KUBE-ROUTER-FORWARD"),
            chain(&filter, "CNI-HOSTPORT"),
            chain(&others, "KUBE-SERVICES"),
            chain(&inet, "services"),
            chain(&own, "services"),
        ],
        rules: vec![
            rule(&filter, "FORWARD", 1, jump("KUBE-FORWARD")),
            rule(&filter, "FORWARD", 2, jump("KUBE-ROUTER-FORWARD")),
            rule(&filter, "FORWARD", 3, jump("KUBE-FIREWALL")),
            rule(&filter, "KUBE-FORWARD", 4, jump("KUBE-SVC-ABC")),
            rule(&filter, "CNI-HOSTPORT", 5, Verdict::Accept),
        ],
    }
}

#[test]
fn exactly_what_is_kube_proxys_is_found() {
    let remains = Remains::of(&mixed());
    let parts = remains.parts();
    let found: Vec<_> = parts
        .iter()
        .map(|part| (part.table.as_str(), part.chains.clone(), part.leading))
        .collect();
    let chains = ["KUBE-FORWARD", "KUBE-SVC-ABC"].map(str::to_owned).to_vec();
    assert_eq!(
        found,
        [("ip6 kube-proxy", vec![], 0), ("ip filter", chains, 1)]
    );
    let kept = remains.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].chains, ["KUBE-FIREWALL"]);
}

#[test]
fn without_kube_proxy_nothing_is_changed() {
    let wanted = Change {
        kube_proxy: true,
        ..Change::default()
    };
    let (batch, report) = plan(&Ruleset::default(), &wanted);
    assert!(batch.is_empty());
    assert_eq!(report, super::Report::default());
}

#[test]
fn devices_are_accepted_only_where_forwarding_is_dropped() {
    let wanted = Change {
        kube_proxy: false,
        forward: BTreeSet::from([DeviceName {
            name: "veth".to_owned(),
            prefix: true,
        }]),
    };
    let (batch, report) = plan(&mixed(), &wanted);
    assert!(!batch.is_empty());
    assert_eq!(report.accepting, ["ip filter FORWARD"]);
    assert_eq!(report.removed, []);
    let mut open = mixed();
    open.chains[0].hook.as_mut().expect("hook").drops = false;
    assert!(plan(&open, &wanted).0.is_empty());
}
