//! Builds the rules of an Ingress of the dialect `nginx`: what a location does with its requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::annotations::NginxAnnotations;
use super::config_map::NginxConfig;
use super::host_facts::HostFacts;
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::ingress::dialects::plain_service;
use crate::compile::ingress::dialects::plain_service::PlainService;
use crate::compile::ingress::service_backend::IngressTarget;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::{ChoiceSettings, PluginSite, Plugins, RouteFacts, RuleChain};
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_path::{GroupTemplate, PathReplacement};
use crate::snapshot::location_steps::{HttpsRedirectOfLocation, LocationSteps};
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, RuleId, WeightedBackends,
};
use crate::snapshot::rule_options::{ErrorStyle, ForwardingHeaderStyle, GrpcErrorStyle, RuleOptions, UpstreamHost};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The place of a rule in its Ingress.
#[derive(Clone, Copy)]
pub(super) struct RulePlace<'a> {
    /// Distinguishes the rule from the others of the Ingress.
    pub name: &'a str,
    pub host: &'a HostPattern,
    /// As the Ingress has it.
    pub path: &'a str,
    /// Whether it is the root of an Ingress without rules, for which redirects and rewrites have no effect.
    pub is_catch_all: bool,
    pub facts: HostFacts,
}

/// Builds the rules of one Ingress, and collects what they use and report.
pub(super) struct RuleBuilder<'a> {
    pub cx: CompileContext<'a>,
    pub plugins: &'a Plugins,
    pub ingress: &'a Object<Ingress>,
    pub annotations: &'a NginxAnnotations<'a>,
    pub config: &'a NginxConfig,
    /// Why no request may be forwarded.
    pub failure: Option<RouteFailure>,
    /// Whether a backend with a guard of another controller gets no request.
    pub refuses_guards: bool,
    pub limit: RegexLimit,
    /// The steps of the plan before. Equal ones are kept, so that equal rules are known to be equal.
    pub steps_before: &'a [Arc<LocationSteps>],
    pub steps: Vec<Arc<LocationSteps>>,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub errors: UniqueDiagnostics,
    pub notes: UniqueDiagnostics,
}

impl RuleBuilder<'_> {
    /// The rule for a backend. `field`: the field of the backend.
    pub(super) fn build(&mut self, place: RulePlace<'_>, backend: &IngressBackend, field: &str) -> Arc<RouteRule> {
        // The errors of the Ingress say why it fails; those of its backends are reported nevertheless.
        let resolved = self.forward(backend, field);
        let replaced = self.path_replacement(place);
        if place.facts.is_closed && self.failure.is_none() {
            let host = place.host;
            let message = format!(
                "an Ingress with host {host} has an annotation that restricts all of its requests and is not supported \
                 yet, so requests get status 503"
            );
            self.errors.push(Diagnostic::error("spec.rules", message, "see the error of that Ingress"));
        }
        let closed = place.facts.is_closed.then_some(RouteFailure::UnsupportedProtection);
        let action = match (self.failure.or(closed), resolved, &replaced) {
            (Some(failure), ..) | (None, Err(failure), Ok(_)) => Action::Fail(failure),
            (None, _, Err(problem)) => {
                self.errors.push(problem.clone());
                Action::Fail(RouteFailure::UnsupportedProtection)
            }
            (None, Ok(split), Ok(_)) => Action::Forward(split),
        };
        self.with_steps(place, Some(backend), action, replaced.ok().flatten())
    }

    /// The rule of the root of a host without a backend for it.
    pub(super) fn build_without_backend(&mut self, place: RulePlace<'_>) -> Arc<RouteRule> {
        let closed = place.facts.is_closed.then_some(RouteFailure::UnsupportedProtection);
        let action = Action::Fail(self.failure.or(closed).unwrap_or(RouteFailure::NoDefaultBackend));
        // Only a redirect has an effect. A rewrite that cannot be used is reported for the paths.
        let replaced = self.path_replacement(place).ok().flatten().filter(PathReplacement::is_redirect);
        self.with_steps(place, None, action, replaced)
    }

    /// A rule with an action and global plugins, and without annotations.
    pub(super) fn build_plain(&mut self, place: RulePlace<'_>, action: Action) -> Arc<RouteRule> {
        self.with_plugins(place, None, action, RuleOptions::default(), None)
    }

    fn route(&self) -> Arc<str> {
        format!("{}/{}", Kind::Ingress, self.ingress.meta.key).into()
    }

    fn forward(&mut self, backend: &IngressBackend, field: &str) -> Result<WeightedBackends, RouteFailure> {
        let service = PlainService {
            dialect: Dialect::Nginx,
            namespace: &self.ingress.meta.key.namespace,
            refuses_guards: self.refuses_guards,
            via_cluster_ip: self.annotations.via_cluster_ip,
            protocol: Some(self.annotations.protocol),
        };
        let resolved = service.resolve(self.cx, backend, field).map_err(|(failure, problem)| {
            self.errors.push(problem);
            failure
        })?;
        self.notes.extend(plain_service::notes(&resolved, Dialect::Nginx, field));
        let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
        self.upstreams.insert(resolved.key);
        let backend = Backend { weight: 1, filters: Filters::default(), target };
        let mut split = WeightedBackends::new(vec![backend]).ok_or(RouteFailure::NoService)?;
        let NginxAnnotations { connect_timeout, send_timeout, read_timeout, retries, .. } = *self.annotations;
        let timeouts = TimeoutsAndRetries::per_attempt(connect_timeout, send_timeout, read_timeout, retries);
        split.timeouts_and_retries = Some(Box::new(timeouts));
        Ok(split)
    }

    /// What replaces the path of requests, if anything does.
    fn path_replacement(&self, place: RulePlace<'_>) -> Result<Option<PathReplacement>, Diagnostic> {
        let target = self.annotations.rewrite_target.filter(|_| self.annotations.rewrites(place.path));
        let Some(target) = target.filter(|_| !place.is_catch_all) else { return Ok(None) };
        let template = |name: &str, text: &str| {
            GroupTemplate::parse(text).map_err(|error| {
                let field = annotation_field(&format!("{}{name}", crate::api::ingress_nginx::PREFIX));
                let message = format!("{text:?} has a variable: {error}, so requests get status 503");
                Diagnostic::error(field, message, "refer only to groups of the path, such as $1")
            })
        };
        let target = template("rewrite-target", target)?;
        let prefix = self.annotations.forwarded_prefix.map(|prefix| template("x-forwarded-prefix", prefix));
        let prefix = prefix.transpose()?;
        let replacement = PathReplacement::new(place.path, target, prefix, self.limit);
        replacement.map(Some).map_err(|error| {
            let message = format!("the path {:?} cannot be used as an expression: {error}", place.path);
            Diagnostic::error("spec.rules", message, EXPRESSION_REMEDY)
        })
    }

    fn with_steps(
        &mut self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        action: Action,
        replacement: Option<PathReplacement>,
    ) -> Arc<RouteRule> {
        let is_redirect = replacement.as_ref().is_some_and(PathReplacement::is_redirect);
        let replacement = replacement.map(Arc::new);
        let options = RuleOptions {
            forwarding_headers: ForwardingHeaderStyle::SingleClient,
            path_replacement: replacement.clone().filter(|_| !is_redirect),
            forwards_raw_target: true,
            host: self.annotations.upstream_vhost.clone().map_or(UpstreamHost::Preserved, UpstreamHost::Fixed),
            errors: ErrorStyle::RingBalancer,
            grpc_errors: GrpcErrorStyle::HttpStatus,
            ..RuleOptions::default()
        };
        let steps = self.steps_of(place, replacement.filter(|_| is_redirect));
        self.with_plugins(place, backend, action, options, steps)
    }

    fn with_plugins(
        &mut self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        mut action: Action,
        mut options: RuleOptions,
        steps: Option<Arc<LocationSteps>>,
    ) -> Arc<RouteRule> {
        let target = backend.map_or(IngressTarget::Unsupported, IngressTarget::from_backend);
        let names = plain_service::route_names(&self.ingress.meta, place.name, &target);
        let route = self.route();
        let scope: Arc<str> = format!("{route}/{}", place.name).into();
        let site = PluginSite {
            kind: Kind::Ingress,
            meta: &self.ingress.meta,
            extensions: &[],
            // A Service with plugins is not used.
            backends: &[],
            mirrors: &[],
            names: Arc::new(names),
            facts: &|| RouteFacts {
                hosts: Some(place.host)
                    .filter(|host| **host != HostPattern::Any)
                    .map(ToString::to_string)
                    .into_iter()
                    .collect(),
                paths: vec![place.path.to_owned()],
                methods: Vec::new(),
                server_names: Vec::new(),
                regex_priority: 0,
                rule_name: None,
                options: Some(&options),
                action: &action,
            },
            counter_scope: Arc::clone(&scope),
            choice: ChoiceSettings { settings: service_annotations::for_ingress, replaces_host: false },
        };
        let mut chain = match &action {
            // Nothing precedes the error of an Ingress whose protection is not known.
            Action::Fail(RouteFailure::UnsupportedProtection) => RuleChain::default(),
            _ => self.plugins.chain_after(
                self.cx,
                &site,
                steps.map(|steps| steps.into_instance(scope, Arc::clone(&route))),
            ),
        };
        // Plugins decide about the normalized target, so the backend gets that one, too.
        options.forwards_raw_target &= !chain.is_attached;
        std::mem::take(&mut chain.chosen).move_into(&mut action, &mut self.upstreams);
        let plugins = chain.report_into(&mut self.notes);
        let id = RuleId { route, rule: place.name.into() };
        let options = Some(options).filter(|options| options != RuleOptions::DEFAULT).map(Box::new);
        Arc::new(RouteRule { id, filters: Filters::default(), plugins, action, options })
    }

    /// The steps of a location; `None` if there are none.
    fn steps_of(
        &mut self,
        place: RulePlace<'_>,
        replacement: Option<Arc<PathReplacement>>,
    ) -> Option<Arc<LocationSteps>> {
        let annotations = self.annotations;
        let steps = LocationSteps {
            cross_origin: annotations.cross_origin.clone(),
            response: annotations.response.clone().filter(|_| !place.is_catch_all),
            replacement,
            https_redirect: self.https_redirect(place),
            denied: annotations.denied.clone(),
            allowed: annotations.allowed.clone(),
            max_body_bytes: annotations.max_body_bytes,
            transport_security: self.config.transport_security.clone(),
        };
        if steps.is_empty() {
            return None;
        }
        let known = self.steps.iter().chain(self.steps_before).find(|known| ***known == steps).map(Arc::clone);
        let steps = known.unwrap_or_else(|| Arc::new(steps));
        if !self.steps.iter().any(|known| Arc::ptr_eq(known, &steps)) {
            self.steps.push(Arc::clone(&steps));
        }
        Some(steps)
    }

    /// A host of no name has no certificate that a client could have asked for, so only the annotation that forces the
    /// redirect applies to it.
    fn https_redirect(&self, place: RulePlace<'_>) -> Option<HttpsRedirectOfLocation> {
        let NginxAnnotations { ssl_redirect, force_ssl_redirect, preserve_trailing_slash, .. } = *self.annotations;
        let has_tls = place.facts.has_tls && *place.host != HostPattern::Any;
        let redirects = force_ssl_redirect || ssl_redirect && has_tls;
        // The path of the rule is compared, so that only rules for challenges are exempt.
        let is_exempt = self.config.no_tls_redirect_locations.iter().any(|start| place.path.starts_with(&**start));
        (redirects && !is_exempt && !place.is_catch_all).then_some(HttpsRedirectOfLocation {
            status: self.config.redirect_status,
            keeps_trailing_slash: preserve_trailing_slash,
        })
    }
}

pub(super) const EXPRESSION_REMEDY: &str =
    "correct it; in a host with rewrites or use-regex, paths are regular expressions";
