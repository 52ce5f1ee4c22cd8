//! Plans an Ingress of the dialect `nginx`, which has the semantics and the annotations of ingress-nginx.
//!
//! ```text
//!   all Ingresses ─ host_facts.rs: is a path of the host an expression? has it TLS, canaries, a snippet?
//!                        │        └ config_map.rs: what applies to all
//!   Ingress ┬ annotations.rs, access.rs, client_certificates.rs, backend_tls.rs, snippets.rs, custom_headers.rs,
//!           │ fast_cgi.rs
//!           │                      ─▶ what has an effect (value_reader.rs)
//!           ├ endpoint_rewrites.rs ─▶ directives that the snippets of its locations inherit
//!           ├ unsupported.rs ─▶ what has none; a guard that has none makes all rules fail
//!           ├ path.rs        ─▶ the locations of a path
//!           ├ passthrough.rs ─▶ hosts whose TLS connections are not decrypted ─ ../../passthrough.rs
//!           ├ rule.rs        ─▶ what a location does ─ ../plain_service.rs
//!           │     ├ telemetry.rs    ─▶ its names in logs and metrics ─ tracing.rs
//!           │     ├ shared_parts.rs ─▶ its steps, its guards and its mirror, which plugins of the program implement
//!           │     └ error_backend.rs ─▶ what responds in place of errors
//!           ├ canary.rs      ─▶ an Ingress that gets a share of the requests of another one
//!           └ ../../plan.rs  ─▶ spec.tls
//!   all plans ┬ ../../joined_locations.rs    ─▶ the locations of a host
//!             └ path_conflicts.rs
//!   ConfigMaps of ports ─ stream_services.rs ─▶ ../../streams/
//! ```

mod access;
mod addresses;
pub(in crate::compile::ingress) mod annotation_prefixes;
mod annotations;
mod auth_server;
mod authority_cache;
mod backend_tls;
mod balancing;
mod canary;
mod certificate_conflicts;
mod cipher_list;
mod client_certificates;
mod config_keys;
mod config_map;
mod config_value;
mod custom_headers;
mod endpoint_rewrites;
pub(in crate::compile::ingress) mod error_backend;
mod fast_cgi;
mod further_names;
mod handshake_annotations;
mod handshakes;
mod host_facts;
mod host_paths;
mod limits;
mod log_settings;
mod mirror;
mod modsecurity;
mod parsed_snippets;
mod passthrough;
mod passthrough_wish;
mod path;
pub(super) mod path_conflicts;
mod permitted;
mod referenced_objects;
mod response_rate;
mod retries;
mod rule;
mod rule_sessions;
mod rule_steps;
pub(in crate::compile::ingress) mod server_alias;
mod session_cookie;
mod shared_parts;
mod snippets;
mod stream_defaults;
pub(in crate::compile::ingress) mod stream_services;
mod supported;
mod telemetry;
mod tracing;
mod unsupported;
mod value_reader;
mod waf_engine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;

use self::host_facts::HostFacts;
pub(in crate::compile::ingress) use self::host_facts::NginxHosts;
use self::path::{IngressPath, written_path};
use self::rule::{EXPRESSION_REMEDY, RuleBuilder, RulePlace};
use self::shared_parts::PartBuilder;
pub(in crate::compile::ingress) use self::shared_parts::SharedParts;
use super::{refusal, refused_annotations};
use crate::api::ingress_nginx::PREFIX;
use crate::api::networking::{HttpIngressPath, Ingress, IngressClass, IngressRule};
use crate::api::{Kind, Meta, Object};
use crate::compile::CompileContext;
use crate::compile::budgets::{BudgetShare, Expansion, MAX_HOST_MATCHES, RegexBudget};
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::plan;
use crate::compile::ingress::plan::{HostLocations, IngressPlan, LocationPrecedence, LocationsOfPath, PassthroughHost};
use crate::compile::ingress::settings::HostOwnership;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::kong::plugins::Plugins;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_path::{LocationPath, expression_bytes, literal_part};
use crate::snapshot::path_edit::PathEdit;
use crate::snapshot::redirect::RedirectBase;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::router::by_conditions::HostName;
use crate::snapshot::router::locations::HostLocation;
use crate::snapshot::rule::{Action, RedirectAction, RedirectStyle, RouteFailure};
use access::AccessSettings;
use annotations::NginxAnnotations;
pub use config_map::config_map_problem;
use error_backend::ErrorSettings;
pub use unsupported::{AnnotationSupport, annotation_support};
use value_reader::{ValueReader, is_canary};

/// Plans a served Ingress of this class, which may be missing, and returns what it expands to. `before`: the plan that
/// it had. An error if it expands to more than its share of its namespace's budget.
#[expect(clippy::too_many_arguments, reason = "a dialect needs all that is known of an Ingress")]
pub(super) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    hosts: &NginxHosts,
    before: Option<&IngressPlan>,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
    share: BudgetShare,
) -> Result<(IngressPlan, Expansion), Expansion> {
    let usual = annotation_prefixes::with_usual_prefix(ingress);
    let written = &ingress.meta;
    let (mut plan, expansion) = plan_usual(cx, plugins, secrets, hosts, before, &usual, written, class, share)?;
    annotation_prefixes::restore(written, &mut plan.errors);
    annotation_prefixes::restore(written, &mut plan.notes);
    Ok((plan, expansion))
}

/// The same for an Ingress with the usual prefix. `written`: the metadata with the prefixes as they are written.
#[expect(clippy::too_many_arguments, reason = "a dialect needs all that is known of an Ingress")]
fn plan_usual(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    hosts: &NginxHosts,
    before: Option<&IngressPlan>,
    ingress: &Object<Ingress>,
    written: &Meta,
    class: Option<&Object<IngressClass>>,
    share: BudgetShare,
) -> Result<(IngressPlan, Expansion), Expansion> {
    let budgets = cx.inputs.budgets;
    let regexes = RegexBudget::new(budgets, &share);
    let paths = further_names::paths_of_all_names(hosts, ingress);
    regexes.expansion_within_share(paths)?;
    let refuses_guards = foreign_annotations::refuses_guards(cx, ingress, class);
    if is_canary(ingress) {
        return Ok((canary::plan(cx, hosts, ingress, refuses_guards), regexes.expansion_within_share(paths)?));
    }
    let (refused, mut notes) = refusal(cx, ingress);
    let config = &hosts.config;
    let mut reader = ValueReader::new(&ingress.meta);
    let annotations = NginxAnnotations::read(&mut reader, config);
    // A bad value is reported, and makes an ordinary Ingress.
    reader.flag("canary", false);
    reader.note_without(&canary::DEPENDENT, "canary");
    let access = AccessSettings::read(cx, &mut reader, config);
    let certificates = client_certificates::read(cx, &mut reader, config, &hosts.authorities, budgets.regex_limit());
    modsecurity::check(&mut reader, config, refuses_guards);
    let response_headers = custom_headers::read(cx, &mut reader, config);
    let backend_tls = backend_tls::read(cx, &mut reader, config);
    let fast_cgi = fast_cgi::read(cx, &mut reader, config, annotations.protocol);
    let error_settings = ErrorSettings::read(cx, &mut reader, config, refuses_guards);
    let mut named: BTreeSet<HostPattern> =
        ingress.spec.rules.iter().map(|rule| HostPattern::parse(rule.host.as_deref())).collect();
    if ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_some() {
        named.insert(HostPattern::Any);
    }
    further_names::report(&mut reader, hosts, ingress, &named);
    certificate_conflicts::report(&mut reader, hosts, ingress, &certificates, &named);
    passthrough::report(cx, &mut reader, hosts, ingress, &named);
    handshakes::report(&mut reader, hosts, ingress, &named);
    let own = named.iter().filter(|host| hosts.belongs_to(host, ingress));
    let mut rewrites = endpoint_rewrites::read(&mut reader, config, budgets.regex_limit());
    rewrites.base = annotations.redirect_base;
    let snippets = snippets::by_host(&mut reader, hosts, own, &rewrites, budgets.regex_limit(), refuses_guards);
    let mut over_budget = count_expressions(&regexes, hosts, ingress, budgets.regex_limit());
    let of_snippets = snippets::regex_bytes(&snippets, hosts, &ingress.meta.key);
    let regex_bytes = rewrites.regex_bytes() + of_snippets + certificates.regex_bytes;
    if over_budget.is_empty() && !regexes.add_bytes(regex_bytes) {
        over_budget = regexes.problems("metadata.annotations");
    }
    let expansion = regexes.expansion_within_share(paths)?;
    budgets.check("spec.rules", "paths", paths, MAX_HOST_MATCHES, &mut over_budget);
    if let BudgetShare::Exceeded(problem) = share {
        over_budget.push(problem);
    }
    // An Ingress that is refused compiles no expression: its paths fail by their literal start.
    let is_over_budget = over_budget.iter().any(Diagnostic::is_error);
    let of_other_dialect = refused_annotations::check(&ingress.meta, Dialect::Nginx);
    let unsupported = unsupported::check(&ingress.meta, refuses_guards);
    let (over_budget, warnings): (Vec<_>, Vec<_>) = over_budget.into_iter().partition(Diagnostic::is_error);
    let left_over = annotation_prefixes::left_over(written, refuses_guards);
    let (left_over, left_over_notes): (Vec<_>, Vec<_>) = left_over.into_iter().partition(Diagnostic::is_error);
    let mut errors: Vec<Diagnostic> = refused.into_iter().chain(over_budget).chain(left_over).collect();
    errors.extend(of_other_dialect.unsupported_protection);
    errors.extend(permitted::problems(&ingress.meta, config));
    errors.extend_from_slice(&config.errors);
    errors.append(&mut reader.errors);
    errors.extend(unsupported.guards);
    let mut notes: Vec<Diagnostic> = notes.take().into_iter().chain(of_other_dialect.notes).collect();
    notes.extend(warnings);
    notes.extend(left_over_notes);
    notes.extend_from_slice(&config.notes);
    notes.append(&mut reader.notes);
    notes.extend(unsupported.notes);
    let failure = (!errors.is_empty()).then_some(RouteFailure::UnsupportedProtection);
    let mut planner = NginxPlanner {
        ingress,
        hosts,
        rules: RuleBuilder {
            cx,
            plugins,
            ingress,
            annotations: &annotations,
            access: &access,
            certificates: certificates.requirement.as_ref(),
            response_headers: &response_headers,
            backend_tls,
            fast_cgi,
            errors_of: &error_settings,
            snippets: &snippets,
            refers_to_groups: snippets::refers_to_groups(&ingress.meta, config),
            access_configs: Vec::new(),
            parts: PartBuilder::new(
                cx,
                format!("{}/{}", Kind::Ingress, ingress.meta.key).into(),
                before.map(|plan| &plan.location_parts),
            ),
            config,
            hosts,
            failure,
            refuses_guards,
            limit: budgets.regex_limit(),
            upstreams: error_settings.upstreams().cloned().collect(),
            errors: Default::default(),
            notes: Default::default(),
        },
        is_over_budget,
        by_host: BTreeMap::new(),
        errors: Vec::new(),
    };
    ingress.spec.rules.iter().enumerate().for_each(|(index, rule)| planner.add_rule(index, rule));
    planner.add_roots();
    let passthrough = planner.passthrough();
    planner.separate_hosts();
    planner.add_aliases();
    let own = planner.by_host.keys().filter(|host| hosts.belongs_to(host, ingress) || hosts.is_alias(host));
    let chosen = own.filter_map(|host| Some((host.clone(), handshakes::choice(config, hosts.ciphers(host))?)));
    let handshakes = chosen.collect();
    let NginxPlanner { rules, by_host, errors: route_errors, .. } = planner;
    errors.extend(route_errors);
    errors.extend(certificates.problem);
    errors.extend(rules.errors.into_vec());
    notes.extend(rules.notes.into_vec());
    notes.extend(rules.parts.notes().cloned().map(access::about_annotation));
    let mut host_certificates = plan::certificates(cx, secrets, ingress, &mut errors, &mut notes);
    further_names::add_certificates(hosts, &named, &mut host_certificates);
    let plan = IngressPlan {
        dialect: Dialect::Nginx,
        generation: ingress.meta.generation,
        created: ingress.meta.created,
        by_location: Some(by_host.into_values().collect()),
        location_parts: rules.parts.into_parts(),
        certificates: host_certificates,
        passthrough,
        handshakes,
        upstreams: rules.upstreams.into_iter().collect(),
        errors,
        notes,
        ..IngressPlan::default()
    };
    Ok((plan, expansion))
}

/// Counts the expressions of all paths. Returns diagnostics if they are too many, or too large together.
fn count_expressions(
    regexes: &RegexBudget<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    limit: RegexLimit,
) -> Vec<Diagnostic> {
    for rule in &ingress.spec.rules {
        let facts = hosts.facts(&HostPattern::parse(rule.host.as_deref()), None);
        for path in rule.http.iter().flat_map(|http| &http.paths).filter(|_| facts.has_expressions) {
            let path = written_path(path.path.as_deref());
            let bytes = expression_bytes(path, limit);
            // A plain path is cheap, and is an expression only because another one of the host is.
            let is_within = match literal_part(path) == path {
                true => regexes.add_bytes(bytes),
                false => regexes.add_expression(bytes),
            };
            if !is_within {
                return regexes.problems("spec.rules");
            }
        }
    }
    Vec::new()
}

struct NginxPlanner<'a> {
    ingress: &'a Object<Ingress>,
    hosts: &'a NginxHosts,
    rules: RuleBuilder<'a>,
    is_over_budget: bool,
    by_host: BTreeMap<HostPattern, HostLocations>,
    errors: Vec<Diagnostic>,
}

impl NginxPlanner<'_> {
    fn add_rule(&mut self, index: usize, rule: &IngressRule) {
        let field = format!("spec.rules[{index}]");
        let text = rule.host.as_deref().filter(|host| !host.is_empty());
        let is_host =
            |text: &str| matches!(HostName::parse(text), Some(HostName::Exact(_) | HostName::LeadingWildcard(_)));
        if let Some(text) = text.filter(|text| !is_host(text)) {
            let message = format!("{text:?} is not the host name of an {}", Kind::Ingress);
            let remedy = "write it like a.example or *.example";
            return self.errors.push(Diagnostic::error(format!("{field}.host"), message, remedy));
        }
        let host = HostPattern::parse(text);
        self.locations(&host);
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        for (path_index, path) in paths.enumerate() {
            let field = format!("{field}.http.paths[{path_index}]");
            self.add_path(&host, &format!("{index}.{path_index}"), path, field);
        }
    }

    fn add_path(&mut self, host: &HostPattern, name: &str, raw: &HttpIngressPath, field: String) {
        let path = written_path(raw.path.as_deref());
        if !path.starts_with('/') {
            let message = format!("{path:?} does not start with a slash, so no request matches it");
            self.errors.push(Diagnostic::error(format!("{field}.path"), message, format!("write /{path}")));
            return;
        }
        let is_exact = match raw.path_type.as_deref() {
            Some("Exact") => true,
            None | Some("Prefix" | "ImplementationSpecific") => false,
            Some(other) => {
                let message = format!("{other} is not a supported path type, so the path is served as a prefix");
                let remedy = "use Exact, Prefix or ImplementationSpecific";
                self.errors.push(Diagnostic::error(format!("{field}.pathType"), message, remedy));
                false
            }
        };
        let facts = self.facts(host);
        let annotations = self.rules.annotations;
        let ingress_path = IngressPath {
            path,
            is_exact,
            has_expressions: facts.has_expressions,
            is_expression: annotations.use_regex || annotations.rewrites(path),
            limit: self.rules.limit,
        };
        let locations = match ingress_path.locations() {
            _ if self.is_over_budget && facts.has_expressions => self.failing_location(ingress_path, name, host),
            Ok(paths) => {
                let canary = self.hosts.canary(host, is_exact, path, &self.ingress.meta.key.namespace);
                let place =
                    RulePlace { is_exact, canary: canary.map(|canary| &**canary), ..self.place(name, host, path) };
                let rule = self.rules.build(place, &raw.backend, &format!("{field}.backend"));
                let location = |(precedence, location_path): (LocationPrecedence, LocationPath)| {
                    let rule = match precedence {
                        LocationPrecedence::Forced | LocationPrecedence::Written | LocationPrecedence::OfPrefix => {
                            Arc::clone(&rule)
                        }
                        LocationPrecedence::AddsSlash => {
                            self.rules.build_redirect(place, redirect_to(path, annotations.redirect_base))
                        }
                    };
                    (precedence, HostLocation { path: location_path, rule })
                };
                paths.into_iter().map(location).collect()
            }
            Err(error) => {
                let failing = self.failing_location(ingress_path, name, host);
                let effect = if failing.is_empty() { "no request matches it" } else { "requests get status 503" };
                let message = format!("{path:?} cannot be used as an expression: {error}, so {effect}");
                self.errors.push(Diagnostic::error(format!("{field}.path"), message, EXPRESSION_REMEDY));
                failing
            }
        };
        self.locations(host).paths.push(LocationsOfPath { is_exact, path: path.into(), locations, field });
    }

    /// What responds with an error in place of an expression that cannot be used: for paths that begin with its literal
    /// start. If that is not known, it is for all paths that come after it if the Ingress restricts clients or is not
    /// served, because other Ingresses would get their requests.
    fn failing_location(
        &mut self,
        path: IngressPath<'_>,
        name: &str,
        host: &HostPattern,
    ) -> Vec<(LocationPrecedence, HostLocation)> {
        let is_guard = self.rules.failure.is_some() || self.rules.restricts(host);
        let Some(location_path) = path.failing_location(is_guard) else { return Vec::new() };
        let action = Action::Fail(RouteFailure::UnsupportedProtection);
        let rule = self.rules.build_plain(self.place(name, host, path.path), action);
        vec![(LocationPrecedence::Written, HostLocation { path: location_path, rule })]
    }

    fn place<'p>(&self, name: &'p str, host: &'p HostPattern, path: &'p str) -> RulePlace<'p> {
        let facts = self.facts(host);
        RulePlace { name, host, path, is_exact: false, is_catch_all: false, canary: None, facts }
    }

    /// What is known of a host. Nothing if it belongs to another namespace, because it is not served for this Ingress.
    fn facts(&self, host: &HostPattern) -> HostFacts {
        let is_own = self.hosts.belongs_to(host, self.ingress);
        if is_own { self.hosts.facts(host, self.owner()) } else { HostFacts::default() }
    }

    /// The namespace to which hosts belong, if they do.
    fn owner(&self) -> Option<&str> {
        let is_owned = self.rules.cx.inputs.ingress.host_ownership == HostOwnership::Namespace;
        is_owned.then_some(&*self.ingress.meta.key.namespace)
    }

    /// Adds the root of each host that has no path for it: the default backend of the Ingress, or else an error, with
    /// all annotations. An Ingress without rules has one for all hosts that no Ingress names.
    fn add_roots(&mut self) {
        let backend = self.ingress.spec.default_backend.as_ref();
        let is_catch_all = self.ingress.spec.rules.is_empty();
        if is_catch_all && backend.is_some() {
            self.locations(&HostPattern::Any).is_catch_all = true;
        }
        self.add_www_redirects();
        let hosts: Vec<HostPattern> = self.by_host.keys().cloned().collect();
        for (index, host) in hosts.iter().enumerate() {
            let facts = self.facts(host);
            let is_root = |path: &LocationsOfPath| !path.is_exact && *path.path == *"/";
            if !self.locations(host).paths.iter().any(is_root) {
                let name = format!("root.{index}");
                let place =
                    RulePlace { name: &name, host, path: "/", is_exact: false, is_catch_all, canary: None, facts };
                let rule = match backend {
                    // Requests for hosts without rules have neither annotations nor the backend of an Ingress with
                    // rules.
                    _ if *host == HostPattern::Any && !is_catch_all => self.rules.build_default(place),
                    Some(backend) => self.rules.build(place, backend, "spec.defaultBackend"),
                    None => self.rules.build_without_backend(place),
                };
                let path = IngressPath {
                    path: "/",
                    is_exact: false,
                    has_expressions: facts.has_expressions,
                    is_expression: false,
                    limit: self.rules.limit,
                };
                let location = path.locations().into_iter().flatten().next();
                self.locations(host).root = location.map(|(_, path)| HostLocation { path, rule });
            }
            self.add_app_root(host, is_catch_all);
        }
    }

    /// Lets the hosts with or without `www` redirect to those of the Ingress, except those that an Ingress has.
    fn add_www_redirects(&mut self) {
        if !self.rules.annotations.has_www_redirect {
            return;
        }
        let hosts: Vec<HostPattern> = self.by_host.keys().cloned().collect();
        for (index, host) in hosts.iter().enumerate() {
            let is_own = self.hosts.belongs_to(host, self.ingress);
            let twin = is_own.then(|| self.hosts.redirecting_twin(host)).flatten();
            let Some(twin) = twin.filter(|twin| !self.by_host.contains_key(twin)) else { continue };
            let rule = self.rules.build_www_redirect(self.place(&format!("www.{index}"), &twin, "/"), host);
            let location = HostLocation { path: LocationPath::Prefix("/".into()), rule };
            let precedence = LocationPrecedence::Written;
            self.locations(&twin).paths.push(LocationsOfPath {
                is_exact: false,
                path: "/".into(),
                locations: vec![(precedence, location)],
                field: annotation_field(&format!("{PREFIX}from-to-www-redirect")),
            });
        }
    }

    /// Where the TLS connections of hosts go that pass through.
    fn passthrough(&mut self) -> Vec<PassthroughHost> {
        let hosts: Vec<HostPattern> = self.by_host.keys().cloned().collect();
        let own = hosts.iter().filter(|host| self.hosts.belongs_to(host, self.ingress));
        let own: Vec<&HostPattern> = own.collect();
        own.into_iter().filter_map(|host| self.rules.passthrough(self.place("passthrough", host, "/"))).collect()
    }

    /// Keeps the connections of hosts that verify their clients apart from those of others.
    fn separate_hosts(&mut self) {
        for locations in self.by_host.values_mut() {
            let requirement = self.rules.certificates_of(&locations.host);
            locations.verifies_clients = self.hosts.belongs_to(&locations.host, self.ingress)
                && requirement.is_some_and(|requirement| requirement.verifies_clients());
        }
    }

    /// Serves the locations of hosts under their further names.
    fn add_aliases(&mut self) {
        let own = self.by_host.values().filter(|locations| self.hosts.belongs_to(&locations.host, self.ingress));
        let of_aliases = own.flat_map(|locations| {
            let names = self.hosts.aliases(&locations.host);
            names.map(|name| HostLocations { host: name.clone(), ..locations.clone() })
        });
        let of_aliases: Vec<HostLocations> = of_aliases.collect();
        for locations in of_aliases {
            self.by_host.entry(locations.host.clone()).or_insert(locations);
        }
    }

    fn add_app_root(&mut self, host: &HostPattern, is_catch_all: bool) {
        // It would let requests pass to other locations of an Ingress that is not served.
        let Some(target) = self.rules.annotations.app_root.filter(|_| !is_catch_all && self.rules.failure.is_none())
        else {
            return;
        };
        let style = RedirectStyle::HostAsSent;
        let redirect =
            RedirectAction { path: Some(PathEdit::full(target)), style, ..RedirectAction::new(StatusCode::FOUND) };
        // No location of a snippet precedes it.
        let facts = HostFacts { has_expressions: false, ..self.facts(host) };
        let place = RulePlace { is_exact: true, facts, ..self.place("app-root", host, "/") };
        let rule = self.rules.build_redirect(place, Action::Redirect(redirect));
        self.locations(host).app_root = Some(HostLocation { path: LocationPath::Exact("/".into()), rule });
    }

    fn locations(&mut self, host: &HostPattern) -> &mut HostLocations {
        self.by_host.entry(host.clone()).or_insert_with(|| HostLocations {
            host: host.clone(),
            paths: Vec::new(),
            root: None,
            app_root: None,
            is_catch_all: false,
            verifies_clients: false,
        })
    }
}

/// The redirect to a path with a slash at its end.
fn redirect_to(path: &str, base: RedirectBase) -> Action {
    let path = Some(PathEdit::full(path));
    Action::Redirect(RedirectAction { path, style: base.style(), ..RedirectAction::new(StatusCode::MOVED_PERMANENTLY) })
}
