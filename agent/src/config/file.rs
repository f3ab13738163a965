//! The configuration file: what it sets, and where it says so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::definition::{Definition, definitions};
use super::{API_VERSION, ConfigError, KIND, kube_proxy};

/// Where something is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1, if it is known.
    pub line: Option<u64>,
    /// Key, with those that it is below: `clientConnection.kubeconfig`.
    pub field: String,
}

impl Place {
    /// File and line.
    #[must_use]
    pub fn location(&self) -> String {
        let path = self.path.display();
        self.line
            .map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
    }
}

/// A field that was set, and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Where it is.
    pub place: Place,
    /// As it is set.
    pub value: Value,
    /// Why it has no effect.
    pub reason: &'static str,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// What flags would be given, by name of the option's field.
    pub values: BTreeMap<String, (Vec<OsString>, Place)>,
    /// What it says in vain.
    pub ignored: Vec<Ignored>,
}

/// The fields of a document.
pub(super) type Fields = BTreeMap<String, Spanned<Value>>;

/// Reads a file: a WeirConfiguration, or a KubeProxyConfiguration to import.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Like [`read`], of text.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let mut fields: Fields =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            ConfigError::Syntax {
                path: path.to_owned(),
                message: error.render_with_formatter(&UserMessageFormatter),
            }
        })?;
    let mut take = |key: &str| match fields.remove(key).map(|field| field.value) {
        None => "missing".to_owned(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let (api_version, kind) = (take("apiVersion"), take("kind"));
    match (api_version.as_str(), kind.as_str()) {
        (API_VERSION, KIND) => own(path, &fields),
        (kube_proxy::API_VERSION, kube_proxy::KIND) => kube_proxy::import(path, &fields),
        _ => Err(ConfigError::Kind {
            path: path.to_owned(),
            api_version,
            kind,
        }),
    }
}

fn own(path: &Path, fields: &Fields) -> Result<File, ConfigError> {
    let options = definitions();
    let mut file = File::default();
    for (key, field) in fields {
        let place = Place {
            path: path.to_owned(),
            line: Some(field.referenced.line()),
            field: key.clone(),
        };
        let Some(option) = options.iter().find(|option| option.key() == *key) else {
            let keys: Vec<String> = options.iter().map(Definition::key).collect();
            let hint = nearest(key, &keys);
            return Err(ConfigError::UnknownKey { place, hint });
        };
        match option.read(&field.value) {
            Ok(None) => {}
            Ok(Some(values)) => {
                file.values.insert(option.id().to_owned(), (values, place));
            }
            Err(why) => {
                let found = field.value.to_string();
                return Err(ConfigError::Value { place, found, why });
            }
        }
    }
    Ok(file)
}

/// Below this likeness (Jaro-Winkler, 0 to 1) a key is not what was meant.
const ALIKE: f64 = 0.75;

/// What may have been meant by an unknown key, as the end of a sentence.
pub(super) fn nearest(key: &str, keys: &[impl AsRef<str>]) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(&key.to_lowercase(), &known.to_lowercase());
    let best = keys
        .iter()
        .map(|known| (likeness(known.as_ref()), known.as_ref()))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match best {
        Some((likeness, known)) if likeness >= ALIKE => format!(": is {known:?} meant?"),
        _ => {
            let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
            format!(": known are {}", keys.join(", "))
        }
    }
}
