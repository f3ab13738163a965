//! `weir explain`: what follows from the objects, and what the nodes concerned hold and have seen.

use std::collections::BTreeSet;

use anyhow::Result;

use super::args::Query;
use super::ask::{Seen, Stand, ask_as_seen, ask_nodes};
use super::command::object;
use super::print::Explained;
use super::{Outcome, colour, offline, print, write_out};
use crate::admin::Evidence;
use crate::explain::{Explanation, Question, Subject, Verdict, explain};

pub(super) fn execute(
    source: &str,
    destination: &str,
    fix: bool,
    query: &Query,
) -> Result<Outcome> {
    let question = Question::parse(source, destination)?;
    let answer = match &query.manifests {
        Some(directory) => explain(&offline::load(directory, query)?, &question)?.into(),
        None => live(&question, [("src", source), ("dst", destination)], query)?,
    };
    if fix {
        write_out(&print::fixes(&answer.explanation))?;
    } else {
        object(query.live.output, "Explanation", &answer, |answer| {
            print::explanation(answer, colour())
        })?;
    }
    let agree = answer.nodes.iter().all(Evidence::agrees);
    Ok(match answer.explanation.verdict {
        Verdict::Allowed if agree => Outcome::Yes,
        _ => Outcome::No,
    })
}

/// Asks the agent whose view counts, and then those of all nodes that have a part in it.
fn live(question: &Question, parameters: [(&str, &str); 2], query: &Query) -> Result<Explained> {
    // Which endpoints a Service has, for one, depends on where it is asked for.
    let stand = match &question.source {
        Subject::Pod(pod) => Some(Stand::Pod(pod)),
        Subject::Node(node) => Some(Stand::Node(node)),
        Subject::Service(_) | Subject::Workload(_) | Subject::Address(_) => None,
    };
    let whom = &query.live.whom;
    let Seen { from, answer } = ask_as_seen(whom, stand, "/v1/explain", &parameters)?;
    let answer: Explanation = answer;
    let from = from.as_deref();
    let [source, destination] = parameters;
    let seen_from = from.map(|node| ("seen-from", node));
    let parameters: Vec<_> = [source, destination].into_iter().chain(seen_from).collect();
    let nodes = concerned(&answer).chain(from).collect();
    let evidence = ask_nodes(whom, &nodes, "/v1/evidence", &parameters);
    let (nodes, unanswered) = match evidence {
        Ok(answers) => {
            let given = answers.given.into_iter().map(|(_, evidence)| evidence);
            let missing = answers.missing.into_iter().map(|(_, why)| why.to_string());
            (given.collect(), missing.collect())
        }
        // What follows from the objects is worth telling all the same.
        Err(why) => (Vec::new(), vec![why.to_string()]),
    };
    Ok(Explained {
        explanation: answer,
        nodes,
        unanswered,
    })
}

/// Nodes that judge or translate.
fn concerned(answer: &Explanation) -> impl Iterator<Item = &str> {
    let translating = answer.translations.iter().map(|it| &*it.node);
    let flows = answer.flows.iter();
    let ends = flows.flat_map(|flow| [&flow.source, &flow.destination]);
    let judging = ends.filter_map(|place| place.node.as_deref());
    let nodes: BTreeSet<&str> = translating.chain(judging).collect();
    nodes.into_iter()
}
