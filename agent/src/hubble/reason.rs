//! Weir's reasons in Hubble's words.

use weir_common::reason::Reason;

use super::proto::flow::DropReason;

/// The nearest of Hubble's reasons for a packet that was not let through, by the name that a record has; `None` for one that this version does not know.
pub(super) fn drop_reason(name: &str) -> Option<DropReason> {
    let mut all = Reason::ALL.into_iter();
    let reason = all.find(|reason| reason.name() == name)?;
    nearest(reason)
}

fn nearest(reason: Reason) -> Option<DropReason> {
    Some(match reason {
        Reason::PolicyDenied => DropReason::PolicyDenied,
        Reason::SpoofedSource => DropReason::InvalidSourceIp,
        Reason::Truncated => DropReason::CtTruncatedOrInvalidHeader,
        Reason::BadHeader => DropReason::InvalidPacketDropped,
        Reason::UnknownFragment => DropReason::FirstLogicalDatagramFragmentNotFound,
        Reason::NoEndpoint
        | Reason::NoLocalEndpoint
        | Reason::NoServicePort
        | Reason::BackendGone => DropReason::ServiceBackendNotFound,
        Reason::NoService => DropReason::IsAClusterip,
        Reason::TupleClash | Reason::NoSourcePort => DropReason::NoMappingForNatMasquerade,
        Reason::RewriteFailed => DropReason::ErrorWritingToPacket,
        Reason::FlowTableFull => DropReason::CtMapInsertionFailed,
        Reason::TakingOver => DropReason::UnknownConnectionTrackingState,
        Reason::SourceRange => DropReason::DeniedByLbSrcRangeCheck,
        Reason::Internal => DropReason::Unknown,
        Reason::PolicyAllowed
        | Reason::NotIsolated
        | Reason::Established
        | Reason::Reply
        | Reason::Related
        | Reason::Node
        | Reason::Hairpin
        | Reason::NotIp
        | Reason::Neighbor
        | Reason::Dhcp
        | Reason::NotLocal
        | Reason::NotService
        | Reason::Translated
        | Reason::FastPath => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_a_reason_and_nothing_else_has() {
        for reason in Reason::ALL {
            let known = drop_reason(reason.name()).is_some();
            assert_eq!(known, reason.is_drop(), "{}", reason.name());
        }
        assert_eq!(drop_reason("of_a_later_version"), None);
    }
}
