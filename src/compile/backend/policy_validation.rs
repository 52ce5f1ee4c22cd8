//! Reads the validation of a BackendTLSPolicy: which certificates of endpoints are trusted, and what prevents that.

use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, DnsName};

use super::super::CompileContext;
use super::super::ca_bundle::{self, AuthorityProblem};
use super::super::verdict::Code;
use crate::api::Object;
use crate::api::gateway::{BackendTlsPolicy, BackendTlsValidation, LocalObjectReference, SubjectAltName};
use crate::diagnostic::Diagnostic;
use crate::upstream::tls::{EndpointIdentity, IdentityName, TlsTrust, TrustAnchors};

/// What a policy requires, and diagnostics about its fields.
#[derive(Default)]
pub(in crate::compile) struct ReadValidation {
    /// `None` if no certificate can be trusted as the policy requires.
    pub trust: Option<TlsTrust>,
    /// Diagnostics because of which the policy is not used.
    pub invalid: Vec<Diagnostic>,
    /// References to authorities that are not resolved. The other references are used.
    pub unresolved: Vec<(Code, Diagnostic)>,
}

impl ReadValidation {
    pub(in crate::compile) fn new(cx: CompileContext<'_>, policy: &Object<BackendTlsPolicy>) -> Self {
        let mut read = ReadValidation::default();
        let validation = &policy.spec.validation;
        let identity = read.identity(validation);
        let anchors = read.anchors(cx, &policy.meta.key.namespace, validation);
        if read.invalid.is_empty()
            && let (Some(identity), Some(anchors)) = (identity, anchors)
        {
            read.trust = Some(TlsTrust { anchors, max_intermediates: None, identity: Some(identity) });
        }
        read
    }

    fn anchors(
        &mut self,
        cx: CompileContext<'_>,
        namespace: &str,
        validation: &BackendTlsValidation,
    ) -> Option<Arc<TrustAnchors>> {
        if validation.ca_certificate_refs.is_empty() {
            let set = validation.well_known_ca_certificates.as_deref().unwrap_or_default();
            if set == "System" {
                return Some(Arc::clone(cx.inputs.upstreams.system_anchors()));
            }
            let message = format!("{set:?} is not a set of certificates that Portico knows");
            let remedy = "use System, or refer to ConfigMaps or ClusterTrustBundles in caCertificateRefs";
            self.invalid.push(Diagnostic::error("spec.validation.wellKnownCACertificates", message, remedy));
            return None;
        }
        let mut authorities = Vec::new();
        for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
            let field = format!("spec.validation.caCertificateRefs[{index}]");
            match read_authorities(cx, namespace, reference, &field) {
                Ok(certificates) => authorities.extend(certificates),
                Err(problem) => self.unresolved.push(problem),
            }
        }
        (!authorities.is_empty()).then(|| Arc::new(TrustAnchors::new(authorities)))
    }

    fn identity(&mut self, validation: &BackendTlsValidation) -> Option<EndpointIdentity> {
        let names = validation.subject_alt_names.iter().enumerate();
        let alternatives = names.filter_map(|(index, name)| self.alternative(index, name)).collect();
        let hostname = &validation.hostname;
        let server_name = HeaderValue::from_str(hostname).ok().filter(|_| DnsName::try_from(&**hostname).is_ok());
        if server_name.is_none() {
            let message = format!("{hostname:?} is not a DNS name");
            self.invalid.push(Diagnostic::error("spec.validation.hostname", message, DNS_NAME_REMEDY));
        }
        Some(EndpointIdentity { server_name: server_name?, alternatives })
    }

    fn alternative(&mut self, index: usize, name: &SubjectAltName) -> Option<IdentityName> {
        let field = format!("spec.validation.subjectAltNames[{index}]");
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

/// The certificates in the object to which a reference leads, at least one.
fn read_authorities(
    cx: CompileContext<'_>,
    namespace: &str,
    reference: &LocalObjectReference,
    field: &str,
) -> Result<Vec<CertificateDer<'static>>, (Code, Diagnostic)> {
    let LocalObjectReference { group, kind, name } = reference;
    ca_bundle::read(cx, group, kind, namespace, name, field).map_err(|problem| match problem {
        AuthorityProblem::Kind(problem) => (Code::TlsPolicyInvalidKind, problem),
        AuthorityProblem::Object(problem) => (Code::TlsPolicyInvalidCaCertificateRef, problem),
    })
}
