//! Builds the rules of an Ingress of the dialect `kubernetes`: each forwards to one Service, and changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::ingress::dialects::plain_service;
use crate::compile::ingress::dialects::plain_service::PlainService;
use crate::compile::ingress::service_backend::{Connection, IngressTarget, ResolvedBackend};
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::{ChoiceSettings, PluginSite, Plugins, RouteFacts, RuleChain};
use crate::compile::kong::service_annotations;
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
        let names = plain_service::route_names(&self.ingress.meta, name, &IngressTarget::from_backend(backend));
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
        self.notes.extend(plain_service::notes(&resolved, Dialect::Kubernetes, field));
        let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
        self.upstreams.insert(resolved.key);
        match WeightedBackends::new(vec![Backend { weight: 1, filters: Filters::default(), target }]) {
            Some(split) => Action::Forward(split),
            None => Action::Fail(RouteFailure::NoService),
        }
    }

    /// Resolves a Service. If there is none, reports why.
    fn resolve(&mut self, backend: &IngressBackend, field: &str) -> Result<ResolvedBackend<'a>, RouteFailure> {
        let service = PlainService {
            dialect: Dialect::Kubernetes,
            namespace: &self.ingress.meta.key.namespace,
            refuses_guards: self.refuses_guards,
            // The parameters of classes with the dialect `kubernetes` have no effect.
            through: Connection::default(),
        };
        service.resolve(self.cx, backend, field).map_err(|(failure, problem)| {
            self.errors.push(problem);
            failure
        })
    }
}
