//! A review as text.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::table::cell;
use crate::explain::{RuleMatch, SideOutcome};
use crate::model::{Direction, Location};
use crate::review::{Change, Decision, End, Finding, Review, in_words};

/// How many ends of a row people want to read.
const ENDS: usize = 6;

/// `weir check`, for a terminal.
#[must_use]
pub fn review(answer: &Review, colour: bool) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    let paint = painter(colour);
    for (title, sign, changes, colour_of) in [
        ("Closes", "-", &answer.closed, AnsiColor::Red),
        ("Opens", "+", &answer.opened, AnsiColor::Green),
    ] {
        if changes.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}", paint(title, colour_of));
        for change in changes {
            let _ = writeln!(
                text,
                "  {} {} -> {}: {}",
                paint(sign, colour_of),
                ends(&change.from),
                ends(&change.to),
                ports(change)
            );
            for reason in reasons(change) {
                let _ = writeln!(text, "      {reason}");
            }
        }
        text.push('\n');
    }
    if answer.opened.is_empty() && answer.closed.is_empty() {
        text += "No connection opens or closes.\n\n";
    }
    text += &guarded(&answer.findings, paint);
    for note in &answer.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{}", summary(answer));
    text
}

/// `weir policy lint`.
#[must_use]
pub fn lint(findings: &[Finding], colour: bool) -> String {
    match findings.len() {
        0 => "nothing that is probably not meant\n".to_owned(),
        _ => guarded(findings, painter(colour)),
    }
}

/// Colours words, where colours are wanted.
fn painter(colour: bool) -> impl Fn(&str, AnsiColor) -> String + Copy {
    move |word, colour_of| {
        if colour {
            let style = Style::new().bold().fg_color(Some(colour_of.into()));
            format!("{style}{word}{style:#}")
        } else {
            word.to_owned()
        }
    }
}

fn guarded(findings: &[Finding], paint: impl Fn(&str, AnsiColor) -> String) -> String {
    let mut text = String::new();
    for finding in findings {
        let guard = paint(finding.guard.as_str(), AnsiColor::Yellow);
        let _ = writeln!(text, "{guard}: {}", finding.message);
        let _ = writeln!(text, "  hint: {}", finding.hint);
        for location in &finding.locations {
            let _ = writeln!(text, "  at {location}");
        }
        for fix in &finding.fixes {
            let _ = writeln!(text, "  apply: {}", fix.title);
        }
    }
    text
}

/// `weir check`, for a comment at a change.
#[must_use]
pub fn review_markdown(answer: &Review) -> String {
    let mut text = format!("### Network policy review\n\n{}\n", summary(answer));
    if !answer.findings.is_empty() {
        text += "\n#### Guards\n\n";
        for finding in &answer.findings {
            text += &markdown_finding(finding);
        }
    }
    for (title, changes) in [("Closes", &answer.closed), ("Opens", &answer.opened)] {
        if changes.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n#### {title}\n\n| from | to | ports | because |\n|---|---|---|---|\n"
        );
        for change in changes {
            let because: Vec<_> = reasons(change)
                .iter()
                .map(|reason| escaped(reason))
                .collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                escaped(&ends(&change.from)),
                escaped(&ends(&change.to)),
                escaped(&ports(change)),
                because.join("<br>")
            );
        }
    }
    for note in &answer.notes {
        let _ = write!(text, "\n_{}._\n", escaped(note));
    }
    text
}

fn markdown_finding(finding: &Finding) -> String {
    let at = locations(&finding.locations);
    let at = if at.is_empty() {
        at
    } else {
        format!(" ({})", escaped(&at))
    };
    let mut text = format!(
        "- **{}**: {}{at}\n  - hint: {}\n",
        finding.guard.as_str(),
        escaped(&finding.message),
        escaped(&finding.hint)
    );
    for fix in &finding.fixes {
        let yaml = fix.yaml.lines().map(|line| format!("  {line}\n"));
        let yaml: String = yaml.collect();
        let _ = write!(text, "\n  ```yaml\n  # {}\n{yaml}  ```\n\n", fix.title);
    }
    text
}

/// Names are those of objects, but nothing keeps a label or a file from holding what Markdown means something by.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '\\' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '\n' => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

fn locations(locations: &[Location]) -> String {
    let locations: Vec<_> = locations.iter().map(ToString::to_string).collect();
    locations.join(", ")
}

fn summary(answer: &Review) -> String {
    format!(
        "Groups of connections that close: {}, that open: {}. Found by guards: {}.",
        answer.closed.len(),
        answer.opened.len(),
        answer.findings.len()
    )
}

fn ends(ends: &[End]) -> String {
    let mut words: Vec<String> = ends.iter().take(ENDS).map(end).collect();
    if let Some(more) = ends.len().checked_sub(ENDS).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

fn end(end: &End) -> String {
    match end {
        End::Pods {
            namespace,
            workload,
            ..
        } => format!("{namespace}/{workload}"),
        End::Nodes { addresses } => match &addresses[..] {
            [address] => format!("node {address}"),
            [first, ..] => format!("nodes ({first} and {} more)", addresses.len() - 1),
            [] => "nodes".to_owned(),
        },
        End::Outside { cidr, except } if except.is_empty() => format!("outside {cidr}"),
        End::Outside { cidr, except } => format!("outside {cidr} except {}", cell(except)),
    }
}

fn ports(change: &Change) -> String {
    let families: Vec<_> = change
        .families
        .iter()
        .map(|family| format!("{family:?}"))
        .collect();
    let ports = in_words(&change.ports);
    if families.is_empty() {
        ports
    } else {
        format!("{ports} ({} only)", families.join(", "))
    }
}

fn reasons(change: &Change) -> Vec<String> {
    let mut reasons: Vec<_> = change.because.iter().map(decision).collect();
    if let Some(near) = &change.nearest {
        reasons.push(format!(
            "nearest rule: {}[{}] ({}, {})",
            near.policy, near.index, near.peer, near.port
        ));
    }
    reasons
}

fn decision(decision: &Decision) -> String {
    let direction = decision.direction.as_str();
    let rules = decision
        .rules
        .iter()
        .map(|rule| rule_words(decision.direction, rule));
    let rules: Vec<_> = rules.collect();
    match decision.outcome {
        SideOutcome::Denied => format!("{direction} isolated by {}", cell(&decision.policies)),
        SideOutcome::DeniedByRule => format!("{direction} denied by {}", rules.join("; ")),
        SideOutcome::Allowed => format!("{direction} allowed by {}", rules.join("; ")),
        SideOutcome::NotIsolated => format!("{direction} open: no policy isolates"),
        SideOutcome::NotSelectable | SideOutcome::OwnNode | SideOutcome::Itself => {
            format!("{direction} open: no policy is asked")
        }
    }
}

fn rule_words(direction: Direction, rule: &RuleMatch) -> String {
    let word = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    format!(
        "{} {}[{}] ({word} {}, {})",
        rule.policy,
        direction.as_str(),
        rule.index,
        rule.peer,
        rule.port
    )
}
