//! What the runtime says in environment variables.

use super::error::{Code, Failure};
use crate::model::{Attachment, ObjectName};

/// The variables of one call.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    command: Option<String>,
    container: Option<String>,
    interface: Option<String>,
    netns: Option<String>,
    args: String,
}

/// What CNI_ARGS tells of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodArguments {
    /// K8S_POD_NAMESPACE and K8S_POD_NAME.
    pub name: ObjectName,
    /// K8S_POD_UID, empty where the runtime does not tell.
    pub uid: String,
}

impl Environment {
    /// Reads the variables by way of `get`; one that is empty counts as absent.
    #[must_use]
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name| get(name).filter(|value| !value.is_empty());
        Self {
            command: get("CNI_COMMAND"),
            container: get("CNI_CONTAINERID"),
            interface: get("CNI_IFNAME"),
            netns: get("CNI_NETNS"),
            args: get("CNI_ARGS").unwrap_or_default(),
        }
    }

    /// CNI_COMMAND.
    ///
    /// # Errors
    /// When it is missing, as for the other variables.
    pub fn command(&self) -> Result<&str, Failure> {
        needed(self.command.as_deref(), "CNI_COMMAND")
    }

    /// CNI_NETNS.
    ///
    /// # Errors
    /// When it is missing.
    pub fn netns(&self) -> Result<&str, Failure> {
        needed(self.netns.as_deref(), "CNI_NETNS")
    }

    /// CNI_CONTAINERID and CNI_IFNAME.
    ///
    /// # Errors
    /// When one is missing, or not of the form that the specification gives it: both become part of a file name.
    pub fn attachment(&self) -> Result<Attachment, Failure> {
        let container = needed(self.container.as_deref(), "CNI_CONTAINERID")?;
        let interface = needed(self.interface.as_deref(), "CNI_IFNAME")?;
        if !is_container(container) {
            return Err(malformed("CNI_CONTAINERID", container));
        }
        if !is_interface(interface) {
            return Err(malformed("CNI_IFNAME", interface));
        }
        Ok(Attachment {
            container: container.to_owned(),
            interface: interface.to_owned(),
        })
    }

    /// The pod of the container, if it has one.
    #[must_use]
    pub fn pod(&self) -> Option<PodArguments> {
        let value = |wanted: &str| {
            let pairs = self.args.split(';').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(key, _)| *key == wanted);
            values
                .next()
                .map(|(_, value)| value)
                .filter(|value| !value.is_empty())
        };
        Some(PodArguments {
            name: ObjectName::new(value("K8S_POD_NAMESPACE")?, value("K8S_POD_NAME")?),
            uid: value("K8S_POD_UID").unwrap_or_default().to_owned(),
        })
    }
}

/// Whether the specification allows a container this name.
pub(super) fn is_container(name: &str) -> bool {
    let is_word = |one: char| one.is_ascii_alphanumeric();
    name.starts_with(is_word) && name.chars().all(|one| is_word(one) || "_.-".contains(one))
}

/// Whether the kernel allows an interface this name.
pub(super) fn is_interface(name: &str) -> bool {
    let is_strange = |one: char| matches!(one, '/' | ':' | '\0') || one.is_whitespace();
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(is_strange)
}

fn needed<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, Failure> {
    value.ok_or_else(|| {
        Failure::new(
            Code::Environment,
            "an environment variable is missing",
            format!("{name}: this is a CNI plugin, which container runtimes call; `weir cni install` puts it into their configuration"),
        )
    })
}

fn malformed(name: &str, value: &str) -> Failure {
    Failure::new(
        Code::Environment,
        "an environment variable is malformed",
        format!("{name} is {value:?}"),
    )
}
