//! The agent as users run it: the image and the manifest of `deploy/`, with what an operator fills in.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::objects;
use crate::controlplane::ControlPlane;

/// Where the manifests for users are.
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// What stands in the manifest for the API server's address.
const API_SERVER: &str = "https://CONTROL-PLANE:6443";

/// The namespace and the name of the DaemonSet.
pub const DAEMON_SET: (&str, &str) = ("weir-system", "weir");

/// The image that the manifests name.
pub const IMAGE: &str = concat!("weir:", env!("CARGO_PKG_VERSION"));

/// What is missing on this machine for clusters with Weir, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    super::missing().or_else(|| image().err().map(|error| error.to_string()))
}

/// The archive of the image under test: `WEIR_IMAGE`, or what `cargo xtask image` writes by default.
///
/// # Errors
/// There is none.
pub fn image() -> Result<PathBuf> {
    let architecture = match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let built = || {
        let target = Path::new(DEPLOY).join("../target/image");
        let version = env!("CARGO_PKG_VERSION");
        target.join(format!("weir-{version}-{architecture}.tar"))
    };
    let image = env::var_os("WEIR_IMAGE").map_or_else(built, PathBuf::from);
    ensure!(
        image.is_file(),
        "there is no {}: run `cargo xtask image`, or name the archive in WEIR_IMAGE",
        image.display()
    );
    Ok(image)
}

/// A manifest for users, by its file name.
///
/// # Errors
/// There is none, or it cannot be parsed.
pub fn manifest(name: &str) -> Result<Vec<Value>> {
    let path = Path::new(DEPLOY).join(name);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("parse {}", path.display()))
}

/// Applies the manifest for users, with the environment variables `environment` (`NAME=VALUE`) for the agent besides those it has.
pub(super) fn deploy(control: &ControlPlane, environment: &[String]) -> Result<()> {
    let mut objects = manifest("weir.yaml")?;
    let daemon_set = objects
        .iter_mut()
        .find(|object| object["kind"] == "DaemonSet")
        .context("deploy/weir.yaml has no DaemonSet")?;
    let container = &mut daemon_set["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"]
        .as_array_mut()
        .context("the agent has no environment")?;
    let server = variables
        .iter_mut()
        .find(|variable| variable["value"] == API_SERVER)
        .context("the manifest does not ask for the API server's address")?;
    server["value"] = control.server().into();
    for variable in environment {
        let (name, value) = variable
            .split_once('=')
            .with_context(|| format!("{variable:?} is not of the form NAME=VALUE"))?;
        variables.push(json!({"name": name, "value": value}));
    }
    objects::apply(control, objects)
}
