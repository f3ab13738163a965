//! What is expected, read from a table written by hand.

use anyhow::{Context as _, Result, ensure};

const TEXT: &str = include_str!("../../../data/demo/expected.txt");

/// What is to come of every pair in one phase of the demo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// What clients try.
    pub(crate) targets: Vec<&'static str>,
    /// Each client with one word for each target.
    pub(crate) rows: Vec<(&'static str, Vec<&'static str>)>,
}

/// The table of that phase.
pub(crate) fn phase(name: &str) -> Result<Expected> {
    let mut lines = TEXT
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .skip_while(|words| words.first() != Some(&name));
    let head = lines
        .next()
        .with_context(|| format!("nothing is expected of {name}"))?;
    let targets = head[1..].to_vec();
    let mut rows = Vec::new();
    for words in lines.take_while(|words| !words.is_empty()) {
        ensure!(
            words.len() == head.len(),
            "{name}: a line with {} words",
            words.len()
        );
        rows.push((words[0], words[1..].to_vec()));
    }
    Ok(Expected { targets, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_by_their_phase() {
        let open = phase("open").unwrap();
        assert_eq!(open.targets.len(), 6);
        assert_eq!(open.rows.len(), 5);
        assert_eq!(
            open.rows[1],
            ("backend-1", vec!["yes", "*", "yes", "yes", "yes", "yes"])
        );
        assert_ne!(phase("denied").unwrap(), phase("allowed").unwrap());
        assert!(phase("closed").is_err());
    }
}
