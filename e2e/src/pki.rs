//! The cluster's certificates: an authority and the certificates that it issues, new for every cluster.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::cluster::ADDRESS;

/// Paths of the certificate and key files.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The API server's certificate, for its address, 127.0.0.1 and the names of its Service.
    pub apiserver: CertificatePair,
    /// The node's serving certificate, for the logs endpoint at the same address.
    pub kubelet: CertificatePair,
    /// The client certificate of an administrator.
    pub admin: CertificatePair,
    pub controller_manager: CertificatePair,
    /// The client certificate with which the API server connects to the node.
    pub kubelet_client: CertificatePair,
    /// The key that signs ServiceAccount tokens.
    pub service_account_key: PathBuf,
    /// The public key that verifies ServiceAccount tokens.
    pub service_account_public_key: PathBuf,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct CertificatePair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The group that RBAC binds to the ClusterRole `cluster-admin`.
const ADMIN_GROUP: &str = "system:masters";

impl Pki {
    /// Creates the certificates and keys in this folder, which must exist.
    pub fn create(folder: &Path) -> Result<Pki> {
        let authority = Authority::create()?;
        let mut server_names = vec![ADDRESS.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
        server_names.extend(
            ["", ".default", ".default.svc", ".default.svc.cluster.local"].map(|suffix| format!("kubernetes{suffix}")),
        );
        let pki = Pki {
            authority: folder.join("ca.crt"),
            apiserver: authority.server_certificate(folder, "kube-apiserver", server_names)?,
            kubelet: authority.server_certificate(folder, "kubelet", vec![ADDRESS.to_string()])?,
            admin: authority.client_certificate(folder, "admin", "portico-e2e", Some(ADMIN_GROUP))?,
            controller_manager: authority.client_certificate(
                folder,
                "controller-manager",
                "system:kube-controller-manager",
                None,
            )?,
            kubelet_client: authority.client_certificate(
                folder,
                "kubelet-client",
                "kube-apiserver",
                Some(ADMIN_GROUP),
            )?,
            service_account_key: folder.join("service-account.key"),
            service_account_public_key: folder.join("service-account.pub"),
        };
        write_private_file(&pki.authority, &authority.issuer.pem())?;
        let token_key = generate_key()?;
        write_private_file(&pki.service_account_key, &token_key.serialize_pem())?;
        write_private_file(&pki.service_account_public_key, &token_key.public_key_pem())?;
        Ok(pki)
    }
}

/// The credentials in a kubeconfig.
#[derive(Clone, Copy, Debug)]
pub enum Credentials<'a> {
    Certificate(&'a CertificatePair),
    /// A bearer token, for example of a ServiceAccount.
    Token(&'a str),
    /// A file with a bearer token, which may change.
    TokenFile(&'a Path),
}

/// Writes a kubeconfig for the API server at this URL.
pub fn write_kubeconfig(path: &Path, server: &str, authority: &Path, credentials: Credentials<'_>) -> Result<()> {
    let user = match credentials {
        Credentials::Certificate(pair) => json!({ "client-certificate": pair.certificate, "client-key": pair.key }),
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::TokenFile(token_file) => json!({ "tokenFile": token_file }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "e2e", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "e2e", "user": user }],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e" } }],
        "current-context": "e2e",
    });
    // JSON is YAML.
    write_private_file(path, &format!("{config:#}\n"))
}

/// The certificate authority of the cluster, with its key.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn create() -> Result<Authority> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "portico-e2e authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer =
            CertifiedIssuer::self_signed(parameters, generate_key()?).context("cannot create the authority")?;
        Ok(Authority { issuer })
    }

    /// A server certificate for these DNS names and IP addresses.
    fn server_certificate(&self, folder: &Path, name: &str, server_names: Vec<String>) -> Result<CertificatePair> {
        let mut parameters = CertificateParams::new(server_names).context("cannot set the server names")?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(folder, name, parameters)
    }

    /// A client certificate for a user, optionally in a group.
    fn client_certificate(
        &self,
        folder: &Path,
        file_name: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<CertificatePair> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(folder, file_name, parameters)
    }

    /// Creates a key and issues the certificate for it, as files with this name.
    fn issue(&self, folder: &Path, file_name: &str, mut parameters: CertificateParams) -> Result<CertificatePair> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        let key = generate_key()?;
        let certificate = parameters.signed_by(&key, &self.issuer);
        let certificate = certificate.with_context(|| format!("cannot sign the certificate {file_name}"))?;
        let pair = CertificatePair {
            certificate: folder.join(format!("{file_name}.crt")),
            key: folder.join(format!("{file_name}.key")),
        };
        write_private_file(&pair.certificate, &certificate.pem())?;
        write_private_file(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

fn generate_key() -> Result<KeyPair> {
    KeyPair::generate().context("cannot create a key")
}

/// Writes a file that only its owner can read, because it may contain a key.
pub(crate) fn write_private_file(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
