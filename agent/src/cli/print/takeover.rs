//! What `weir takeover` did.

use std::fmt::Write as _;

use crate::takeover::Report;

/// `weir takeover`.
#[must_use]
pub fn takeover(report: &Report, dry_run: bool) -> String {
    let (removed, accepting) = if dry_run {
        ("would remove", "would accept")
    } else {
        ("removed", "accepts")
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    for part in &report.removed {
        let _ = writeln!(text, "{removed} {part}");
    }
    for foreign in &report.foreign {
        let chains = foreign.keeps.join(", ");
        let _ = writeln!(
            text,
            "left {chains} of table {} for somebody else's {foreign}\n  to remove that, see to it that its owner does not make it again, then: {} && weir takeover",
            foreign.table,
            foreign.delete()
        );
    }
    if report.removed.is_empty() && report.foreign.is_empty() {
        text.push_str("kube-proxy has no rules in nf_tables here\n");
    } else if !report.removed.is_empty() && !dry_run {
        text.push_str(
            "connections that kube-proxy has translated stay netfilter's; when they have ended: weir takeover --finish\n",
        );
    }
    for part in &report.kept {
        let _ = writeln!(text, "left {part}: the kubelet's, too");
    }
    if !report.legacy.is_empty() {
        let _ = writeln!(
            text,
            "not looked into: tables {} of the old iptables; if kube-proxy used them: kube-proxy --cleanup",
            report.legacy.join(", ")
        );
    }
    if let Some(device) = &report.ipvs.device {
        let (name, addresses) = (device.name, device.addresses);
        let _ = if report.ipvs_removed {
            writeln!(text, "{removed} device {name} with {addresses} addresses")
        } else {
            writeln!(
                text,
                "left device {name} with {addresses} addresses, of mode ipvs: weir takeover --ipvs"
            )
        };
    }
    if report.ipvs.servers > 0 {
        let _ = writeln!(
            text,
            "left {} virtual servers of IPVS; if all are kube-proxy's: ipvsadm --clear",
            report.ipvs.servers
        );
    }
    for chain in &report.accepting {
        let _ = writeln!(text, "{accepting} what pods send and get in chain {chain}");
    }
    text
}
