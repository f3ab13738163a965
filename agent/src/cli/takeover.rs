//! `weir takeover`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;

use super::args::{LocalQuery, Predecessor, Takeover};
use super::ask::ask_local;
use super::command::object;
use super::{print, write_out};
use crate::admin::Status;
use crate::netlink::{self, LinkTable, netfilter};
use crate::takeover::{self, Change, DeviceName, Ipvs};

pub(super) fn execute(asked: &Takeover) -> Result<()> {
    let Predecessor::KubeProxy = asked.from;
    if asked.finish {
        return finish(asked);
    }
    if !asked.force && !asked.dry_run {
        ensure_served(&asked.query)?;
        if let Some(seen) = takeover::kube_proxy() {
            bail!(
                "kube-proxy still runs ({seen}) and would make its rules again: end it first, for example by \
                 `kubectl -n kube-system delete daemonset kube-proxy`"
            );
        }
    }
    let forward = if asked.fix_forward {
        pod_devices(&asked.query)?
    } else {
        BTreeSet::new()
    };
    let wanted = Change {
        kube_proxy: true,
        forward,
    };
    let mut report = takeover::carry_out(&wanted, asked.dry_run)?;
    report.legacy = takeover::legacy_tables();
    let runtime = runtime()?;
    report.ipvs = Ipvs::of(&runtime.block_on(netlink::links())?);
    report.ipvs_removed = asked.ipvs && report.ipvs.device.is_some();
    if report.ipvs_removed && !asked.dry_run {
        runtime.block_on(report.ipvs.remove_device())?;
    }
    object(asked.query.output, "Takeover", &report, |report| {
        print::takeover(report, asked.dry_run)
    })
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

fn finish(asked: &Takeover) -> Result<()> {
    let left =
        netfilter::translated().context("cannot list the connections that netfilter tracks")?;
    if left > 0 && !asked.force {
        bail!(
            "netfilter still translates {left} connections, which would be cut if they are of kube-proxy's time \
             (`conntrack -L --dst-nat` lists them): wait until they end, or use --force"
        );
    }
    let text = if takeover::finish()? {
        "removed table inet weir: netfilter translates for kube-proxy's connections no more\n"
    } else {
        "nothing to remove\n"
    };
    Ok(write_out(text)?)
}

/// Without anybody else, Services must not lose kube-proxy.
fn ensure_served(query: &LocalQuery) -> Result<()> {
    let status: Status = ask_local(&query.run_dir, "/v1/status", &[]).context(
        "whether Weir serves here cannot be found out (--force removes the rules all the same)",
    )?;
    if !status.synced || status.last_error.is_some() {
        bail!(
            "Weir does not serve here yet, see `weir status`: try again when it does, or use --force"
        );
    }
    Ok(())
}

/// What leads to pods, as rules name it: bridges, and what the names of veths begin with.
pub(super) fn pod_devices(query: &LocalQuery) -> Result<BTreeSet<DeviceName>> {
    let status: Status = ask_local(&query.run_dir, "/v1/status", &[])?;
    let devices = status.devices.iter().filter(|device| !device.uplink);
    let indexes: Vec<u32> = devices.map(|device| device.ifindex).collect();
    let table = runtime()?.block_on(netlink::links())?;
    let names: BTreeSet<_> = indexes
        .iter()
        .filter_map(|ifindex| rule_name(&table, *ifindex))
        .collect();
    if names.is_empty() {
        bail!("no pod's device is known here: try again when `weir status` shows one");
    }
    Ok(names)
}

/// The bridge that a pod's device is a port of, else what the device's name begins with.
fn rule_name(table: &LinkTable, ifindex: u32) -> Option<DeviceName> {
    let link = table.links.get(&ifindex)?;
    let bridge = link.controller.and_then(|bridge| table.links.get(&bridge));
    Some(match bridge {
        Some(bridge) => DeviceName {
            name: bridge.name.clone(),
            prefix: false,
        },
        None => match stem(&link.name) {
            "" => DeviceName {
                name: link.name.clone(),
                prefix: false,
            },
            name => DeviceName {
                name: name.to_owned(),
                prefix: true,
            },
        },
    })
}

/// What the names of a CNI plugin's devices begin with: behind it is a number or a part of a hash (veth1a2b3c4d). Some stems end in what
/// could be a digit of that.
fn stem(name: &str) -> &str {
    const ENDING_IN_DIGITS: [&str; 2] = ["gke", "lxc"];
    let mut known = ENDING_IN_DIGITS.into_iter();
    known
        .find(|stem| name.starts_with(stem))
        .unwrap_or_else(|| name.trim_end_matches(|c: char| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_a_plugin_share_what_their_names_begin_with() {
        for (name, expected) in [
            ("veth1a2b3c4d", "veth"),
            ("cali0123abc", "cali"),
            ("gke12ab", "gke"),
            ("lxc0c1d", "lxc"),
            ("eni7", "eni"),
            ("tap0", "tap"),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
    }
}
