//! Builds the rules of an Ingress of the dialect `kubernetes`: each forwards to one Service, and changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::refused_annotations::protects_requests;
use crate::api::kong::annotations::{
    CONNECT_TIMEOUT, HOST_HEADER, PATH, PLUGINS, READ_TIMEOUT, RETRIES, WRITE_TIMEOUT,
};
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Meta, Object};
use crate::compile::CompileContext;
use crate::compile::backend::annotated_tls;
use crate::compile::ingress::service_backend;
use crate::compile::ingress::service_backend::{IngressTarget, ResolvedBackend};
use crate::compile::kong::plugins::{ChoiceSettings, PluginSite, Plugins, RouteFacts, RuleChain};
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::rule_content::rule_content;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, RuleId, WeightedBackends,
};
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The place of a rule in its Ingress.
#[derive(Clone, Copy)]
pub(super) struct RulePlace<'a> {
    /// Distinguishes the rule from the others of the Ingress.
    pub name: &'a str,
    /// `None` for every host.
    pub host: Option<&'a str>,
    /// `None` for every path.
    pub path: Option<&'a str>,
}

/// Builds the rules of one Ingress, and collects what they use and report.
pub(super) struct RuleBuilder<'a> {
    cx: CompileContext<'a>,
    plugins: &'a Plugins,
    ingress: &'a Object<Ingress>,
    /// `Kind/namespace/name`
    route: Arc<str>,
    /// Why no request may be forwarded.
    failure: Option<RouteFailure>,
    /// Whether a backend with a guard of another controller gets no request.
    refuses_guards: bool,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub errors: UniqueDiagnostics,
    pub notes: UniqueDiagnostics,
}

/// Annotations of a Service that apply to requests of Kong's routes, and have no effect here. Those about connections
/// to the Service have an effect for all routes.
const INEFFECTIVE_ON_SERVICES: &[&str] = &[PATH, HOST_HEADER, CONNECT_TIMEOUT, WRITE_TIMEOUT, READ_TIMEOUT, RETRIES];

impl<'a> RuleBuilder<'a> {
    pub(super) fn new(
        cx: CompileContext<'a>,
        plugins: &'a Plugins,
        ingress: &'a Object<Ingress>,
        failure: Option<RouteFailure>,
        refuses_guards: bool,
    ) -> Self {
        let route = format!("{}/{}", Kind::Ingress, ingress.meta.key).into();
        let (upstreams, errors, notes) = Default::default();
        RuleBuilder { cx, plugins, ingress, route, failure, refuses_guards, upstreams, errors, notes }
    }

    /// The rule for a backend. `field`: the field of the backend.
    pub(super) fn build(&mut self, place: RulePlace<'_>, backend: &IngressBackend, field: &str) -> Arc<RouteRule> {
        // The errors of the Ingress say why it fails; those of its backends are reported nevertheless.
        let resolved = self.resolve(backend, field);
        let action = match (self.failure, resolved) {
            (None, Ok(resolved)) => self.forward(resolved, field),
            (Some(failure), _) | (None, Err(failure)) => Action::Fail(failure),
        };
        self.build_with_action(place, backend, action)
    }

    /// The rule with this action. `backend` only names it.
    pub(super) fn build_with_action(
        &mut self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
        mut action: Action,
    ) -> Arc<RouteRule> {
        let RulePlace { name, host, path } = place;
        let key = &self.ingress.meta.key;
        let target = IngressTarget::from_backend(backend);
        let names = RouteNames {
            namespace: Arc::clone(&key.namespace),
            route: format!("{}.{}.{name}", key.namespace, key.name).into(),
            service: target.service_name(&key.namespace).into(),
            content: rule_content(&self.ingress.meta, &target),
        };
        let is_forwarding = matches!(action, Action::Forward(_));
        let site = PluginSite {
            kind: Kind::Ingress,
            meta: &self.ingress.meta,
            extensions: &[],
            // A Service with plugins is not used.
            backends: &[],
            mirrors: &[],
            names: Arc::new(names),
            facts: &|| RouteFacts {
                hosts: host.map(str::to_owned).into_iter().collect(),
                paths: path.map(str::to_owned).into_iter().collect(),
                methods: Vec::new(),
                server_names: Vec::new(),
                regex_priority: 0,
                rule_name: None,
                options: None,
                action: &action,
            },
            counter_scope: format!("{}/{name}", self.route).into(),
            choice: ChoiceSettings { settings: service_annotations::for_ingress, replaces_host: false },
        };
        // Global plugins run for all routes. A rule that fails needs none, and its annotation may name others.
        let mut chain = if is_forwarding { self.plugins.chain(self.cx, &site) } else { RuleChain::default() };
        std::mem::take(&mut chain.chosen).move_into(&mut action, &mut self.upstreams);
        let plugins = chain.report_into(&mut self.notes);
        let id = RuleId { route: Arc::clone(&self.route), rule: name.into() };
        Arc::new(RouteRule { id, filters: Filters::default(), plugins, action, options: None })
    }

    fn forward(&mut self, resolved: ResolvedBackend<'_>, field: &str) -> Action {
        let (kind, meta) = resolved.settings_source;
        let service = format!("{kind} {}", meta.key);
        self.notes.extend(annotated_tls::unverified_note(resolved.key.tls.as_ref(), &service, field));
        for key in INEFFECTIVE_ON_SERVICES.iter().filter(|key| meta.annotations.contains_key(**key)) {
            let message = format!("annotation {key} of {service} has no effect on an Ingress of dialect kubernetes");
            let remedy = "remove it, unless routes of another dialect use the Service";
            self.notes.push(Diagnostic::warning(format!("{field}.service.name"), message, remedy));
        }
        let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
        self.upstreams.insert(resolved.key);
        match WeightedBackends::new(vec![Backend { weight: 1, filters: Filters::default(), target }]) {
            Some(split) => Action::Forward(split),
            None => Action::Fail(RouteFailure::NoService),
        }
    }

    /// Resolves a Service. If there is none, reports why.
    fn resolve(&mut self, backend: &IngressBackend, field: &str) -> Result<ResolvedBackend<'a>, RouteFailure> {
        if let Some(resource) = &backend.resource {
            let message = format!(
                "a backend of kind {} is not supported in dialect kubernetes, so requests get status 503",
                resource.kind
            );
            self.errors.push(Diagnostic::error(format!("{field}.resource"), message, "refer to a Service"));
            return Err(RouteFailure::NoService);
        }
        // The settings of connections to the Service are the same for all dialects. The parameters of classes with the
        // dialect `kubernetes` have no effect.
        let via_cluster_ip = false;
        let namespace = &self.ingress.meta.key.namespace;
        let resolved = match service_backend::resolve(self.cx, namespace, backend, via_cluster_ip, field) {
            Ok(resolved) => resolved,
            Err(mut problem) => {
                problem.message.push_str(", so requests get status 503");
                self.errors.push(problem);
                return Err(RouteFailure::NoService);
            }
        };
        let (kind, meta) = resolved.settings_source;
        if has_plugins(meta) {
            let message = format!(
                "{} of {kind} {} attaches plugins, which an Ingress of dialect kubernetes does not support, so \
                 requests get status 503",
                annotation_field(PLUGINS),
                meta.key
            );
            let remedy = "remove the annotation if requests may be served without plugins; otherwise use a Service of \
                          its own for this Ingress, or a class of another dialect";
            self.errors.push(Diagnostic::error(format!("{field}.service.name"), message, remedy));
            return Err(RouteFailure::UnsupportedProtection);
        }
        if self.refuses_guards
            && let Some(problem) = resolved.foreign_guard(self.cx.store, field)
        {
            self.errors.push(problem);
            return Err(RouteFailure::UnsupportedProtection);
        }
        Ok(resolved)
    }
}

fn has_plugins(meta: &Meta) -> bool {
    meta.annotations.get(PLUGINS).is_some_and(|value| protects_requests(PLUGINS, value))
}
