//! What was expected and what was seen.

use std::collections::BTreeMap;

use crate::expected::Expected;
use crate::screen::{Cell, Screen};

/// One thing that was looked at.
struct Entry {
    what: String,
    expected: String,
    observed: String,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Ledger {
    phases: Vec<String>,
    /// Pair, then phase, to what was expected and observed.
    pairs: BTreeMap<(String, String), BTreeMap<String, (String, String)>>,
    others: Vec<Entry>,
}

impl Ledger {
    /// Notes what came of every pair in a phase.
    pub(crate) fn note_pairs(
        &mut self,
        phase: &str,
        expected: &Expected,
        observed: &[Vec<String>],
    ) {
        self.phases.push(phase.to_owned());
        for ((client, words), seen) in expected.rows.iter().zip(observed) {
            for ((target, word), seen) in expected.targets.iter().zip(words).zip(seen) {
                let pair = self
                    .pairs
                    .entry(((*client).to_owned(), (*target).to_owned()))
                    .or_default();
                pair.insert(phase.to_owned(), ((*word).to_owned(), seen.clone()));
            }
        }
    }

    /// Notes something else.
    pub(crate) fn note(&mut self, what: &str, expected: &str, observed: &str) {
        self.others.push(Entry {
            what: what.to_owned(),
            expected: expected.to_owned(),
            observed: observed.to_owned(),
        });
    }

    /// Notes something that is to be true.
    pub(crate) fn note_true(&mut self, what: &str, observed: bool) {
        self.note(what, "yes", if observed { "yes" } else { "no" });
    }

    /// Prints it, and says whether everything was as expected.
    pub(crate) fn show(&self, screen: &Screen) -> bool {
        let mut head = vec!["CLIENT".to_owned(), "TRIES".to_owned()];
        head.extend(self.phases.iter().map(|phase| phase.to_uppercase()));
        let (mut same, mut different) = (0, 0);
        let mut verdict = |expected: &str, observed: &str| {
            if agrees(expected, observed) {
                same += 1;
            } else {
                different += 1;
            }
        };
        let mut rows = Vec::new();
        for ((client, target), phases) in &self.pairs {
            let mut row: Vec<Cell> = vec![client.as_str().into(), target.as_str().into()];
            for phase in &self.phases {
                let Some((expected, observed)) = phases.get(phase) else {
                    row.push("".into());
                    continue;
                };
                if expected != "*" {
                    verdict(expected, observed);
                }
                row.push(compare(expected, observed));
            }
            rows.push(row);
        }
        let head: Vec<_> = head.iter().map(String::as_str).collect();
        screen.table(&head, &rows);
        let others: Vec<_> = self
            .others
            .iter()
            .map(
                |Entry {
                     what,
                     expected,
                     observed,
                 }| {
                    verdict(expected, observed);
                    vec![what.as_str().into(), compare(expected, observed)]
                },
            )
            .collect();
        screen.table(&["LOOKED AT", "EXPECTED AND OBSERVED"], &others);
        screen.text(&format!("{same} as expected, {different} different."));
        different == 0 && same > 0
    }
}

fn agrees(expected: &str, observed: &str) -> bool {
    expected == "*" || expected == observed
}

/// A field of a table: one word where expectation and observation agree.
pub(crate) fn compare(expected: &str, observed: &str) -> Cell {
    if expected == "*" {
        Cell::quiet("*")
    } else if !agrees(expected, observed) {
        Cell::bad(format!("{observed} (expected {expected})"))
    } else if observed == "no" {
        Cell::quiet(observed)
    } else {
        Cell::good(observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_enough() {
        let screen = Screen::new();
        assert!(!Ledger::default().show(&screen), "nothing was looked at");
        let mut ledger = Ledger::default();
        let expected = Expected {
            targets: vec!["b", "c"],
            rows: vec![("a", vec!["yes", "*"])],
        };
        ledger.note_pairs("open", &expected, &[vec!["yes".into(), "no".into()]]);
        ledger.note_true("water is wet", true);
        assert!(ledger.show(&screen));
        ledger.note_pairs("denied", &expected, &[vec!["yes/no".into(), "no".into()]]);
        assert!(!ledger.show(&screen));
    }
}
