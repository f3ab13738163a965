//! Label selectors in Cilium's form: keys may say where a label is from.

use crate::model::{Labels, Selector, SelectorError};

/// What labels of endpoints begin with that are Kubernetes', and keys of selectors that mean these or any.
const SOURCES: [&str; 2] = ["k8s:", "any:"];
/// What labels of whoever is no pod begin with.
const RESERVED: &str = "reserved:";
/// How those are written where a colon may not be.
const RESERVED_KEY: &str = "reserved.";

/// A selector of labels as [`labels`] has them.
pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    let mut inside = false;
    let mut starts = true;
    let mut plain = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if starts {
            if let Some(key) = SOURCES.iter().find_map(|source| rest.strip_prefix(source)) {
                rest = key;
                starts = false;
                continue;
            }
            if let Some(key) = rest.strip_prefix(RESERVED) {
                plain += RESERVED_KEY;
                rest = key;
                starts = false;
                continue;
            }
        }
        inside = match character {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        // A key comes first in each requirement, or after the mark that says "not".
        starts = !inside && character == ','
            || starts && (character.is_whitespace() || character == '!');
        plain.push(character);
        rest = &rest[character.len_utf8()..];
    }
    plain.parse()
}

/// The labels of an endpoint: `k8s:KEY=VALUE` by their keys, `reserved:NAME` by that name.
pub(super) fn labels(written: &[String]) -> Labels {
    let one = |label: &String| {
        if let Some(name) = label.strip_prefix(RESERVED) {
            return (format!("{RESERVED_KEY}{name}"), String::new());
        }
        let label = label.strip_prefix("k8s:").unwrap_or(label);
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    written.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_say_where_a_label_is_from_and_values_may_hold_anything_that_values_do() {
        let pod = ["k8s:app=front", "k8s:io.kubernetes.pod.namespace=shop"];
        let world = ["reserved:world"];
        for (text, of_pod, of_world) in [
            ("app=front", true, false),
            ("k8s:app=front", true, false),
            ("any:app = front", true, false),
            (
                "k8s:app in (back, front),k8s:io.kubernetes.pod.namespace=shop",
                true,
                false,
            ),
            ("app=front, k8s:tier=x", false, false),
            ("!k8s:tier", true, true),
            (" ! k8s:app", false, true),
            ("reserved:world", false, true),
            ("!reserved:world", true, false),
            ("app notin (k8s.x)", true, true),
            ("", true, true),
        ] {
            let selector = selector(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let matches = |written: &[&str]| {
                let written: Vec<_> = written.iter().map(|label| (*label).to_owned()).collect();
                selector.matches(&labels(&written))
            };
            assert_eq!(
                (matches(&pod), matches(&world)),
                (of_pod, of_world),
                "{text}"
            );
        }
        for text in ["app in (front", "app=k8s:front", "x:app=front"] {
            assert!(selector(text).is_err(), "{text}");
        }
    }
}
