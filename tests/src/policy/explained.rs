//! The explainer.

use std::collections::BTreeSet;

use weir::explain::{PortName, Question, RuleMatch, Side, Subject, Verdict, explain};
use weir::model::{Action, ObjectName, Protocol, Tier};
use weir_oracle::{
    Cluster, ClusterAction, ClusterRuleRef, Decider, DirectionVerdict, Exemption, Flow,
    judge_cluster_wide, owner, protocol,
};

use super::View;

/// Compares the explanation of a flow between two pods with the oracle's judgement of both ends. Flows that the explainer has no
/// question for (other ends, protocols without ports, port 0) pass.
///
/// # Errors
/// What differs.
pub fn explainer(cluster: &Cluster, view: &View, flow: &Flow) -> Result<(), String> {
    let between_pods = [flow.source, flow.destination]
        .iter()
        .all(|end| owner(cluster, *end).is_some());
    let protocol = match flow.protocol {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        _ => return Ok(()),
    };
    if !between_pods || flow.destination_port == 0 || flow.born_on_node {
        return Ok(());
    }
    let question = Question {
        source: Subject::Address(flow.source),
        destination: Subject::Address(flow.destination),
        port: Some(PortName::Number(flow.destination_port)),
        protocol: Some(protocol),
    };
    let wanted = judge_cluster_wide(cluster, flow);
    let explanation = explain(&view.snapshot, &question).map_err(|error| error.to_string())?;
    let verdict = if wanted.allowed() {
        Verdict::Allowed
    } else {
        Verdict::Denied
    };
    let agreed = explanation.verdict == verdict
        && explanation.flows.iter().all(|explained| {
            same(&explained.egress, wanted.egress.as_ref())
                && same(&explained.ingress, wanted.ingress.as_ref())
        });
    if agreed {
        return Ok(());
    }
    Err(format!("explainer: {explanation:#?}\nwanted {wanted:#?}"))
}

/// Whether a side names the isolating policies, the allowing rules where they count, and the rules of the tiers that were asked.
fn same(side: &Side, wanted: Option<&DirectionVerdict>) -> bool {
    let Some(wanted) = wanted else {
        return side.isolated_by.is_empty() && side.allowed_by.is_empty();
    };
    let name = |namespace: &str, name: &str| ObjectName::new(namespace, name);
    let isolating: BTreeSet<_> = side
        .isolated_by
        .iter()
        .map(|by| by.policy.clone())
        .collect();
    let wanted_isolating: BTreeSet<_> = wanted
        .isolating
        .iter()
        .map(|policy| name(&policy.namespace, &policy.name))
        .collect();
    let allowing: BTreeSet<_> = side
        .allowed_by
        .iter()
        .map(|by| (by.policy.clone(), by.index))
        .collect();
    let wanted_allowing: BTreeSet<_> = wanted
        .allowing
        .iter()
        .map(|rule| (name(&rule.policy.namespace, &rule.policy.name), rule.rule))
        .collect();
    if wanted.exempt == Some(Exemption::PodToItself) {
        return isolating == wanted_isolating && side.tiers.is_empty();
    }
    let decider = wanted.decider();
    let asked = |rule: &Option<ClusterRuleRef>, tier| {
        let rule = rule.clone()?;
        Some((tier, rule.policy, rule.rule, rule.action))
    };
    let admin = asked(&wanted.admin, Tier::Admin);
    let overruled = wanted
        .admin
        .as_ref()
        .is_some_and(|rule| rule.action != ClusterAction::Pass);
    let below = if overruled || !wanted.isolating.is_empty() {
        None
    } else {
        asked(&wanted.baseline, Tier::Baseline)
    };
    let wanted_tiers: Vec<_> = admin.into_iter().chain(below).collect();
    let tiers: Vec<_> = side
        .tiers
        .iter()
        .map(|found| {
            let action = match found.action {
                Action::Accept => ClusterAction::Accept,
                Action::Deny => ClusterAction::Deny,
                Action::Pass => ClusterAction::Pass,
            };
            let RuleMatch { policy, index, .. } = &found.rule;
            (found.tier, policy.name.clone(), *index, action)
        })
        .collect();
    let counted = decider == Decider::NetworkPolicies;
    isolating == wanted_isolating
        && tiers == wanted_tiers
        && (if counted {
            allowing == wanted_allowing
        } else {
            allowing.is_empty()
        })
}
