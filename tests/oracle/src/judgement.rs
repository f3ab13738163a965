//! What a verdict says, and which objects it rests on.

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
    /// Every policy that isolates the pod in this direction. None of them: nothing is denied.
    pub isolating: Vec<PolicyRef>,
    /// Every rule of those policies that matches the flow.
    pub allowing: Vec<RuleRef>,
    /// Set when the policies do not count for this flow; the lists above still tell what they say.
    pub exempt: Option<Exemption>,
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
