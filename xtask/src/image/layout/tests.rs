//! The archive as an engine reads it: from the index by digests down to the files.

use std::io::Read as _;

use flate2::read::GzDecoder;

use super::*;

const LABEL: &str = "org.opencontainers.image.version";

fn image(binary: &[u8]) -> Image<'_> {
    Image {
        name: "docker.io/library/weir:0.1.0",
        architecture: "arm64",
        created: Timestamp::from_second(1_700_000_000).unwrap(),
        labels: BTreeMap::from([(LABEL.to_owned(), "0.1.0".to_owned())]),
        program: "weir",
        binary,
    }
}

/// What an archive holds, in its order.
fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.uid().unwrap(), header.gid().unwrap()),
                (0, 0),
                "owned by root"
            );
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, bytes)
        })
        .collect()
}

/// What a descriptor names, its size and digest checked.
fn follow<'a>(files: &'a [(String, Vec<u8>)], descriptor: &Value, media_type: &str) -> &'a [u8] {
    assert_eq!(descriptor["mediaType"], media_type);
    let digest = descriptor["digest"].as_str().unwrap();
    let digest = digest.strip_prefix("sha256:").unwrap();
    let path = format!("blobs/sha256/{digest}");
    let (_, bytes) = files.iter().find(|(name, _)| *name == path).unwrap();
    assert_eq!(descriptor["size"], bytes.len());
    assert_eq!(hex(bytes), digest);
    bytes
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn named(files: &[(String, Vec<u8>)], name: &str) -> Value {
    parse(&files.iter().find(|(path, _)| path == name).unwrap().1)
}

#[test]
fn the_same_program_gives_the_same_bytes() {
    let one = image(b"program").archive().unwrap();
    assert_eq!(one, image(b"program").archive().unwrap());
    assert_ne!(one, image(b"programme").archive().unwrap());
    let paths: Vec<_> = files(&one).into_iter().map(|(path, _)| path).collect();
    assert!(paths.is_sorted(), "{paths:?}");
}

#[test]
fn an_engine_finds_the_program_by_following_digests() {
    let binary: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let archive = image(&binary).archive().unwrap();
    let files = files(&archive);
    assert_eq!(named(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = named(&files, "index.json");
    let entry = &index["manifests"][0];
    assert_eq!(
        entry["platform"],
        json!({"architecture": "arm64", "os": "linux"})
    );
    let annotations = &entry["annotations"];
    assert_eq!(
        annotations["io.containerd.image.name"],
        "docker.io/library/weir:0.1.0"
    );
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "0.1.0");

    let manifest = parse(follow(&files, entry, MANIFEST));
    assert_eq!(manifest["annotations"][LABEL], "0.1.0");
    let config = parse(follow(&files, &manifest["config"], CONFIG));
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["os"], "linux");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["config"]["Entrypoint"], json!(["/weir"]));
    assert_eq!(config["config"]["Labels"][LABEL], "0.1.0");
    assert!(config["config"].get("User").is_none(), "root");

    let layer = follow(&files, &manifest["layers"][0], LAYER);
    let mut plain = Vec::new();
    GzDecoder::new(layer).read_to_end(&mut plain).unwrap();
    let diff_id = format!("sha256:{}", hex(&plain));
    assert_eq!(config["rootfs"]["diff_ids"], json!([diff_id]));
    let mut layer = tar::Archive::new(plain.as_slice());
    let modes = layer
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().mode().unwrap());
    assert_eq!(modes.collect::<Vec<_>>(), [0o755]);
    assert_eq!(self::files(&plain), [("weir".to_owned(), binary)]);
}

#[test]
fn an_older_docker_finds_the_same_blobs() {
    let archive = image(b"program").archive().unwrap();
    let files = files(&archive);
    let docker = &named(&files, "manifest.json")[0];
    assert_eq!(docker["RepoTags"], json!(["docker.io/library/weir:0.1.0"]));
    let held = |path: &Value| files.iter().any(|(name, _)| path == name.as_str());
    assert!(held(&docker["Config"]) && held(&docker["Layers"][0]));
}
