//! Certificates with their SNIs, and certificates of authorities.

use serde_json::json;

use super::model::{EntityIndex, EntityKind, Model};
use super::names::Names;
use super::objects::Draft;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::CA_CERT_LABEL;

/// The Secrets of certificates and authorities, by their positions in the file.
pub(super) struct CertificateSecrets {
    pub(super) certificates: Vec<Draft>,
    pub(super) authorities: Vec<Draft>,
    /// The Ingresses that select certificates by SNI.
    pub(super) ingresses: Vec<Draft>,
}

impl CertificateSecrets {
    pub(super) fn certificate(&self, position: usize) -> &str {
        &self.certificates[position].name
    }

    pub(super) fn authority(&self, position: usize) -> &str {
        &self.authorities[position].name
    }
}

pub(super) fn plan(
    model: &mut Model<'_>,
    index: &EntityIndex,
    settings: &TranslationSettings,
    names: &mut Names,
) -> CertificateSecrets {
    let mut certificates = Vec::new();
    for (position, mut certificate) in std::mem::take(&mut model.certificates).into_iter().enumerate() {
        let findings = certificate.fields.findings;
        let label = certificate.label(&format!("certificate-{}", position + 1));
        let name = names.name("Secret", &label);
        let mut data = serde_json::Map::new();
        for (field, key) in [("cert", "tls.crt"), ("key", "tls.key")] {
            match certificate.fields.text(field) {
                Some(text) => drop(data.insert(key.to_owned(), json!(text))),
                None if certificate.fields.is_mistyped(field) => {}
                None => findings.reject(certificate.fields.field(field), "it is missing", "write it in PEM"),
            }
        }
        for field in ["cert_alt", "key_alt"] {
            if certificate.fields.text(field).is_some() {
                let message = "a second certificate of the same entity is not served";
                findings.leave_out(certificate.fields.field(field), message, "write a certificate of its own");
            }
        }
        certificate.fields.text("passphrase");
        let secret = Draft::new("v1", "Secret", &name, certificate.path())
            .with("type", json!("kubernetes.io/tls"))
            .with("stringData", json!(data));
        certificate.fields.finish();
        certificates.push(secret);
    }
    let mut hosts: Vec<Vec<String>> = vec![Vec::new(); certificates.len()];
    for mut sni in std::mem::take(&mut model.snis) {
        let parent = sni.parent(EntityKind::Certificate, index);
        match (&sni.name, parent) {
            (Some(name), _) if name == "*" => {
                let remedy = "set --ingress-default-certificate to the Secret of the certificate";
                sni.fields.findings.leave_out(sni.path(), "the SNI * has no effect", remedy);
            }
            (Some(name), Some(_)) if name.ends_with(".*") => {
                let message = format!("the SNI {name} has no effect, because a wildcard can only be the first label");
                sni.fields.findings.leave_out(sni.path(), message, "write an SNI for each domain");
            }
            (Some(name), Some(parent)) => hosts[parent].push(name.to_ascii_lowercase()),
            (None, _) if sni.fields.is_mistyped("name") => {}
            (None, _) => sni.fields.findings.reject(sni.path(), "the SNI has no name", "write a host name"),
            (_, None) => {
                let (message, remedy) = ("the SNI has no certificate", "write the id of its certificate");
                sni.fields.findings.reject(sni.path(), message, remedy);
            }
        }
        sni.fields.finish();
    }
    let mut ingresses = Vec::new();
    for (secret, hosts) in certificates.iter().zip(hosts).filter(|(_, hosts)| !hosts.is_empty()) {
        let name = names.name("Ingress", &format!("tls-{}", secret.name));
        // A rule without paths serves nothing; Kubernetes requires one.
        let spec = json!({
            "tls": [{"hosts": hosts, "secretName": secret.name}],
            "rules": [{"host": hosts[0]}],
        });
        let ingress = Draft::new("networking.k8s.io/v1", "Ingress", &name, &secret.source);
        ingresses.push(ingress.of_class(settings).with("spec", spec));
    }
    let mut authorities = Vec::new();
    for (position, mut authority) in std::mem::take(&mut model.authorities).into_iter().enumerate() {
        let label = authority.label(&format!("ca-certificate-{}", position + 1));
        let name = names.name("Secret", &label);
        authority.fields.text("cert_digest");
        let cert = authority.fields.text("cert");
        if cert.is_none() && !authority.fields.is_mistyped("cert") {
            let field = authority.fields.field("cert");
            authority.fields.findings.reject(field, "it is missing", "write it in PEM");
        }
        let mut secret = Draft::new("v1", "Secret", &name, authority.path()).of_class(settings);
        let id = authority.id.clone().unwrap_or_else(|| name.clone());
        secret.fields.insert("stringData".to_owned(), json!({"id": id, "cert": cert}));
        secret.label(CA_CERT_LABEL, "true");
        authority.fields.finish();
        authorities.push(secret);
    }
    CertificateSecrets { certificates, authorities, ingresses }
}
