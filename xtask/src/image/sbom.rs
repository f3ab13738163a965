//! What is inside the image's binary, as a CycloneDX 1.6 document made from cargo's own resolution.
//!
//! Every package that the agent or the kernel programs use at run time for the image's target: no tools of the build, no
//! macros, no test libraries; and what no cargo manifest names: Rust's standard library and musl.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId, TargetKind};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Workspace members whose code is in the binary: the agent, and the kernel programs that it carries.
const ROOTS: [&str; 2] = ["weir", "weir-ebpf"];

/// What the document says about the image itself.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    /// Name of the image.
    pub(super) image: &'a str,
    /// Time stamp of the image.
    pub(super) created: Timestamp,
    /// SHA-256 of the binary, in hexadecimal digits.
    pub(super) binary: &'a str,
    /// Version of the compiler, whose standard library is in the binary.
    pub(super) rust: &'a str,
    /// Version of the C library in the binary.
    pub(super) musl: &'a str,
}

/// The document, in the order of names and versions.
///
/// # Errors
/// Metadata without a resolution, or without the agent.
pub(super) fn document(metadata: &Metadata, subject: &Subject<'_>) -> Result<Value> {
    let graph = used(metadata)?;
    let mut packages: Vec<&Package> = graph.keys().map(|id| &metadata[*id]).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let mut components: Vec<Value> = packages.iter().map(|package| component(package)).collect();
    components.push(bundled("rust-std", subject.rust, "MIT OR Apache-2.0"));
    components.push(bundled("musl", subject.musl, "MIT"));
    let dependencies = packages.iter().map(|package| {
        let on: BTreeSet<_> = graph[&package.id]
            .iter()
            .map(|id| reference(&metadata[*id]))
            .collect();
        json!({"ref": reference(package), "dependsOn": on})
    });
    let weir = packages.iter().find(|package| package.name == ROOTS[0]);
    let version = weir
        .context("cargo metadata knows no weir")?
        .version
        .to_string();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": subject.created.to_string(),
            "component": {
                "type": "container",
                "bom-ref": subject.image,
                "name": subject.image,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": subject.binary}],
            },
        },
        "components": components,
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

/// The packages in the binary, each with those that it uses itself.
fn used(metadata: &Metadata) -> Result<BTreeMap<&PackageId, Vec<&PackageId>>> {
    let resolve = metadata.resolve.as_ref();
    let nodes = &resolve.context("cargo metadata resolved nothing")?.nodes;
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let root = |package: &&Package| ROOTS.contains(&package.name.as_str());
    let mut next: Vec<_> = metadata
        .workspace_packages()
        .into_iter()
        .filter(root)
        .map(|package| &package.id)
        .collect();
    let mut used = BTreeMap::new();
    while let Some(id) = next.pop() {
        if used.contains_key(id) {
            continue;
        }
        let dependencies: Vec<_> = nodes[id]
            .deps
            .iter()
            .filter(|dependency| {
                let mut kinds = dependency.dep_kinds.iter();
                kinds.any(|info| info.kind == DependencyKind::Normal)
            })
            .map(|dependency| &dependency.pkg)
            .filter(|id| !is_macro(&metadata[*id]))
            .collect();
        next.extend(&dependencies);
        used.insert(id, dependencies);
    }
    Ok(used)
}

/// Macros run in the compiler and leave nothing of themselves.
fn is_macro(package: &Package) -> bool {
    let mut targets = package.targets.iter();
    targets.any(|target| target.kind.contains(&TargetKind::ProcMacro))
}

/// The package's URL: the same name in every tool that reads such documents.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version.to_string(),
        "purl": reference(package),
        "scope": "required",
    });
    if let Some(licence) = &package.license {
        // The slash is an old way to write OR, which SPDX does not know.
        let expression = licence.replace('/', " OR ").replace("  ", " ");
        component["licenses"] = json!([{"expression": expression}]);
    }
    component
}

fn bundled(name: &str, version: &str, licence: &str) -> Value {
    json!({
        "type": "library",
        "bom-ref": format!("pkg:generic/{name}@{version}"),
        "name": name,
        "version": version,
        "purl": format!("pkg:generic/{name}@{version}"),
        "scope": "required",
        "licenses": [{"expression": licence}],
    })
}

#[cfg(test)]
mod tests {
    use cargo_metadata::MetadataCommand;

    use super::*;

    fn sbom() -> Value {
        let metadata = MetadataCommand::new()
            .manifest_path(crate::workspace::root().join("Cargo.toml"))
            .other_options(
                [
                    "--offline",
                    "--filter-platform",
                    "aarch64-unknown-linux-musl",
                ]
                .map(str::to_owned),
            )
            .exec()
            .unwrap();
        let subject = Subject {
            image: "weir:1",
            created: Timestamp::UNIX_EPOCH,
            binary: "00ff",
            rust: "1.96.0",
            musl: "1.2.5",
        };
        document(&metadata, &subject).unwrap()
    }

    #[test]
    fn it_lists_what_is_in_the_binary_and_nothing_else() {
        let sbom = sbom();
        let components = sbom["components"].as_array().unwrap();
        let names: Vec<_> = components
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        for inside in [
            "weir",
            "weir-common",
            "weir-ebpf",
            "aya",
            "aya-ebpf",
            "kube",
            "aws-lc-sys",
            "rust-std",
            "musl",
        ] {
            assert!(names.contains(&inside), "{inside} is in the binary");
        }
        for outside in [
            "xtask",
            "proptest",
            "serde_derive",
            "cc",
            "insta",
            "windows-sys",
        ] {
            assert!(!names.contains(&outside), "{outside} is not in the binary");
        }
        for component in components {
            assert!(
                component["licenses"][0]["expression"].is_string(),
                "{component}"
            );
        }
    }

    #[test]
    fn every_edge_leads_to_a_component() {
        let sbom = sbom();
        let of = |key: &str, name: &str| -> BTreeSet<String> {
            let items = sbom[key].as_array().unwrap().iter();
            items
                .map(|it| it[name].as_str().unwrap().to_owned())
                .collect()
        };
        let known = of("components", "bom-ref");
        assert_eq!(
            known.len(),
            sbom["components"].as_array().unwrap().len(),
            "one reference each"
        );
        assert!(of("dependencies", "ref").is_subset(&known));
        for dependency in sbom["dependencies"].as_array().unwrap() {
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(on.as_str().unwrap()), "{on}");
            }
        }
    }
}
