//! Builds the rules of an Ingress of the dialect `nginx`: what a location does with its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::access;
use super::access::AccessSettings;
use super::annotations::NginxAnnotations;
use super::canary::CanaryPath;
use super::client_certificates::CertificateRequirement;
use super::config_map::NginxConfig;
use super::error_backend;
use super::error_backend::ErrorSettings;
use super::host_facts::{HostFacts, NginxHosts};
use super::limits;
use super::mirror;
use super::rule_steps::port_text;
use super::shared_parts::{GuardConfig, PartBuilder};
use super::snippets::HostSnippets;
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::backend::route_tls::RouteTls;
use crate::compile::ingress::dialects::plain_service;
use crate::compile::ingress::dialects::plain_service::PlainService;
use crate::compile::ingress::service_backend::{Connection, IngressTarget};
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::{ChoiceSettings, OwnParts, PluginSite, Plugins, RouteFacts, RuleChain};
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::snapshot::error_backend::ErrorBackend;
use crate::snapshot::fast_cgi::{FastCgiScript, FastCgiSettings};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_path::{GroupTemplate, PathReplacement};
use crate::snapshot::location_snippet::SnippetSettings;
use crate::snapshot::location_steps::{
    CanaryRequests, CanarySessions, CertificateStep, HostRedirect, LocationSnippets, LocationSteps,
};
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, RuleId, WeightedBackends,
};
use crate::snapshot::rule_options::RuleOptions;
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
    pub is_exact: bool,
    /// Whether it is the root of an Ingress without rules, for which redirects and rewrites have no effect.
    pub is_catch_all: bool,
    /// What gets a share of its requests.
    pub canary: Option<&'a CanaryPath>,
    pub facts: HostFacts,
}

/// Builds the rules of one Ingress, and collects what they use and report.
pub(super) struct RuleBuilder<'a> {
    pub cx: CompileContext<'a>,
    pub plugins: &'a Plugins,
    pub ingress: &'a Object<Ingress>,
    pub annotations: &'a NginxAnnotations<'a>,
    pub access: &'a AccessSettings<'a>,
    /// What the Ingress requires of the certificates of clients.
    pub certificates: Option<&'a CertificateRequirement>,
    pub snippets: &'a BTreeMap<HostPattern, HostSnippets>,
    /// Whether the snippet of the Ingress refers to groups of an expression.
    pub refers_to_groups: bool,
    /// What responds in place of errors.
    pub errors_of: &'a ErrorSettings,
    /// Of all responses.
    pub response_headers: &'a [(HeaderName, HeaderValue)],
    /// `None` for that of the Service.
    pub backend_tls: Option<RouteTls>,
    /// What the Services get, if they are FastCGI servers.
    pub fast_cgi: Option<Arc<FastCgiScript>>,
    pub parts: PartBuilder<'a>,
    /// By host, and whether clients have to log in.
    pub access_configs: Vec<(HostPattern, bool, Result<Option<GuardConfig>, Diagnostic>)>,
    pub config: &'a NginxConfig,
    pub hosts: &'a NginxHosts,
    /// Why no request may be forwarded.
    pub failure: Option<RouteFailure>,
    /// Whether a backend with a guard of another controller gets no request.
    pub refuses_guards: bool,
    pub limit: RegexLimit,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub errors: UniqueDiagnostics,
    pub notes: UniqueDiagnostics,
}

impl RuleBuilder<'_> {
    /// The rule for a backend. `field`: the field of the backend.
    pub(super) fn build(&mut self, place: RulePlace<'_>, backend: &IngressBackend, field: &str) -> Arc<RouteRule> {
        // The errors of the Ingress say why it fails; those of its backends are reported nevertheless.
        let resolved = self.forward(place, backend, field);
        let replaced = self.path_replacement(place);
        if place.facts.is_closed && self.failure.is_none() {
            let host = place.host;
            let ingress = self.hosts.closing_ingress(host).map(ToString::to_string).unwrap_or_default();
            let message = format!(
                "Ingress {ingress} has an annotation that restricts all requests for {host} and is not in effect, so \
                 they get status 503"
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
        let action = match self.failure.or(closed) {
            Some(failure) => Action::Fail(failure),
            None => self.default_action(place),
        };
        // Only a redirect has an effect. A rewrite that cannot be used is reported for the paths.
        let replaced = self.path_replacement(place).ok().flatten().filter(PathReplacement::is_redirect);
        self.with_steps(place, None, action, replaced)
    }

    /// A rule with an action and global plugins, and without annotations.
    pub(super) fn build_plain(&mut self, place: RulePlace<'_>, action: Action) -> Arc<RouteRule> {
        self.with_plugins(place, None, action, RuleOptions::default(), OwnParts::default())
    }

    /// The rule for the requests that no path has, to which the annotations of paths do not apply.
    pub(super) fn build_default(&mut self, place: RulePlace<'_>) -> Arc<RouteRule> {
        let action = match place.facts.is_closed {
            true => Action::Fail(RouteFailure::UnsupportedProtection),
            false => self.default_action(place),
        };
        let options = match &action {
            Action::Forward(_) => error_backend::forwarding_options(),
            Action::Fail(_) | Action::Redirect(_) => RuleOptions::default(),
        };
        let options = RuleOptions {
            access_log: self.config.logs.has_unnamed_hosts(),
            telemetry: Some(error_backend::default_telemetry(self.config.traces.of_all())),
            ..options
        };
        self.build_of_host(place, action, options)
    }

    /// Forwards to the default backend of all Ingresses. An error if there is none.
    fn default_action(&self, place: RulePlace<'_>) -> Action {
        let Some(mut split) = self.errors_of.default_backend(self.cx) else {
            return Action::Fail(RouteFailure::NoDefaultBackend);
        };
        split.timeouts_and_retries = Some(Box::new(self.timeouts(place)));
        Action::Forward(split)
    }

    /// A rule that only redirects: to a path with a slash, or to `app-root`.
    pub(super) fn build_redirect(&mut self, place: RulePlace<'_>, action: Action) -> Arc<RouteRule> {
        self.build_of_host(place, action, RuleOptions::default())
    }

    /// A rule with what applies to all requests for a host: as in nginx, the certificate of the client is verified
    /// before the action, and the snippet of the host runs.
    fn build_of_host(&mut self, place: RulePlace<'_>, action: Action, options: RuleOptions) -> Arc<RouteRule> {
        let server = self.snippets.get(place.host).and_then(|snippets| snippets.server.as_ref());
        let snippets = server.and_then(|_| self.location_snippets(place, None)).map(|snippets| {
            let LocationSnippets { server, names, matched, .. } = snippets;
            LocationSnippets::new(server, Arc::default(), names, matched)
        });
        let certificates = self.certificate_step(place);
        // Otherwise, the action precedes the redirect to HTTPS.
        let requires_tls = self.certificates_of(place.host).is_some_and(CertificateRequirement::requires_certificate);
        let https_redirect = self.https_redirect(place).filter(|_| requires_tls);
        let steps = LocationSteps { certificates, snippets, https_redirect, ..LocationSteps::default() };
        if steps.is_empty() {
            return self.with_plugins(place, None, action, options, OwnParts::default());
        }
        let steps = self.parts.steps(steps);
        let instances = vec![steps.into_instance(self.scope(place), self.route())];
        self.with_plugins(place, None, action, options, OwnParts { instances, chosen: None })
    }

    /// The rule of a host that redirects to the same one with or without `www`. Annotations do not apply to it.
    pub(super) fn build_www_redirect(&mut self, place: RulePlace<'_>, to: &HostPattern) -> Arc<RouteRule> {
        let host_redirect = HostRedirect { host: to.to_string().into(), status: self.config.redirect_status };
        let steps = self.parts.steps(LocationSteps {
            host_redirect: Some(host_redirect),
            transport_security: self.config.transport_security.clone(),
            ..LocationSteps::default()
        });
        let instances = vec![steps.into_instance(self.scope(place), self.route())];
        let action = Action::Fail(RouteFailure::NoDefaultBackend);
        self.with_plugins(place, None, action, RuleOptions::default(), OwnParts { instances, chosen: None })
    }

    /// Whether not all requests for a host are forwarded.
    pub(super) fn restricts(&self, host: &HostPattern) -> bool {
        let by_snippet = self.snippets.get(host).is_some_and(|snippets| {
            snippets.location.restricts() || snippets.server.iter().any(|server| server.restricts())
        });
        let by_certificates = self.certificates_of(host).is_some();
        self.access.restricts() || self.annotations.limits.is_some() || by_snippet || by_certificates
    }

    /// What a host requires of the certificates of its clients. If the Ingresses that decide about the host require
    /// nothing, what this one requires applies to its own paths.
    pub(super) fn certificates_of(&self, host: &HostPattern) -> Option<&CertificateRequirement> {
        self.hosts.certificates(host).map(|of_host| &of_host.requirement).or(self.certificates)
    }

    pub(super) fn certificate_step(&self, place: RulePlace<'_>) -> Option<CertificateStep> {
        Some(self.certificates_of(place.host)?.step(self.is_exempt_from_tls(place)))
    }

    pub(super) fn route(&self) -> Arc<str> {
        format!("{}/{}", Kind::Ingress, self.ingress.meta.key).into()
    }

    fn scope(&self, place: RulePlace<'_>) -> Arc<str> {
        format!("{}/{}", self.route(), place.name).into()
    }

    /// The configuration of the guard of access, which is made once for all paths of a host.
    fn access_config(&mut self, host: &HostPattern, asks: bool) -> Result<Option<GuardConfig>, Diagnostic> {
        let known = self.access_configs.iter().find(|known| (&known.0, known.1) == (host, asks));
        if let Some((.., config)) = known {
            return config.clone();
        }
        let config = self.access.config(host, asks).map(|config| config.map(GuardConfig::new));
        self.access_configs.push((host.clone(), asks, config.clone()));
        config
    }

    /// The guards of a location and its mirror, in any order.
    fn guards(
        &mut self,
        place: RulePlace<'_>,
        scope: &Arc<str>,
    ) -> Result<Vec<(ExecutionPlace, PluginInstance)>, Vec<Diagnostic>> {
        let access = self.access_config(place.host, self.asks_for_login(place)).map_err(|problem| vec![problem])?;
        let limits = &self.annotations.limits;
        let limits = limits.as_ref().map(|config| self.parts.guard_instance(limits::KIND, config, scope));
        // What is stored for the path of one rule is for no other one, also after the rules have moved.
        let kind = if place.is_exact { "exact" } else { "prefix" };
        let of_path: Arc<str> = format!("{}/{}{} {kind}", self.route(), place.host, place.path).into();
        let access = access.map(|config| self.parts.guard_instance(access::KIND, &config, &of_path));
        let built = limits.into_iter().chain(access);
        let mirror = self.mirror(scope).map(Ok);
        built.map(|guard| guard.map_err(|problems| problems.into_iter().map(closes).collect())).chain(mirror).collect()
    }

    /// What sends copies of requests. One that cannot be used is reported, because nothing depends on the copies.
    fn mirror(&mut self, scope: &Arc<str>) -> Option<(ExecutionPlace, PluginInstance)> {
        let annotations = self.annotations;
        match self.parts.guard_instance(mirror::KIND, annotations.mirror.as_ref()?, scope) {
            Ok(mirror) => Some(mirror),
            Err(problems) => {
                self.notes.extend(problems.into_iter().map(mirror::without_effect));
                None
            }
        }
    }

    /// How the Services of the Ingress are resolved.
    pub(super) fn service(&self, via_cluster_ip: bool) -> PlainService<'_> {
        PlainService {
            dialect: Dialect::Nginx,
            namespace: &self.ingress.meta.key.namespace,
            refuses_guards: self.refuses_guards,
            through: Connection {
                via_cluster_ip,
                protocol: Some(self.annotations.protocol),
                tls: self.backend_tls.as_ref(),
            },
        }
    }

    fn forward(
        &mut self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
        field: &str,
    ) -> Result<WeightedBackends, RouteFailure> {
        let service = self.service(self.annotations.via_cluster_ip);
        let mut substitute = self.errors_of.substitute(self.cx);
        if let Some(substitute) = &mut substitute {
            substitute.timeouts_and_retries = Some(Box::new(self.timeouts(place)));
        }
        let mut resolved = match service.resolve(self.cx, backend, field) {
            Ok(resolved) => resolved,
            Err((failure @ RouteFailure::NoService, mut problem)) if substitute.is_some() => {
                let effect = "so the Service of default-backend gets the requests";
                problem.message = problem.message.replace("so requests get status 503", effect);
                self.errors.push(problem);
                let missing = Backend { weight: 1, filters: Filters::default(), target: BackendTarget::Fail(failure) };
                let mut split = WeightedBackends::new(vec![missing]).ok_or(failure)?;
                split.set_substitute(substitute);
                return Ok(split);
            }
            Err((failure, problem)) => {
                self.errors.push(problem);
                return Err(failure);
            }
        };
        self.notes.extend(plain_service::notes(&resolved, Dialect::Nginx, field));
        resolved.key.balancing = self.annotations.balancing.algorithm;
        let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
        let sessions = self.sessions(place, backend, &resolved.key);
        let over_tls = self.over_tls(place, backend, field, &resolved.key).map_err(|(failure, problem)| {
            self.errors.push(problem);
            failure
        })?;
        if self.annotations.follows_client_tls {
            let service = self.service_over_tls(self.annotations.via_cluster_ip);
            let of_tls = service.resolve(self.cx, backend, field).ok();
            let notes = of_tls.map(|resolved| plain_service::notes(&resolved, Dialect::Nginx, field));
            self.notes.extend(notes.into_iter().flatten());
        }
        let key = resolved.key.clone();
        self.upstreams.insert(resolved.key);
        self.upstreams.extend(over_tls.iter().map(|[_, over_tls]| over_tls.clone()));
        let own = Backend { weight: 1, filters: Filters::default(), target };
        let mut split = WeightedBackends::new(vec![own]).ok_or(RouteFailure::NoService)?;
        split.timeouts_and_retries = Some(Box::new(self.timeouts(place)));
        let upstream = |key: &UpstreamKey| self.cx.inputs.upstreams.upstream(key);
        let over_tls = over_tls.iter().map(|[plain, over_tls]| {
            let target = BackendTarget::Upstream(upstream(over_tls));
            (upstream(plain), Backend { weight: 1, filters: Filters::default(), target })
        });
        split.set_over_tls(over_tls.collect());
        split.set_affinity(sessions);
        // Without a canary that can be used, the first choice is the backend of a plugin.
        let is_separate = place.canary.is_some_and(|canary| canary.lacks_sessions);
        split.first_choice_lacks_sessions =
            is_separate && self.canary_upstream(place, backend).is_some_and(|(_, canary)| canary != key);
        split.set_substitute(substitute);
        Ok(split)
    }

    fn timeouts(&self, place: RulePlace<'_>) -> TimeoutsAndRetries {
        let NginxAnnotations { connect_timeout, send_timeout, read_timeout, protocol, .. } = *self.annotations;
        // What a snippet says precedes what annotations say.
        let settings = self.snippets.get(place.host).map(|snippets| &snippets.location.settings);
        let of_snippet = |of_http: fn(&SnippetSettings) -> Option<Duration>, of_grpc: fn(&SnippetSettings) -> _| {
            let is_grpc = matches!(protocol, AnnotatedProtocol::Grpc | AnnotatedProtocol::Grpcs);
            settings.and_then(if is_grpc { of_grpc } else { of_http })
        };
        let connect = settings.and_then(|settings| settings.connect_timeout).unwrap_or(connect_timeout);
        let send = of_snippet(|settings| settings.send_timeout, |settings| settings.grpc_send_timeout);
        let read = of_snippet(|settings| settings.read_timeout, |settings| settings.grpc_read_timeout);
        let retry = Some(self.annotations.retries.policy(settings));
        let [send, read] = [send.unwrap_or(send_timeout), read.unwrap_or(read_timeout)];
        TimeoutsAndRetries { retry, ..TimeoutsAndRetries::per_attempt(connect, send, read, 0) }
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
        // Nothing is known of the protection of an Ingress that fails, also not what its errors may show.
        let is_closed = matches!(action, Action::Fail(RouteFailure::UnsupportedProtection));
        let options = RuleOptions {
            path_replacement: replacement.clone().filter(|_| !is_redirect),
            connection: self.annotations.connection.clone(),
            host: self.upstream_host(place),
            error_backend: if is_closed { None } else { self.error_backend(place, backend) },
            fast_cgi: self.fast_cgi(place, backend),
            request_hash: self.request_hash(place),
            access_log: self.is_logged(place),
            response_rate: self.annotations.response_rate,
            ..error_backend::forwarding_options()
        };
        match self.own_parts(place, backend, replacement.filter(|_| is_redirect)) {
            Ok(parts) => self.with_plugins(place, backend, action, options, parts),
            Err(problems) => {
                self.errors.extend(problems);
                self.build_plain(place, Action::Fail(RouteFailure::UnsupportedProtection))
            }
        }
    }

    /// What the Service of a location gets, if it is a FastCGI server. The default backends of all Ingresses are none.
    fn fast_cgi(&self, place: RulePlace<'_>, backend: Option<&IngressBackend>) -> Option<Arc<FastCgiSettings>> {
        let (script, names) = (Arc::clone(self.fast_cgi.as_ref()?), self.location_names(place, Some(backend?)));
        Some(Arc::new(FastCgiSettings { script, names }))
    }

    /// What replaces the errors of a location.
    fn error_backend(&self, place: RulePlace<'_>, backend: Option<&IngressBackend>) -> Option<Arc<ErrorBackend>> {
        let service = backend.map(|backend| match &backend.service {
            Some(service) => (service.name.as_str(), port_text(service)),
            None => ("", None),
        });
        let signs_in = self.access.redirects_to_login() && self.asks_for_login(place);
        self.errors_of.of_location(self.cx, &self.ingress.meta, service, signs_in)
    }

    /// Whether clients have to log in. The path of the rule is compared, as for redirects.
    fn asks_for_login(&self, place: RulePlace<'_>) -> bool {
        !self.config.no_auth_locations.iter().any(|start| place.path.starts_with(&**start))
    }

    /// What precedes all plugins: the steps of the location, and its guards.
    fn own_parts(
        &mut self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        replacement: Option<Arc<PathReplacement>>,
    ) -> Result<OwnParts, Vec<Diagnostic>> {
        let scope = self.scope(place);
        let canary = backend.and_then(|backend| self.canary(place, backend));
        let (canary, chosen) = canary.unzip();
        let steps = self.steps_of(place, backend, replacement, canary);
        let mut instances: Vec<_> =
            steps.map(|steps| steps.into_instance(Arc::clone(&scope), self.route())).into_iter().collect();
        instances.extend(self.guards(place, &scope)?);
        Ok(OwnParts { instances, chosen })
    }

    fn with_plugins(
        &mut self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        mut action: Action,
        mut options: RuleOptions,
        parts: OwnParts,
    ) -> Arc<RouteRule> {
        let target = backend.map_or(IngressTarget::Unsupported, IngressTarget::from_backend);
        let names = plain_service::route_names(&self.ingress.meta, place.name, &target);
        let route = self.route();
        let scope = self.scope(place);
        // Neither annotations nor snippets switch it on again.
        options.access_log &= self.config.logs.is_on();
        options.telemetry.get_or_insert_with(|| Arc::new(self.telemetry(place, backend, &action)));
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
            counter_scope: scope,
            choice: ChoiceSettings { settings: service_annotations::for_ingress, replaces_host: false },
        };
        let mut chain = match &action {
            // Nothing precedes the error of an Ingress whose protection is not known.
            Action::Fail(RouteFailure::UnsupportedProtection) => RuleChain::default(),
            _ => self.plugins.chain_after(self.cx, &site, parts),
        };
        // Plugins decide about the normalized target, so the backend gets that one, too.
        options.forwards_raw_target &= !chain.is_attached;
        std::mem::take(&mut chain.chosen).move_into(&mut action, &mut self.upstreams);
        let plugins = chain.report_into(&mut self.notes);
        let id = RuleId { route, rule: place.name.into() };
        let options = Some(options).filter(|options| options != RuleOptions::DEFAULT).map(Box::new);
        Arc::new(RouteRule { id, filters: Filters::default(), plugins, action, options })
    }
}

/// What the steps of a location know of its canary.
pub(super) struct CanaryParts {
    pub requests: CanaryRequests,
    pub sessions: Option<CanarySessions>,
}

/// An error about a guard that cannot be built.
fn closes(problem: Diagnostic) -> Diagnostic {
    let mut problem = access::about_annotation(problem);
    problem.message.push_str(", so requests get status 503");
    problem
}

pub(super) const EXPRESSION_REMEDY: &str =
    "correct it; in a host with rewrites or use-regex, paths are regular expressions";
