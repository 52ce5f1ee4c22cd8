//! TLS settings for connections to a Service: trusted authorities and client certificate, from the Secrets and
//! ConfigMaps in its annotations (docs/kong-compatibility.md, 2.1 and 2.3). An invalid setting is an error and never
//! ignored.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::api::core::ServicePort;
use crate::api::kong::annotations::{CA_CERT_LABEL, CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT};
use crate::api::{Kind, Meta, ObjectKey};
use crate::compile::certificates::ca_bundle;
use crate::compile::certificates::ca_bundle::CaBundleProblem;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::missing_object::missing_object;
use crate::compile::{CompileContext, certificates};
use crate::diagnostic::{Diagnostic, Topic};
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::{TlsTrust, TrustAnchors, UpstreamTlsSettings};
use crate::store::Store;

/// Settings for TLS connections.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct BackendTlsSettings {
    /// The name of the Secret with the client certificate.
    pub client: Option<Box<str>>,
    pub verify: bool,
    /// The maximum number of intermediate certificates; `None` for no limit.
    pub depth: Option<usize>,
    /// Secrets with trusted authorities. If neither Secrets nor ConfigMaps are given, the authorities of the system are
    /// trusted.
    pub secrets: Vec<Box<str>>,
    pub config_maps: Vec<Box<str>>,
    /// An invalid security setting, which prevents requests from being sent.
    pub invalid: Option<Diagnostic>,
}

/// Whether the port's appProtocol is HTTP/1.1 over TLS.
pub(in crate::compile) fn is_tls_port(port: &ServicePort) -> bool {
    port.app_protocol
        .as_deref()
        .is_some_and(|app_protocol| ["https", "HTTPS", "kubernetes.io/wss"].contains(&app_protocol))
}

/// The TLS settings for a Service or facade. The field of the diagnostic belongs to that object.
pub(super) fn tls_settings(
    cx: CompileContext<'_>,
    meta: &Meta,
    protocol: UpstreamProtocol,
    settings: &BackendTlsSettings,
) -> Result<UpstreamTlsSettings, Diagnostic> {
    let TlsMaterial { anchors, client } = load_material(cx.store, meta, settings)?;
    let trust = settings.verify.then(|| {
        let anchors = anchors.map_or_else(|| Arc::clone(cx.inputs.upstreams.system_anchors()), Arc::new);
        TlsTrust { anchors, max_intermediates: settings.depth, identity: None }
    });
    let tls_settings = cx.inputs.upstreams.tls_settings(protocol, trust, client);
    tls_settings
        .map_err(|error| Diagnostic::error(annotation_field(CLIENT_CERT), error.to_string(), "use another certificate"))
}

/// The content of the objects that the annotations refer to.
struct TlsMaterial {
    /// `None` for the system's authorities.
    anchors: Option<TrustAnchors>,
    client: Option<Arc<CertifiedKey>>,
}

fn load_material(store: &Store, meta: &Meta, settings: &BackendTlsSettings) -> Result<TlsMaterial, Diagnostic> {
    if let Some(problem) = &settings.invalid {
        return Err(problem.clone());
    }
    let key_of = |name: &str| ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() };
    let client =
        settings.client.as_deref().map(|name| certificates::client_certificate(store, &key_of(name))).transpose();
    let client = client.map_err(|problem| problem.at(annotation_field(CLIENT_CERT)))?;
    let mut authorities = Vec::new();
    let sources = [
        (CA_CERTIFICATES_SECRETS, Kind::Secret, &settings.secrets),
        (CA_CERTIFICATES_CONFIG_MAPS, Kind::ConfigMap, &settings.config_maps),
    ];
    for (annotation, kind, names) in sources.into_iter().filter(|_| settings.verify) {
        for name in names {
            let certificates = read_ca_certificates(store, kind, &key_of(name));
            authorities.extend(certificates.map_err(|problem| problem.at(annotation_field(annotation)))?);
        }
    }
    let anchors = (!authorities.is_empty()).then(|| TrustAnchors::new(authorities));
    Ok(TlsMaterial { anchors, client })
}

/// The CA certificates in an object, at least one. The diagnostic about the object has no field.
fn read_ca_certificates(
    store: &Store,
    kind: Kind,
    key: &ObjectKey,
) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let invalid = |message: &str, remedy: &str| Err(Diagnostic::of_object(format!("{kind} {key} {message}"), remedy));
    let missing = || Err(missing_object(store, "", kind, key));
    let (meta, value): (&Meta, Option<&[u8]>) = if kind == Kind::Secret {
        let Some(secret) = store.secrets.get(key) else { return missing() };
        (&secret.meta, CA_KEYS.iter().find_map(|name| secret.value(name)))
    } else {
        let Some(map) = store.config_maps.get(key) else { return missing() };
        (&map.meta, CA_KEYS.iter().find_map(|name| map.data.get(*name)).map(|text| text.as_bytes()))
    };
    if meta.labels.get(CA_CERT_LABEL).is_none_or(|label| **label != *"true") {
        return invalid(
            &format!("has no label {CA_CERT_LABEL}: \"true\""),
            "add the label if this authority is trusted",
        );
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return invalid("has neither cert nor ca.crt", "store the PEM of the authority's certificate under cert");
    };
    let certificates = match ca_bundle::parse(value) {
        Ok(certificates) => certificates,
        Err(CaBundleProblem { predicate, remedy }) => return invalid(predicate, remedy),
    };
    if !ca_bundle::are_authorities(&certificates) {
        return invalid(
            "has a certificate without CA:TRUE, which is not an authority's",
            "store the certificate of its issuer",
        );
    }
    Ok(certificates)
}

const CA_KEYS: [&str; 2] = ["cert", "ca.crt"];

/// The message and remedy for a referrer in `namespace` about a problem of a Service or facade. A referrer in another
/// namespace gets no details, since its users may not be allowed to read that object and its Secrets.
pub(super) fn referrer_problem(kind: Kind, meta: &Meta, problem: &Diagnostic, namespace: &str) -> (String, String) {
    let ObjectKey { namespace: object_namespace, .. } = &meta.key;
    if **object_namespace == *namespace {
        let Diagnostic { field, message, remedy, .. } = problem;
        return (format!("{kind} {} cannot be used with TLS: {field}: {message}", meta.key), remedy.clone());
    }
    (
        format!("{kind} {} cannot be used with TLS, because its TLS annotations are not valid", meta.key),
        format!("ask the owner of namespace {object_namespace}; the diagnostics of the {kind} have the reason"),
    )
}

/// A note for the referrer of a Service whose certificate is not verified. `service`: its kind and name; `field`: the
/// field that refers to it; `remedy`: how it would be verified.
pub(in crate::compile) fn unverified_note(
    tls_settings: Option<&UpstreamTlsSettings>,
    service: &str,
    field: &str,
    remedy: &str,
) -> Option<Diagnostic> {
    tls_settings.filter(|tls_settings| !tls_settings.verifies()).map(|_| {
        let message = format!("connections to {service} use TLS, but its certificate is not verified");
        Diagnostic::warning(field, message, remedy)
    })
}

/// How annotations of a Service make its certificate verified.
pub(in crate::compile) const VERIFY_SERVICE: &str = "set its annotation konghq.com/tls-verify to \"true\", and \
                                                     refer to its authority in \
                                                     konghq.com/ca-certificates-secrets";

/// A diagnostic if the TLS annotations of a Service or facade are invalid.
pub(in crate::compile) fn notes(store: &Store, meta: &Meta, settings: &BackendTlsSettings) -> Option<Diagnostic> {
    let mut problem = load_material(store, meta, settings).err()?;
    problem.message.push_str(", so no requests are sent to it");
    Some(problem.into_warning().with_topic(Topic::Annotation))
}
