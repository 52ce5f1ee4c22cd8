//! Resolves the Service of a path in the dialects without plugins and facades.

use std::sync::Arc;

use super::refused_annotations::protects_requests;
use crate::api::Meta;
use crate::api::kong::annotations::{
    CONNECT_TIMEOUT, HOST_HEADER, PATH, PLUGINS, READ_TIMEOUT, RETRIES, WRITE_TIMEOUT,
};
use crate::api::networking::IngressBackend;
use crate::compile::CompileContext;
use crate::compile::backend::annotated_tls;
use crate::compile::ingress::service_backend;
use crate::compile::ingress::service_backend::{Connection, IngressTarget, ResolvedBackend};
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::rule_content::rule_content;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::rule::RouteFailure;

/// How the Services of an Ingress are resolved.
#[derive(Clone, Copy)]
pub(super) struct PlainService<'a> {
    pub dialect: Dialect,
    /// That of the Ingress.
    pub namespace: &'a str,
    /// Whether a Service with a guard of another controller gets no request.
    pub refuses_guards: bool,
    /// What the Ingress says about connections.
    pub through: Connection<'a>,
}

/// Annotations of a Service that apply to requests of Kong's routes, and have no effect here. Those about connections
/// to the Service have an effect for all routes.
const INEFFECTIVE: &[&str] = &[PATH, HOST_HEADER, CONNECT_TIMEOUT, WRITE_TIMEOUT, READ_TIMEOUT, RETRIES];

impl PlainService<'_> {
    /// Resolves a Service. The error has the reason. `field`: the field of the backend.
    pub(super) fn resolve<'s>(
        self,
        cx: CompileContext<'s>,
        backend: &IngressBackend,
        field: &str,
    ) -> Result<ResolvedBackend<'s>, (RouteFailure, Diagnostic)> {
        let dialect = self.dialect.name();
        if let Some(resource) = &backend.resource {
            let message = format!(
                "a backend of kind {} is not supported in dialect {dialect}, so requests get status 503",
                resource.kind
            );
            let problem = Diagnostic::error(format!("{field}.resource"), message, "refer to a Service");
            return Err((RouteFailure::NoService, problem));
        }
        let resolved = service_backend::resolve(cx, self.namespace, backend, self.through, field);
        let resolved = resolved.map_err(|mut problem| {
            problem.message.push_str(", so requests get status 503");
            (RouteFailure::NoService, problem)
        })?;
        let (kind, meta) = resolved.settings_source;
        if has_plugins(meta) {
            let message = format!(
                "{} of {kind} {} attaches plugins, which an Ingress of dialect {dialect} does not support, so \
                 requests get status 503",
                annotation_field(PLUGINS),
                meta.key
            );
            let remedy = "remove the annotation if requests may be served without plugins; otherwise use a Service of \
                          its own for this Ingress, or a class of another dialect";
            let problem = Diagnostic::error(format!("{field}.service.name"), message, remedy);
            return Err((RouteFailure::UnsupportedProtection, problem));
        }
        match resolved.foreign_guard(cx.store, field).filter(|_| self.refuses_guards) {
            Some(problem) => Err((RouteFailure::UnsupportedProtection, problem)),
            None => Ok(resolved),
        }
    }
}

/// Warnings about settings of a Service that gets requests.
pub(super) fn notes(resolved: &ResolvedBackend<'_>, dialect: Dialect, field: &str) -> Vec<Diagnostic> {
    let (kind, meta) = resolved.settings_source;
    let service = format!("{kind} {}", meta.key);
    let ineffective = INEFFECTIVE.iter().filter(|key| meta.annotations.contains_key(**key)).map(|key| {
        let dialect = dialect.name();
        let message = format!("annotation {key} of {service} has no effect on an Ingress of dialect {dialect}");
        let remedy = "remove it, unless routes of another dialect use the Service";
        Diagnostic::warning(format!("{field}.service.name"), message, remedy)
    });
    let remedy = if dialect == Dialect::Nginx { VERIFY_BY_INGRESS } else { annotated_tls::VERIFY_SERVICE };
    let unverified = annotated_tls::unverified_note(resolved.key.tls.as_ref(), &service, field, remedy);
    unverified.into_iter().chain(ineffective).collect()
}

/// How annotations of an Ingress make the certificate of its Service verified.
const VERIFY_BY_INGRESS: &str = "set proxy-ssl-verify to on, proxy-ssl-name, and proxy-ssl-secret to a Secret with the \
                                 authority as ca.crt, or target the Service by a BackendTLSPolicy";

/// What plugins get as the names of a rule. `rule`: its name in the Ingress.
pub(super) fn route_names(ingress: &Meta, rule: &str, target: &IngressTarget) -> RouteNames {
    let key = &ingress.key;
    RouteNames {
        namespace: Arc::clone(&key.namespace),
        route: format!("{}.{}.{rule}", key.namespace, key.name).into(),
        service: target.service_name(&key.namespace).into(),
        content: rule_content(ingress, target),
    }
}

fn has_plugins(meta: &Meta) -> bool {
    meta.annotations.get(PLUGINS).is_some_and(|value| protects_requests(PLUGINS, value))
}
