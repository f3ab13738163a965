//! Faults, in the order in which the doctor tells them.

use std::fs;

use anyhow::{Result, ensure};
use weir_tests::cluster::weir_binary;
use weir_tests::netns::run;
use weir_tests::process::Process;
use weir_tests::skip_without_root;

use crate::node::{Node, SHAPES};

/// Runs a test on nodes whose pods are wired in either way.
fn each(test: impl Fn(&Node) -> Result<()>) -> Result<()> {
    for shape in SHAPES {
        if let Some(node) = Node::new(shape)? {
            test(&node)?;
        }
    }
    Ok(())
}

#[test]
fn a_missing_bpf_file_system() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let Ok(weir) = weir_binary() else {
        println!("SKIP: there is no agent");
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let (weir, mount) = (weir.display(), directory.path().display());
    // In a mount namespace of its own, so that nothing stays mounted.
    let script = format!(
        "{weir} doctor --bpffs {mount}/weir; echo code $?; PATH={}:$PATH weir init --mount {mount}; {weir} doctor --bpffs {mount}/weir; true",
        weir_binary()?
            .parent()
            .unwrap_or(directory.path())
            .display()
    );
    let said = run(std::process::Command::new("unshare").args(["-m", "-n", "sh", "-c", &script]))?;
    let (before, after) = said.split_once("code 1").unwrap_or_default();
    ensure!(
        before.contains("no-bpf-file-system")
            && before.contains(&format!("weir init --mount {mount}")),
        "{said}"
    );
    ensure!(!after.contains("no-bpf-file-system"), "{said}");
    Ok(())
}

#[test]
fn kube_proxy() -> Result<()> {
    each(|node| {
        let directory = tempfile::tempdir()?;
        let program = directory.path().join("kube-proxy");
        fs::copy("/bin/sleep", &program)?;
        let log = directory.path().join("log");
        let place = node.place();
        let running = Process::start("kube-proxy", &log, move || {
            let mut command = place.command(&program);
            command.arg("60");
            command
        })?;
        node.cure("kube-proxy-runs", 1)?;
        drop(running);

        node.namespace().nft(
            "table ip kube-proxy {\nchain nat-prerouting { type nat hook prerouting priority -100;\n}\n}\n\
             table ip6 nat {\nchain KUBE-SERVICES {\n}\nchain OUTPUT {\njump KUBE-SERVICES\n}\n}\n",
        )?;
        node.cure("kube-proxy-rules", 1)
    })
}

/// What the node has left of mode `ipvs`. Not every kernel has devices of the kind that kube-proxy makes: the name counts.
#[test]
fn the_device_of_mode_ipvs() -> Result<()> {
    each(|node| {
        let namespace = node.namespace();
        let add = |kind: &str| namespace.ip(&format!("link add kube-ipvs0 type {kind}\n"));
        add("dummy").or_else(|_| add("bridge"))?;
        namespace.ip(
            "addr add 10.96.0.1/32 dev kube-ipvs0\naddr add fd10:96::1/128 dev kube-ipvs0 nodad\n",
        )?;
        for (command, words) in [
            ("weir takeover", "left device kube-ipvs0 with 2 addresses"),
            (
                "weir takeover --ipvs --dry-run",
                "would remove device kube-ipvs0 with 2 addresses",
            ),
        ] {
            let said = node.run(command)?;
            ensure!(said.contains(words), "{said}");
        }
        node.cure("kube-proxy-ipvs-device", 1)?;
        ensure!(
            namespace
                .ip_output(&["link", "show", "dev", "kube-ipvs0"])
                .is_err()
        );
        let said = node.run("weir takeover --ipvs")?;
        ensure!(!said.contains("kube-ipvs0"), "{said}");
        Ok(())
    })
}

#[test]
fn rules_of_others_that_lead_to_kube_proxys() -> Result<()> {
    each(|node| {
        node.namespace().nft(
            "table ip nat {\nchain KUBE-MARK-MASQ {\nmeta mark set mark or 0x4000\n}\n\
             chain CNI-DN-1 {\ntcp dport 80 jump KUBE-MARK-MASQ\n}\n}\n",
        )?;
        node.cure_possible("rule-into-kube-proxy", 1)
    })
}

#[test]
fn forwarding_that_is_off() -> Result<()> {
    each(|node| {
        let namespace = node.namespace();
        namespace.sysctl("net/ipv4/ip_forward", 0)?;
        node.cure("forwarding-off-v4", 1)?;
        namespace.sysctl("net/ipv4/conf/eth0/forwarding", 0)?;
        node.cure("forwarding-off-v4", 1)?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", 0)?;
        node.cure("forwarding-off-v6", 1)?;
        // A port of a bridge does not forward: the bridge does.
        let forwarder = match namespace.ip_output(&["link", "show", "dev", "cni0"]) {
            Ok(_) => "cni0",
            Err(_) => node.veth(),
        };
        namespace.sysctl(&format!("net/ipv6/conf/{forwarder}/forwarding"), 0)?;
        node.cure("forwarding-off-v6", 1)
    })
}

#[test]
fn filters_that_drop_what_the_node_forwards() -> Result<()> {
    each(|node| {
        node.namespace().nft(
            "table ip filter {\nchain FORWARD { type filter hook forward priority 0; policy drop;\nct state related,established accept\n}\n}\n\
             table inet firewall {\nchain forward { type filter hook forward priority 10; policy drop;\nip saddr 10.244.0.0/16 accept\n}\n}\n",
        )?;
        node.cure("forward-dropped", 1)?;
        // What a CNI plugin says is understood, too.
        node.namespace().nft(
            "flush ruleset\ntable inet firewall {\nchain forward { type filter hook forward priority 10; policy drop;\n\
             ip saddr 10.244.0.0/16 accept\nip daddr 10.244.0.0/16 accept\nip6 saddr fd10:244::/48 accept\nip6 daddr fd10:244::/48 accept\n}\n}\n",
        )?;
        node.ensure_sound()
    })
}

#[test]
fn bridges_past_a_filter_that_drops_what_is_invalid() -> Result<()> {
    let Some(node) = Node::new(SHAPES[1])? else {
        return Ok(());
    };
    let namespace = node.namespace();
    let off = |family: &str| {
        let setting = format!("net/bridge/bridge-nf-call-{family}");
        namespace.sysctl(&setting, 0)
    };
    off("iptables")?;
    node.ensure_sound()?;
    namespace.nft(
        "table inet firewall {\nchain strict {\nct state invalid drop\n}\n\
         chain forward { type filter hook forward priority 0;\njump strict\n}\n}\n",
    )?;
    node.cure("bridge-past-netfilter", 1)?;
    off("iptables")?;
    off("ip6tables")?;
    node.cure("bridge-past-netfilter", 1)?;
    // As iptables has it.
    namespace.nft("flush ruleset\n")?;
    off("iptables")?;
    node.ensure_sound()?;
    node.run("iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP")?;
    node.cure("bridge-past-netfilter", 1)
}

#[test]
fn strict_reverse_paths_by_several_uplinks() -> Result<()> {
    each(|node| {
        // The topology's nodes are strict, and have one uplink.
        node.namespace().ip(
            "link add eth1 type veth peer name eth1p\naddr add 192.0.2.2/24 dev eth1\n\
             link set eth1 up\nlink set eth1p up\nroute add default via 192.0.2.1 dev eth1 metric 500\n",
        )?;
        node.cure("strict-reverse-path", 2)
    })
}
