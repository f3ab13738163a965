//! The certificates of a control plane and the kubeconfigs of its users.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::json;

/// A certificate authority of one control plane; everything it signs is kept as files in one directory.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "weir-test-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params
            .self_signed(&key)
            .context("sign the authority's own certificate")?;
        fs::write(dir.join("ca.crt"), certificate.pem())
            .context("write the authority's certificate")?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A server's certificate for `names` (host names and addresses).
    pub(crate) fn server(&self, name: &str, names: &[String]) -> Result<Files> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, &params)
    }

    /// A key pair without a certificate: the private and the public half.
    pub(crate) fn key_pair(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let (private, public) = (
            self.dir.join(format!("{name}.key")),
            self.dir.join(format!("{name}.pub")),
        );
        fs::write(&private, key.serialize_pem())
            .with_context(|| format!("write {}", private.display()))?;
        fs::write(&public, key.public_key_pem())
            .with_context(|| format!("write {}", public.display()))?;
        Ok((private, public))
    }

    /// A certificate that makes its holder `user`, in `group` if one is given.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Files> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // User names have colons, which some file systems refuse.
        self.sign(&user.replace(':', "-"), &params)
    }

    /// A kubeconfig that makes its holder `user`, in `group` if one is given.
    pub(crate) fn kubeconfig(
        &self,
        server: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<PathBuf> {
        let Files { certificate, key } = self.client(user, group)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": server,
                "certificate-authority-data": data(&self.ca())?,
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": data(&certificate)?,
                "client-key-data": data(&key)?,
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        });
        let path = certificate.with_extension("kubeconfig");
        fs::write(&path, serde_json::to_vec_pretty(&config)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn sign(&self, name: &str, params: &CertificateParams) -> Result<Files> {
        let key = KeyPair::generate()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign for {name}"))?;
        let files = Files {
            certificate: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, certificate.pem())
            .with_context(|| format!("write {name}'s certificate"))?;
        fs::write(&files.key, key.serialize_pem())
            .with_context(|| format!("write {name}'s key"))?;
        Ok(files)
    }
}

/// A file as part of a kubeconfig, so that this works wherever it is copied.
fn data(file: &Path) -> Result<String> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(BASE64_STANDARD.encode(content))
}
