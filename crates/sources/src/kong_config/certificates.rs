//! Certificates with their SNIs, and certificates of authorities.

use serde_json::{Map, Value, json};

use super::fields::EntityFields;
use super::model::{Entity, EntityIndex, EntityKind, Model};
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
    for (position, certificate) in std::mem::take(&mut model.certificates).into_iter().enumerate() {
        certificates.push(plan_certificate(certificate, position, names));
    }
    let mut hosts: Vec<Vec<String>> = vec![Vec::new(); certificates.len()];
    for sni in std::mem::take(&mut model.snis) {
        if let Some((certificate, host)) = read_sni(sni, index) {
            hosts[certificate].push(host);
        }
    }
    let selected = certificates.iter().zip(&hosts).filter(|(_, hosts)| !hosts.is_empty());
    let ingresses = selected.map(|(secret, hosts)| plan_selection(secret, hosts, settings, names)).collect();
    let mut authorities = Vec::new();
    for (position, authority) in std::mem::take(&mut model.authorities).into_iter().enumerate() {
        authorities.push(plan_authority(authority, position, settings, names));
    }
    CertificateSecrets { certificates, authorities, ingresses }
}

fn plan_certificate(mut certificate: Entity<'_>, position: usize, names: &mut Names) -> Draft {
    let label = certificate.label(&format!("certificate-{}", position + 1));
    let name = names.name("Secret", &label);
    let data = read_pair(&mut certificate.fields);
    leave_out_second_pair(&mut certificate.fields);
    certificate.fields.text("passphrase");
    let secret = Draft::new("v1", "Secret", &name, certificate.path())
        .with("type", json!("kubernetes.io/tls"))
        .with("stringData", json!(data));
    certificate.fields.finish();
    secret
}

/// The certificate and its key, as a Secret has them.
fn read_pair(fields: &mut EntityFields<'_>) -> Map<String, Value> {
    let mut data = Map::new();
    for (field, key) in [("cert", "tls.crt"), ("key", "tls.key")] {
        match fields.text(field) {
            Some(text) => drop(data.insert(key.to_owned(), json!(text))),
            None => fields.reject_missing(field, NO_TEXT, WRITE_PEM),
        }
    }
    data
}

fn leave_out_second_pair(fields: &mut EntityFields<'_>) {
    for field in ["cert_alt", "key_alt"] {
        if fields.text(field).is_some() {
            let message = "a second certificate of the same entity is not served";
            fields.findings.leave_out(fields.field(field), message, "write a certificate of its own");
        }
    }
}

/// The position of the certificate, and the host for which it is selected. `None` if the SNI selects none.
fn read_sni(mut sni: Entity<'_>, index: &EntityIndex) -> Option<(usize, String)> {
    let certificate = sni.parent(EntityKind::Certificate, index);
    let findings = sni.fields.findings;
    let selection = match (sni.name.as_deref(), certificate) {
        (None, _) => {
            sni.reject_unnamed("the SNI has no name", "write a host name");
            None
        }
        (Some("*"), _) => {
            let remedy = "set --ingress-default-certificate to the Secret of the certificate";
            findings.leave_out(sni.path(), "the SNI * has no effect", remedy);
            None
        }
        (Some(_), None) => {
            findings.reject(sni.path(), "the SNI has no certificate", "write the id of its certificate");
            None
        }
        (Some(name), Some(_)) if name.ends_with(".*") => {
            let message = format!("the SNI {name} has no effect, because a wildcard can only be the first label");
            findings.leave_out(sni.path(), message, "write an SNI for each domain");
            None
        }
        (Some(name), Some(certificate)) => Some((certificate, name.to_ascii_lowercase())),
    };
    sni.fields.finish();
    selection
}

/// The Ingress that selects a certificate for hosts, of which there is at least one.
fn plan_selection(secret: &Draft, hosts: &[String], settings: &TranslationSettings, names: &mut Names) -> Draft {
    let name = names.name("Ingress", &format!("tls-{}", secret.name));
    // A rule without paths serves nothing; Kubernetes requires one.
    let spec = json!({
        "tls": [{"hosts": hosts, "secretName": secret.name}],
        "rules": [{"host": hosts[0]}],
    });
    Draft::new("networking.k8s.io/v1", "Ingress", &name, &secret.source).of_class(settings).with("spec", spec)
}

fn plan_authority(
    mut authority: Entity<'_>,
    position: usize,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Draft {
    let label = authority.label(&format!("ca-certificate-{}", position + 1));
    let name = names.name("Secret", &label);
    authority.fields.text("cert_digest");
    let cert = authority.fields.text("cert");
    if cert.is_none() {
        authority.fields.reject_missing("cert", NO_TEXT, WRITE_PEM);
    }
    let mut secret = Draft::new("v1", "Secret", &name, authority.path()).of_class(settings);
    let id = authority.id.as_deref().unwrap_or(&name);
    secret.fields.insert("stringData".to_owned(), json!({"id": id, "cert": cert}));
    secret.label(CA_CERT_LABEL, "true");
    authority.fields.finish();
    secret
}

const NO_TEXT: &str = "it is missing";
const WRITE_PEM: &str = "write it in PEM";
