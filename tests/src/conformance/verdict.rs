//! Whether Weir did as well as its peer.

use super::reference::Exception;
use super::{Outcomes, PASSED, SKIPPED};

/// What is wrong: specs that only one of both ran, those that did not pass although nobody said so, and those that did
/// although somebody said they would not. A spec that calls the cluster too small, and so skips itself, was not run.
#[must_use]
pub fn problems(peer: &Outcomes, weir: &Outcomes, exceptions: &[Exception]) -> Vec<String> {
    let mut problems = Vec::new();
    let known = |spec: &String| exceptions.iter().find(|it| it.spec == *spec);
    let ran = |outcomes: &Outcomes, spec: &String| {
        outcomes.get(spec).is_some_and(|it| it.state != SKIPPED)
    };
    for (spec, outcome) in peer {
        if ![PASSED, SKIPPED].contains(&outcome.state.as_str()) {
            problems.push(format!("{spec}: {} with kube-proxy", outcome.state));
        }
        if ran(peer, spec) && !ran(weir, spec) {
            problems.push(format!("{spec}: run with kube-proxy only"));
        }
    }
    for (spec, outcome) in weir {
        if ran(weir, spec) && !ran(peer, spec) {
            problems.push(format!("{spec}: run with Weir only"));
        }
        match (outcome.state.as_str(), known(spec)) {
            (PASSED, Some(_)) => problems.push(format!(
                "{spec}: passed, so it must not be listed as known to fail"
            )),
            (PASSED | SKIPPED, _) => {}
            (state, Some(exception)) => println!("known    {spec}: {state}: {}", exception.reason),
            (state, None) => {
                let message = outcome.message.lines().next().unwrap_or_default();
                problems.push(format!("{spec}: {state}: {message}"));
            }
        }
    }
    for exception in exceptions {
        if !ran(weir, &exception.spec) {
            problems.push(format!(
                "{}: listed as known to fail, but not run",
                exception.spec
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::e2e::Outcome;

    fn outcomes(states: &[(&str, &str)]) -> Outcomes {
        let outcome = |state: &str| Outcome {
            state: state.to_owned(),
            seconds: 1.0,
            message: String::new(),
        };
        states
            .iter()
            .map(|(spec, state)| ((*spec).to_owned(), outcome(state)))
            .collect()
    }

    fn exception(spec: &str) -> Exception {
        Exception {
            spec: spec.to_owned(),
            reason: "not built yet".to_owned(),
        }
    }

    #[test]
    fn only_the_same_specs_all_passed_are_good() {
        let both = outcomes(&[("a", "passed"), ("b", "passed")]);
        assert!(problems(&both, &both, &[]).is_empty());
        let cases = [
            (
                outcomes(&[("a", "passed")]),
                vec![],
                "b: run with kube-proxy only",
            ),
            (
                outcomes(&[("a", "passed"), ("b", "passed"), ("c", "passed")]),
                vec![],
                "c: run with Weir only",
            ),
            (
                outcomes(&[("a", "passed"), ("b", "skipped")]),
                vec![],
                "b: run with kube-proxy only",
            ),
            (both.clone(), vec![exception("b")], "b: passed, so it"),
            (both.clone(), vec![exception("z")], "z: listed as known"),
        ];
        for (weir, exceptions, expected) in cases {
            let found = problems(&both, &weir, &exceptions);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{expected}: {found:?}"
            );
        }
        let failing = outcomes(&[("a", "passed"), ("b", "failed")]);
        assert!(problems(&both, &failing, &[exception("b")]).is_empty());
        assert_eq!(
            problems(&failing, &both, &[]),
            ["b: failed with kube-proxy"]
        );
    }
}
