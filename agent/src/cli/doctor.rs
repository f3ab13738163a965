//! `weir doctor`.

use std::path::Path;

use anyhow::{Context, Result};

use super::Outcome;
use super::args::LocalQuery;
use super::ask::ask_local;
use super::command::object;
use super::print;
use crate::admin::{PodRow, Status};
use crate::datapath::NETNS_COOKIE;
use crate::doctor::{self, Finding, Harm, Known};

pub(super) fn execute(bpffs: &Path, query: &LocalQuery) -> Result<Outcome> {
    let findings = findings(bpffs, &query.run_dir)?;
    let items = print::Items { items: &findings };
    object(query.output, "FindingList", &items, |list| {
        print::findings(list.items)
    })?;
    let in_the_way = findings.iter().any(|found| found.harm == Harm::Certain);
    Ok(if in_the_way {
        Outcome::No
    } else {
        Outcome::Yes
    })
}

/// What is in the way on this node.
pub(super) fn findings(bpffs: &Path, run_dir: &Path) -> Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    // Without an agent there is all the more to find.
    let facts = runtime.block_on(doctor::gather(known(run_dir).ok(), bpffs))?;
    Ok(doctor::findings(&facts))
}

/// What the agent knows of devices.
fn known(run_dir: &Path) -> Result<Known> {
    let status: Status = ask_local(run_dir, "/v1/status", &[])?;
    let pods: Vec<PodRow> = ask_local(run_dir, "/v1/endpoints", &[])?;
    let mut features = status.features.iter();
    let mut known = Known {
        lacks_cookie: features.any(|feature| feature.name == NETNS_COOKIE && !feature.present),
        cgroup: status.sockets.cgroup.map(Into::into),
        ..Known::default()
    };
    for device in status.devices {
        if device.uplink {
            known.nets.insert(device.ifindex);
            if device.xdp.is_some() {
                known.xdp.insert(device.ifindex);
            }
            continue;
        }
        known.pods.insert(device.ifindex);
        let behind = pods
            .iter()
            .filter(|row| row.device.as_ref() == Some(&device.name));
        let addresses = behind.flat_map(|row| &row.addresses);
        known
            .addresses
            .extend(addresses.map(|address| (*address, device.ifindex)));
    }
    Ok(known)
}
