//! Plans an Ingress of the dialect `kubernetes`, which has exactly the semantics of the Kubernetes specification.
//!
//! ```text
//!   Ingress ┬ ../refused_annotations.rs  none has an effect; one that protects in Kong's dialect makes all rules fail
//!           ├ path.rs                    Exact and Prefix as in the Gateway API
//!           ├ rule.rs                    the rule of a path ─ ../plain_service.rs ─ ../../service_backend.rs
//!           └ ../../plan.rs              spec.tls
//!   path_conflicts.rs                    equal paths of all Ingresses of a host
//! ```
//!
//! The paths compile to the same matches and rules as those of an HTTPRoute.

mod path;
pub(super) mod path_conflicts;
mod rule;

use std::sync::Arc;

use crate::api::networking::{Ingress, IngressBackend, IngressClass, IngressRule};
use crate::api::{Kind, Object};
use crate::compile::CompileContext;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::dialects::refused_annotations;
use crate::compile::ingress::plan;
use crate::compile::ingress::plan::{HostPath, IngressPlan, RoutesByHost};
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::ingress_class::foreign_annotations::{self, TlsUse};
use crate::compile::kong::plugins::Plugins;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::by_conditions::HostName;
use crate::snapshot::router::{PathMatch, RouteMatch, TieBreaker};
use crate::snapshot::rule::{Action, RouteFailure, RouteRule};
use rule::{RuleBuilder, RulePlace};

/// Plans a served Ingress of this class, which may be missing. `problem`: why none of its requests can be forwarded.
pub(in crate::compile::ingress) fn plan(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    class: Option<&Object<IngressClass>>,
    problem: Option<Diagnostic>,
) -> IngressPlan {
    let annotations = refused_annotations::check(&ingress.meta, Dialect::Kubernetes);
    let refuses_guards = foreign_annotations::refuses_guards(cx, ingress, class);
    let tls =
        TlsUse { serves_plain_text: cx.inputs.ingress.http.is_some(), has_certificates: !ingress.spec.tls.is_empty() };
    let foreign = foreign_annotations::check_ingress(&ingress.meta, tls, refuses_guards);
    let mut errors: Vec<Diagnostic> = problem.into_iter().chain(annotations.unsupported_protection).collect();
    errors.extend(foreign.guards);
    let failure = (!errors.is_empty()).then_some(RouteFailure::UnsupportedProtection);
    let mut planner = KubernetesPlanner {
        ingress,
        rules: RuleBuilder::new(cx, plugins, ingress, failure, refuses_guards),
        routes: RoutesByHost::default(),
        errors: Vec::new(),
    };
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        planner.add_rule(index, rule);
    }
    planner.add_default_backend();
    let KubernetesPlanner { rules, routes, errors: route_errors, .. } = planner;
    errors.extend(route_errors);
    errors.extend(rules.errors.into_vec());
    let mut notes = annotations.notes;
    notes.extend(foreign.notes);
    notes.extend(rules.notes.into_vec());
    let certificates = plan::certificates(cx, secrets, ingress, &mut errors, &mut notes);
    IngressPlan {
        dialect: Dialect::Kubernetes,
        generation: ingress.meta.generation,
        created: ingress.meta.created,
        routes: Vec::new(),
        default_route: None,
        path_positions: Vec::new(),
        by_host: Some(routes),
        by_location: None,
        location_parts: Default::default(),
        certificates,
        passthrough: Vec::new(),
        handshakes: Vec::new(),
        upstreams: rules.upstreams.into_iter().collect(),
        errors,
        notes,
    }
}

struct KubernetesPlanner<'a> {
    ingress: &'a Object<Ingress>,
    rules: RuleBuilder<'a>,
    routes: RoutesByHost,
    errors: Vec<Diagnostic>,
}

impl KubernetesPlanner<'_> {
    fn add_rule(&mut self, index: usize, rule: &IngressRule) {
        let field = format!("spec.rules[{index}]");
        let text = rule.host.as_deref().filter(|host| !host.is_empty());
        if let Some(text) = text.filter(|text| !is_host(text)) {
            let message = format!("{text:?} is not the host name of an {}", Kind::Ingress);
            let remedy = "write it like a.example or *.example";
            return self.errors.push(Diagnostic::error(format!("{field}.host"), message, remedy));
        }
        let host = HostPattern::parse(text);
        match (&rule.http, &self.ingress.spec.default_backend) {
            (Some(http), _) => {
                for (path_index, raw) in http.paths.iter().enumerate() {
                    let field = format!("{field}.http.paths[{path_index}]");
                    let path = path::parse(raw.path.as_deref(), raw.path_type.as_deref(), &field);
                    self.rules.notes.extend(path.notes);
                    let name = format!("{index}.{path_index}");
                    let written_path = raw.path.as_deref().filter(|path| !path.is_empty());
                    let place = RulePlace { name: &name, host: text, path: written_path };
                    let rule = match path.problem {
                        None => self.rules.build(place, &raw.backend, &format!("{field}.backend")),
                        Some(problem) => {
                            self.errors.push(problem);
                            self.rules.build_with_action(place, &raw.backend, Action::Fail(RouteFailure::Unsupported))
                        }
                    };
                    self.add_path(&host, path.path, rule, (index, path_index), field);
                }
            }
            // A rule without paths is a catch-all for its host.
            (None, Some(backend)) => {
                let rule = self.rules.build(
                    RulePlace { name: &index.to_string(), host: text, path: None },
                    backend,
                    "spec.defaultBackend",
                );
                self.add_path(&host, PathMatch::Prefix("".into()), rule, (index, 0), field);
            }
            (None, None) => {}
        }
    }

    fn add_default_backend(&mut self) {
        let Some(backend): Option<&IngressBackend> = self.ingress.spec.default_backend.as_ref() else { return };
        let rule =
            self.rules.build(RulePlace { name: "default", host: None, path: None }, backend, "spec.defaultBackend");
        self.routes.default_backend = Some(self.route_match(PathMatch::Prefix("".into()), rule, (usize::MAX, 0)));
    }

    fn add_path(
        &mut self,
        host: &HostPattern,
        path: PathMatch,
        rule: Arc<RouteRule>,
        position: (usize, usize),
        field: String,
    ) {
        let route_match = self.route_match(path, rule, position);
        self.routes.paths.push(HostPath { host: host.clone(), route_match, field });
    }

    /// `position`: the index of the rule, and that of the path in the rule.
    fn route_match(&self, path: PathMatch, rule: Arc<RouteRule>, position: (usize, usize)) -> RouteMatch {
        let index = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        RouteMatch {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            call: None,
            server_names: Arc::default(),
            tie_breaker: TieBreaker {
                created: self.ingress.meta.created,
                route: self.ingress.meta.key.to_string().into(),
                rule: index(position.0),
                index: index(position.1),
            },
            rule,
        }
    }
}

/// Whether the text is a name, of which the first label may be a wildcard.
fn is_host(text: &str) -> bool {
    matches!(HostName::parse(text), Some(HostName::Exact(_) | HostName::LeadingWildcard(_)))
}
