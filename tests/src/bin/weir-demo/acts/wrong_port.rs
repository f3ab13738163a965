//! A Service that leads to a port where nobody listens.

use anyhow::{Context as _, Result};
use weir_tests::cluster::documents;
use weir_tests::probe::{Outcome, Probe};

use crate::Demo;
use crate::ledger::compare;
use crate::matrix::word;
use crate::shop::addresses;

const FILE: &str = "wrong-port.yaml";
const TEXT: &str = include_str!("../../../../data/demo/wrong-port.yaml");

const QUESTION: [&str; 3] = ["explain", "elsewhere/stranger", "partners/svc/partner:80"];

pub(super) fn play(demo: &mut Demo) -> Result<()> {
    demo.screen.command(&format!("cat {FILE}"), TEXT);
    demo.shop.cluster.apply(FILE, TEXT)?;
    demo.shop.cluster.settle()?;
    let broken = try_it(demo)?;
    let answer = demo.shop.cluster.ask("node1", &QUESTION)?;
    demo.screen.command(
        &format!("weir {}", QUESTION.join(" ")),
        &(answer.stdout.clone() + &answer.stderr),
    );
    let spotted = answer.stdout.contains("8088") && answer.stdout.contains("8080");
    demo.ledger.note_true(
        "weir explain sets the wrong targetPort against the pod's port",
        spotted,
    );

    demo.shop
        .cluster
        .apply(FILE, &TEXT.replace("targetPort: 8088", "targetPort: 8080"))?;
    demo.shop.cluster.settle()?;
    let repaired = try_it(demo)?;
    let mut rows = Vec::new();
    for (port, expected, observed) in [("8088", "refused", broken), ("8080", "yes", repaired)] {
        let what = format!("the stranger reaches the partner with targetPort {port}");
        demo.ledger.note(&what, expected, &observed);
        rows.push(vec![port.into(), compare(expected, &observed)]);
    }
    demo.screen.table(&["TARGETPORT", "ANSWER"], &rows);
    demo.shop.cluster.delete(FILE)?;
    demo.shop.cluster.settle()
}

/// What a client sees, in one word if both families see the same.
fn try_it(demo: &Demo) -> Result<String> {
    let service = documents(TEXT)?
        .into_iter()
        .next()
        .context("the file holds a Service")?;
    let mut words = Vec::new();
    for to in addresses(&service, 80)? {
        words.push(match Probe::tcp(to).run(demo.shop.pod("stranger")) {
            Outcome::Connected { .. } => "yes".to_owned(),
            outcome => word(&outcome),
        });
    }
    words.dedup();
    Ok(words.join("/"))
}
