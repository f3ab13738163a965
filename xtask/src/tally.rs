//! Counting: reads what `cargo test -- --show-output` prints and keeps the sum over all suites.

use std::fmt;

/// The sum of everything that ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    /// Names of the tests that failed, with their suite.
    pub(crate) failed: Vec<String>,
    /// Tests that could not run, with the reason.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Tally {
    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

/// The closing line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())?;
        match self.skipped.len() {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

/// Reads one suite's output line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    suite: String,
    tally: Tally,
    /// Since the last `test result:` line: failures by name, and the skips among the passed.
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    /// The passed test whose captured output is being read.
    output_of: Option<String>,
    /// Inside the part that repeats the output of passed tests.
    in_successes: bool,
}

impl Reader {
    /// A reader at the start of `suite`'s output.
    pub(crate) fn new(suite: &str) -> Self {
        let (suite, tally) = (suite.to_owned(), Tally::default());
        Self {
            suite,
            tally,
            failed: Vec::new(),
            skipped: Vec::new(),
            output_of: None,
            in_successes: false,
        }
    }

    /// Takes one line; returns whether a person wants to see it (the output of passed tests is for nobody).
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            // Only with its counts: a test may print these words too.
            if let (Some(passed), Some(failed)) = (count(result, "passed"), count(result, "failed"))
            {
                self.result(passed, failed);
                return true;
            }
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if self.in_successes {
            self.passed_output(line);
            return false;
        }
        if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let test = format!("{}: {name}", self.suite);
            if outcome == "FAILED" {
                self.failed.push(test);
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.trim_start_matches(", ");
                self.tally.skipped.push((
                    test,
                    if reason.is_empty() { "ignored" } else { reason }.to_owned(),
                ));
            }
        }
        true
    }

    fn passed_output(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.output_of = Some(name.to_owned());
        } else if let Some(reason) = line.strip_prefix("SKIP") {
            // Taken: one test counts once, however often it says so.
            if let Some(name) = self.output_of.take() {
                let reason = reason.trim_start_matches([':', ' ']).to_owned();
                self.skipped
                    .push((format!("{}: {name}", self.suite), reason));
            }
        }
    }

    fn result(&mut self, passed: usize, failed: usize) {
        self.tally.passed += passed.saturating_sub(self.skipped.len());
        self.tally.skipped.append(&mut self.skipped);
        // The counts are what counts; a name lost in another program's output must not lose the failure.
        self.failed
            .resize(failed, format!("{}: (name not seen)", self.suite));
        self.tally.failed.append(&mut self.failed);
        self.in_successes = false;
        self.output_of = None;
    }

    /// The suite's counts. `trouble` says why it did not end well, if so: that is a failure even if no test is to blame.
    pub(crate) fn finish(mut self, trouble: Option<String>) -> Tally {
        // Tests that failed in a binary that never came to its result.
        self.tally.failed.append(&mut self.failed);
        if let Some(trouble) = trouble
            && self.tally.failed.is_empty()
        {
            self.tally.failed.push(format!("{}: {trouble}", self.suite));
        }
        self.tally
    }
}

/// A number of `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn count(result: &str, what: &str) -> Option<usize> {
    let words: Vec<&str> = result.split([' ', ';']).collect();
    let pair = words.windows(2).find(|pair| pair[1] == what)?;
    pair[0].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, trouble: Option<&str>) -> (Tally, String) {
        let mut reader = Reader::new("unit");
        let shown: Vec<&str> = text.lines().filter(|line| reader.line(line)).collect();
        (reader.finish(trouble.map(str::to_owned)), shown.join("\n"))
    }

    const TWO_BINARIES: &str = "\
running 4 tests
test a ... ok
test net::b ... ok
test c ... FAILED
test d ... ignored, wants a cluster

successes:

---- a stdout ----
noise
---- net::b stdout ----
SKIP: no CAP_NET_ADMIN
test result: what I print
SKIP again

successes:
    a
    net::b

failures:

---- c stdout ----
SKIP is no excuse for a failed test

failures:
    c

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 2 tests
test e ... ok
test f - should panic ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    #[test]
    fn every_binary_of_a_suite_is_counted_and_skips_are_not_passes() {
        let (tally, shown) = read(TWO_BINARIES, Some("exit status: 101"));
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failed, ["unit: c"]);
        assert_eq!(
            tally.skipped,
            [
                ("unit: d".to_owned(), "wants a cluster".to_owned()),
                ("unit: net::b".to_owned(), "no CAP_NET_ADMIN".to_owned())
            ]
        );
        assert!(
            !shown.contains("noise") && shown.contains("no excuse"),
            "{shown}"
        );
    }

    #[test]
    fn a_suite_that_dies_is_a_failure() {
        let (built, _) = read("error: could not compile", Some("exit status: 101"));
        assert_eq!(built.to_string(), "0 passed, 1 failed");
        assert_eq!(built.failed, ["unit: exit status: 101"]);
        let (died, _) = read(
            "test a ... ok\ntest b ... FAILED",
            Some("stopped after 20 min"),
        );
        assert_eq!(died.failed, ["unit: b"]);
    }

    #[test]
    fn a_failure_whose_name_is_lost_still_counts() {
        let garbled =
            "test a ... some output FAIL\ntest result: FAILED. 0 passed; 1 failed; 0 ignored";
        assert_eq!(read(garbled, None).0.failed, ["unit: (name not seen)"]);
    }

    #[test]
    fn the_closing_line_names_skips_only_when_there_are_some() {
        let mut sum = Tally {
            passed: 2,
            ..Tally::default()
        };
        sum.add(Tally {
            passed: 3,
            ..Tally::default()
        });
        assert_eq!(sum.to_string(), "5 passed, 0 failed");
    }
}
