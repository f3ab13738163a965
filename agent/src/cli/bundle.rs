//! `weir bundle`: one archive with all that a report about a bug needs.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::Value;

use super::args::Whom;
use super::ask::{Answers, ask_all};
use super::print::{self, Version};
use super::{doctor, write_out};

/// What each agent is asked: a file of the archive, the question, and what it tells.
const PARTS: [(&str, &str, &str); 12] = [
    (
        "status.json",
        "/v1/status",
        "version, kernel, watches, devices, maps, what is skipped and why (`weir status`)",
    ),
    (
        "services.json",
        "/v1/services",
        "addresses, ports and endpoints of Services (`weir service list`)",
    ),
    (
        "endpoints.json",
        "/v1/endpoints",
        "the node's pods, their labels, and the policies that isolate them (`weir endpoint list`)",
    ),
    (
        "policies.json",
        "/v1/policies",
        "policies and how many pods they select (`weir policy list`)",
    ),
    (
        "objects.json",
        "/v1/objects",
        "the objects that the agent goes by, see below",
    ),
    (
        "maps.json",
        "/v1/map-dump",
        "what the kernel's maps hold (`weir map dump`)",
    ),
    (
        "connections.json",
        "/v1/flows",
        "tracked connections: addresses, ports, packets and bytes (`weir conntrack list`)",
    ),
    (
        "flows.json",
        "/v1/flow-records",
        "the newest drops, sampled connections and ends of connections (`weir flows`)",
    ),
    (
        "audit.json",
        "/v1/audit",
        "where maps and objects differ (`weir audit`)",
    ),
    (
        "history.json",
        "/v1/history",
        "the newest changes (`weir history`)",
    ),
    (
        "hits.json",
        "/v1/hits",
        "how often rules decided (`weir policy coverage`)",
    ),
    (
        "metrics.txt",
        "/v1/metrics",
        "metrics as Prometheus reads them",
    ),
];

/// What objects.json has, and what no file has.
const OBJECTS: &str = "objects.json has of each object what the agent keeps of it, and nothing else:

- Pods: names, UIDs, labels, addresses, node, host network, whether they have ended, names and numbers of container ports, creation time, the port
  of the annotation prometheus.io/port, and the UID of the annotation kubernetes.io/config.mirror
- Services: names, UIDs, labels, addresses, ports, source ranges, traffic policies, affinity, selectors
- EndpointSlices: names, addresses, ports, conditions, nodes, pods, hints
- NetworkPolicies and ClusterNetworkPolicies: names, UIDs, labels, and their rules
- Namespaces and Nodes: names and labels; addresses of nodes. ServiceCIDRs: their ranges

No file has other annotations, environments, commands, images, volumes, Secrets, ConfigMaps, or what packets carried. Names, labels and addresses
are those of the cluster: look through the files before you give them to others.
";

/// An archive before it is written.
#[derive(Debug, Default)]
struct Bundle {
    /// Files by path.
    files: BTreeMap<String, Vec<u8>>,
    /// What is not there, and why.
    missing: Vec<(String, String)>,
}

pub(super) fn execute(output: Option<PathBuf>, bpffs: &Path, whom: &Whom) -> Result<()> {
    let now = Timestamp::now();
    let path = output.unwrap_or_else(|| {
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        PathBuf::from(format!("weir-bundle-{time}.tar.gz"))
    });
    // Before anybody is asked, which may take long. It tells much about a cluster: others than its owner need not read it.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let cannot = || format!("cannot write {}: name another file with -o", path.display());
    let mut file = file.with_context(cannot)?;
    let mut bundle = Bundle::default();
    bundle.ask(|path| ask_all(whom, path, &[]));
    let answered = !bundle.files.is_empty();
    if !whom.is_of_all() && whom.cluster.node.is_none() {
        let findings = doctor::findings(bpffs, &whom.run_dir);
        bundle.add(
            "doctor.json",
            findings.and_then(|it| Ok(serde_json::to_value(it)?)),
        );
    }
    let missing = bundle.missing.clone();
    let bytes = bundle.archive(now).context("cannot make the archive");
    let written = bytes.and_then(|bytes| file.write_all(&bytes).with_context(cannot));
    if written.is_err() {
        // Half an archive is worth nothing.
        let _ = fs::remove_file(&path);
    }
    written?;
    write_out(&format!("wrote {}\n", path.display()))?;
    for (part, why) in missing {
        eprintln!("missing: {part}: {why}");
    }
    if !answered {
        bail!("no agent answered: {} says why", path.display());
    }
    Ok(())
}

impl Bundle {
    /// Asks all agents for every part, one after the other. What fails is named, and the rest is taken all the same.
    fn ask(&mut self, mut ask: impl FnMut(&str) -> Result<Answers<Value>>) {
        for (file, path, _) in PARTS {
            match ask(path) {
                Ok(answers) => {
                    for (node, answer) in answers.given {
                        self.add(&of_node(&node, file), Ok(answer));
                    }
                    for (node, why) in answers.missing {
                        self.add(&of_node(&node, file), Err(why));
                    }
                }
                Err(why) => self.add(file, Err(why)),
            }
        }
    }

    fn add(&mut self, file: &str, content: Result<Value>) {
        let bytes = content.and_then(|content| match content {
            // Metrics are text already.
            Value::String(text) => Ok(text.into_bytes()),
            other => Ok(serde_json::to_vec_pretty(&other)?),
        });
        match bytes {
            Ok(bytes) => drop(self.files.insert(file.to_owned(), bytes)),
            Err(why) => self.missing.push((file.to_owned(), format!("{why:#}"))),
        }
    }

    /// The archive, made at that time.
    fn archive(mut self, now: Timestamp) -> Result<Vec<u8>> {
        let version = print::json("Version", &Version::current())?;
        self.files
            .insert("version.json".to_owned(), version.into_bytes());
        let readme = self.readme(now);
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let files = self.files.iter().map(|(path, bytes)| (path, &bytes[..]));
        for (path, bytes) in [(&"README.md".to_owned(), readme.as_bytes())]
            .into_iter()
            .chain(files)
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
            tar.append_data(&mut header, format!("weir-bundle/{path}"), bytes)?;
        }
        Ok(tar.into_inner()?.finish()?)
    }

    fn readme(&self, now: Timestamp) -> String {
        let mut text = format!(
            "# What this is\n\nThe state of Weir as `weir bundle` found it at {now:.0}.\n\n"
        );
        text += "A directory for each node that was asked:\n\n";
        // Writing to a String cannot fail.
        for (file, _, tells) in PARTS {
            let _ = writeln!(text, "- {file}: {tells}");
        }
        text += "\nBeside them:\n\n- version.json: the version of the program that asked\n- doctor.json, where a node was asked on itself: what is in the way there (`weir doctor`)\n\n";
        text += "# What is in the objects, and what is in no file\n\n";
        text += OBJECTS;
        if !self.missing.is_empty() {
            text += "\n# What is missing\n\n";
            for (part, why) in &self.missing {
                let _ = writeln!(text, "- {part}: {why}");
            }
        }
        text
    }
}

/// A file's place: this node's agent is asked without a name.
fn of_node(node: &str, file: &str) -> String {
    match node {
        "" => format!("this-node/{file}"),
        node => format!("{node}/{file}"),
    }
}
