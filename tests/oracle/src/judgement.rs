//! What a verdict says, and which objects it rests on.

use crate::ClusterAction;

/// A NetworkPolicy by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRef {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub name: String,
}

/// One rule of a policy, in the direction of the verdict that names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRef {
    /// The policy that holds the rule.
    pub policy: PolicyRef,
    /// Index in `spec.ingress` or `spec.egress`, from 0.
    pub rule: usize,
}

/// One rule of a ClusterNetworkPolicy, in the direction of the verdict that names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterRuleRef {
    /// Name of the policy.
    pub policy: String,
    /// Index in `spec.ingress` or `spec.egress`, from 0.
    pub rule: usize,
    /// What it does: `Deny` also where it was written as `Pass` and cannot be read.
    pub action: ClusterAction,
}

/// Who has the last word about a flow at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// This rule of the Admin or the Baseline tier; its action is not `Pass`.
    Rule(ClusterRuleRef),
    /// The NetworkPolicies that isolate the pod.
    NetworkPolicies,
    /// Nobody: it is allowed.
    Nobody,
}

/// Why a direction is allowed whatever the policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// Both ends are the same pod.
    PodToItself,
    /// Ingress of a packet that the pod's own node sent.
    FromOwnNode,
}

/// The verdict of one end of a flow. Lists are in order of namespace, name and rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionVerdict {
    /// Whether this end lets the flow pass.
    pub allowed: bool,
    /// The first rule of the Admin tier that matches the flow.
    pub admin: Option<ClusterRuleRef>,
    /// Every policy that isolates the pod in this direction. None of them: none of them denies.
    pub isolating: Vec<PolicyRef>,
    /// Every rule of those policies that matches the flow.
    pub allowing: Vec<RuleRef>,
    /// The first rule of the Baseline tier that matches the flow.
    pub baseline: Option<ClusterRuleRef>,
    /// Set when the policies do not count for this flow; the lists above still tell what they say.
    pub exempt: Option<Exemption>,
}

impl DirectionVerdict {
    /// Who decides, tier by tier, if nothing exempts the flow.
    #[must_use]
    pub fn decider(&self) -> Decider {
        let last_word = |rule: &&ClusterRuleRef| rule.action != ClusterAction::Pass;
        if let Some(rule) = self.admin.as_ref().filter(last_word) {
            return Decider::Rule(rule.clone());
        }
        if !self.isolating.is_empty() {
            return Decider::NetworkPolicies;
        }
        match self.baseline.as_ref().filter(last_word) {
            Some(rule) => Decider::Rule(rule.clone()),
            None => Decider::Nobody,
        }
    }

    /// What the policies of all tiers say, if nothing exempts the flow.
    #[must_use]
    pub fn policies_allow(&self) -> bool {
        match self.decider() {
            Decider::Rule(rule) => rule.action == ClusterAction::Accept,
            Decider::NetworkPolicies => !self.allowing.is_empty(),
            Decider::Nobody => true,
        }
    }
}

/// The verdicts of both ends. `None` for an end that is no pod which policies could select, or
/// that another node judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict of the source pod's egress.
    pub egress: Option<DirectionVerdict>,
    /// The verdict of the destination pod's ingress.
    pub ingress: Option<DirectionVerdict>,
}

impl Judgement {
    /// Whether every end that was judged lets the flow pass.
    pub fn allowed(&self) -> bool {
        [&self.egress, &self.ingress]
            .into_iter()
            .flatten()
            .all(|verdict| verdict.allowed)
    }
}
