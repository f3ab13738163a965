//! The compiled tables, as user space reads them.

use weir::compile::{Verdict, judge};
use weir::model::Direction;
use weir_common::abi::EndpointKey;
use weir_oracle::{Decider, Flow, Judgement, PolicyRef};

use super::View;

/// Compares what the tables say about a flow with the oracle's judgement of the node's ends.
///
/// # Errors
/// What differs.
pub fn tables(view: &View, flow: &Flow, wanted: &Judgement) -> Result<(), String> {
    let egress = (
        Direction::Egress,
        &wanted.egress,
        flow.source,
        flow.destination,
    );
    let ingress = (
        Direction::Ingress,
        &wanted.ingress,
        flow.destination,
        flow.source,
    );
    let policies = &view.tables.policies;
    for (direction, wanted, own, peer) in [egress, ingress] {
        // What the host sends asks nobody for egress.
        let asked = !(flow.born_on_node && direction == Direction::Egress);
        let key = EndpointKey::address(own.into());
        let endpoint = policies.endpoints.get(&key).filter(|_| asked);
        let (wanted, endpoint) = match (wanted, endpoint) {
            (None, None) => continue,
            (Some(wanted), Some(endpoint)) => (wanted, endpoint),
            _ => {
                return Err(format!(
                    "tables, {direction:?}: judged by {endpoint:?}, wanted {wanted:?}"
                ));
            }
        };
        let row = match direction {
            Direction::Ingress => endpoint.ingress,
            Direction::Egress => endpoint.egress,
        };
        let isolating: Vec<PolicyRef> = policies
            .rows
            .get(&row)
            .iter()
            .flat_map(|row| &*row.policies)
            .map(|policy| PolicyRef {
                namespace: policy.namespace.clone(),
                name: policy.name.clone(),
            })
            .collect();
        let (protocol, port) = (flow.protocol, flow.destination_port);
        let verdict = judge(policies, endpoint, direction, peer, protocol, port);
        let agreed = match verdict {
            Verdict::Open => wanted.decider() == Decider::Nobody,
            Verdict::Allowed(rule) => wanted.policies_allow() && view.decides(rule, wanted),
            Verdict::Denied(Some(rule)) => !wanted.policies_allow() && view.decides(rule, wanted),
            Verdict::Denied(None) => {
                !wanted.policies_allow() && wanted.decider() == Decider::NetworkPolicies
            }
        };
        if !agreed || isolating != wanted.isolating {
            return Err(format!(
                "tables, {direction:?}: {verdict:?} under {isolating:?}, wanted {wanted:?}"
            ));
        }
    }
    Ok(())
}
