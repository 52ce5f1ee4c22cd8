//! Translates all rules of an HTTPRoute, with the plugins and annotations that apply to each.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::CompileContext;
use super::super::backend::tls;
use super::super::backend_reference;
use super::super::ingress::http_route_annotations::{self, RouteAnnotations, RuleAnnotations};
use super::super::plugins::{PluginSite, Plugins, RuleChain};
use super::super::reference_grants::Referrer;
use super::super::verdict::{Code, Condition};
use super::rule::{self, TranslatedRule};
use crate::api::core::Service;
use crate::api::gateway::{BackendRef, HttpRoute};
use crate::api::{Kind, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::router::{Candidate, RouteAge};
use crate::snapshot::rule::{Action, RouteFailure, RouteRule, RuleId};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// The translated rules of a route, the same for every parent.
pub(super) struct TranslatedRules {
    pub candidates: Vec<Candidate>,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub unreachable_services: BTreeSet<ObjectKey>,
    pub resolved_refs: Condition,
    /// Diagnostics about rules that are not served.
    pub dropped: Vec<Diagnostic>,
    pub any_served: bool,
    /// Diagnostics about rules that are served, but possibly not as intended.
    pub notes: Vec<Diagnostic>,
}

/// `secure_ports`: the ports to which clients are redirected for TLS.
pub(super) fn translate(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    mut annotations: RouteAnnotations,
    secure_ports: &BTreeSet<u16>,
) -> TranslatedRules {
    let mut rules = TranslatedRules {
        candidates: Vec::new(),
        upstreams: BTreeSet::new(),
        unreachable_services: BTreeSet::new(),
        resolved_refs: Condition::without_diagnostics(Code::RouteResolvedRefs),
        dropped: std::mem::take(&mut annotations.dropped),
        any_served: false,
        notes: std::mem::take(&mut annotations.notes),
    };
    let is_refused = !rules.dropped.is_empty();
    let name: Arc<str> = Arc::from(route.meta.key.to_string());
    let id: Arc<str> = Arc::from(format!("{}/{name}", Kind::HttpRoute));
    for (index, raw) in route.spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let rule_name = raw.name.clone().unwrap_or_else(|| index.to_string());
        let id = RuleId { route: id.clone(), rule: Arc::from(rule_name) };
        let mut translated = rule::translate(cx, &route.meta.key, raw, &field, id);
        let chain = plugin_chain(cx, plugins, route, index, &translated.extensions);
        let mut annotated = rule_annotations(cx.store, &annotations, route, index);
        annotated.set_redirect_port(secure_ports);
        apply_annotations(&mut translated.rule, &mut annotated, chain.is_attached);
        if is_refused {
            translated.rule.action = Action::Fail(RouteFailure::Unsupported);
        }
        rules.any_served |= !is_refused && translated.dropped.is_empty();
        rules.note_unverified(&translated, &field);
        rules.note_once(annotated.notes);
        translated.rule.plugins = chain.report_into(&mut rules.notes);
        let age = RouteAge {
            created: route.meta.created,
            route: name.clone(),
            rule: u16::try_from(index).unwrap_or(u16::MAX),
            index: 0,
        };
        rules.add(translated, &annotations, &age);
    }
    rules
}

/// Sets what the annotations of the route and of its Services decide.
fn apply_annotations(rule: &mut RouteRule, annotated: &mut RuleAnnotations, has_plugins: bool) {
    // A route with Kong's annotations or plugins uses Kong's headers towards clients and backends.
    rule.kong = annotated.behavior.take().or_else(|| has_plugins.then(Box::default));
    if let (Some(of_service), Action::Forward(split)) = (annotated.timeouts_and_retries.take(), &mut rule.action) {
        let own = split.timeouts_and_retries.take().map(|own| *own).unwrap_or_default();
        // The rule's own fields override the annotations of the Service.
        let TimeoutsAndRetries { request, backend_request, retry, .. } = own;
        let retry = retry.or(of_service.retry.clone());
        split.timeouts_and_retries =
            Some(Box::new(TimeoutsAndRetries { request, backend_request, retry, ..of_service }));
    }
}

impl TranslatedRules {
    /// Notes Services whose certificates are not verified.
    fn note_unverified(&mut self, translated: &TranslatedRule, field: &str) {
        for key in &translated.upstreams {
            let service = format!("Service {}/{}", key.namespace, key.service);
            self.note_once(tls::unverified_note(key.tls.as_ref(), &service, field));
        }
    }

    fn note_once(&mut self, notes: impl IntoIterator<Item = Diagnostic>) {
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Adds a rule: its diagnostics, and a candidate for each of its matches.
    fn add(&mut self, translated: TranslatedRule, annotations: &RouteAnnotations, age: &RouteAge) {
        self.dropped.extend(translated.dropped);
        self.notes.extend(translated.notes);
        self.upstreams.extend(translated.upstreams);
        self.unreachable_services.extend(translated.unreachable_services);
        for (code, problem) in translated.unresolved {
            // The first reason becomes the condition's reason; the message has all diagnostics.
            if self.resolved_refs.diagnostics.is_empty() {
                self.resolved_refs.code = code;
            }
            self.resolved_refs.diagnostics.push(problem);
        }
        let rule = Arc::new(translated.rule);
        for (index, parsed) in translated.matches.into_iter().enumerate() {
            self.candidates.push(Candidate {
                path: parsed.path,
                method: parsed.method,
                headers: parsed.headers,
                query: parsed.query,
                server_names: Arc::clone(&annotations.server_names),
                age: RouteAge { index: u16::try_from(index).unwrap_or(u16::MAX), ..age.clone() },
                rule: rule.clone(),
            });
        }
    }
}

/// The Services of a rule that the route may refer to. The settings of other Services must not affect it.
fn permitted_services<'a>(
    store: &'a Store,
    route: &'a Object<HttpRoute>,
    index: usize,
) -> impl Iterator<Item = (&'a Object<Service>, &'a BackendRef)> {
    let from = Referrer { kind: Kind::HttpRoute, namespace: &route.meta.key.namespace };
    route.spec.rules[index].backend_refs.iter().filter_map(move |backend| {
        let service = backend_reference::permitted_service(store, from, &backend.target, "").ok()?;
        Some((service, backend))
    })
}

/// The settings of a rule from Kong's annotations.
fn rule_annotations(
    store: &Store,
    annotations: &RouteAnnotations,
    route: &Object<HttpRoute>,
    index: usize,
) -> RuleAnnotations {
    let used = permitted_services(store, route, index).filter(|(_, backend)| backend.weight > 0);
    let services: Vec<_> =
        used.filter_map(|(service, backend)| Some((service, u16::try_from(backend.target.port?).ok()?))).collect();
    http_route_annotations::read_rule(store, annotations, &services, &format!("spec.rules[{index}]"))
}

/// The plugins that run for the requests of a rule.
fn plugin_chain(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    index: usize,
    extensions: &[(ObjectKey, String)],
) -> RuleChain {
    let ObjectKey { namespace, name } = &route.meta.key;
    let backends: Vec<_> =
        permitted_services(cx.store, route, index).map(|(service, _)| (Kind::Service, &service.meta)).collect();
    let names = RouteNames {
        route: format!("httproute.{namespace}.{name}.{index}.0").into(),
        service: format!("httproute.{namespace}.{name}.{index}").into(),
    };
    let scope = format!("{}/{namespace}/{name}/{index}", Kind::HttpRoute);
    plugins.chain(
        cx,
        &PluginSite {
            kind: Kind::HttpRoute,
            meta: &route.meta,
            extensions,
            backends: &backends,
            names: Arc::new(names),
            scope: scope.into(),
        },
    )
}
