//! Exactly kube-proxy's rules go, at once or not at all.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use weir::takeover::{self, Change, DeviceName, Report};
use weir_tests::netns::{Namespace, Place, run};

use weir_tests::skip_without_root;

/// Tables of others, one of which has a name that only begins like kube-proxy's.
const FOREIGN: &str = r#"
table ip kube-proxy-exporter { chain services { type nat hook prerouting priority -101; ip daddr 192.0.2.1 counter; } }
table inet kube-proxy { chain services { ip daddr 192.0.2.1 counter packets 0 bytes 0; } }
table ip nat {
    chain KUBE-ROUTER-SERVICES { counter packets 0 bytes 0; }
    chain CNI-HOSTPORT-DNAT { tcp dport 8080 counter packets 0 bytes 0 dnat to 10.244.1.9:80; }
    chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; jump CNI-HOSTPORT-DNAT; }
    chain OUTPUT { type nat hook output priority -100; policy accept; jump CNI-HOSTPORT-DNAT; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 10.244.1.0/24 masquerade; }
}
table ip filter {
    chain KUBE-FIREWALL { ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 counter packets 0 bytes 0 drop; }
    chain INPUT { type filter hook input priority filter; policy accept; jump KUBE-FIREWALL; }
    chain FORWARD { type filter hook forward priority filter; policy accept; ip saddr 192.0.2.0/24 drop; }
}
table ip mangle { chain KUBE-KUBELET-CANARY { } }
"#;

/// What kube-proxy adds to that in either mode; its own tables have sets, maps and a hook, too.
const KUBE_PROXY: &str = r#"
table ip kube-proxy {
    comment "rules for kube-proxy"
    set cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . tcp . 443 : goto service-a }; }
    chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain service-a { meta l4proto tcp dnat to 10.244.1.2:6443; }
}
table ip6 kube-proxy { chain nat-output { type nat hook output priority -100; } }
table ip nat {
    chain KUBE-SEP-ABC { meta l4proto tcp dnat to 10.244.1.2:6443; }
    chain KUBE-SVC-ABC { jump KUBE-SEP-ABC; }
    chain KUBE-SERVICES { ip daddr 10.96.0.1 jump KUBE-SVC-ABC; }
    chain KUBE-POSTROUTING { masquerade random; }
    chain KUBE-PROXY-CANARY { }
    chain PREROUTING { jump KUBE-SERVICES; }
    chain OUTPUT { jump KUBE-SERVICES; }
    chain POSTROUTING { jump KUBE-POSTROUTING; }
}
table ip filter {
    chain KUBE-FORWARD { ct state invalid drop; }
    chain FORWARD { jump KUBE-FORWARD; }
}
table ip6 mangle { chain KUBE-PROXY-CANARY { } }
"#;

/// `nft` wants the ends of blocks on lines of their own.
fn load(node: &Namespace, rules: &str) -> Result<()> {
    node.nft(&rules.replace("; }", ";\n}\n").replace("{ }", "{\n}\n"))
}

/// A namespace with rules.
fn node(rules: &[&str]) -> Result<Option<Namespace>> {
    if skip_without_root() {
        return Ok(None);
    }
    let node = Namespace::new("node")?;
    for rules in rules {
        load(&node, rules)?;
    }
    Ok(Some(node))
}

fn rules(node: &Namespace) -> Result<String> {
    let place: &Place = node.as_ref();
    run(place.command("nft").args(["-s", "list", "ruleset"]))
}

/// Runs a command as an operator on the node does.
fn shell(node: &Namespace, command: &str) -> Result<String> {
    let place: &Place = node.as_ref();
    run(place.command("sh").args(["-c", command]))
}

fn carry_out(node: &Namespace, wanted: &Change) -> Result<Report> {
    let place: &Place = node.as_ref();
    Ok(place.run(|| takeover::carry_out(wanted, false))?)
}

fn kube_proxy() -> Change {
    Change {
        kube_proxy: true,
        ..Change::default()
    }
}

#[test]
fn kube_proxys_rules_go_and_everything_else_stays() -> Result<()> {
    let Some(node) = node(&[FOREIGN, "table ip6 mangle { }"])? else {
        return Ok(());
    };
    let before = rules(&node)?;
    load(&node, KUBE_PROXY)?;
    let place: &Place = node.as_ref();

    let full = rules(&node)?;
    let dry = place.run(|| takeover::carry_out(&kube_proxy(), true))?;
    ensure!(rules(&node)? == full, "a dry run has changed something");

    let report = carry_out(&node, &kube_proxy())?;
    ensure!(report == dry, "{report:?} instead of {dry:?}");
    let tables: Vec<_> = report.removed.iter().map(|part| &*part.table).collect();
    ensure!(
        tables
            == [
                "ip kube-proxy",
                "ip6 kube-proxy",
                "ip filter",
                "ip nat",
                "ip6 mangle"
            ],
        "{tables:?}"
    );
    let kept: Vec<_> = report.kept.iter().flat_map(|part| &part.chains).collect();
    ensure!(kept == ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY"], "{kept:?}");
    let after = rules(&node)?;
    ensure!(after.contains("table inet weir"), "{after}");

    // Twice is as good as once.
    let again = carry_out(&node, &kube_proxy())?;
    ensure!(again.removed.is_empty() && rules(&node)? == after);
    place.run(takeover::finish)?;
    let after = rules(&node)?;
    ensure!(after == before, "{after}\n--- instead of ---\n{before}");
    Ok(())
}

/// What CNI's portmap makes of a host port with `externalSetMarkChain: KUBE-MARK-MASQ`, beside what kube-proxy makes.
const PORTMAP: [&str; 12] = [
    "-N KUBE-MARK-MASQ",
    "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    "-N KUBE-POSTROUTING",
    "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    "-A POSTROUTING -m comment --comment 'kubernetes postrouting rules' -j KUBE-POSTROUTING",
    "-N KUBE-SERVICES",
    "-A KUBE-SERVICES -d 10.96.0.1 -j KUBE-MARK-MASQ",
    "-A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
    "-A OUTPUT -m conntrack --ctstate NEW -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
    "-N CNI-DN-ABC",
    "-A CNI-DN-ABC -s 10.244.1.0/24 -p tcp --dport 8080 -m comment --comment 'dnat name: cbr0' -j KUBE-MARK-MASQ",
];

#[test]
fn rules_of_others_stay_and_so_does_what_they_lead_to() -> Result<()> {
    let Some(node) = node(&[])? else {
        return Ok(());
    };
    for rule in PORTMAP {
        shell(&node, &format!("iptables-nft -t nat {rule}"))?;
    }
    let before = shell(&node, "iptables-nft -t nat -S")?;
    let report = carry_out(&node, &kube_proxy())?;
    let removed: Vec<_> = report.removed.iter().map(ToString::to_string).collect();
    ensure!(
        removed == ["chain KUBE-SERVICES of table ip nat and 2 rules that lead there"],
        "{removed:?}"
    );
    let [foreign] = report.foreign.as_slice() else {
        anyhow::bail!("{report:?}");
    };
    ensure!(
        foreign.to_string().contains(
            "of chain CNI-DN-ABC of table ip nat: ip saddr 10.244.1.0/24 ... jump KUBE-MARK-MASQ comment \"dnat name: cbr0\""
        ),
        "{foreign}"
    );
    ensure!(
        foreign.keeps == ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"],
        "{foreign:?}"
    );
    // Who is marked is masqueraded as before.
    let after = shell(&node, "iptables-nft -t nat -S")?;
    let wanted = before
        .lines()
        .filter(|line| !line.contains("KUBE-SERVICES"));
    ensure!(after.lines().eq(wanted), "{after}\n--- of ---\n{before}");

    let again = carry_out(&node, &kube_proxy())?;
    ensure!(again.removed.is_empty() && again.foreign == report.foreign);
    shell(&node, &foreign.delete())?;
    let last = carry_out(&node, &kube_proxy())?;
    ensure!(last.foreign.is_empty(), "{last:?}");
    let after = rules(&node)?;
    ensure!(
        !after.contains("KUBE-") && after.contains("CNI-DN-ABC"),
        "{after}"
    );
    Ok(())
}

#[test]
fn what_the_kernel_refuses_changes_nothing() -> Result<()> {
    // Somebody else's map leads to one of the chains, which therefore cannot be deleted.
    let hold = "table ip nat { map others { type inet_service : verdict; elements = { 80 : jump KUBE-SVC-ABC }; } }";
    let Some(node) = node(&[FOREIGN, KUBE_PROXY, hold])? else {
        return Ok(());
    };
    let before = rules(&node)?;
    let error = carry_out(&node, &kube_proxy()).err().context("refused")?;
    let error = error.to_string();
    ensure!(
        error.contains("KUBE-SVC-ABC") && error.contains("nothing has been changed"),
        "{error}"
    );
    ensure!(rules(&node)? == before, "half is gone: {}", rules(&node)?);
    Ok(())
}

#[test]
fn forwarding_is_accepted_for_pods_and_taken_back() -> Result<()> {
    let drop = "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; } }
        table inet firewall { chain forward { type filter hook forward priority 10; policy drop; ct state established accept; ip daddr 169.254.169.254 drop; } }";
    let Some(node) = node(&[drop])? else {
        return Ok(());
    };
    let before = rules(&node)?;
    let device = |name: &str, prefix| DeviceName {
        name: name.to_owned(),
        prefix,
    };
    let wanted = Change {
        kube_proxy: true,
        forward: BTreeSet::from([device("cni0", false), device("veth", true)]),
    };
    let report = carry_out(&node, &wanted)?;
    ensure!(report.accepting.len() == 2, "{report:?}");
    let with = rules(&node)?;
    for rule in [
        "iifname \"cni0\"",
        "oifname \"cni0\"",
        "iifname \"veth*\"",
        "oifname \"veth*\"",
    ] {
        let commented = format!("{rule} accept comment \"{}\"", takeover::FORWARD_COMMENT);
        ensure!(
            with.matches(&commented).count() == 2,
            "{commented} in {with}"
        );
    }
    // What an operator drops stays dropped.
    let (_, behind) = with
        .split_once("169.254.169.254 drop")
        .context("the rule")?;
    ensure!(
        behind.matches(takeover::FORWARD_COMMENT).count() == 4,
        "{with}"
    );
    let again = carry_out(&node, &wanted)?;
    ensure!(again.accepting.is_empty() && rules(&node)? == with);
    let place: &Place = node.as_ref();
    ensure!(place.run(takeover::remove_own)?);
    ensure!(rules(&node)? == before);
    ensure!(!place.run(takeover::remove_own)?);
    Ok(())
}

#[test]
fn a_large_rule_set_goes_at_once() -> Result<()> {
    let Some(node) = node(&[])? else {
        return Ok(());
    };
    let services = 5000;
    let chains: String = (0..services)
        .map(|n| format!("chain KUBE-SEP-{n:016} {{ meta l4proto tcp dnat to 10.244.1.2:80; }}\nchain KUBE-SVC-{n:016} {{ jump KUBE-SEP-{n:016}; }}\n"))
        .collect();
    let jumps: String = (0..services)
        .map(|n| {
            format!(
                "ip daddr 10.{}.{}.{} jump KUBE-SVC-{n:016};\n",
                n >> 16,
                n >> 8 & 255,
                n & 255
            )
        })
        .collect();
    load(
        &node,
        &format!(
            "table ip nat {{\n{chains}chain KUBE-SERVICES {{\n{jumps}}}\nchain PREROUTING {{ type nat hook prerouting priority dstnat; jump KUBE-SERVICES; }}\n}}\n"
        ),
    )?;
    let begun = std::time::Instant::now();
    let report = carry_out(&node, &kube_proxy())?;
    let took = begun.elapsed();
    println!("{services} Services took {took:?}");
    ensure!(report.removed[0].chains.len() == 2 * services + 1);
    ensure!(took.as_secs() < 20, "{took:?}");
    let left = rules(&node)?;
    ensure!(!left.contains("KUBE-"), "{left}");
    Ok(())
}
