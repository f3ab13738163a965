//! What `weir doctor` found.

use std::fmt::Write as _;

use crate::doctor::{Finding, Harm};

/// `weir doctor`.
#[must_use]
pub fn findings(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing stands in Weir's way\n".to_owned();
    }
    let mut text = String::new();
    for Finding {
        name,
        harm,
        seen,
        why,
        fix,
    } in findings
    {
        let harm = match harm {
            Harm::Certain => "",
            Harm::Possible => " (may do harm)",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name}{harm}\n  seen  {seen}\n  why   {why}\n  fix   {fix}"
        );
    }
    text
}
