//! Why a packet passed or was dropped: event field, metric label and row of the documentation in one.

/// The reason of a verdict. Numbers are part of the ABI: never reuse one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// First packet of a flow that a policy rule allows.
    PolicyAllowed = 1,
    /// First packet of a flow of a pod that is not isolated in this direction.
    NotIsolated = 2,
    /// Later packet of a flow, in the direction it was opened.
    Established = 3,
    /// Packet in the direction opposite to the one a flow was opened in.
    Reply = 4,
    /// ICMP error about a flow.
    Related = 5,
    /// Born on the pod's own node.
    Node = 6,
    /// A pod reaching itself through a Service, or an answer that Weir itself gave.
    Hairpin = 7,
    /// Not IP (ARP among it).
    NotIp = 8,
    /// IPv6 neighbour discovery or multicast listener discovery.
    Neighbor = 9,
    /// DHCP of a pod that has no address yet.
    Dhcp = 10,
    /// To an address that no local pod has.
    NotLocal = 11,
    /// At a device of the node: not to or from a Service.
    NotService = 12,
    /// First packet of a flow between a client outside and a Service.
    Translated = 13,
    /// Sent on by XDP, past the node's network stack.
    FastPath = 14,

    /// The pod is isolated and no rule allows the flow.
    PolicyDenied = 64,
    /// Source address is not one of the pod's.
    SpoofedSource = 65,
    /// Shorter than its headers say.
    Truncated = 66,
    /// Headers that cannot be followed: wrong version, too many extension headers.
    BadHeader = 67,
    /// Fragment whose first fragment was not seen.
    UnknownFragment = 68,
    /// The Service has no endpoint; answered with a reset or an ICMP port unreachable.
    NoEndpoint = 69,
    /// The traffic policy is Local and this node has no endpoint.
    NoLocalEndpoint = 70,
    /// A Service address, but not one of its ports; answered like `NoEndpoint`.
    NoServicePort = 71,
    /// All backends tried have a live flow with the same client port through another Service.
    TupleClash = 72,
    /// The packet could not be rewritten.
    RewriteFailed = 73,
    /// The conntrack table took no entry.
    FlowTableFull = 74,
    /// A map that must be there was not.
    Internal = 75,
    /// No port of the node is free to reach that backend from, or the device has no address.
    NoSourcePort = 76,
    /// The connection's backend is no endpoint of the Service any more; answered with a reset where the operator wants that.
    BackendGone = 77,
    /// Of a TCP connection that netfilter may know, while such connections are being entered: it will be sent again.
    TakingOver = 79,
    /// The load balancer's address is not for this client (loadBalancerSourceRanges).
    SourceRange = 80,
    /// An address that is for Services, but no Service has it (ServiceCIDR).
    NoService = 81,
}

impl Reason {
    /// Length of the number space, for arrays indexed by reason.
    pub const SLOTS: u32 = 128;

    /// Every reason.
    pub const ALL: [Self; 31] = [
        Self::PolicyAllowed,
        Self::NotIsolated,
        Self::Established,
        Self::Reply,
        Self::Related,
        Self::Node,
        Self::Hairpin,
        Self::NotIp,
        Self::Neighbor,
        Self::Dhcp,
        Self::NotLocal,
        Self::NotService,
        Self::Translated,
        Self::FastPath,
        Self::PolicyDenied,
        Self::SpoofedSource,
        Self::Truncated,
        Self::BadHeader,
        Self::UnknownFragment,
        Self::NoEndpoint,
        Self::NoLocalEndpoint,
        Self::NoServicePort,
        Self::TupleClash,
        Self::RewriteFailed,
        Self::FlowTableFull,
        Self::Internal,
        Self::NoSourcePort,
        Self::BackendGone,
        Self::TakingOver,
        Self::SourceRange,
        Self::NoService,
    ];

    /// The reason of a number in a map or event.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == value)
    }

    /// Whether packets with this reason are dropped (or turned back).
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self as u8 >= 64
    }

    /// Name in metrics, events and the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PolicyAllowed => "policy_allowed",
            Self::NotIsolated => "not_isolated",
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Related => "related",
            Self::Node => "node",
            Self::Hairpin => "hairpin",
            Self::NotIp => "not_ip",
            Self::Neighbor => "neighbor",
            Self::Dhcp => "dhcp",
            Self::NotLocal => "not_local",
            Self::NotService => "not_service",
            Self::Translated => "translated",
            Self::FastPath => "fast_path",
            Self::PolicyDenied => "policy_denied",
            Self::SpoofedSource => "spoofed_source",
            Self::Truncated => "truncated",
            Self::BadHeader => "bad_header",
            Self::UnknownFragment => "unknown_fragment",
            Self::NoEndpoint => "no_endpoint",
            Self::NoLocalEndpoint => "no_local_endpoint",
            Self::NoServicePort => "no_service_port",
            Self::TupleClash => "tuple_clash",
            Self::RewriteFailed => "rewrite_failed",
            Self::FlowTableFull => "flow_table_full",
            Self::Internal => "internal",
            Self::NoSourcePort => "no_source_port",
            Self::BackendGone => "backend_gone",
            Self::TakingOver => "taking_over",
            Self::SourceRange => "source_range",
            Self::NoService => "no_service",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_has_its_own_name() {
        // From the source: what a list forgets, the list cannot tell.
        let numbers = include_str!("reason.rs").lines().filter(|line| {
            let number = line.split_once(" = ").map(|(_, number)| number);
            let number = number.and_then(|number| number.strip_suffix(','));
            number.is_some_and(|number| number.parse::<u8>().is_ok())
        });
        assert_eq!(numbers.count(), Reason::ALL.len());
        let numbers = Reason::ALL.map(|reason| reason as u8);
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert!(u32::from(numbers[numbers.len() - 1]) < Reason::SLOTS);
        let names: BTreeSet<_> = Reason::ALL.map(Reason::name).into();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_u8(reason as u8), Some(reason));
        }
    }
}
