//! Which devices get programs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::DeviceFacts;

/// Devices that this process has attached to.
///
/// A device keeps its programs for as long as it is there. That its pod's object is gone says nothing of the pod: a static pod's
/// object may be deleted and come back, a pod deleted by force runs on for a while, and a veth without programs lets everything
/// through. With programs and without a pod that is known, nothing new leaves it.
#[derive(Debug, Default)]
pub(super) struct Devices {
    ours: BTreeSet<u32>,
}

impl Devices {
    /// Devices of `needed` that lack this process's programs. `attached` are those with programs, of whichever agent.
    pub(super) fn wanting(
        &mut self,
        attached: &BTreeSet<u32>,
        needed: impl IntoIterator<Item = u32>,
    ) -> BTreeSet<u32> {
        self.ours.retain(|device| attached.contains(device));
        let needed = needed.into_iter();
        needed
            .filter(|device| !self.ours.contains(device))
            .collect()
    }

    /// Notes that a device has this process's programs.
    pub(super) fn attached(&mut self, device: u32) {
        self.ours.insert(device);
    }
}

/// Devices that lead to one of `pods`.
pub(super) fn leading(
    facts: &DeviceFacts,
    is_pod: impl Fn(&IpAddr) -> bool,
) -> impl Iterator<Item = u32> {
    let leading = facts.devices.iter();
    leading
        .filter(move |(address, _)| is_pod(address))
        .map(|(_, device)| device.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodDevice;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn facts(devices: &[(u8, u32)]) -> DeviceFacts {
        let device = |ifindex| PodDevice {
            ifindex,
            name: format!("veth{ifindex}"),
        };
        DeviceFacts {
            devices: devices
                .iter()
                .map(|(last, ifindex)| (address(*last), device(*ifindex)))
                .collect(),
            ..DeviceFacts::default()
        }
    }

    fn pods(lasts: &[u8]) -> impl Fn(&IpAddr) -> bool + use<> {
        let pods: BTreeSet<IpAddr> = lasts.iter().map(|last| address(*last)).collect();
        move |address| pods.contains(address)
    }

    #[test]
    fn programs_follow_pods() {
        let mut devices = Devices::default();
        let (none, seven) = (BTreeSet::new(), BTreeSet::from([7]));
        let one = facts(&[(1, 7)]);
        assert_eq!(devices.wanting(&none, leading(&one, pods(&[]))), none);
        assert_eq!(devices.wanting(&none, leading(&one, pods(&[1]))), seven);
        // An attempt that failed is made again.
        assert_eq!(devices.wanting(&none, leading(&one, pods(&[1]))), seven);
        devices.attached(7);
        assert_eq!(devices.wanting(&seven, leading(&one, pods(&[1]))), none);
        // The index comes back with another device.
        assert_eq!(devices.wanting(&none, leading(&one, pods(&[1]))), seven);
    }

    #[test]
    fn programs_of_an_earlier_agent_are_replaced() {
        let mut devices = Devices::default();
        let left = BTreeSet::from([7, 8]);
        let wanted = devices.wanting(&left, leading(&facts(&[(1, 7)]), pods(&[1, 2])));
        assert_eq!(wanted, BTreeSet::from([7]));
    }
}
