//! Reads how the clients of a Gateway's HTTPS listeners are verified: `spec.tls.frontend`, for a port or by default.

use rustls::pki_types::CertificateDer;
use std::sync::Arc;

use crate::api::gateway::{FrontendValidation, Gateway, ObjectReference};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::certificates::SecretCache;
use crate::compile::certificates::ca_bundle;
use crate::compile::certificates::ca_bundle::AuthorityProblem;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::client_validation::{ClientValidation, ClientValidationMode};
use crate::verdict::Code;

/// The validation that applies to a port, and what is wrong with it.
pub(in crate::compile) struct PortValidation {
    /// `None` if no certificate can be trusted, so that no client may be served.
    pub clients: Option<Arc<ClientValidation>>,
    /// References to authorities that are not resolved. The other references are used.
    pub unresolved: Vec<(Code, Diagnostic)>,
    /// The path of the validation.
    field: String,
}

impl PortValidation {
    /// `None` if clients of the port are not asked for certificates.
    pub(in crate::compile) fn of_port(
        cx: CompileContext<'_>,
        cache: &mut SecretCache,
        gateway: &Object<Gateway>,
        port: u16,
    ) -> Option<PortValidation> {
        let (validation, field) = validation_of_port(gateway, port)?;
        let (mut authorities, mut unresolved) = (Vec::new(), Vec::new());
        for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
            let field = format!("{field}.caCertificateRefs[{index}]");
            match read_authorities(cx, &gateway.meta.key.namespace, reference, &field) {
                Ok(certificates) => authorities.extend(certificates),
                Err(problem) => unresolved.push(problem),
            }
        }
        let mut clients = None;
        if !authorities.is_empty() {
            match cache.client_validation(mode(validation), authorities) {
                Ok(validation) => clients = Some(validation),
                Err(error) => {
                    let message = format!("a certificate cannot be used: {error}");
                    let problem = Diagnostic::error(format!("{field}.caCertificateRefs"), message, "issue a new one");
                    unresolved.push((Code::ListenerInvalidCaCertificateRef, problem));
                }
            }
        }
        Some(PortValidation { clients, unresolved, field })
    }

    /// Why the listener is not served; `None` if clients can be verified.
    pub(in crate::compile) fn rejection(&self) -> Option<Diagnostic> {
        let message = "no reference leads to a certificate, so no client can be verified, and the listener is not \
                       served";
        let remedy = "correct the references; the condition ResolvedRefs has the reasons";
        let problem = Diagnostic::error(format!("{}.caCertificateRefs", self.field), message, remedy);
        self.clients.is_none().then(|| problem.with_reason(Reason::OtherCondition))
    }
}

/// The fields of the Gateway that serve clients without a valid certificate.
pub(in crate::compile) fn insecure_fields(gateway: &Object<Gateway>) -> Vec<Diagnostic> {
    let insecure = all_validations(gateway).filter(|(_, validation, _)| is_insecure(validation));
    let problems = insecure.map(|(_, _, field)| {
        let message = "clients without a valid certificate are served, too";
        Diagnostic::error(format!("{field}.mode"), message, "use AllowValidOnly to reject them")
    });
    problems.collect()
}

/// Diagnostics about modes that do not exist. Their listeners are not served.
pub(in crate::compile) fn unknown_modes(gateway: &Object<Gateway>, port: u16) -> Option<Diagnostic> {
    let (validation, field) = validation_of_port(gateway, port)?;
    let mode = validation.mode.as_deref().filter(|mode| !["AllowValidOnly", INSECURE_FALLBACK].contains(mode))?;
    let message = format!("{mode} is not a supported value");
    Some(Diagnostic::error(format!("{field}.mode"), message, format!("use AllowValidOnly or {INSECURE_FALLBACK}")))
}

const INSECURE_FALLBACK: &str = "AllowInsecureFallback";

fn is_insecure(validation: &FrontendValidation) -> bool {
    validation.mode.as_deref() == Some(INSECURE_FALLBACK)
}

fn mode(validation: &FrontendValidation) -> ClientValidationMode {
    if is_insecure(validation) { ClientValidationMode::InsecureFallback } else { ClientValidationMode::Required }
}

/// All validations of the Gateway, each with its port, or `None` for the default, and its path.
fn all_validations(gateway: &Gateway) -> impl Iterator<Item = (Option<i32>, &FrontendValidation, String)> {
    let frontends = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()).into_iter();
    frontends.flat_map(|frontend| {
        let default = frontend.default.validation.as_ref();
        let default = default.map(|validation| (None, validation, "spec.tls.frontend.default.validation".to_owned()));
        let of_ports = frontend.per_port.iter().enumerate().filter_map(|(index, entry)| {
            let field = format!("spec.tls.frontend.perPort[{index}].tls.validation");
            Some((Some(entry.port), entry.tls.validation.as_ref()?, field))
        });
        default.into_iter().chain(of_ports)
    })
}

/// The validation of a port and its path. An entry for the port replaces the default, even one without validation.
fn validation_of_port(gateway: &Gateway, port: u16) -> Option<(&FrontendValidation, String)> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let has_entry = frontend.per_port.iter().any(|entry| entry.port == i32::from(port));
    let wanted = has_entry.then_some(i32::from(port));
    all_validations(gateway).find(|(port, ..)| *port == wanted).map(|(_, validation, field)| (validation, field))
}

fn read_authorities(
    cx: CompileContext<'_>,
    namespace: &str,
    reference: &ObjectReference,
    field: &str,
) -> Result<Vec<CertificateDer<'static>>, (Code, Diagnostic)> {
    let ObjectReference { group, kind, name, namespace: target_namespace } = reference;
    let target = ObjectKey::new(target_namespace.as_deref().unwrap_or(namespace), name);
    match ca_bundle::authority_kind(group, kind) {
        Some(Kind::ConfigMap) => {
            let from = Referrer { kind: Kind::Gateway, namespace };
            // Permission is checked before existence, so that a Gateway without permission does not reveal whether the
            // ConfigMap exists.
            let crossing = CrossNamespaceReference { from, to: Kind::ConfigMap, target: &target };
            if !crossing.is_allowed(cx.store) {
                return Err((Code::ListenerRefNotPermitted, crossing.problem(cx.store, format!("{field}.namespace"))));
            }
        }
        Some(_) if target_namespace.is_some() => {
            let message = "a ClusterTrustBundle is in no namespace";
            let problem = Diagnostic::error(format!("{field}.namespace"), message, "remove the namespace");
            return Err((Code::ListenerInvalidCaCertificateRef, problem));
        }
        Some(_) | None => {}
    }
    ca_bundle::read(cx, group, kind, &target.namespace, name, field).map_err(|problem| match problem {
        AuthorityProblem::Kind(problem) => (Code::ListenerInvalidCaCertificateKind, problem),
        AuthorityProblem::Object(problem) => (Code::ListenerInvalidCaCertificateRef, problem),
    })
}
