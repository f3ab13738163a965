//! An OCI image layout in one tar archive, made from bytes in memory: the same input gives the same output.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>. A `manifest.json` beside the index is what
//! `docker load` read before it knew the layout.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image is made of.
#[derive(Clone, Debug)]
pub(super) struct Image<'a> {
    /// As containerd knows it: registry, repository, tag.
    pub(super) name: &'a str,
    /// GOARCH.
    pub(super) architecture: &'a str,
    /// Time stamp of the image and of every file.
    pub(super) created: Timestamp,
    /// OCI labels, and annotations of the manifest.
    pub(super) labels: BTreeMap<String, String>,
    /// The program: file name in the root directory, and the entry point.
    pub(super) program: &'a str,
    /// The program's bytes.
    pub(super) binary: &'a [u8],
}

/// Something with an address made from its content.
struct Blob {
    media_type: &'static str,
    hex: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let hex = hex(&bytes);
        Self {
            media_type,
            hex,
            bytes,
        }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self) -> Value {
        let digest = format!("sha256:{}", self.hex);
        json!({"mediaType": self.media_type, "digest": digest, "size": self.bytes.len()})
    }
}

impl Image<'_> {
    /// The archive.
    ///
    /// # Errors
    /// A file name that is too long for tar.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let layer = self.archive_of(&[(self.program.to_owned(), 0o755, self.binary)])?;
        let diff_id = format!("sha256:{}", hex(&layer));
        let layer = Blob::new(LAYER, gzip(&layer)?);
        let config = Blob::json(CONFIG, &self.config(&diff_id));
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": self.labels,
            }),
        );
        let index = self.index(&manifest);
        let docker =
            json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()]}]);
        let mut files = BTreeMap::from([
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("manifest.json".to_owned(), docker.to_string().into_bytes()),
        ]);
        files.extend([config, layer, manifest].map(|blob| (blob.path(), blob.bytes)));
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (path.clone(), 0o644, bytes.as_slice()))
            .collect();
        self.archive_of(&files)
    }

    /// No user: the capabilities that the manifest adds count for root only, who has no other ones then.
    fn config(&self, diff_id: &str) -> Value {
        json!({
            "created": self.created.to_string(),
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [format!("/{}", self.program)],
                // `kubectl exec` finds the program by its bare name.
                "Env": ["PATH=/"],
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": self.created.to_string(), "created_by": "cargo xtask image"}],
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let tag = self.name.rsplit_once(':').map_or(self.name, |(_, tag)| tag);
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})
    }

    /// A tar archive of regular files, in the order given, owned by root.
    fn archive_of(&self, files: &[(String, u32, &[u8])]) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, mode, bytes) in files {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(u64::try_from(self.created.as_second())?);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, *bytes)?;
        }
        Ok(archive.into_inner()?)
    }
}

/// Compressed; the header says neither when nor where.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
