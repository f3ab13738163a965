//! Selectors that nothing matches.

use super::super::parties::Ground;
use super::super::workload::spoken;
use super::{Finding, Guard, Touched};
use crate::explain::wording;
use crate::model::{Labels, Namespace, Operator, Peer, Pod, Requirement, Selector};

/// Edits between two words that are taken for a slip.
const SLIP: usize = 2;

pub(super) fn findings(ground: &Ground<'_>, touched: &[Touched<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in touched {
        let (namespaces, pods) = policy.subject();
        let name = policy.name();
        let own = Search::of(ground, namespaces, &name.namespace, Some(pods));
        if let Some((why, hint)) = own.fails() {
            findings.push(Finding {
                guard: Guard::SelectsNothing,
                message: format!("policy {name} selects no pod: {why}"),
                hint,
                policies: vec![name.clone()],
                locations: Vec::new(),
                fixes: Vec::new(),
            });
        }
        for (place, peer) in policy.peers() {
            let Peer::Pods { namespaces, pods } = peer else {
                continue;
            };
            let there = Search::of(ground, namespaces.as_ref(), &name.namespace, pods.as_ref());
            if let Some((why, hint)) = there.fails() {
                findings.push(Finding {
                    guard: Guard::PeerMatchesNothing,
                    message: format!("{place} of policy {name} names no pod: {why}"),
                    hint,
                    policies: vec![name.clone()],
                    locations: Vec::new(),
                    fixes: Vec::new(),
                });
            }
        }
    }
    findings
}

/// What a pair of selectors finds.
struct Search<'a> {
    /// Whether all there is is known: what is not there in one repository may be in another.
    complete: bool,
    namespaces: Option<&'a Selector>,
    own: &'a str,
    pods: Option<&'a Selector>,
    all: Vec<&'a Namespace>,
    found: Vec<&'a Namespace>,
    candidates: Vec<&'a Pod>,
}

impl<'a> Search<'a> {
    fn of(
        ground: &Ground<'a>,
        namespaces: Option<&'a Selector>,
        own: &'a str,
        pods: Option<&'a Selector>,
    ) -> Self {
        let after = ground.worlds[1].snapshot;
        let all: Vec<&Namespace> = after.namespaces.values().map(AsRef::as_ref).collect();
        let matching = |namespace: &&&Namespace| match namespaces {
            None => namespace.name == own,
            Some(selector) => selector.matches(&namespace.labels),
        };
        let found: Vec<_> = all.iter().filter(matching).copied().collect();
        let candidates = after.pods.values().map(AsRef::as_ref).filter(|pod: &&Pod| {
            pod.owns_addresses() && found.iter().any(|it| it.name == pod.name.namespace)
        });
        Self {
            complete: ground.of.complete,
            candidates: candidates.collect(),
            namespaces,
            own,
            pods,
            all,
            found,
        }
    }

    /// Why no pod is found, and what was probably meant; `None` if one is, or may be.
    fn fails(&self) -> Option<(String, String)> {
        let everything = Selector::default();
        let pods = self.pods.unwrap_or(&everything);
        if self.candidates.iter().any(|pod| pods.matches(&pod.labels)) {
            return None;
        }
        // A rule that conversion has made one for nobody was told of already.
        if pods.requirements.iter().any(|it| it.key.is_empty()) {
            return None;
        }
        if self.found.is_empty() {
            let selector = self.namespaces?;
            let labels = self
                .all
                .iter()
                .map(|it| (format!("namespace {}", it.name), &it.labels));
            let labels: Vec<_> = labels.collect();
            // Namespaces that another repository makes are not unknown.
            let by_name = |it: &Requirement| it.key == Namespace::NAME_LABEL;
            let hint = nearest(selector, &labels);
            let sure =
                self.complete || (hint.is_some() && !selector.requirements.iter().any(by_name));
            return sure.then(|| {
                (
                    format!("no namespace has {}", wording::selector(selector)),
                    hint.unwrap_or_else(|| "label the namespace that is meant".to_owned()),
                )
            });
        }
        if self.candidates.is_empty() {
            return self.complete.then(|| {
                let names: Vec<_> = self.found.iter().map(|it| it.name.as_str()).collect();
                let place = match self.namespaces {
                    None => self.own.to_owned(),
                    Some(_) => names.join(", "),
                };
                (
                    format!("there is no pod on the pod network in namespace {place}"),
                    "name the namespace that is meant".to_owned(),
                )
            });
        }
        let labels = self
            .candidates
            .iter()
            .map(|pod| (spoken(pod).to_string(), &pod.labels));
        let labels: Vec<_> = labels.collect();
        let hint = nearest(pods, &labels);
        (self.complete || hint.is_some()).then(|| {
            (
                format!("none there has {}", wording::selector(pods)),
                hint.unwrap_or_else(|| {
                    "mend the selector, or the labels of the pods that are meant".to_owned()
                }),
            )
        })
    }
}

/// The label that is nearest to what a requirement wants and nothing has, with its bearer.
fn nearest(selector: &Selector, all: &[(String, &Labels)]) -> Option<String> {
    let lacking = selector
        .requirements
        .iter()
        .filter(|requirement| !all.iter().any(|(_, labels)| requirement.matches(labels)));
    let mut near: Vec<(usize, String)> = Vec::new();
    for requirement in lacking {
        let wanted: Vec<&str> = match &requirement.operator {
            Operator::In(values) => values.iter().map(String::as_str).collect(),
            Operator::Exists => Vec::new(),
            Operator::NotIn(_) | Operator::DoesNotExist => continue,
        };
        for (bearer, labels) in all {
            for (key, value) in *labels {
                if let Some(distance) = distance(requirement, &wanted, key, value) {
                    near.push((
                        distance,
                        format!("did you mean {key}={value}, as {bearer} has it?"),
                    ));
                }
            }
        }
    }
    near.into_iter().min().map(|(_, hint)| hint)
}

/// How far a label is from a wanted one; `None` if it is another word altogether.
fn distance(requirement: &Requirement, wanted: &[&str], key: &str, value: &str) -> Option<usize> {
    let edits = |one: &str, other: &str| {
        let edits = strsim::osa_distance(one, other);
        // Of a short word two edits leave nothing.
        (edits <= SLIP && edits < one.len().min(other.len())).then_some(edits)
    };
    let of_value = wanted.iter().map(|wanted| edits(wanted, value));
    let of_value = of_value.flatten().min();
    match (requirement.key == key, edits(&requirement.key, key)) {
        (true, _) => of_value,
        // The right value under another key, such as k8s-app for app.
        (false, _) if wanted.contains(&value) => Some(SLIP + 1),
        (false, Some(edits)) if wanted.is_empty() => Some(edits),
        (false, Some(edits)) => Some(edits + of_value?),
        (false, None) => None,
    }
}
