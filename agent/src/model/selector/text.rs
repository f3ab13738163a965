//! Selectors as kubectl has them on its command line: `a=b,c in (x,y),!d`.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{Operator, Requirement, Selector};

/// Longest value of a label, and longest name of one behind its prefix (API validation).
const LONGEST: usize = 63;

/// What is written is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read the requirement {requirement:?}: {problem}; write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY, with commas between several"
)]
pub struct SelectorError {
    requirement: String,
    problem: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Nothing at all selects everything.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        if !text.trim().is_empty() {
            for part in split(text) {
                requirements.push(requirement(part).map_err(|problem| SelectorError {
                    requirement: part.trim().to_owned(),
                    problem,
                })?);
            }
        }
        requirements.sort();
        Ok(Self { requirements })
    }
}

/// The parts between commas that are in no parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |character| {
        inside = match character {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        character == ',' && !inside
    })
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return of(key, Operator::DoesNotExist);
    }
    if let Some((key, values)) = text.split_once('(') {
        let values = values
            .strip_suffix(')')
            .ok_or("nothing closes its parenthesis, or something follows it")?;
        let values = values.split(',').map(value).collect::<Result<_, _>>()?;
        let (key, word) = key
            .trim_end()
            .rsplit_once(char::is_whitespace)
            .ok_or("`in` or `notin` goes before a parenthesis")?;
        return match word {
            "in" => of(key, Operator::In(values)),
            "notin" => of(key, Operator::NotIn(values)),
            other => Err(format!("{other:?} is neither `in` nor `notin`")),
        };
    }
    let one = |text: &str| Ok::<_, String>(BTreeSet::from([value(text)?]));
    if let Some((key, value)) = text.split_once("!=") {
        return of(key, Operator::NotIn(one(value)?));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return of(key, Operator::In(one(value)?));
    }
    of(text, Operator::Exists)
}

fn of(key: &str, operator: Operator) -> Result<Requirement, String> {
    let key = key.trim();
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    match (key, wrong(key, "/")) {
        ("", _) => Err("it has no key".to_owned()),
        (_, Some(character)) => Err(format!("a key has no {character:?}")),
        _ if name.is_empty() => Err("its key has no name behind the prefix".to_owned()),
        _ if name.len() > LONGEST => Err(format!("a key has no more than {LONGEST} characters")),
        _ => Ok(Requirement {
            key: key.to_owned(),
            operator,
        }),
    }
}

fn value(text: &str) -> Result<String, String> {
    let value = text.trim();
    match wrong(value, "") {
        Some(character) => Err(format!("a value has no {character:?}")),
        None if value.len() > LONGEST => {
            Err(format!("a value has no more than {LONGEST} characters"))
        }
        None => Ok(value.to_owned()),
    }
}

/// The first character that neither keys nor values have, but for these.
fn wrong(text: &str, but: &str) -> Option<char> {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it) || but.contains(it);
    text.chars().find(|it| !allowed(*it))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Selector {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read() {
        let set = |values: &[&str]| values.iter().map(|it| (*it).to_owned()).collect();
        for (text, key, operator) in [
            ("a=b", "a", Operator::In(set(&["b"]))),
            ("a==b", "a", Operator::In(set(&["b"]))),
            (" a = b ", "a", Operator::In(set(&["b"]))),
            ("a=", "a", Operator::In(set(&[""]))),
            ("a!=b", "a", Operator::NotIn(set(&["b"]))),
            ("a in (x, y)", "a", Operator::In(set(&["x", "y"]))),
            ("a in (x)", "a", Operator::In(set(&["x"]))),
            ("a in ()", "a", Operator::In(set(&[""]))),
            ("a notin (x,y)", "a", Operator::NotIn(set(&["x", "y"]))),
            ("a notin(x)", "a", Operator::NotIn(set(&["x"]))),
            ("app.io/part-of", "app.io/part-of", Operator::Exists),
            ("!a", "a", Operator::DoesNotExist),
            ("! a", "a", Operator::DoesNotExist),
        ] {
            let key = key.to_owned();
            let requirements = vec![Requirement { key, operator }];
            assert_eq!(read(text), Selector { requirements }, "{text}");
        }
        assert_eq!(read(" "), Selector::default());
        let keys = |text| {
            let requirements = read(text).requirements.into_iter();
            requirements.map(|it| it.key).collect::<Vec<_>>()
        };
        assert_eq!(keys("!d,a=b,c in (x,y),b"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_none_is_refused_by_its_part() {
        for (text, part, problem) in [
            (",", "", "no key"),
            ("a=b,", "", "no key"),
            ("=b", "=b", "no key"),
            ("!", "!", "no key"),
            ("x/", "x/", "no name behind"),
            ("a=b,c=d e", "c=d e", "value has no ' '"),
            ("a=b=c", "a=b=c", "value has no '='"),
            ("a b", "a b", "key has no ' '"),
            ("a in (x", "a in (x", "closes its parenthesis"),
            ("a in (x) y", "a in (x) y", "closes its parenthesis"),
            ("a in (x(y)", "a in (x(y)", "value has no '('"),
            ("a (x)", "a (x)", "goes before a parenthesis"),
            ("a of (x)", "a of (x)", "\"of\" is neither"),
            ("a>1", "a>1", "key has no '>'"),
            ("é", "é", "key has no 'é'"),
        ] {
            let error = text.parse::<Selector>().expect_err(text);
            assert_eq!(error.requirement, part, "{text}");
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
        let long = "a".repeat(LONGEST + 1);
        for text in [format!("a={long}"), format!("x/{long}=b")] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _: Result<Selector, _> = text.parse();
        }
    }
}
