//! Reads the validation of a BackendTLSPolicy or XBackend: which certificates of endpoints are trusted, and what
//! prevents that.

use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::DnsName;

use super::ca_bundle;
use super::ca_bundle::AuthorityProblem;
use crate::api::Object;
use crate::api::gateway::{BackendTlsPolicy, BackendTlsValidation, LocalObjectReference, SubjectAltName};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::{EndpointIdentity, IdentityName, TlsTrust, TrustAnchors};

/// What a validation requires, and diagnostics about its fields.
#[derive(Default)]
pub(in crate::compile) struct ReadValidation {
    /// `None` if no certificate can be trusted as it requires.
    pub trust: Option<TlsTrust>,
    /// Diagnostics because of which it is not used.
    pub invalid: Vec<Diagnostic>,
    /// References to authorities that are not resolved. The other references are used.
    pub unresolved: Vec<AuthorityProblem>,
}

impl ReadValidation {
    /// `namespace`: that of the object with this validation. `field`: its path.
    pub(in crate::compile) fn new(
        cx: CompileContext<'_>,
        namespace: &str,
        validation: &BackendTlsValidation,
        field: &str,
    ) -> Self {
        let mut read = ReadValidation::default();
        let identity = read.identity(validation, field);
        let anchors = read.anchors(cx, namespace, validation, field);
        if read.invalid.is_empty()
            && let (Some(identity), Some(anchors)) = (identity, anchors)
        {
            read.trust = Some(TlsTrust { anchors, max_intermediates: None, identity: Some(identity) });
        }
        read
    }

    pub(in crate::compile) fn of_policy(cx: CompileContext<'_>, policy: &Object<BackendTlsPolicy>) -> Self {
        ReadValidation::new(cx, &policy.meta.key.namespace, &policy.spec.validation, "spec.validation")
    }

    fn anchors(
        &mut self,
        cx: CompileContext<'_>,
        namespace: &str,
        validation: &BackendTlsValidation,
        field: &str,
    ) -> Option<Arc<TrustAnchors>> {
        if validation.ca_certificate_refs.is_empty() {
            let set = validation.well_known_ca_certificates.as_deref().unwrap_or_default();
            if set == "System" {
                return Some(Arc::clone(cx.inputs.upstreams.system_anchors()));
            }
            let message = format!("{set:?} is not a set of certificates that Portico knows");
            let remedy = "use System, or refer to ConfigMaps or ClusterTrustBundles in caCertificateRefs";
            self.invalid.push(Diagnostic::error(format!("{field}.wellKnownCACertificates"), message, remedy));
            return None;
        }
        let mut authorities = Vec::new();
        for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
            let LocalObjectReference { group, kind, name } = reference;
            let field = format!("{field}.caCertificateRefs[{index}]");
            match ca_bundle::read(cx, group, kind, namespace, name, &field) {
                Ok(certificates) => authorities.extend(certificates),
                Err(problem) => self.unresolved.push(problem),
            }
        }
        (!authorities.is_empty()).then(|| Arc::new(TrustAnchors::new(authorities)))
    }

    fn identity(&mut self, validation: &BackendTlsValidation, field: &str) -> Option<EndpointIdentity> {
        let names = validation.subject_alt_names.iter().enumerate();
        let alternatives = names
            .filter_map(|(index, name)| self.alternative(&format!("{field}.subjectAltNames[{index}]"), name))
            .collect();
        let hostname = &validation.hostname;
        let server_name = HeaderValue::from_str(hostname).ok().filter(|_| DnsName::try_from(&**hostname).is_ok());
        if server_name.is_none() {
            let message = format!("{hostname:?} is not a DNS name");
            self.invalid.push(Diagnostic::error(format!("{field}.hostname"), message, DNS_NAME_REMEDY));
        }
        Some(EndpointIdentity { server_name: server_name?, alternatives })
    }

    fn alternative(&mut self, field: &str, name: &SubjectAltName) -> Option<IdentityName> {
        let mut invalid = |subfield: &str, message: String, remedy: &str| {
            self.invalid.push(Diagnostic::error(format!("{field}.{subfield}"), message, remedy));
            None
        };
        match &*name.kind {
            "Hostname" => {
                let hostname = name.hostname.as_deref().unwrap_or_default();
                let domain = hostname.strip_prefix("*.");
                match DnsName::try_from(domain.unwrap_or(hostname).to_owned()) {
                    Ok(_) if domain.is_some() => Some(IdentityName::DnsWildcard(domain.unwrap_or_default().into())),
                    Ok(name) => Some(IdentityName::Dns(name)),
                    Err(_) => invalid("hostname", format!("{hostname:?} is not a DNS name"), DNS_NAME_REMEDY),
                }
            }
            "URI" => match name.uri.as_deref() {
                Some(uri) if !uri.is_empty() => Some(IdentityName::Uri(uri.into())),
                _ => invalid("uri", "it is missing".to_owned(), "write a URI, such as spiffe://cluster.local/ns/shop"),
            },
            other => invalid("type", format!("{other} is not a type of names"), "use Hostname or URI"),
        }
    }
}

const DNS_NAME_REMEDY: &str = "write a name such as shop.example";
