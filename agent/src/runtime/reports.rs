//! Events: warnings on objects that cannot be used, where those who wrote them look first, and that a node's agent has started.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use siphasher::sip::SipHasher13;
use tokio_util::sync::CancellationToken;

use super::health_checks::UNANSWERED;
use super::shared::Shared;
use crate::model::Kind;
use crate::state::Rejected;

/// How often is looked what there is to tell, and how much is told then: the rate of all Events of an agent.
const ROUND: Duration = Duration::from_secs(1);
/// See `ROUND`.
const AT_ONCE: usize = 5;
/// How often a lasting problem is told again: the API server forgets Events after an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// How long a problem stays told that went and came back. Longer than recorders remember: one that sees an Event twice patches it, which
/// the agent has no right to.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Pause after the API server refused.
const PAUSE: Duration = Duration::from_secs(30);
/// All nodes see a bad object; so many of them tell, so that one without an agent does not keep it quiet.
const TELLERS: usize = 3;
/// Longest note of an Event (API validation).
const NOTE: usize = 1024;

/// Tells until shutdown. Nothing waits for it, and what cannot be told is in `weir status` all the same.
pub(super) async fn report(client: Client, shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut told = Told::default();
    let mut pause = ROUND;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let telling = round(&client, &shared, &mut told);
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = telling => result,
        };
        pause = match result {
            Ok(()) => ROUND,
            Err(error) => {
                tracing::debug!("cannot make Events, trying again: {error}");
                PAUSE
            }
        };
    }
}

async fn round(client: &Client, shared: &Shared, told: &mut Told) -> Result<(), kube::Error> {
    if !told.start {
        publish(client, shared, &starting(), &of_node(&shared.node)).await?;
        told.start = true;
    }
    let published = shared.published();
    let nodes = published.snapshot.nodes.values();
    let nodes = nodes.filter(|node| !node.leaving);
    let nodes: Vec<_> = nodes.map(|node| node.name.as_str()).collect();
    let ours = published
        .skipped()
        .filter(|it| it.reason == UNANSWERED || tells(&shared.node, &nodes, it));
    let due = told.due(ours.cloned().collect(), Instant::now());
    for rejected in due.into_iter().take(AT_ONCE) {
        if let Some(reference) = reference(&rejected) {
            publish(client, shared, &event(&rejected), &reference).await?;
        }
        told.note(rejected, Instant::now());
    }
    Ok(())
}

/// Makes an Event, unless it is this one that the API server refuses.
async fn publish(
    client: &Client,
    shared: &Shared,
    event: &Event,
    about: &ObjectReference,
) -> Result<(), kube::Error> {
    // A recorder that remembers nothing: to it, another note about the same object would be the same Event.
    let reporter = Reporter {
        controller: "weir".to_owned(),
        instance: Some(shared.node.clone()),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    match recorder.publish(event, about).await {
        Err(error) if is_about_the_object(&error) => {
            let (kind, name) = (about.kind.as_deref(), about.name.as_deref());
            tracing::debug!(kind, name, "cannot make an Event: {error}");
            Ok(())
        }
        result => result,
    }
}

/// Whether the API server refuses this one Event, for its namespace that is on its way out for instance: it must not keep the others
/// from being told. A server that is overloaded, or just starting, is asked again.
fn is_about_the_object(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// What was told.
#[derive(Debug, Default)]
struct Told {
    /// That the agent has started.
    start: bool,
    /// What is wrong, and when.
    wrong: BTreeMap<Rejected, Instant>,
}

impl Told {
    /// What there is to tell out of what is wrong now.
    fn due(&mut self, wrong: Vec<Rejected>, now: Instant) -> Vec<Rejected> {
        let since = |then: Instant| now.saturating_duration_since(then);
        self.wrong
            .retain(|it, then| since(*then) < REMEMBERED || wrong.contains(it));
        let fresh = |it: &Rejected| self.wrong.get(it).is_none_or(|then| since(*then) >= AGAIN);
        wrong.into_iter().filter(fresh).collect()
    }

    fn note(&mut self, rejected: Rejected, now: Instant) {
        self.wrong.insert(rejected, now);
    }
}

/// Whether a node is one of those that tell of an object: those nodes whose hash with the object is the smallest (rendezvous hashing),
/// so that the work is spread, and nodes that come and go change little.
fn tells(node: &str, nodes: &[&str], rejected: &Rejected) -> bool {
    let rank = |node: &str| {
        let mut hasher = SipHasher13::new_with_keys(0x7765_6972, 3);
        for part in [node, rejected.kind, &rejected.name] {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.finish()
    };
    let own = rank(node);
    let before = nodes.iter().filter(|other| rank(other) < own);
    before.take(TELLERS).count() < TELLERS
}

/// The object, unless it is a file or has no name.
fn reference(rejected: &Rejected) -> Option<ObjectReference> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == rejected.kind)?;
    let (namespace, name) = match rejected.name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, rejected.name.as_str()),
    };
    (!name.is_empty()).then(|| ObjectReference {
        api_version: Some(kind.api_version().to_owned()),
        kind: Some(kind.as_str().to_owned()),
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        uid: Some(rejected.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    })
}

/// As kube-proxy names its node: `kubectl describe node` looks for Events with its name as uid.
fn of_node(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

fn starting() -> Event {
    Event {
        type_: EventType::Normal,
        reason: "Starting".to_owned(),
        note: Some(format!(
            "weir {} serves this node",
            env!("CARGO_PKG_VERSION")
        )),
        action: "StartWeir".to_owned(),
        secondary: None,
    }
}

fn event(rejected: &Rejected) -> Event {
    let mut note = rejected.message.clone();
    note.truncate(note.floor_char_boundary(NOTE));
    Event {
        type_: EventType::Warning,
        reason: rejected.reason.to_owned(),
        note: Some(note),
        action: "Apply".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(name: &str, message: &str) -> Rejected {
        Rejected {
            kind: "Service",
            name: name.to_owned(),
            uid: "1-2-3".to_owned(),
            reason: "Rejected",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_problem_is_told_once_while_it_lasts_and_again_before_it_is_forgotten() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut told = Told::default();
        let bad = rejected("shop/web", "bad");
        let mut due = |now, wrong: &[&Rejected]| {
            let wrong = wrong.iter().copied().cloned().collect();
            let due = told.due(wrong, at(now));
            for each in &due {
                told.note(each.clone(), at(now));
            }
            due.len()
        };
        assert_eq!(due(0, &[&bad]), 1);
        assert_eq!(due(1, &[&bad]), 0);
        assert_eq!(due(29, &[&bad]), 0);
        assert_eq!(due(30, &[&bad]), 1, "the first is about to be forgotten");
        // Another problem of the same object is another one.
        let worse = rejected("shop/web", "worse");
        assert_eq!(due(31, &[&worse]), 1);
        // One that flaps is told once in a while.
        for minute in 32..38 {
            assert_eq!(due(minute, &[]), 0);
            assert_eq!(due(minute, &[&worse]), 0, "at {minute}");
        }
        assert_eq!(due(41, &[]), 0);
        assert_eq!(due(42, &[&worse]), 1);
    }

    #[test]
    fn three_nodes_tell_of_an_object_and_others_of_others() {
        let nodes: Vec<_> = (0..50).map(|index| format!("node-{index}")).collect();
        let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
        let tellers = |name: &str, nodes: &[&str]| {
            let object = rejected(name, "bad");
            let tell = |node: &&&str| tells(node, nodes, &object);
            nodes.iter().filter(tell).map(|&it| it.to_owned()).collect()
        };
        let of_web: Vec<String> = tellers("shop/web", &nodes);
        assert_eq!(of_web.len(), TELLERS);
        assert_ne!(tellers("shop/db", &nodes), of_web);
        assert_eq!(tellers("shop/web", &nodes[..2]), nodes[..2]);
        // Without one of them the other two go on.
        let fewer: Vec<_> = nodes
            .iter()
            .copied()
            .filter(|it| *it != of_web[0])
            .collect();
        let next = tellers("shop/web", &fewer);
        assert_eq!(next.len(), TELLERS);
        assert!(of_web[1..].iter().all(|it| next.contains(it)), "{next:?}");
        // A node whose own object is not known yet tells.
        assert!(tells("new", &[], &rejected("shop/web", "bad")));
    }

    #[test]
    fn one_event_that_is_refused_keeps_no_other_back() {
        let answered = |code| {
            let status = kube::core::Status::failure("no", "Any").with_code(code);
            is_about_the_object(&kube::Error::Api(status.boxed()))
        };
        assert!([403, 404, 409, 422].into_iter().all(answered));
        assert!(![429, 500, 503, 504].into_iter().any(answered));
        assert!(!is_about_the_object(
            &kube::Error::LinesCodecMaxLineLengthExceeded
        ));
    }

    #[test]
    fn events_are_on_the_object_itself() {
        let found = reference(&rejected("shop/web", "bad")).unwrap();
        assert_eq!(found.namespace.as_deref(), Some("shop"));
        assert_eq!(found.name.as_deref(), Some("web"));
        assert_eq!(found.uid.as_deref(), Some("1-2-3"));
        assert_eq!(found.api_version.as_deref(), Some("v1"));
        let node = Rejected {
            kind: "Node",
            ..rejected("node-a", "bad")
        };
        let found = reference(&node).unwrap();
        assert_eq!(
            (found.namespace, found.name),
            (None, Some("node-a".to_owned()))
        );
        let file = Rejected {
            kind: "File",
            ..rejected("web.yaml", "bad")
        };
        assert!(reference(&file).is_none());
        // 1023 bytes, then one of two.
        let long = rejected("shop/web", &format!("{}ü", "x".repeat(NOTE - 1)));
        assert_eq!(event(&long).note.unwrap().len(), NOTE - 1);
    }
}
