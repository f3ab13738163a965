//! Container images without a container engine: an archive as `docker save` writes it, which containerd imports.
//!
//! The format is that of the Docker image specification 1.2: layers and configurations, and a `manifest.json` that
//! names the images made of them. Images share layers, so one archive holds all the images of a cluster.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// When images say they were made: the same content shall give the same bytes.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// The architecture of the images, which is that of the programs built here.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// An archive being written.
pub(crate) struct Archive {
    tar: tar::Builder<BufWriter<File>>,
    images: Vec<Value>,
}

/// A layer of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    digest: String,
    path: String,
}

/// What containers of an image run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// This program, with these arguments unless a pod has its own `args`.
    Program(&'static str, &'static [&'static str]),
    /// A shell, unless a pod names a command.
    Shell,
}

impl Archive {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self {
            tar: tar::Builder::new(BufWriter::new(file)),
            images: Vec::new(),
        })
    }

    /// Adds a layer of everything in the directory `root`, with owners and modes.
    pub(crate) fn layer(&mut self, root: &Path) -> Result<Layer> {
        self.layer_of(|tar| tar.append_dir_all(".", root))
            .with_context(|| format!("pack {}", root.display()))
    }

    /// Adds a layer of one program in the root directory.
    pub(crate) fn program(&mut self, program: &Path) -> Result<Layer> {
        let name = program.file_name().context("a program has a name")?;
        self.layer_of(|tar| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(fs::metadata(program)?.len());
            tar.append_data(&mut header, PathBuf::from(name), File::open(program)?)
        })
        .with_context(|| format!("pack {}", program.display()))
    }

    fn layer_of(
        &mut self,
        fill: impl FnOnce(&mut tar::Builder<&mut Hashing<BufWriter<&File>>>) -> io::Result<()>,
    ) -> Result<Layer> {
        // A member's size stands before its content, so the layer is a file of its own first.
        let file = NamedTempFile::new().context("make a file for a layer")?;
        let mut hashing = Hashing {
            inner: BufWriter::new(file.as_file()),
            hash: Sha256::new(),
        };
        let mut layer = tar::Builder::new(&mut hashing);
        layer.follow_symlinks(false);
        fill(&mut layer)?;
        layer.finish()?;
        drop(layer);
        hashing.inner.flush()?;
        let digest = hex(&hashing.hash.finalize());
        let path = format!("{digest}/layer.tar");
        let packed = file.reopen()?;
        let mut header = header(packed.metadata()?.len());
        self.tar.append_data(&mut header, &path, packed)?;
        Ok(Layer { digest, path })
    }

    /// Adds an image, made of `layers` from the bottom up.
    pub(crate) fn image(&mut self, names: &[&str], layers: &[&Layer], start: Start) -> Result<()> {
        let mut config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"],
        });
        match start {
            Start::Program(program, arguments) => {
                config["Entrypoint"] = json!([program]);
                config["Cmd"] = json!(arguments);
            }
            Start::Shell => config["Cmd"] = json!(["sh"]),
        }
        let diff_ids = layers
            .iter()
            .map(|layer| format!("sha256:{}", layer.digest));
        let config = serde_json::to_vec(&json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
        }))?;
        let path = format!("{}.json", hex(&Sha256::digest(&config)));
        self.member(&path, &config)?;
        let layers = layers.iter().map(|layer| &layer.path);
        self.images.push(json!({
            "Config": path,
            "RepoTags": names,
            "Layers": layers.collect::<Vec<_>>(),
        }));
        Ok(())
    }

    /// Completes the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        let manifest = serde_json::to_vec(&self.images)?;
        self.member("manifest.json", &manifest)?;
        self.tar
            .into_inner()
            .and_then(|mut file| file.flush())
            .context("finish an image archive")
    }

    fn member(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut header = header(content.len() as u64);
        self.tar
            .append_data(&mut header, path, content)
            .with_context(|| format!("add {path} to an image archive"))
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header
}

/// Hashes what it passes on.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn images_name_their_layers_by_what_they_hold() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (root, program) = (dir.path().join("root"), dir.path().join("serve"));
        fs::create_dir_all(root.join("etc"))?;
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
        std::os::unix::fs::symlink("nowhere", root.join("link"))?;
        fs::write(&program, "\x7fELF")?;

        let path = dir.path().join("images.tar");
        let mut archive = Archive::create(&path)?;
        let base = archive.layer(&root)?;
        let own = archive.program(&program)?;
        archive.image(
            &["example/a:1", "example/b:1"],
            &[&base, &own],
            Start::Program("/serve", &[]),
        )?;
        archive.image(&["example/c:1"], &[&base], Start::Shell)?;
        archive.finish()?;

        let mut members = BTreeMap::new();
        for member in tar::Archive::new(File::open(&path)?).entries()? {
            let (mut member, mut content) = (member?, Vec::new());
            let name = member.path()?.display().to_string();
            member.read_to_end(&mut content)?;
            members.insert(name, content);
        }
        let manifest: Value = serde_json::from_slice(&members["manifest.json"])?;
        assert_eq!(
            manifest[0]["RepoTags"],
            json!(["example/a:1", "example/b:1"])
        );
        for image in manifest.as_array().expect("images") {
            let config = &members[image["Config"].as_str().expect("a name")];
            let config: Value = serde_json::from_slice(config)?;
            let layers = image["Layers"].as_array().expect("layers");
            let digests: Vec<_> = layers
                .iter()
                .map(|layer| &members[layer.as_str().expect("a name")])
                .map(|content| format!("sha256:{}", hex(&Sha256::digest(content))))
                .collect();
            assert_eq!(config["rootfs"]["diff_ids"], json!(digests));
        }
        let layer = &members[&own.path];
        let mut inner = tar::Archive::new(layer.as_slice());
        let member = inner.entries()?.next().expect("a program")?;
        assert_eq!(member.path()?, Path::new("serve"));
        assert_eq!(member.header().mode()?, 0o755);
        Ok(())
    }
}
