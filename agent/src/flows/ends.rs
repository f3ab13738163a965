//! Who is who in a backend-side entry of the flow table.

use weir_common::abi::{Address, Flow, FlowKey, HAIRPIN, NAT};

/// An address and a port.
pub(super) type Place = (Address, u16);

/// The ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Index of the end that opened it, in what the entry has of both.
    pub(super) own: usize,
    /// Index of the other end.
    pub(super) other: usize,
    /// Who opened it, as it knows itself.
    pub(super) source: Place,
    /// What it was addressed to, if that was a Service.
    pub(super) frontend: Option<Place>,
    /// Who answers.
    pub(super) backend: Place,
}

impl Ends {
    /// Those of a backend-side entry.
    pub(super) fn of(key: &FlowKey, flow: &Flow) -> Self {
        let opener = flow.opener();
        let [own, other] = [opener as usize, opener.other() as usize];
        // A pod that reaches itself has another address there.
        let source = if flow.flags & HAIRPIN == 0 {
            own
        } else {
            other
        };
        let source_port = flow.other_client_port().unwrap_or(key.ports[own]);
        Self {
            own,
            other,
            source: (key.addresses[source], source_port),
            frontend: (flow.flags & NAT != 0).then_some((flow.nat_address, flow.nat_port)),
            backend: (key.addresses[other], key.ports[other]),
        }
    }
}
