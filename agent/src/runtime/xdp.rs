//! Programs in drivers: a help, and never a reason to fail.

use std::collections::BTreeMap;

use crate::datapath::{KernelDatapath, XdpState};
use crate::model::NetDevice;

/// Attaches to every device of `nets` that takes the program; tells what became of each, and logs what is not as it was `before`.
pub(super) fn attach(
    datapath: &KernelDatapath,
    nets: &BTreeMap<u32, NetDevice>,
    before: &BTreeMap<u32, XdpState>,
    errors: &mut Vec<String>,
) -> BTreeMap<u32, XdpState> {
    let mut states = BTreeMap::new();
    if let Err(error) = datapath.detach_unwanted_xdp() {
        errors.push(format!("XDP: {error}"));
    }
    for (ifindex, net) in nets {
        match datapath.attach_xdp(*ifindex) {
            Ok(None) => {}
            Ok(Some(state)) => {
                if before.get(ifindex) != Some(&state) {
                    tracing::info!(device = net.name, ifindex, "XDP: {}", describe(&state));
                }
                states.insert(*ifindex, state);
            }
            Err(error) if error.is_device_gone() => {}
            Err(error) => {
                let state = XdpState::Refused(error.to_string());
                if before.get(ifindex) != Some(&state) {
                    tracing::warn!(device = net.name, ifindex, "XDP: {}", describe(&state));
                }
                states.insert(*ifindex, state);
            }
        }
    }
    states
}

/// For people.
pub(super) fn describe(state: &XdpState) -> String {
    match state {
        XdpState::Attached => "attached".to_owned(),
        XdpState::Foreign => "another program is there".to_owned(),
        XdpState::Unsupported => "not in this driver".to_owned(),
        XdpState::Refused(reason) => format!("refused: {reason}"),
    }
}
