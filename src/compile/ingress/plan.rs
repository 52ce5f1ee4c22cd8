//! Plans one Ingress: its routes, its certificates, and its diagnostics.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::CompileContext;
use super::super::backend::tls;
use super::super::certificates::{self, SecretCache};
use super::super::plugins::{PluginSite, Plugins};
use super::backend::{self, IngressTarget};
use super::class;
use super::path::{self, PathOptions};
use super::route_settings::{self, RouteSettings};
use crate::api::kong::IngressClassParametersSpec;
use crate::api::kong::annotations::REWRITE;
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::certs::Certificate;
use crate::snapshot::host::HostPattern;
use crate::snapshot::kong::{HttpsRedirect, KongBehavior, KongHost, KongPath, KongRoute, RouterFlavor, UpstreamHost};
use crate::snapshot::router::RouteAge;
use crate::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, RuleId, Split};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::upstream::UpstreamKey;

/// The compiled state of a served Ingress.
#[derive(Debug)]
pub(super) struct IngressPlan {
    pub generation: i64,
    pub created: Option<i64>,
    pub routes: Vec<Arc<KongRoute>>,
    /// The route of the default backend, which is used if this is the oldest Ingress with one.
    pub default_route: Option<Arc<KongRoute>>,
    pub certificates: Vec<HostCertificate>,
    pub upstreams: BTreeSet<UpstreamKey>,
    /// Errors that prevent parts of it from being served.
    pub errors: Vec<Diagnostic>,
    /// Diagnostics about parts that are served, but possibly not as intended.
    pub notes: Vec<Diagnostic>,
}

/// The certificate of one host.
#[derive(Clone, Debug)]
pub(super) struct HostCertificate {
    pub host: HostPattern,
    pub certificate: Arc<Certificate>,
    pub field: String,
}

/// `None` if this process does not serve its class.
pub(super) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
) -> Option<IngressPlan> {
    let class = class::class_parameters(cx, ingress)?;
    let settings = route_settings::read(&ingress.meta, cx.inputs.ingress.flavor, "an Ingress");
    let mut planner = IngressPlanner {
        cx,
        plugins,
        ingress,
        class,
        settings: &settings,
        upstreams: BTreeSet::new(),
        errors: settings.errors.clone(),
        notes: settings.notes.clone(),
    };
    let (mut routes, mut fallback) = (planner.routes(), planner.default_route());
    if !settings.errors.is_empty() {
        // A condition that cannot be evaluated never holds, so no route is served. The errors of routes are reported,
        // but not what served ones would do.
        (routes, fallback) = (Vec::new(), None);
        planner.upstreams.clear();
        planner.notes.clone_from(&settings.notes);
    }
    let certificates = planner.certificates(secrets);
    let IngressPlanner { upstreams, errors: refused, notes, .. } = planner;
    let (generation, created) = (ingress.meta.generation, ingress.meta.created);
    Some(IngressPlan {
        generation,
        created,
        routes,
        default_route: fallback,
        certificates,
        upstreams,
        errors: refused,
        notes,
    })
}

struct IngressPlanner<'a> {
    cx: CompileContext<'a>,
    plugins: &'a Plugins,
    ingress: &'a Object<Ingress>,
    class: IngressClassParametersSpec,
    settings: &'a RouteSettings,
    upstreams: BTreeSet<UpstreamKey>,
    errors: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
}

/// The paths of one host with the same target: one route, as in Kong's ingress controller.
struct PathGroup<'a> {
    host: &'a str,
    target: IngressTarget,
    backend: &'a IngressBackend,
    /// The field of the first path's backend.
    field: String,
    paths: Vec<KongPath>,
    /// Whether the paths lack a capture group that `konghq.com/rewrite` refers to, so that requests cannot be
    /// forwarded.
    lacks_groups: bool,
}

impl<'a> IngressPlanner<'a> {
    fn routes(&mut self) -> Vec<Arc<KongRoute>> {
        let mut groups: Vec<PathGroup<'a>> = Vec::new();
        for (index, rule) in self.ingress.spec.rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            for (at, raw) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{at}]");
                let (path, kind) = (raw.path.as_deref(), raw.path_type.as_deref());
                let paths = match path::parse_path(self.path_options(), path, kind, &format!("{field}.path")) {
                    Ok((paths, remark)) => {
                        self.notes.extend(remark);
                        paths
                    }
                    Err(problem) => {
                        self.errors.push(problem);
                        continue;
                    }
                };
                let lead = IngressTarget::from_backend(&raw.backend);
                let is_stuck = self.lacks_groups(&paths, &format!("{field}.path"));
                let belongs =
                    |group: &PathGroup<'_>| (group.host, &group.target, group.lacks_groups) == (host, &lead, is_stuck);
                let group = match groups.iter().position(belongs) {
                    Some(known) => &mut groups[known],
                    None => {
                        let field = format!("{field}.backend");
                        groups.push(PathGroup {
                            host,
                            target: lead,
                            backend: &raw.backend,
                            field,
                            paths: Vec::new(),
                            lacks_groups: is_stuck,
                        });
                        let last = groups.len() - 1;
                        &mut groups[last]
                    }
                };
                for path in paths {
                    if !group.paths.contains(&path) {
                        group.paths.push(path);
                    }
                }
            }
        }
        groups.into_iter().enumerate().filter_map(|(index, group)| self.route(index, group)).collect()
    }

    fn path_options(&self) -> PathOptions<'a> {
        PathOptions {
            regex_prefix: &self.settings.regex_prefix,
            legacy_detection: self.class.enable_legacy_regex_detection,
            unescaped: self.cx.inputs.classes.replaces_other_controller()
                && self.cx.inputs.ingress.flavor == RouterFlavor::TraditionalCompatible,
        }
    }

    fn route(&mut self, index: usize, group: PathGroup<'a>) -> Option<Arc<KongRoute>> {
        let mut hosts = Vec::new();
        if !group.host.is_empty() {
            match KongHost::parse(group.host) {
                Some(host) => hosts.push(host),
                None => {
                    let field = group.field.split(".http").next().unwrap_or_default();
                    let message = format!("{:?} is not a host name", group.host);
                    let remedy = "write it like a.example or *.example";
                    self.errors.push(Diagnostic::error(format!("{field}.host"), message, remedy));
                    return None;
                }
            }
        }
        let name = group.target.route_name(group.host);
        let rule = match group.lacks_groups {
            true => self.failing_rule(&name, &group.target),
            false => self.rule(&name, &group.target, group.backend, &group.field),
        };
        let route = self.with_annotation_conditions(KongRoute::new(self.age(index), rule), hosts);
        Some(Arc::new(KongRoute { paths: group.paths, ..route }))
    }

    fn default_route(&mut self) -> Option<Arc<KongRoute>> {
        let backend = self.ingress.spec.default_backend.as_ref()?;
        let lead = IngressTarget::from_backend(backend);
        let paths = vec![KongPath::prefix("/")];
        let rule = match self.lacks_groups(&paths, "spec.defaultBackend") {
            true => self.failing_rule("", &lead),
            false => self.rule("", &lead, backend, "spec.defaultBackend"),
        };
        let route = self.with_annotation_conditions(KongRoute::new(self.age(usize::from(u16::MAX)), rule), Vec::new());
        Some(Arc::new(KongRoute { paths, is_default_backend: true, ..route }))
    }

    /// Whether the rewrite annotation is invalid or needs capture groups that these paths do not have. Reports it if
    /// so.
    fn lacks_groups(&mut self, paths: &[KongPath], field: &str) -> bool {
        let problem = match &self.settings.rewrite {
            Err(problem) => {
                let message = format!("{}, so requests get status 500", problem.message);
                Diagnostic { message, ..problem.clone() }
            }
            Ok(Some(template)) if paths.iter().any(|path| path.groups() < template.groups()) => {
                let message = format!(
                    "{REWRITE} refers to ${}, but this path has no such group, so requests for it get status 500",
                    template.groups()
                );
                Diagnostic::error(field, message, "write a regular expression with groups, such as /~/users/([^/]+)")
            }
            Ok(_) => return false,
        };
        if !self.errors.contains(&problem) {
            self.errors.push(problem);
        }
        true
    }

    /// Adds the conditions from annotations.
    fn with_annotation_conditions(&self, route: KongRoute, mut hosts: Vec<KongHost>) -> KongRoute {
        let RouteSettings { methods, headers, server_names, host_aliases, regex_priority, .. } = self.settings;
        for alias in host_aliases {
            if !hosts.contains(alias) {
                hosts.push(alias.clone());
            }
        }
        KongRoute {
            hosts,
            methods: methods.clone(),
            headers: headers.clone(),
            server_names: server_names.clone(),
            regex_priority: *regex_priority,
            ..route
        }
    }

    fn age(&self, index: usize) -> RouteAge {
        RouteAge {
            created: self.ingress.meta.created,
            route: self.ingress.meta.key.to_string().into(),
            rule: u16::try_from(index).unwrap_or(u16::MAX),
            index: 0,
        }
    }

    /// The rule for this backend. `name` is the part of the route's name after namespace and Ingress.
    fn rule(&mut self, name: &str, lead: &IngressTarget, backend: &IngressBackend, field: &str) -> Arc<RouteRule> {
        let key = &self.ingress.meta.key;
        let mut manner = self.behavior();
        let mut backends = Vec::new();
        let action = match backend::resolve(self.cx, &key.namespace, backend, self.class.service_upstream, field) {
            Ok(resolved) => {
                let settings = &resolved.settings;
                let (kind, meta) = resolved.settings_source;
                let remark = tls::unverified_note(resolved.key.tls.as_ref(), &format!("{kind} {}", meta.key), field);
                self.notes.extend(remark.filter(|remark| !self.notes.contains(remark)));
                manner.path = settings.path.clone();
                if !self.settings.preserve_host {
                    manner.host = UpstreamHost::Fixed(resolved.host.clone());
                }
                backends.push(resolved.settings_source);
                let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
                let split = Split::new(vec![Backend { weight: 1, filters: Filters::default(), target }]);
                let tries = TimeoutsAndRetries::for_kong_service(
                    settings.connect_timeout,
                    settings.write_timeout,
                    settings.read_timeout,
                    settings.retries,
                );
                self.upstreams.insert(resolved.key);
                match split {
                    Some(mut split) => {
                        split.timeouts_and_retries = Some(Box::new(tries));
                        Action::Forward(split)
                    }
                    None => Action::Fail(RouteFailure::NoService),
                }
            }
            Err(mut problem) => {
                problem.message.push_str(", so requests get status 503");
                if !self.errors.contains(&problem) {
                    self.errors.push(problem);
                }
                Action::Fail(RouteFailure::NoService)
            }
        };
        self.build_rule(name, lead, manner, &backends, action)
    }

    /// The rule for requests that cannot be forwarded.
    fn failing_rule(&mut self, name: &str, lead: &IngressTarget) -> Arc<RouteRule> {
        self.build_rule(name, lead, self.behavior(), &[], Action::Fail(RouteFailure::Unsupported))
    }

    fn build_rule(
        &mut self,
        name: &str,
        lead: &IngressTarget,
        manner: KongBehavior,
        backends: &[(Kind, &Meta)],
        action: Action,
    ) -> Arc<RouteRule> {
        let key = &self.ingress.meta.key;
        let route: Arc<str> = format!("{}/{key}", Kind::Ingress).into();
        let rule: Arc<str> = if name.is_empty() { "default".into() } else { name.into() };
        let (dot, own) = (if name.is_empty() { "" } else { "." }, &key.name);
        let names = RouteNames {
            route: format!("{}.{own}{dot}{name}", key.namespace).into(),
            service: lead.service_name(&key.namespace).into(),
        };
        let chained = self.plugins.chain(
            self.cx,
            &PluginSite {
                kind: Kind::Ingress,
                meta: &self.ingress.meta,
                extensions: &[],
                backends,
                names: Arc::new(names),
                scope: format!("{route}/{rule}").into(),
            },
        );
        let plugins = chained.report_into(&mut self.notes);
        let id = RuleId { route, rule };
        let filters = Filters::default();
        Arc::new(RouteRule { id, filters, plugins, action, kong: Some(Box::new(manner)) })
    }

    fn behavior(&self) -> KongBehavior {
        let settings = self.settings;
        KongBehavior {
            strip_path: settings.strip_path,
            protocols: settings.protocols,
            https_redirect: HttpsRedirect {
                status: settings.https_redirect,
                port: self.cx.inputs.ingress.public_https(),
            },
            rewrite: settings.rewrite.as_ref().ok().cloned().flatten(),
            ..KongBehavior::default()
        }
    }

    /// The usable certificates, by host. An invalid certificate affects its own hosts only.
    fn certificates(&mut self, secrets: &mut SecretCache) -> Vec<HostCertificate> {
        let mut shown = Vec::new();
        for (index, tls) in self.ingress.spec.tls.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            if tls.hosts.is_empty() {
                let remedy = "list the hosts of the certificate";
                self.notes.push(Diagnostic::warning(
                    format!("{field}.hosts"),
                    "the entry has no hosts, so the Secret is not used",
                    remedy,
                ));
                continue;
            }
            let secret = ObjectKey::new(&self.ingress.meta.key.namespace, name);
            match certificates::from_secret(self.cx.store, secrets, &secret) {
                Ok(certificate) => shown.extend(tls.hosts.iter().map(|host| HostCertificate {
                    host: HostPattern::parse(Some(host)),
                    certificate: Arc::clone(&certificate),
                    field: field.clone(),
                })),
                Err(mut problem) => {
                    problem.message.push_str(", so its hosts use the default certificate");
                    self.errors.push(problem.at(format!("{field}.secretName")));
                }
            }
        }
        shown
    }
}
