//! Objects in a document, by apiVersion and kind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::template;
use crate::model::{Kind, ObjectName};
use crate::source::convert::{self, Conversion};
use crate::source::outcome::{Outcome, misshapen};
use crate::source::{Fault, Problem};

/// An object of a watched kind.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Kind.
    pub kind: Kind,
    /// Name, as far as there is one.
    pub name: ObjectName,
    /// What became of it.
    pub outcome: Outcome,
}

/// What files are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// A cluster as it runs: pods are those that there are.
    Cluster,
    /// What is to run: templates stand for the pods that will be made of them.
    Repository,
}

/// Collects the objects of a document, those inside lists too. Objects of other kinds are left out.
///
/// # Errors
/// If the document is no Kubernetes object at all.
pub(super) fn objects(
    document: Value,
    reading: Reading,
    found: &mut Vec<Found>,
) -> Result<(), String> {
    let document = match reading {
        Reading::Cluster => document,
        Reading::Repository => template::as_running(document),
    };
    let (Some(api_version), Some(kind)) = (text(&document, "apiVersion"), text(&document, "kind"))
    else {
        return Err("not a Kubernetes object: it needs apiVersion and kind".to_owned());
    };
    let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
    if let Some(item_kind) = kind.strip_suffix("List") {
        return list(document, &api_version, item_kind, reading, found);
    }
    match watched(&kind) {
        Some(kind) if !third_party(&api_version) => {
            found.push(object(document, kind, &api_version));
        }
        _ => tracing::debug!(
            api_version,
            kind,
            "passed over an object of a kind that is not used"
        ),
    }
    Ok(())
}

/// `v1 List`, and typed lists such as `v1 PodList`, whose items need not repeat their kind.
fn list(
    mut list: Value,
    api_version: &str,
    item_kind: &str,
    reading: Reading,
    found: &mut Vec<Found>,
) -> Result<(), String> {
    let Value::Array(items) = list["items"].take() else {
        return Err("a list without items".to_owned());
    };
    for mut item in items {
        if let Value::Object(fields) = &mut item
            && !item_kind.is_empty()
        {
            fields.entry("kind").or_insert_with(|| item_kind.into());
            fields
                .entry("apiVersion")
                .or_insert_with(|| api_version.into());
        }
        objects(item, reading, found)?;
    }
    Ok(())
}

/// The watched kind of that name; written in wrong case it is found too, so that the decoder can say so.
fn watched(kind: &str) -> Option<Kind> {
    Kind::ALL
        .into_iter()
        .find(|known| known.as_str().eq_ignore_ascii_case(kind))
}

/// Others have kinds of the same names, such as Calico's NetworkPolicy and Knative's Service.
fn third_party(api_version: &str) -> bool {
    api_version
        .split_once('/')
        .is_some_and(|(group, _)| group.contains('.') && !group.ends_with(".k8s.io"))
}

fn object(document: Value, kind: Kind, api_version: &str) -> Found {
    let expected = kind.api_version();
    let name = name(kind, &document["metadata"]);
    let outcome = if api_version != expected {
        let problem = Problem::Version {
            found: api_version.to_owned(),
            expected,
        };
        Outcome::Rejected(Fault::new("", problem).to_string())
    } else {
        match kind {
            Kind::Service => decode(document, kind, expected, convert::service),
            Kind::EndpointSlice => decode(document, kind, expected, convert::endpoint_slice),
            Kind::NetworkPolicy => decode(document, kind, expected, convert::network_policy),
            Kind::ClusterNetworkPolicy => {
                decode(document, kind, expected, convert::cluster_network_policy)
            }
            Kind::Pod => decode(document, kind, expected, convert::pod),
            Kind::Namespace => decode(document, kind, expected, convert::namespace),
            Kind::Node => decode(document, kind, expected, convert::node),
            Kind::ServiceCidr => decode(document, kind, expected, convert::service_cidr),
        }
    };
    Found {
        kind,
        name,
        outcome,
    }
}

fn decode<T: DeserializeOwned>(
    document: Value,
    kind: Kind,
    api_version: &'static str,
    convert: fn(T) -> Conversion,
) -> Outcome {
    match serde_path_to_error::deserialize(document) {
        Ok(object) => Outcome::of(convert(object)),
        Err(error) => {
            Outcome::Rejected(misshapen(api_version, kind, error.to_string()).to_string())
        }
    }
}

/// The name that conversion will find, for objects that do not get so far.
fn name(kind: Kind, metadata: &Value) -> ObjectName {
    let name = text(metadata, "name").unwrap_or_default();
    match kind {
        Kind::Namespace | Kind::Node | Kind::ServiceCidr | Kind::ClusterNetworkPolicy => {
            ObjectName::cluster(name)
        }
        Kind::Service | Kind::EndpointSlice | Kind::NetworkPolicy | Kind::Pod => {
            let namespace = text(metadata, "namespace").filter(|text| !text.is_empty());
            ObjectName::new(namespace.unwrap_or("default"), name)
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}
