//! Which policies decide a connection and why, what a Service does with it, and what would have to change.
//!
//! Pure: reads the objects (the intent), never the kernel. The rules are those of the NetworkPolicy API (networking.k8s.io/v1)
//! with the readings that the data plane has: policy sees the endpoint behind a Service, never the virtual address; a pod may
//! always reach itself; a pod's own node may always reach it; host-network pods are the node.

mod answer;
mod diagnose;
mod dns;
mod fix;
mod judge;
mod miss;
mod question;
#[cfg(test)]
mod tests;
mod translate;
mod wording;
mod world;

use std::collections::BTreeSet;

pub use answer::{
    EndpointAnswer, Explanation, Fix, Flow, Isolation, NearMiss, Note, Place, PlaceKind, RuleMatch,
    Side, SideOutcome, Translation, Verdict,
};
pub use question::{PortName, Question, QuestionError, Subject};

use crate::model::{Protocol, Snapshot};
use judge::{Connection, Via};
use translate::Target;
use world::{Spot, World};

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
        explanation.fixes = dns::fixes(&world, &target, &explanation);
    } else {
        explanation.fixes = fix::fixes(&world, &explanation);
        let hint = dns::hint(&world, &sources, &explanation);
        explanation.notes.extend(hint);
    }
    Ok(explanation)
}

/// What each address and port of each Service leads to, for clients on the snapshot's node.
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
            for reached in target.reach(world, source) {
                trace.verdicts.extend(reached.verdict);
                let via = reached.translation.as_ref().map(|translation| Via {
                    cluster_ip: translation.cluster_ip,
                    port: translation.port,
                });
                for destination in &reached.destinations {
                    let connection = Connection {
                        source,
                        destination,
                        protocol: target.protocol,
                        port: destination.port,
                        via,
                    };
                    let flow = judge::flow(world, &connection);
                    trace.verdicts.insert(flow.verdict);
                    trace.flows.push(flow);
                }
                if let Some(translation) = reached.translation
                    && !trace.translations.contains(&translation)
                {
                    trace.translations.push(translation);
                }
            }
        }
        trace
    }
}
