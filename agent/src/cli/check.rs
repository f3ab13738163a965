//! `weir check`: reads, has it reviewed, prints.

use std::io::{self, Write};

use anyhow::{Result, bail};

use super::args::{Check, ReviewFormat};
use super::ask::ask;
use super::{Outcome, colour, print, write_out};
use crate::model::Object;
use crate::review::{Finding, Proposal, Review, review};
use crate::source::manifests;

pub(super) fn execute(asked: &Check) -> Result<Outcome> {
    for v4 in [true, false] {
        let of_family = asked.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == v4);
        if of_family.count() > 1 {
            bail!("--pod-cidr is there twice for one address family: give it once for each");
        }
    }
    let proposed = manifests::read(&asked.files, asked.recursive)?;
    let mut answer = review(&Proposal {
        cluster: cluster(asked)?,
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

/// The cluster as it is. What of its files cannot be used is named on standard error.
fn cluster(asked: &Check) -> Result<Vec<Object>> {
    if asked.manifests.is_empty() {
        return ask(&asked.whom, "/v1/objects", &[]);
    }
    let cluster = manifests::read(&asked.manifests, asked.recursive)?;
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
