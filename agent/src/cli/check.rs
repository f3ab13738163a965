//! `weir check` and `weir policy lint`: read, have it reviewed, print.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::args::{Check, Query, ReviewFormat, Scope, Whom};
use super::ask::{ask, ask_all};
use super::command::list;
use super::{Outcome, colour, print, write_out};
use crate::flows::Seen;
use crate::model::{Object, ObjectName};
use crate::review::{self, Finding, Proposal, Review};
use crate::source::manifests;

pub(super) fn execute(asked: &Check) -> Result<Outcome> {
    for v4 in [true, false] {
        let of_family = asked.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == v4);
        if of_family.count() > 1 {
            bail!("--pod-cidr is there twice for one address family: give it once for each");
        }
    }
    let proposed = manifests::read(&asked.files, asked.recursive)?;
    let cluster = objects(&asked.manifests, asked.recursive, &asked.whom)?;
    let seen = match &asked.manifests[..] {
        [] => seen(&asked.whom),
        _ => Vec::new(),
    };
    let mut answer = review::review(&Proposal {
        cluster,
        seen,
        manifests: proposed.objects,
        replaces: asked.replace,
        pod_ranges: asked.pod_cidrs.clone(),
        locations: proposed.locations,
    });
    let refused = proposed.refused.into_iter();
    answer
        .findings
        .extend(refused.map(|refused| Finding::refused(refused.location, refused.message)));
    answer
        .findings
        .retain(|finding| !asked.allow.contains(&finding.guard));
    write_out(&printed(&answer, asked.output)?)?;
    Ok(if answer.findings.is_empty() {
        Outcome::Yes
    } else {
        Outcome::No
    })
}

/// Connections that each node still knows of. A node that does not tell is named on standard error.
fn seen(whom: &Whom) -> Vec<Vec<Seen>> {
    let warn = |of: &str, why: &dyn Display| {
        let _ = writeln!(
            io::stderr(),
            "warning: connections in use{of} are not known: {why}"
        );
    };
    let answers = match ask_all::<Vec<Seen>>(whom, "/v1/connections", &[]) {
        Ok(answers) => answers,
        Err(why) => {
            warn("", &why);
            return Vec::new();
        }
    };
    for (node, why) in &answers.missing {
        warn(&format!(" on node {node}"), why);
    }
    answers.given.into_iter().map(|(_, seen)| seen).collect()
}

/// `weir policy lint`.
pub(super) fn lint(scope: &Scope, query: &Query) -> Result<Outcome> {
    let cluster = objects(query.manifests.as_slice(), false, &query.live.whom)?;
    let mut findings = review::lint(cluster);
    let is_asked = |policy: &ObjectName| scope.holds(&policy.namespace);
    findings.retain(|it| it.policies.iter().any(is_asked));
    list(query.live.output, "FindingList", &findings, |findings| {
        print::lint(findings, colour())
    })?;
    Ok(if findings.is_empty() {
        Outcome::Yes
    } else {
        Outcome::No
    })
}

/// The cluster as it is, in files if there are some. What of these cannot be used is named on standard error.
fn objects(files: &[PathBuf], recursive: bool, whom: &Whom) -> Result<Vec<Object>> {
    if files.is_empty() {
        return ask(whom, "/v1/objects", &[]);
    }
    let cluster = manifests::read(files, recursive)?;
    for refused in &cluster.refused {
        let _ = writeln!(
            io::stderr(),
            "warning: {}: {}",
            refused.location,
            refused.message
        );
    }
    Ok(cluster.objects)
}

fn printed(answer: &Review, output: ReviewFormat) -> Result<String> {
    Ok(match output {
        ReviewFormat::Table => print::review(answer, colour()),
        ReviewFormat::Json => print::json("Review", answer)?,
        ReviewFormat::Markdown => print::review_markdown(answer),
        ReviewFormat::Sarif => print::sarif(answer)?,
    })
}
