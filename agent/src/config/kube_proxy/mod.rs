//! Import of a KubeProxyConfiguration, as Kubernetes 1.36 has it (k8s.io/kube-proxy/config/v1alpha1).

mod fields;
mod form;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::ConfigError;
use super::definition::definitions;
use super::file::{Fields, File, Ignored, Place, nearest};
pub(super) use fields::{FIELDS, Fate};

/// `apiVersion` of the document.
pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// `kind` of the document.
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// The fields that are set to something, by path.
type Given = BTreeMap<&'static str, Value>;

/// Maps what has a meaning for Weir, names what has none.
///
/// # Errors
/// Unknown fields, values of another type, values that Weir's option refuses.
pub(super) fn import(path: &Path, document: &Fields) -> Result<File, ConfigError> {
    let mut given = Given::new();
    for (key, field) in document {
        collect(path, "", key, &field.value, &mut given)?;
    }
    let options = definitions();
    let mut file = File::default();
    for field in FIELDS {
        let Some(value) = given.get(field.path) else {
            continue;
        };
        let place = place(path, field.path);
        let outcome = match field.fate {
            Fate::Ignored(reason) => Err(reason),
            Fate::Sets { option, how } => how(&given).map(|translated| (option, translated)),
        };
        match outcome {
            Err(reason) => file.ignored.push(Ignored {
                place,
                value: value.clone(),
                reason,
            }),
            Ok((id, translated)) => {
                let Some(option) = options.iter().find(|option| option.id() == id) else {
                    continue;
                };
                match option.read(&translated) {
                    // Of two fields that make one value, the first is named.
                    Ok(values) => {
                        let values = (values.unwrap_or_default(), place);
                        file.values.entry(id.to_owned()).or_insert(values);
                    }
                    Err(why) => {
                        let found = value.to_string();
                        return Err(ConfigError::Value { place, found, why });
                    }
                }
            }
        }
    }
    Ok(file)
}

/// Checks a field and those below it; notes those that are set.
fn collect(
    path: &Path,
    above: &str,
    key: &str,
    value: &Value,
    given: &mut Given,
) -> Result<(), ConfigError> {
    let name = if above.is_empty() {
        key.to_owned()
    } else {
        format!("{above}.{key}")
    };
    let wrong = |why: &str| ConfigError::Value {
        place: place(path, &name),
        found: value.to_string(),
        why: format!("it must be {why}"),
    };
    if let Some(field) = FIELDS.iter().find(|field| field.path == name) {
        if field.is_set(value).map_err(wrong)? {
            given.insert(field.path, value.clone());
        }
        return Ok(());
    }
    let below = format!("{name}.");
    if !FIELDS.iter().any(|field| field.path.starts_with(&below)) {
        let prefix = &name[..name.len() - key.len()];
        let mut siblings: Vec<&str> = FIELDS
            .iter()
            .filter_map(|field| field.path.strip_prefix(prefix)?.split('.').next())
            .collect();
        siblings.dedup();
        return Err(ConfigError::UnknownKey {
            place: place(path, &name),
            hint: nearest(key, &siblings),
        });
    }
    match value {
        Value::Null => Ok(()),
        Value::Object(fields) => fields
            .iter()
            .try_for_each(|(key, value)| collect(path, &name, key, value, given)),
        _ => Err(wrong("a map of fields")),
    }
}

fn place(path: &Path, field: &str) -> Place {
    Place {
        path: path.to_owned(),
        line: None,
        field: field.to_owned(),
    }
}
