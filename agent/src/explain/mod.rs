//! Which policies decide a connection and why, what a Service does with it, and what would have to change.
//!
//! Pure: reads the objects (the intent), never the kernel. The rules are those of the NetworkPolicy API (networking.k8s.io/v1) and of
//! ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2), with the readings that the data plane has: policy sees the endpoint behind a Service, never the virtual address; a pod may
//! always reach itself; a pod's own node may always reach it; host-network pods are the node.

mod answer;
mod atoms;
pub(crate) mod details;
mod diagnose;
pub(crate) mod dns;
mod fix;
mod frontends;
mod judge;
mod miss;
mod question;
mod target;
#[cfg(test)]
mod tests;
mod translate;
mod way;
pub(crate) mod wording;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use answer::{
    EndpointAnswer, Explanation, Fix, Flow, Hop, Isolation, NearMiss, Note, Place, PlaceKind,
    RuleMatch, Side, SideOutcome, TierMatch, Translation, Verdict,
};
pub use atoms::{Atom, Atoms, Judged, judge_atoms};
pub(crate) use details::details_in;
pub use details::{PeerDetails, PolicyDetails, RuleDetails, policy_details};
pub use question::{PortName, Question, QuestionError, Subject};

pub(crate) use atoms::{behind, rules};
pub(crate) use judge::{Connection, side};
pub(crate) use world::{Spot, World};

use crate::model::{Protocol, Snapshot};
use judge::{Path, Via};
use target::Target;
use way::Way;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExplainError {
    /// A named object is not there.
    #[error("no {kind} {name} is known here{hint}")]
    Unknown {
        /// Kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What to ask instead, or empty.
        hint: String,
    },
    /// An end that cannot open or take connections.
    #[error("{0}")]
    Unusable(String),
    /// The port is not given and does not follow from the destination.
    #[error("which port of {destination}? Ask for {destination}:PORT{choices}")]
    PortNeeded {
        /// Destination as asked for.
        destination: String,
        /// The ports that there are, or empty.
        choices: String,
    },
    /// The destination has no port of that name.
    #[error("{destination} has no {protocol} port named {port:?}{choices}")]
    PortUnknown {
        /// Destination as asked for.
        destination: String,
        /// Name asked for.
        port: String,
        /// Protocol asked for.
        protocol: Protocol,
        /// The ports that there are, or empty.
        choices: String,
    },
    /// One end has only IPv4 addresses, the other only IPv6.
    #[error("{source_name} and {destination} have no address family in common")]
    NoCommonFamily {
        /// Source as asked for.
        source_name: String,
        /// Destination as asked for.
        destination: String,
    },
}

/// Explains what happens to a new connection.
///
/// # Errors
/// When an object of the question does not exist, has no address, or the port cannot be told.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explanation, ExplainError> {
    let world = World::new(snapshot);
    let sources = world.sources(&question.source)?;
    let target = Target::find(&world, question)?;
    let trace = Trace::of(&world, &sources, &target);
    let verdict =
        Verdict::combine(&trace.verdicts).ok_or_else(|| ExplainError::NoCommonFamily {
            source_name: question.source.to_string(),
            destination: question.destination.to_string(),
        })?;
    let mut explanation = Explanation {
        source: question.source.to_string(),
        destination: question.destination.to_string(),
        port: target.port,
        protocol: target.protocol,
        verdict,
        translations: trace.translations,
        flows: trace.flows,
        fixes: Vec::new(),
        notes: Vec::new(),
    };
    explanation.notes = diagnose::notes(&world, &explanation);
    if dns::is_lookup(&world, &target, &explanation) {
        explanation.fixes = dns::fixes(&world, &explanation);
    } else {
        explanation.fixes = fix::fixes(&world, &explanation);
        let hint = dns::hint(&world, &sources, &explanation);
        explanation.notes.extend(hint);
    }
    Ok(explanation)
}

/// The addresses that the source of a question stands for.
///
/// # Errors
/// When the source does not exist, or opens no connections.
pub fn sources(snapshot: &Snapshot, question: &Question) -> Result<BTreeSet<IpAddr>, ExplainError> {
    let world = World::new(snapshot);
    let spots = world.sources(&question.source)?;
    Ok(spots.iter().map(|spot| spot.place.address).collect())
}

/// What each address and port of each Service leads to, on the snapshot's node.
#[must_use]
pub fn services(snapshot: &Snapshot) -> Vec<Translation> {
    translate::all(&World::new(snapshot))
}

/// Every way that connections from some addresses to a target can take.
struct Trace {
    verdicts: BTreeSet<Verdict>,
    translations: Vec<Translation>,
    flows: Vec<Flow>,
}

impl Trace {
    fn of<'a>(world: &World<'a>, sources: &[Spot<'a>], target: &Target<'a>) -> Self {
        let mut trace = Self {
            verdicts: BTreeSet::new(),
            translations: Vec::new(),
            flows: Vec::new(),
        };
        for source in sources {
            for way in target.ways(world, source) {
                trace.follow(world, source, target.protocol, way);
            }
        }
        trace
    }

    fn follow<'a>(
        &mut self,
        world: &World<'a>,
        source: &Spot<'a>,
        protocol: Protocol,
        way: Way<'a>,
    ) {
        let via = way.translation.as_ref().map(|translation| Via {
            address: translation.address,
            port: translation.port,
        });
        let judge = |destination, hop, seen_as| {
            let path = Path {
                source,
                hop,
                seen_as,
                destination,
                protocol,
                via,
            };
            judge::flow(world, &path)
        };
        for destination in &way.destinations {
            let seen_as = destination.seen_as.as_ref();
            let flow = judge(&destination.spot, way.hop.as_ref(), seen_as);
            self.verdicts.insert(flow.verdict);
            self.flows.push(flow);
        }
        // The source's policies come before what another node does.
        let stopped = way.hop.as_ref().filter(|_| way.verdict.is_some());
        let stopped = stopped.map(|hop| judge(hop, None, None));
        match stopped.filter(|flow| !flow.egress.outcome.passes()) {
            Some(flow) => {
                self.verdicts.insert(flow.verdict);
                self.flows.push(flow);
            }
            None => self.verdicts.extend(way.verdict),
        }
        if let Some(translation) = way.translation
            && !self.translations.contains(&translation)
        {
            self.translations.push(translation);
        }
    }
}
