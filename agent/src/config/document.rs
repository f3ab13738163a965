//! Configurations as documents.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::effective::{Effective, Setting, Source};
use super::{API_VERSION, KIND, definitions};

/// The defaults as a file, each with its meaning.
#[must_use]
pub fn defaults() -> String {
    let mut text = "# Options of `weir run`. A flag counts more than its environment variable, \
        that more than this file, this more than the default.\n"
        .to_owned();
    text += &head();
    for option in definitions() {
        let _ = write!(
            text,
            "\n# {}\n# {}, {}: {}\n{}\n",
            option.meaning(),
            option.flag(),
            option.environment(),
            option.expected(),
            line(&option.key(), &option.write(&option.defaults())),
        );
    }
    text
}

impl Effective {
    /// As a file that gives the same configuration, each value with who gave it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = head();
        for Setting {
            option,
            values,
            source,
        } in &self.settings
        {
            let line = line(&option.key(), &option.write(values));
            let _ = writeln!(text, "{line} # {source}");
        }
        for ignored in &self.ignored {
            let (place, value, reason) = (&ignored.place, &ignored.value, ignored.reason);
            let (location, field) = (place.location(), &place.field);
            let _ = writeln!(text, "# ignored: {field}: {value} of {location}: {reason}");
        }
        text
    }

    /// As JSON: the file under `configuration`, who gave each value under `sources`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut configuration = Map::new();
        configuration.insert("apiVersion".to_owned(), API_VERSION.into());
        configuration.insert("kind".to_owned(), KIND.into());
        let mut sources = Map::new();
        for setting in &self.settings {
            let key = setting.option.key();
            sources.insert(key.clone(), source(&setting.source));
            configuration.insert(key, setting.option.write(&setting.values));
        }
        let ignored: Vec<Value> = self
            .ignored
            .iter()
            .map(|ignored| {
                json!({
                    "file": ignored.place.path,
                    "field": ignored.place.field,
                    "value": ignored.value,
                    "reason": ignored.reason,
                })
            })
            .collect();
        json!({"configuration": configuration, "sources": sources, "ignored": ignored})
    }
}

fn head() -> String {
    format!("apiVersion: {API_VERSION}\nkind: {KIND}\n")
}

/// A field on one line, so that a comment can follow: YAML's own style where that is one line, else JSON's.
fn line(key: &str, value: &Value) -> String {
    let plain = if value.is_array() {
        None
    } else {
        serde_saphyr::to_string(value).ok()
    };
    match plain.as_deref().and_then(|text| text.strip_suffix('\n')) {
        Some(text) if !text.contains('\n') => format!("{key}: {text}"),
        _ => format!("{key}: {value}"),
    }
}

fn source(source: &Source) -> Value {
    match source {
        Source::Flag(name) => json!({"from": "flag", "name": name}),
        Source::Environment(name) => json!({"from": "environment", "name": name}),
        Source::File(place) => {
            json!({"from": "file", "name": place.path, "line": place.line, "field": place.field})
        }
        Source::Default => json!({"from": "default"}),
    }
}
