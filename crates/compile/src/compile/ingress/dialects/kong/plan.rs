//! Plans an Ingress of Kong's dialect: its routes, certificates and diagnostics.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::path;
use super::path::{ParsedPath, PathOptions};
use crate::api::kong::IngressClassParametersSpec;
use crate::api::kong::annotations::{HOST_ALIASES, REWRITE};
use crate::api::names::ENTITY_NAME_ANNOTATION;
use crate::api::networking::{Ingress, IngressBackend, IngressClass};
use crate::api::{Kind, Meta, Object};
use crate::compile::backend::annotated_tls;
use crate::compile::budgets::{
    BudgetShare, Expansion, MAX_HEADERS_AND_PATHS, MAX_HOST_ALIASES, MAX_HOST_MATCHES, RegexBudget, is_refused,
};
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::plan;
use crate::compile::ingress::plan::{IngressPlan, PathPosition};
use crate::compile::ingress::service_backend;
use crate::compile::ingress::service_backend::{Connection, IngressTarget, ResolvedBackend};
use crate::compile::ingress_class;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::ingress_class::foreign_annotations::{self, TlsUse};
use crate::compile::kong::plugins::{ChoiceSettings, PluginSite, Plugins, RouteFacts};
use crate::compile::kong::route_annotations;
use crate::compile::kong::route_annotations::RouteSettings;
use crate::compile::kong::rule_options;
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::rule_content::rule_content;
use crate::compile::{Budgets, CompileContext};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::router::TieBreaker;
use crate::snapshot::router::by_conditions::{ConditionRoute, HostCondition, PathCondition, RouterFlavor};
use crate::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, RuleId, WeightedBackends,
};
use crate::snapshot::rule_options::{HttpsRedirect, RuleOptions, UpstreamHost};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::snapshot::upstream_path::UpstreamPath;
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// Plans a served Ingress of this class, which may be missing, and returns what the Ingress expands to. An error if
/// that exceeds its share of its namespace's budget.
pub(in crate::compile::ingress) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
    share: BudgetShare,
) -> Result<(IngressPlan, Expansion), Expansion> {
    let refuses_guards = foreign_annotations::refuses_guards(cx, ingress, class);
    let class = ingress_class::class_parameters(cx, class);
    let limits = cx.inputs.budgets;
    let regexes = RegexBudget::new(limits, &share);
    let settings = route_annotations::read(cx.inputs, &regexes, &ingress.meta, Kind::Ingress, "an Ingress");
    let tls = TlsUse {
        serves_plain_text: cx.inputs.ingress.http.is_some() && (settings.protocols.http || settings.protocols.grpc),
        has_certificates: !ingress.spec.tls.is_empty(),
    };
    let foreign = foreign_annotations::check_ingress(&ingress.meta, tls, refuses_guards);
    let paths: usize = ingress.spec.rules.iter().flat_map(|rule| &rule.http).map(|http| http.paths.len()).sum();
    let mut over_budget = check_budgets(limits, ingress, &settings, paths);
    over_budget.extend(limits.refusal(cx.store, Kind::Ingress, &ingress.meta.key));
    if let BudgetShare::Exceeded(problem) = share {
        over_budget.push(problem);
    }
    let host_paths = paths.saturating_mul(settings.host_aliases.len() + 1);
    regexes.expansion_within_share(host_paths)?;
    let planner = |regexes| IngressPlanner {
        cx,
        plugins,
        ingress,
        class: class.clone(),
        settings: &settings,
        regexes,
        refuses_guards,
        has_guard: !foreign.guards.is_empty(),
        positions: Vec::new(),
        upstreams: BTreeSet::new(),
        errors: settings.errors.iter().cloned().map(rejects_all).collect(),
        notes: settings.notes.iter().cloned().collect(),
    };
    let mut planned = (!is_refused(&over_budget)).then(|| planner(Some(&regexes)).plan());
    let expansion = regexes.expansion_within_share(host_paths)?;
    over_budget.extend(regexes.problems("spec.rules"));
    let is_refused = is_refused(&over_budget);
    if is_refused {
        planned = None;
    }
    let PlannedRoutes { routes, default_route, positions, upstreams, mut errors, mut notes } =
        planned.unwrap_or_else(|| planner(None).plan_refused());
    if is_refused { &mut errors } else { &mut notes }.extend(over_budget);
    errors.splice(..0, foreign.guards);
    notes.extend(foreign.notes);
    let certificates = plan::certificates(cx, secrets, ingress, &mut errors, &mut notes);
    let (generation, created) = (ingress.meta.generation, ingress.meta.created);
    let plan = IngressPlan {
        dialect: Dialect::Kong,
        generation,
        created,
        routes,
        default_route,
        path_positions: positions,
        by_host: None,
        by_location: None,
        location_parts: Default::default(),
        certificates,
        passthrough: Vec::new(),
        handshakes: Vec::new(),
        upstreams: upstreams.into_iter().collect(),
        errors,
        notes,
    };
    Ok((plan, expansion))
}

/// What the Ingress has more of than its budgets allow, except regular expressions.
fn check_budgets(
    budgets: &Budgets,
    ingress: &Object<Ingress>,
    settings: &RouteSettings,
    paths: usize,
) -> Vec<Diagnostic> {
    let mut over_budget = budgets.check_annotations(&ingress.meta);
    let pairs = settings.host_aliases.len().saturating_mul(paths);
    let what = "pairs of a host alias and a path";
    budgets.check(annotation_field(HOST_ALIASES), what, pairs, MAX_HOST_MATCHES, &mut over_budget);
    let pairs = settings.headers.len().saturating_mul(paths);
    let what = "pairs of a header condition and a path";
    budgets.check("spec.rules", what, pairs, MAX_HEADERS_AND_PATHS, &mut over_budget);
    over_budget
}

/// Adds the consequence to an error of a condition that all routes of the Ingress have.
fn rejects_all(mut problem: Diagnostic) -> Diagnostic {
    problem.message.push_str(
        ", so nothing of this Ingress is served, and other Ingresses get the requests for its hosts if their rules \
         match them",
    );
    problem
}

/// The routes of an Ingress, with what they use and report.
struct PlannedRoutes {
    routes: Vec<Arc<ConditionRoute>>,
    default_route: Option<Arc<ConditionRoute>>,
    positions: Vec<Box<[PathPosition]>>,
    upstreams: BTreeSet<UpstreamKey>,
    errors: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
}

/// The index of the default backend's route, after those of all rules.
const AFTER_ALL_RULES: usize = usize::MAX;

struct IngressPlanner<'a> {
    cx: CompileContext<'a>,
    plugins: &'a Plugins,
    ingress: &'a Object<Ingress>,
    class: IngressClassParametersSpec,
    settings: &'a RouteSettings,
    /// `None` if the Ingress is refused.
    regexes: Option<&'a RegexBudget<'a>>,
    /// Whether guards of other controllers prevent requests from being forwarded.
    refuses_guards: bool,
    /// Whether the Ingress has such a guard, and refuses it.
    has_guard: bool,
    /// For each group of paths, the positions of its paths.
    positions: Vec<Box<[PathPosition]>>,
    upstreams: BTreeSet<UpstreamKey>,
    errors: UniqueDiagnostics,
    notes: UniqueDiagnostics,
}

/// The paths of one host with the same target: one route, as in Kong's ingress controller.
struct PathGroup<'a> {
    host: &'a str,
    target: IngressTarget,
    backend: &'a IngressBackend,
    /// The field of the first path's backend.
    field: String,
    /// Each path once, in the order of the Ingress.
    paths: IndexMap<PathCondition, PathPosition>,
    /// Whether requests cannot be forwarded: the paths cannot be matched as they are meant, or `konghq.com/rewrite`
    /// cannot be applied to them.
    is_failing: bool,
}

/// What distinguishes a route from the others of its Ingress.
struct RouteIdentity<'p> {
    /// Without namespace and Ingress; empty for the default backend.
    name: &'p str,
    target: &'p IngressTarget,
    host: &'p str,
    paths: &'p [PathCondition],
}

impl<'a> IngressPlanner<'a> {
    fn plan(mut self) -> PlannedRoutes {
        let (mut routes, mut default_route) = (self.routes(), self.default_route());
        if !self.settings.errors.is_empty() {
            // A condition that cannot be evaluated never holds, so no route is served. The errors of routes are
            // reported, but not the notes, which are about served routes.
            (routes, default_route) = (Vec::new(), None);
            self.upstreams.clear();
            self.notes = self.settings.notes.iter().cloned().collect();
        }
        let IngressPlanner { positions, upstreams, errors, notes, .. } = self;
        let (errors, notes) = (errors.into_vec(), notes.into_vec());
        PlannedRoutes { routes, default_route, positions, upstreams, errors, notes }
    }

    /// The routes of an Ingress that exceeds a budget. They respond with an error to all requests that its routes would
    /// match: those of other Ingresses, with fewer restrictions, must not get them.
    fn plan_refused(mut self) -> PlannedRoutes {
        let mut routes = self.routes();
        let default_route = self.default_route();
        let aliases: Vec<_> = self.settings.host_aliases.iter().take(MAX_HOST_ALIASES).cloned().collect();
        if !aliases.is_empty() {
            let paths = vec![PathCondition::prefix("/")];
            let target = IngressTarget::Unsupported;
            let rule =
                self.failing_rule(&RouteIdentity { name: "host-aliases", target: &target, host: "", paths: &paths });
            let route = ConditionRoute::new(self.tie_breaker(routes.len()), rule);
            routes.push(Arc::new(ConditionRoute { hosts: aliases, paths, ..route }));
        }
        let (positions, upstreams, errors, notes) = Default::default();
        PlannedRoutes { routes, default_route, positions, upstreams, errors, notes }
    }

    fn is_refused(&self) -> bool {
        self.regexes.is_none()
    }

    fn routes(&mut self) -> Vec<Arc<ConditionRoute>> {
        let mut groups: IndexMap<(&str, IngressTarget, bool), PathGroup<'a>> = IndexMap::new();
        for (index, rule) in self.ingress.spec.rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            for (path_index, raw) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{path_index}]");
                let (path, kind) = (raw.path.as_deref(), raw.path_type.as_deref());
                let ParsedPath { conditions, problem, notes } =
                    path::parse_path(self.path_options(), path, kind, &format!("{field}.path"));
                self.notes.extend(notes);
                let target = IngressTarget::from_backend(&raw.backend);
                let is_failing = match problem {
                    Some(problem) => {
                        self.errors.push(problem);
                        true
                    }
                    None => self.report_invalid_rewrite(&conditions, &format!("{field}.path")),
                };
                let group = groups.entry((host, target.clone(), is_failing)).or_insert_with(|| PathGroup {
                    host,
                    target,
                    backend: &raw.backend,
                    field: format!("{field}.backend"),
                    paths: IndexMap::new(),
                    is_failing,
                });
                for condition in conditions {
                    group.paths.entry(condition).or_insert(PathPosition { rule: index, path: path_index });
                }
            }
        }
        self.positions = groups.values().map(|group| group.paths.values().copied().collect()).collect();
        groups.into_values().enumerate().filter_map(|(index, group)| self.route(index, group)).collect()
    }

    fn path_options(&self) -> PathOptions<'a> {
        PathOptions {
            regex_prefix: &self.settings.regex_prefix,
            regexes: self.regexes,
            legacy_detection: self.class.enable_legacy_regex_detection,
            unescaped: self.cx.inputs.classes.replaces_other_controller()
                && self.cx.inputs.ingress.flavor == RouterFlavor::TraditionalCompatible,
        }
    }

    fn route(&mut self, index: usize, group: PathGroup<'a>) -> Option<Arc<ConditionRoute>> {
        let host = HostCondition::parse(group.host);
        if host.is_none() && !group.host.is_empty() {
            let field = group.field.split(".http").next().unwrap_or_default();
            let message = format!("{:?} is not a host name", group.host);
            let remedy = "write it like a.example or *.example";
            self.errors.push(Diagnostic::error(format!("{field}.host"), message, remedy));
            return None;
        }
        let name = group.target.route_name(group.host);
        let paths: Vec<PathCondition> = group.paths.into_keys().collect();
        let identity = RouteIdentity { name: &name, target: &group.target, host: group.host, paths: &paths };
        let rule = match group.is_failing || self.is_refused() {
            true => self.failing_rule(&identity),
            false => self.rule(&identity, group.backend, &group.field),
        };
        let route = self.with_annotation_conditions(ConditionRoute::new(self.tie_breaker(index), rule), host);
        let has_every_path = || paths.iter().any(|path| *path == PathCondition::prefix("/"));
        let paths = if self.settings.any_path && !self.is_refused() && has_every_path() { Vec::new() } else { paths };
        Some(Arc::new(ConditionRoute { paths, ..route }))
    }

    fn default_route(&mut self) -> Option<Arc<ConditionRoute>> {
        let backend = self.ingress.spec.default_backend.as_ref()?;
        let target = IngressTarget::from_backend(backend);
        let paths = vec![PathCondition::prefix("/")];
        let identity = RouteIdentity { name: "", target: &target, host: "", paths: &paths };
        let rule = match self.report_invalid_rewrite(&paths, "spec.defaultBackend") || self.is_refused() {
            true => self.failing_rule(&identity),
            false => self.rule(&identity, backend, "spec.defaultBackend"),
        };
        let route = self.with_annotation_conditions(ConditionRoute::new(self.tie_breaker(AFTER_ALL_RULES), rule), None);
        Some(Arc::new(ConditionRoute { paths, is_default_backend: true, ..route }))
    }

    /// Adds an error if the rewrite annotation is invalid, or refers to capture groups that these paths do not have.
    /// Returns whether it did.
    fn report_invalid_rewrite(&mut self, paths: &[PathCondition], field: &str) -> bool {
        let problem = match &self.settings.rewrite {
            Err(problem) => {
                let message = format!("{}, so requests get status 500", problem.message);
                Diagnostic { message, ..problem.clone() }
            }
            Ok(Some(template)) if paths.iter().any(|path| path.group_count() < template.highest_group()) => {
                let message = format!(
                    "{REWRITE} refers to ${}, but this path has no such group, so requests for it get status 500",
                    template.highest_group()
                );
                Diagnostic::error(field, message, "write a regular expression with groups, such as /~/users/([^/]+)")
            }
            Ok(_) => return false,
        };
        self.errors.push(problem);
        true
    }

    /// Adds the match conditions that annotations define.
    fn with_annotation_conditions(&self, route: ConditionRoute, host: Option<HostCondition>) -> ConditionRoute {
        let RouteSettings { methods, headers, server_names, host_aliases, regex_priority, .. } = self.settings;
        if self.is_refused() {
            return ConditionRoute { hosts: host.into_iter().collect(), ..route };
        }
        let aliases = host_aliases.iter().filter(|alias| Some(*alias) != host.as_ref()).cloned();
        ConditionRoute {
            hosts: host.iter().cloned().chain(aliases).collect(),
            methods: methods.clone(),
            headers: Arc::clone(headers),
            server_names: Arc::clone(server_names),
            regex_priority: *regex_priority,
            ..route
        }
    }

    /// Decides between routes of equal precedence. `index`: the position of the route among those of the Ingress.
    fn tie_breaker(&self, index: usize) -> TieBreaker {
        TieBreaker {
            created: self.ingress.meta.created,
            route: self.ingress.meta.key.to_string().into(),
            rule: u16::try_from(index).unwrap_or(u16::MAX),
            index: 0,
        }
    }

    /// The rule for a backend.
    fn rule(&mut self, identity: &RouteIdentity<'_>, backend: &IngressBackend, field: &str) -> Arc<RouteRule> {
        let key = &self.ingress.meta.key;
        let mut options = self.rule_options();
        if self.settings.no_service {
            let no_backends: &[(Kind, &Meta)] = &[];
            // A plugin may respond in place of the Service, which the guard would prevent.
            let failure =
                if self.has_guard { RouteFailure::UnsupportedProtection } else { RouteFailure::WithoutService };
            return self.build_rule(identity, options, no_backends, Action::Fail(failure));
        }
        let mut backends = Vec::new();
        let through = Connection { via_cluster_ip: self.class.service_upstream, ..Connection::default() };
        let resolved = service_backend::resolve(self.cx, &key.namespace, backend, through, field);
        let action = match resolved {
            Ok(resolved) if let Some(failure) = self.unsupported_guard(&resolved, field) => Action::Fail(failure),
            Ok(resolved) => {
                let settings = &resolved.settings;
                let (kind, meta) = resolved.settings_source;
                let note = annotated_tls::unverified_note(
                    resolved.key.tls.as_ref(),
                    &format!("{kind} {}", meta.key),
                    field,
                    annotated_tls::VERIFY_SERVICE,
                );
                self.notes.extend(note);
                options.upstream_path = Some(self.upstream_path(settings.path.clone()));
                if !self.settings.preserve_host {
                    options.host = UpstreamHost::Fixed(resolved.host.clone());
                }
                backends.push(resolved.settings_source);
                let target = BackendTarget::Upstream(self.cx.inputs.upstreams.upstream(&resolved.key));
                let split = WeightedBackends::new(vec![Backend { weight: 1, filters: Filters::default(), target }]);
                let timeouts_and_retries = TimeoutsAndRetries::per_attempt(
                    settings.connect_timeout,
                    settings.write_timeout,
                    settings.read_timeout,
                    settings.retries,
                );
                self.upstreams.insert(resolved.key);
                match split {
                    Some(mut split) => {
                        split.timeouts_and_retries = Some(Box::new(timeouts_and_retries));
                        Action::Forward(split)
                    }
                    None => Action::Fail(RouteFailure::NoService),
                }
            }
            Err(mut problem) => {
                problem.message.push_str(", so requests get status 503");
                self.errors.push(problem);
                Action::Fail(RouteFailure::NoService)
            }
        };
        self.build_rule(identity, options, &backends, action)
    }

    /// Why requests are not forwarded to a backend although it exists: a guard of another controller, on the Ingress or
    /// on the backend. Reports the latter.
    fn unsupported_guard(&mut self, resolved: &ResolvedBackend<'_>, field: &str) -> Option<RouteFailure> {
        let of_backend = self.refuses_guards.then(|| resolved.foreign_guard(self.cx.store, field)).flatten();
        let is_guarded = self.has_guard || of_backend.is_some();
        self.errors.extend(of_backend);
        is_guarded.then_some(RouteFailure::UnsupportedProtection)
    }

    /// The rule for requests that cannot be forwarded.
    fn failing_rule(&mut self, identity: &RouteIdentity<'_>) -> Arc<RouteRule> {
        let no_backends: &[(Kind, &Meta)] = &[];
        self.build_rule(identity, self.rule_options(), no_backends, Action::Fail(RouteFailure::Unsupported))
    }

    /// The name of a route or service that an annotation gives it. It has no effect in a cluster.
    fn entity_name<'m>(&self, meta: &'m Meta) -> Option<&'m str> {
        let is_trusted = self.cx.inputs.upstreams.trust_model().trusts_given_names();
        meta.annotations.get(ENTITY_NAME_ANNOTATION).map(|name| &**name).filter(|_| is_trusted)
    }

    fn build_rule(
        &mut self,
        identity: &RouteIdentity<'_>,
        options: RuleOptions,
        backends: &[(Kind, &Meta)],
        mut action: Action,
    ) -> Arc<RouteRule> {
        let RouteIdentity { name, target, .. } = *identity;
        let key = &self.ingress.meta.key;
        let route: Arc<str> = format!("{}/{key}", Kind::Ingress).into();
        let rule: Arc<str> = if name.is_empty() { "default".into() } else { name.into() };
        let dot = if name.is_empty() { "" } else { "." };
        let own_name = |meta: &Meta| self.entity_name(meta).map(Arc::from);
        let names = RouteNames {
            namespace: Arc::clone(&key.namespace),
            route: own_name(&self.ingress.meta)
                .unwrap_or_else(|| format!("{}.{}{dot}{name}", key.namespace, key.name).into()),
            service: match backends.first() {
                None if self.settings.no_service => "".into(),
                backend => backend
                    .and_then(|(_, meta)| own_name(meta))
                    .unwrap_or_else(|| target.service_name(&key.namespace).into()),
            },
            content: rule_content(&self.ingress.meta, target),
        };
        let mut chain = self.plugins.chain(
            self.cx,
            &PluginSite {
                kind: Kind::Ingress,
                meta: &self.ingress.meta,
                extensions: &[],
                backends,
                mirrors: &[],
                names: Arc::new(names),
                facts: &|| self.route_facts(identity, &options, &action),
                counter_scope: format!("{route}/{rule}").into(),
                choice: ChoiceSettings {
                    settings: match self.class.service_upstream {
                        true => service_annotations::for_ingress_via_cluster_ip,
                        false => service_annotations::for_ingress,
                    },
                    replaces_host: !self.settings.preserve_host,
                },
            },
        );
        std::mem::take(&mut chain.chosen).move_into(&mut action, &mut self.upstreams);
        let plugins = chain.report_into(&mut self.notes);
        // A plugin could respond in place of the backend, from a cache for example, which the guard would prevent.
        let is_guarded = matches!(action, Action::Fail(RouteFailure::UnsupportedProtection));
        let plugins = plugins.filter(|_| !is_guarded);
        let id = RuleId { route, rule };
        let filters = Filters::default();
        Arc::new(RouteRule { id, filters, plugins, action, options: Some(Box::new(options)) })
    }

    /// What log plugins write about a route.
    fn route_facts<'r>(
        &self,
        identity: &RouteIdentity<'_>,
        options: &'r RuleOptions,
        action: &'r Action,
    ) -> RouteFacts<'r> {
        let settings = self.settings;
        let host = Some(identity.host.to_owned()).filter(|host| !host.is_empty());
        let path = |path: &PathCondition| match path {
            PathCondition::Exact(text) => format!("~{text}$"),
            PathCondition::Prefix(text) => text.to_string(),
            PathCondition::Regex(regex) => format!("~{}", regex.as_str()),
            PathCondition::Refused { prefix, .. } => prefix.to_string(),
        };
        RouteFacts {
            hosts: host.into_iter().chain(settings.host_aliases.iter().map(ToString::to_string)).collect(),
            paths: identity.paths.iter().map(path).collect(),
            methods: settings.methods.iter().map(ToString::to_string).collect(),
            server_names: settings.server_names.iter().map(ToString::to_string).collect(),
            regex_priority: settings.regex_priority,
            rule_name: None,
            options: Some(options),
            action,
        }
    }

    fn rule_options(&self) -> RuleOptions {
        let settings = self.settings;
        RuleOptions {
            protocols: settings.protocols,
            https_redirect: HttpsRedirect {
                status: settings.https_redirect,
                port: self.cx.inputs.ingress.public_https(),
                plain_port: self.cx.inputs.ingress.http.map(|listener| listener.public_port),
            },
            upstream_path: Some(self.upstream_path("/".into())),
            ..rule_options::of_ingress()
        }
    }

    /// The path for endpoints. `prefix`: the path of the service.
    fn upstream_path(&self, prefix: Box<str>) -> UpstreamPath {
        UpstreamPath {
            strip_matched: self.settings.strip_path,
            prefix,
            template: self.settings.rewrite.as_ref().ok().cloned().flatten(),
        }
    }
}
