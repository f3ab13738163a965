//! From open to closed to what is needed.

use anyhow::{Result, ensure};

use crate::Demo;
use crate::expected;
use crate::ledger::compare;
use crate::matrix;

const DEFAULT_DENY: &str = include_str!("../../../../data/demo/default-deny.yaml");
const ALLOW: &str = include_str!("../../../../data/demo/allow.yaml");

/// The lookup that a default-deny breaks.
const LOOKUP: [&str; 3] = [
    "explain",
    "shop/backend-1",
    "kube-system/svc/kube-dns:53/UDP",
];

pub(super) fn open(demo: &mut Demo) -> Result<()> {
    pairs(demo, "open")
}

pub(super) fn deny(demo: &mut Demo) -> Result<()> {
    apply(demo, "default-deny.yaml", DEFAULT_DENY)?;
    pairs(demo, "denied")?;
    let answer = demo.shop.cluster.ask("node1", &LOOKUP)?;
    demo.screen.command(
        &format!("weir {}", LOOKUP.join(" ")),
        &(answer.stdout.clone() + &answer.stderr),
    );
    demo.ledger.note(
        "exit code of weir explain for the denied lookup",
        "1",
        &code(answer.code),
    );
    let names_policy = answer.stdout.contains("shop/default-deny");
    demo.ledger.note_true(
        "weir explain names the policy that denies the lookup",
        names_policy,
    );
    Ok(())
}

pub(super) fn fix(demo: &mut Demo) -> Result<()> {
    let question = [&LOOKUP[..], &["--fix"]].concat();
    let answer = demo.shop.cluster.ask("node1", &question)?;
    ensure!(
        !answer.stdout.is_empty(),
        "weir explain --fix has no answer: {}",
        answer.stderr
    );
    demo.screen
        .command(&format!("weir {} > dns-fix.yaml", question.join(" ")), "");
    demo.shop.cluster.apply("dns-fix.yaml", &answer.stdout)?;
    demo.shop.cluster.settle()?;
    pairs(demo, "dns-allowed")?;
    let answer = demo.shop.cluster.ask("node1", &LOOKUP)?;
    demo.ledger.note(
        "exit code of weir explain for the allowed lookup",
        "0",
        &code(answer.code),
    );
    Ok(())
}

pub(super) fn allow(demo: &mut Demo) -> Result<()> {
    apply(demo, "allow.yaml", ALLOW)?;
    pairs(demo, "allowed")
}

fn apply(demo: &mut Demo, file: &str, text: &str) -> Result<()> {
    demo.screen.command(&format!("cat {file}"), text);
    demo.shop.cluster.apply(file, text)?;
    demo.shop.cluster.settle()
}

/// Has every client try every target, and shows what came of it.
fn pairs(demo: &mut Demo, phase: &str) -> Result<()> {
    let expected = expected::phase(phase)?;
    let clients: Vec<_> = expected.rows.iter().map(|(client, _)| *client).collect();
    let observed = matrix::observe(&demo.shop, &clients, &expected.targets)?;
    let mut head = vec!["CLIENT".to_owned()];
    head.extend(
        expected
            .targets
            .iter()
            .map(|target| format!("> {}", target.to_uppercase())),
    );
    let mut rows = Vec::new();
    for ((client, words), seen) in expected.rows.iter().zip(&observed) {
        let mut row = vec![(*client).into()];
        row.extend(
            words
                .iter()
                .zip(seen)
                .map(|(word, seen)| compare(word, seen)),
        );
        rows.push(row);
    }
    demo.screen
        .table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    demo.ledger.note_pairs(phase, &expected, &observed);
    Ok(())
}

fn code(code: Option<i32>) -> String {
    code.map_or_else(|| "none".to_owned(), |code| code.to_string())
}
