//! Which devices get programs, and which lose them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::DeviceFacts;

/// What is known of devices over time.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// Devices that this process has attached to.
    ours: BTreeSet<u32>,
    /// Pod addresses that each device was last known to lead to.
    led_to: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Devices that lead to a pod and lack this process's programs.
    pub(super) attach: BTreeSet<u32>,
    /// Devices that have programs and lead to no pod any more.
    pub(super) detach: BTreeSet<u32>,
}

impl Devices {
    /// Decides for the devices in `attached` (those with programs, of whichever agent) and for those that lead to pods.
    ///
    /// A device keeps its programs while a pod may still be behind it: routes and neighbours come and go (a CNI plugin at work, a
    /// bridge that forgets), and a veth without programs lets everything through.
    pub(super) fn decide(
        &mut self,
        attached: &BTreeSet<u32>,
        facts: &DeviceFacts,
        pods: &BTreeSet<IpAddr>,
    ) -> Decision {
        let mut leads_to: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for (address, device) in &facts.devices {
            if pods.contains(address) {
                leads_to.entry(device.ifindex).or_default().insert(*address);
            }
        }
        self.ours.retain(|device| attached.contains(device));
        self.led_to
            .retain(|device, _| attached.contains(device) && !leads_to.contains_key(device));

        let attach = leads_to
            .keys()
            .filter(|device| !self.ours.contains(device))
            .copied()
            .collect();
        let found = |address: &IpAddr| facts.devices.contains_key(address);
        let all_found = pods.iter().all(found);
        let detach = attached
            .iter()
            .filter(|device| !leads_to.contains_key(device))
            .filter(|device| match self.led_to.get(device) {
                Some(former) => former
                    .iter()
                    .all(|address| !pods.contains(address) || found(address)),
                // An earlier agent's: it may be that of any pod whose device is not found yet.
                None => all_found,
            })
            .copied()
            .collect();
        self.led_to.extend(leads_to);
        Decision { attach, detach }
    }

    /// Notes that a device has this process's programs.
    pub(super) fn attached(&mut self, device: u32) {
        self.ours.insert(device);
    }

    /// Notes that a device has no programs any more.
    pub(super) fn detached(&mut self, device: u32) {
        self.ours.remove(&device);
        self.led_to.remove(&device);
    }
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
        }
    }

    fn pods(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().copied().map(address).collect()
    }

    fn decision(attach: &[u32], detach: &[u32]) -> Decision {
        Decision {
            attach: attach.iter().copied().collect(),
            detach: detach.iter().copied().collect(),
        }
    }

    #[test]
    fn programs_follow_pods() {
        let mut devices = Devices::default();
        let none = BTreeSet::new();
        let one = facts(&[(1, 7)]);
        assert_eq!(
            devices.decide(&none, &one, &pods(&[1])),
            decision(&[7], &[])
        );
        // An attempt that failed is made again.
        assert_eq!(
            devices.decide(&none, &one, &pods(&[1])),
            decision(&[7], &[])
        );
        devices.attached(7);
        let seven = BTreeSet::from([7]);
        assert_eq!(
            devices.decide(&seven, &one, &pods(&[1])),
            decision(&[], &[])
        );
        // The pod ends: its device may stay for some time.
        assert_eq!(
            devices.decide(&seven, &one, &pods(&[])),
            decision(&[], &[7])
        );
        devices.detached(7);
        assert_eq!(devices.decide(&none, &one, &pods(&[])), decision(&[], &[]));
        // The index comes back with another device.
        assert_eq!(
            devices.decide(&none, &one, &pods(&[1])),
            decision(&[7], &[])
        );
    }

    #[test]
    fn a_lost_route_takes_no_programs_away() {
        let mut devices = Devices::default();
        let seven = BTreeSet::from([7]);
        devices.decide(&BTreeSet::new(), &facts(&[(1, 7)]), &pods(&[1]));
        devices.attached(7);
        assert_eq!(
            devices.decide(&seven, &facts(&[]), &pods(&[1])),
            decision(&[], &[])
        );
        // Nor the next time.
        assert_eq!(
            devices.decide(&seven, &facts(&[]), &pods(&[1])),
            decision(&[], &[])
        );
        // It is found behind another device.
        assert_eq!(
            devices.decide(&seven, &facts(&[(1, 8)]), &pods(&[1])),
            decision(&[8], &[7])
        );
    }

    #[test]
    fn what_an_earlier_agent_left_is_taken_over_or_removed() {
        let mut devices = Devices::default();
        let left = BTreeSet::from([7, 8]);
        // Device 8 may be that of pod 2.
        assert_eq!(
            devices.decide(&left, &facts(&[(1, 7)]), &pods(&[1, 2])),
            decision(&[7], &[])
        );
        devices.attached(7);
        assert_eq!(
            devices.decide(&left, &facts(&[(1, 7), (2, 9)]), &pods(&[1, 2])),
            decision(&[9], &[8])
        );
    }
}
