//! Clusters for tests of what people are told, from manifests.

use crate::model::{DeviceFacts, PodDevice, Snapshot};
use crate::source::manifests;
use crate::state::State;

/// What the agent of a node knows where these objects are, and these devices lead to addresses.
pub(crate) fn cluster(node: &str, manifests: &str, devices: &[(&str, u32)]) -> Snapshot {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), manifests).unwrap();
    let loaded = manifests::load(directory.path()).unwrap();
    assert_eq!(loaded.rejections, [""; 0]);
    let mut state = State::new(node);
    for event in loaded.events {
        state.apply(event);
    }
    let devices = devices.iter().map(|(address, ifindex)| {
        let name = format!("veth{ifindex}");
        let ifindex = *ifindex;
        (address.parse().unwrap(), PodDevice { ifindex, name })
    });
    state.set_devices(DeviceFacts {
        devices: devices.collect(),
        ..DeviceFacts::default()
    });
    state.snapshot().clone()
}
