//! What is known of the specs: what kube-proxy does with them, and which of them Weir does not pass yet.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{Outcomes, PASSED, SKIPPED};
use crate::lab::e2e::Outcome;

/// A file of `tests/data/conformance`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Specs that kube-proxy passes.
    passed: Vec<String>,
    /// Specs that find the cluster unfit for them, such as too small.
    skipped: Vec<String>,
    /// Specs that Weir does not pass yet.
    pub exceptions: Vec<Exception>,
}

/// A spec that Weir does not pass yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Its name.
    pub spec: String,
    /// Why it does not.
    pub reason: String,
}

impl Reference {
    pub(super) fn read(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text).context("read what is known of the specs")
    }

    /// How each spec ends with kube-proxy. It is not known how long they take.
    #[must_use]
    pub fn peer(&self) -> Outcomes {
        let ended = |state: &str| Outcome {
            state: state.to_owned(),
            seconds: 0.0,
            message: String::new(),
        };
        let passed = self.passed.iter().map(|spec| (spec.clone(), ended(PASSED)));
        let skipped = self.skipped.iter();
        let skipped = skipped.map(|spec| (spec.clone(), ended(SKIPPED)));
        passed.chain(skipped).collect()
    }

    /// Specs that ended otherwise with kube-proxy in `outcomes` than is known, sorted.
    #[must_use]
    pub fn outdated(&self, outcomes: &Outcomes) -> Vec<String> {
        let known = self.peer();
        let state = |of: &Outcomes, spec: &String| of.get(spec).map(|it| it.state.clone());
        let specs = known.keys().chain(outcomes.keys());
        let mut differ: Vec<String> = specs
            .filter(|spec| state(&known, spec) != state(outcomes, spec))
            .cloned()
            .collect();
        differ.sort();
        differ.dedup();
        differ
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Suite;

    #[test]
    fn the_file_is_readable_and_names_all_specs() -> Result<()> {
        let reference = Suite::Services.reference()?;
        assert_eq!((reference.passed.len(), reference.skipped.len()), (67, 3));
        Ok(())
    }

    #[test]
    fn a_run_with_kube_proxy_shows_what_is_out_of_date() -> Result<()> {
        let reference = Reference::read("{passed: [a, b], skipped: [c], exceptions: []}")?;
        let mut outcomes = reference.peer();
        assert!(reference.outdated(&outcomes).is_empty());
        outcomes.remove("a");
        outcomes.insert("d".to_owned(), outcomes["b"].clone());
        outcomes.insert("c".to_owned(), outcomes["b"].clone());
        assert_eq!(reference.outdated(&outcomes), ["a", "c", "d"]);
        Ok(())
    }
}
