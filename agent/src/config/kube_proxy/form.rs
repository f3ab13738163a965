//! Go's types as YAML has them.

use jiff::SignedDuration;
use serde_json::Value;

/// Type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Form {
    Text,
    Integer,
    Number,
    Boolean,
    /// `metav1.Duration`: 1h0m0s.
    Duration,
    /// `logs/api/v1.TimeOrMetaDuration`: a duration, or nanoseconds.
    DurationOrNanoseconds,
    /// `resource.Quantity`: 64Ki, or a number of bytes.
    Quantity,
    Texts,
    /// Feature gates.
    Booleans,
    /// `logs/api/v1.VModuleConfiguration`.
    Verbosities,
}

impl Form {
    /// A value in a form that can be compared; none if it is null.
    ///
    /// # Errors
    /// What is expected, if it is something else.
    pub(super) fn canonical(self, value: &Value) -> Result<Option<String>, &'static str> {
        let text = match (self, value) {
            (_, Value::Null) => return Ok(None),
            (Self::Text | Self::Quantity, Value::String(text)) => Some(text.clone()),
            (Self::Integer | Self::Quantity, Value::Number(number)) => {
                number.as_i64().map(|number| number.to_string())
            }
            (Self::Number, Value::Number(number)) => number.as_f64().map(|one| one.to_string()),
            (Self::Boolean, Value::Bool(truth)) => Some(truth.to_string()),
            (Self::Duration | Self::DurationOrNanoseconds, Value::String(text)) => {
                nanoseconds(text)
            }
            (Self::DurationOrNanoseconds, Value::Number(number)) => {
                number.as_i64().map(|nanoseconds| nanoseconds.to_string())
            }
            (Self::Texts, Value::Array(items)) if items.iter().all(Value::is_string) => {
                Some(listed(items))
            }
            (Self::Booleans, Value::Object(gates)) if gates.values().all(Value::is_boolean) => {
                Some(listed(gates))
            }
            (Self::Verbosities, Value::Array(items)) if items.iter().all(is_verbosity) => {
                Some(listed(items))
            }
            _ => None,
        };
        text.map(Some).ok_or(self.expected())
    }

    /// A text of the table in the same form.
    pub(super) fn canonical_text(self, text: &str) -> String {
        match self {
            Self::Duration | Self::DurationOrNanoseconds => nanoseconds(text),
            _ => None,
        }
        .unwrap_or_else(|| text.to_owned())
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Duration => "a duration such as 1h30m or 250ms",
            Self::DurationOrNanoseconds => {
                "a duration such as 1h30m or 250ms, or a number of nanoseconds"
            }
            Self::Quantity => "a quantity such as 64Ki, or a number",
            Self::Texts => "a list of texts",
            Self::Booleans => "a map of names to true or false",
            Self::Verbosities => "a list of maps of filePattern and verbosity",
        }
    }
}

/// Empty if there is nothing in it.
fn listed(items: &(impl serde::Serialize + IntoIterator + Clone)) -> String {
    if items.clone().into_iter().next().is_none() {
        return String::new();
    }
    serde_json::to_string(items).unwrap_or_default()
}

fn is_verbosity(item: &Value) -> bool {
    item.as_object().is_some_and(|item| {
        item.iter().all(|(key, value)| match (key.as_str(), value) {
            ("filePattern", Value::String(_)) => true,
            ("verbosity", Value::Number(number)) => number.is_u64(),
            _ => false,
        })
    })
}

/// Go writes a bare 0, too.
fn nanoseconds(text: &str) -> Option<String> {
    if text == "0" {
        return Some(text.to_owned());
    }
    let duration: SignedDuration = text.parse().ok()?;
    Some(duration.as_nanos().to_string())
}
