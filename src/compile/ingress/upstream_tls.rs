//! What TLS towards a Service takes: whom to trust and what to show, from the Secrets and ConfigMaps that its annotations name
//! (`kong-compat.md` §2.1, §2.3). What is asked for and cannot be had is never left out.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::super::verdict::Problem;
use super::super::{Inputs, certificates};
use super::annotations::field;
use super::service_settings::TlsSettings;
use crate::api::core::ServicePort;
use crate::api::kong::annotations::{CA_CERT_LABEL, CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT};
use crate::api::{Kind, Meta, ObjectKey};
use crate::store::Store;
use crate::upstream::Protocol;
use crate::upstream::tls::{Anchors, Terms, Trust};

/// Whether a port calls what it speaks TLS around HTTP/1.1.
pub(in crate::compile) fn is_tls_port(port: &ServicePort) -> bool {
    port.app_protocol.as_deref().is_some_and(|named| ["https", "HTTPS", "kubernetes.io/wss"].contains(&named))
}

/// On which terms TLS is spoken to a Service, or to a facade in its place. The problem is one of that object.
pub(in crate::compile) fn terms(
    store: &Store,
    inputs: &Inputs<'_>,
    meta: &Meta,
    protocol: Protocol,
    settings: &TlsSettings,
) -> Result<Terms, Problem> {
    let Material { anchors, client } = material(store, meta, settings)?;
    let trust = settings.verify.then(|| {
        let anchors = anchors.map_or_else(|| Arc::clone(inputs.upstreams.system()), Arc::new);
        Trust { anchors, depth: settings.depth }
    });
    let terms = inputs.upstreams.terms(protocol, trust, client);
    terms.map_err(|error| Problem::new(field(CLIENT_CERT), error.to_string(), "use another certificate"))
}

/// What the objects hold that the annotations name.
pub(in crate::compile) struct Material {
    /// None for those of the system.
    anchors: Option<Anchors>,
    client: Option<Arc<CertifiedKey>>,
}

pub(in crate::compile) fn material(store: &Store, meta: &Meta, settings: &TlsSettings) -> Result<Material, Problem> {
    if let Some(problem) = &settings.unreadable {
        return Err(problem.clone());
    }
    let named = |name: &str| ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() };
    let client = settings.client.as_deref().map(|name| certificates::of_client(store, &named(name))).transpose();
    let client = client.map_err(|(message, remedy)| Problem::new(field(CLIENT_CERT), message, remedy))?;
    let mut authorities = Vec::new();
    let sources = [
        (CA_CERTIFICATES_SECRETS, Kind::Secret, &settings.secrets),
        (CA_CERTIFICATES_CONFIG_MAPS, Kind::ConfigMap, &settings.config_maps),
    ];
    for (annotation, kind, names) in sources.into_iter().filter(|_| settings.verify) {
        for name in names {
            let read = authority(store, kind, &named(name));
            authorities.extend(read.map_err(|(message, remedy)| Problem::new(field(annotation), message, remedy))?);
        }
    }
    let anchors = (!authorities.is_empty()).then(|| Anchors::new(authorities));
    Ok(Material { anchors, client })
}

/// The certificates of authorities that an object holds, at least one.
fn authority(store: &Store, kind: Kind, key: &ObjectKey) -> Result<Vec<CertificateDer<'static>>, (String, String)> {
    let wrong = |message: &str, remedy: &str| Err((format!("{kind} {key} {message}"), remedy.to_owned()));
    let (meta, value): (&Meta, Option<&[u8]>) = if kind == Kind::Secret {
        let Some(secret) = store.secrets.get(key) else { return wrong("does not exist", MISSING) };
        (&secret.meta, KEYS.iter().find_map(|name| secret.value(name)))
    } else {
        let Some(map) = store.config_maps.get(key) else { return wrong("does not exist", MISSING) };
        (&map.meta, KEYS.iter().find_map(|name| map.data.get(*name)).map(|text| text.as_bytes()))
    };
    if meta.labels.get(CA_CERT_LABEL).is_none_or(|label| **label != *"true") {
        return wrong(
            &format!("has no label {CA_CERT_LABEL}: \"true\""),
            "label it, if whoever it certifies is to be trusted",
        );
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return wrong("has neither cert nor ca.crt", "store the PEM of the authority's certificate under cert");
    };
    let Ok(found) = CertificateDer::pem_slice_iter(value).collect::<Result<Vec<_>, _>>() else {
        return wrong("holds something that is not PEM", PEM);
    };
    if found.is_empty() {
        return wrong("holds no certificate", PEM);
    }
    for certificate in &found {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return wrong("holds a block that is not an X.509 certificate", PEM);
        };
        if !parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) {
            return wrong(
                "holds a certificate that is not of an authority (CA:TRUE)",
                "store that of whoever issued it",
            );
        }
    }
    // What can be parsed and is of an authority is rarely refused after that, but then it must not be left out.
    if Anchors::new(found.iter().cloned()).certificates().len() < found.len() {
        return wrong("holds a certificate that cannot be used", "issue it anew");
    }
    Ok(found)
}

const KEYS: [&str; 2] = ["cert", "ca.crt"];
const MISSING: &str = "create it or correct the name";
const PEM: &str = "store the authority's certificate as a block BEGIN CERTIFICATE";

/// The same problem, told of whoever leads requests to the Service from its own namespace.
pub(in crate::compile) fn at_referrer(kind: Kind, meta: &Meta, problem: &Problem, at: &str) -> Problem {
    let Problem { field, message, remedy } = problem;
    let message = format!("{kind} {} cannot be spoken to in TLS: {field}: {message}", meta.key);
    Problem::new(at, message, remedy.clone())
}

/// That there is a problem, told of whoever leads requests to a Service of another namespace: which Secrets are there, and what is
/// wrong with them, is for those who can see them.
pub(in crate::compile) fn at_stranger(kind: Kind, meta: &Meta, at: &str) -> Problem {
    let ObjectKey { namespace, .. } = &meta.key;
    let message = format!("{kind} {} cannot be spoken to in TLS, since what it says of TLS cannot be used", meta.key);
    Problem::new(at, message, format!("ask whoever owns namespace {namespace}: the {kind} says there what is wrong"))
}

/// A remark for whoever leads requests to a Service whose certificate nobody looks at.
pub(in crate::compile) fn unverified(terms: Option<&Terms>, service: &str, at: &str) -> Option<Problem> {
    terms.filter(|terms| !terms.verifies()).map(|_| {
        let message = format!("{service} is spoken to in TLS, but its certificate is not verified");
        let remedy = "set its annotation konghq.com/tls-verify to \"true\", and name its authority in \
                      konghq.com/ca-certificates-secrets";
        Problem::new(at, message, remedy)
    })
}

/// What is wrong with what a Service or facade says about TLS.
pub(in crate::compile) fn notes(store: &Store, meta: &Meta, settings: &TlsSettings) -> Option<Problem> {
    let mut problem = material(store, meta, settings).err()?;
    problem.message.push_str(", so nothing is sent there");
    Some(problem)
}
