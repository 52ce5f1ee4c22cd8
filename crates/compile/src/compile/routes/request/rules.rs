//! Translates all rules of a route, with the plugins and annotations that apply to each.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::replaced_backend;
use super::replaced_backend::WithoutBackend;
use super::rule;
use super::rule::TranslatedRule;
use crate::api::core::Service;
use crate::api::gateway::{BackendRef, GrpcMethodMatch, HttpPathMatch};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::annotated_tls;
use crate::compile::backend::reference;
use crate::compile::budgets::RegexBudget;
use crate::compile::kong::plugins::{ChoiceSettings, PluginSite, Plugins, RouteFacts, RuleChain};
use crate::compile::kong::request_route_annotations;
use crate::compile::kong::request_route_annotations::{RouteAnnotations, RuleAnnotations};
use crate::compile::kong::{rule_options, service_annotations};
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::objects::request_route::{RequestRoute, RequestRouteRule, UnparsedMatches};
use crate::compile::objects::rule_content::rule_content;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::router::{RouteMatch, TieBreaker};
use crate::snapshot::rule::{Action, RouteFailure, RuleId};
use crate::snapshot::rule_options::UpstreamHost;
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::store::Store;
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;
use crate::verdict::{Code, Condition};

/// The translated rules of a route, the same for every parent.
pub(super) struct TranslatedRules {
    pub matches: Vec<RouteMatch>,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub unreachable_services: BTreeSet<ObjectKey>,
    pub resolved_refs: Condition,
    /// Why requests get an error because of plugins. `None` without such plugins.
    pub plugins_resolved: Option<Condition>,
    /// Diagnostics about rules that are not served. Such rules have matches, too, and respond with an error.
    pub dropped: Vec<Diagnostic>,
    pub any_served: bool,
    /// Diagnostics about rules that are served, but possibly not as intended.
    pub notes: UniqueDiagnostics,
}

/// `secure_ports`: the HTTPS ports of the route's hosts, to which clients that use HTTP may be redirected.
pub(super) fn translate(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    route: &RequestRoute<'_>,
    mut annotations: RouteAnnotations,
    regexes: &RegexBudget<'_>,
    secure_ports: &BTreeSet<u16>,
) -> TranslatedRules {
    let mut rules = TranslatedRules {
        matches: Vec::new(),
        upstreams: BTreeSet::new(),
        unreachable_services: BTreeSet::new(),
        resolved_refs: Condition::without_diagnostics(Code::RouteResolvedRefs),
        plugins_resolved: None,
        dropped: std::mem::take(&mut annotations.dropped),
        any_served: false,
        notes: std::mem::take(&mut annotations.notes).into_iter().collect(),
    };
    // An invalid annotation of the route prevents all of its rules from being served: they keep their matches, and
    // respond with an error.
    let is_route_dropped = !rules.dropped.is_empty();
    let name: Arc<str> = Arc::from(route.meta.key.to_string());
    let route_id: Arc<str> = Arc::from(format!("{}/{name}", route.kind));
    for (rule_index, raw) in route.rules.iter().enumerate() {
        let field = format!("spec.rules[{rule_index}]");
        let rule_name = raw.name.map_or_else(|| rule_index.to_string(), str::to_owned);
        let id = RuleId { route: route_id.clone(), rule: Arc::from(rule_name) };
        let mut translated = rule::translate(cx, route, raw, regexes, &field, id);
        let mut annotated = rule_annotations(cx.store, &annotations, route, rule_index);
        annotated.set_redirect_port(secure_ports);
        // Before the chain is built, because log plugins describe the timeouts and retries.
        apply_timeouts_and_retries(&mut translated.rule.action, annotated.timeouts_and_retries.take());
        let mut chain = plugin_chain(cx, plugins, route, rule_index, &translated, &annotated);
        rules.add_rejections(std::mem::take(&mut chain.rejections));
        let chosen = std::mem::take(&mut chain.chosen);
        chosen.move_into(&mut translated.rule.action, &mut translated.upstreams);
        // A rule with plugins has Kong's options even without annotations, so that clients and backends get the headers
        // that users of the plugins expect. Plugins that Portico's flags enable do not count.
        let default_options = || chain.is_attached.then(|| Box::new(rule_options::defaults()));
        translated.rule.options = annotated.options.take().or_else(default_options);
        let WithoutBackend { dropped, notes } = replaced_backend::check(raw, &field, chain.chain.as_deref());
        if is_route_dropped || !dropped.is_empty() {
            translated.rule.action = Action::Fail(RouteFailure::Unsupported);
        }
        translated.dropped.extend(dropped);
        translated.notes.extend(notes);
        rules.any_served |= !is_route_dropped && translated.dropped.is_empty();
        rules.note_unverified(&translated, &field);
        rules.notes.extend(annotated.notes);
        // Moves the diagnostics into the notes, and returns the chain itself.
        translated.rule.plugins = chain.report_into(&mut rules.notes);
        // `add` sets `index` for each match.
        let tie_breaker = TieBreaker {
            created: route.meta.created,
            route: name.clone(),
            rule: u16::try_from(rule_index).unwrap_or(u16::MAX),
            index: 0,
        };
        rules.add(translated, &annotations, &tie_breaker);
    }
    rules
}

/// Applies the timeouts and retries in the annotations of the Services, as far as the rule has none.
fn apply_timeouts_and_retries(action: &mut Action, annotated: Option<TimeoutsAndRetries>) {
    if let (Some(service_defaults), Action::Forward(split)) = (annotated, action) {
        let rule_fields = split.timeouts_and_retries.take().map(|fields| *fields).unwrap_or_default();
        split.timeouts_and_retries = Some(Box::new(with_service_defaults(rule_fields, service_defaults)));
    }
}

/// What the rule sets, and otherwise what the annotations of its Services set. Each field is listed, so that a new one
/// cannot be lost.
fn with_service_defaults(rule: TimeoutsAndRetries, service: TimeoutsAndRetries) -> TimeoutsAndRetries {
    TimeoutsAndRetries {
        // Annotations have no timeout for a request or an attempt, and rules none for parts of an attempt.
        request: rule.request,
        backend_request: rule.backend_request,
        connect: service.connect,
        write: service.write,
        read: service.read,
        retry_is_of_service: rule.retry.is_none() && service.retry_is_of_service,
        retry: rule.retry.or(service.retry),
    }
}

impl TranslatedRules {
    /// Adds notes on Services whose certificates are not verified.
    fn note_unverified(&mut self, translated: &TranslatedRule, field: &str) {
        for key in &translated.upstreams {
            let service = format!("Service {}/{}", key.namespace, key.service);
            self.notes.extend(annotated_tls::unverified_note(
                key.tls.as_ref(),
                &service,
                field,
                annotated_tls::VERIFY_SERVICE,
            ));
        }
    }

    /// Adds what plugins of a rule respond in place of the backend. Several rules may have the same plugins.
    fn add_rejections(&mut self, rejections: Vec<(Code, Diagnostic)>) {
        for (code, problem) in rejections {
            let condition = self.plugins_resolved.get_or_insert_with(|| Condition::without_diagnostics(code));
            if !condition.diagnostics.contains(&problem) {
                condition.diagnostics.push(problem);
            }
        }
    }

    /// Adds what the rules for other Gateways use and report, and returns their matches.
    pub(super) fn add_rules_of_others(&mut self, others: TranslatedRules) -> Vec<RouteMatch> {
        self.upstreams.extend(others.upstreams);
        self.resolved_refs.add_all(&others.resolved_refs);
        others.matches
    }

    /// Adds a rule: its diagnostics, and a [`RouteMatch`] for each of its matches.
    fn add(&mut self, translated: TranslatedRule, annotations: &RouteAnnotations, tie_breaker: &TieBreaker) {
        self.dropped.extend(translated.dropped);
        self.notes.extend(translated.notes);
        self.upstreams.extend(translated.upstreams);
        self.unreachable_services.extend(translated.unreachable_services);
        for (code, problem) in translated.unresolved {
            self.resolved_refs.add(code, problem);
        }
        let rule = Arc::new(translated.rule);
        for (match_index, parsed) in translated.matches.into_iter().enumerate() {
            let index = u16::try_from(match_index).unwrap_or(u16::MAX);
            self.matches.push(RouteMatch {
                path: parsed.path,
                method: parsed.method,
                headers: parsed.headers,
                query: parsed.query,
                call: parsed.call,
                server_names: Arc::clone(&annotations.server_names),
                tie_breaker: TieBreaker { index, ..tie_breaker.clone() },
                rule: rule.clone(),
            });
        }
    }
}

/// The Services of a rule to which the route may refer. The settings of other Services must not affect the rule.
fn permitted_services<'a>(
    store: &'a Store,
    route: &RequestRoute<'a>,
    rule_index: usize,
) -> impl Iterator<Item = (&'a Object<Service>, &'a BackendRef)> {
    let from = Referrer { kind: route.kind, namespace: &route.meta.key.namespace };
    // `rule.rs` reports references that are not permitted. Here the diagnostic is dropped, so its field is not needed.
    let unreported_field = "";
    route.rules[rule_index].backends.iter().filter_map(move |backend| {
        let service = reference::permitted_service(store, from, &backend.target, unreported_field).ok()?;
        Some((service, backend))
    })
}

/// The Services to which a rule and its backends mirror, as far as the route may refer to them, each with the field.
fn mirrored_services<'a>(store: &'a Store, route: &RequestRoute<'a>, rule_index: usize) -> Vec<(String, &'a Meta)> {
    let from = Referrer { kind: route.kind, namespace: &route.meta.key.namespace };
    let rule = &route.rules[rule_index];
    let field = format!("spec.rules[{rule_index}]");
    let backends = rule.backends.iter().enumerate();
    let backends = backends.map(|(index, backend)| (format!("{field}.backendRefs[{index}]"), &*backend.filters));
    let levels = std::iter::once((field.clone(), rule.filters)).chain(backends);
    let mut mirrored = Vec::new();
    for (level, filters) in levels {
        for (index, filter) in filters.iter().enumerate() {
            // Without its own field, a reference that is not permitted is reported with the filter.
            let service = filter
                .request_mirror
                .as_ref()
                .and_then(|mirror| reference::permitted_service(store, from, &mirror.backend_ref, "").ok());
            mirrored.extend(service.map(|service| (format!("{level}.filters[{index}]"), &service.meta)));
        }
    }
    mirrored
}

/// The settings of a rule from Kong's annotations.
fn rule_annotations(
    store: &Store,
    annotations: &RouteAnnotations,
    route: &RequestRoute<'_>,
    rule_index: usize,
) -> RuleAnnotations {
    let used = permitted_services(store, route, rule_index).filter(|(_, backend)| backend.weight > 0);
    let services: Vec<_> =
        used.filter_map(|(service, backend)| Some((service, u16::try_from(backend.target.port?).ok()?))).collect();
    request_route_annotations::read_rule(store, annotations, &services, &format!("spec.rules[{rule_index}]"))
}

/// What log plugins write about a rule.
fn route_facts<'a>(
    route: &'a RequestRoute<'_>,
    rule_index: usize,
    translated: &'a TranslatedRule,
    annotated: &'a RuleAnnotations,
) -> RouteFacts<'a> {
    let (paths, methods) = match route.rules[rule_index].matches {
        UnparsedMatches::Http(matches) => (
            matches.iter().filter_map(|condition| condition.path.as_ref()).map(path_fact).collect(),
            matches.iter().filter_map(|condition| condition.method.clone()).collect(),
        ),
        UnparsedMatches::Grpc(matches) => {
            (matches.iter().filter_map(|condition| condition.method.as_ref()).map(call_fact).collect(), Vec::new())
        }
    };
    RouteFacts {
        hosts: route.hostnames.iter().map(ToString::to_string).collect(),
        paths,
        methods,
        server_names: Vec::new(),
        regex_priority: 0,
        rule_name: route.rules[rule_index].name,
        options: annotated.options.as_deref(),
        action: &translated.rule.action,
    }
}

/// A path as Kong writes it: regular expressions begin with `~`.
fn path_fact(path: &HttpPathMatch) -> String {
    match &*path.kind {
        "RegularExpression" => format!("~{}", path.value),
        _ => path.value.clone(),
    }
}

/// The path of the calls, as Kong's ingress controller translates it.
fn call_fact(call: &GrpcMethodMatch) -> String {
    let part = |part: &Option<String>, any: &str| part.clone().unwrap_or_else(|| any.to_owned());
    match (&*call.kind, &call.service, &call.method) {
        ("Exact", Some(service), Some(method)) => format!("~/{service}/{method}"),
        ("Exact", Some(service), None) => format!("~/{service}/"),
        _ => format!("~/{}/{}", part(&call.service, ".+"), part(&call.method, ".+")),
    }
}

/// The plugins that run for the requests of a rule.
fn plugin_chain(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    route: &RequestRoute<'_>,
    rule_index: usize,
    translated: &TranslatedRule,
    annotated: &RuleAnnotations,
) -> RuleChain {
    let ObjectKey { namespace, name } = &route.meta.key;
    let backends: Vec<_> =
        permitted_services(cx.store, route, rule_index).map(|(service, _)| (Kind::Service, &service.meta)).collect();
    let kind = if route.kind == Kind::GrpcRoute { "grpcroute" } else { "httproute" };
    let names = RouteNames {
        namespace: Arc::clone(namespace),
        // In Kong, the last number is the index of a match. Here all matches of a rule have one name.
        route: format!("{kind}.{namespace}.{name}.{rule_index}.0").into(),
        service: format!("{kind}.{namespace}.{name}.{rule_index}").into(),
        content: rule_content(route.meta, &described_target(&route.rules[rule_index])),
    };
    let scope = format!("{}/{namespace}/{name}/{rule_index}", route.kind);
    plugins.chain(
        cx,
        &PluginSite {
            kind: route.kind,
            meta: route.meta,
            extensions: &translated.extensions,
            backends: &backends,
            mirrors: &mirrored_services(cx.store, route, rule_index),
            names: Arc::new(names),
            facts: &|| route_facts(route, rule_index, translated, annotated),
            counter_scope: scope.into(),
            choice: ChoiceSettings {
                settings: match route.kind {
                    Kind::GrpcRoute => service_annotations::for_grpc,
                    _ => service_annotations::for_gateway_api,
                },
                replaces_host: annotated
                    .options
                    .as_ref()
                    .is_some_and(|options| options.host != UpstreamHost::Preserved),
            },
        },
    )
}

/// What the rule does with requests, as far as it is written in the rule, without the shares of the backends.
fn described_target(rule: &RequestRouteRule<'_>) -> String {
    let backends: Vec<_> = rule.backends.iter().map(|backend| (&backend.target, &backend.filters)).collect();
    format!("{:?} {backends:?}", rule.filters)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schemars::schema_for;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::gateway::{HttpRouteRetry, HttpRouteTimeouts};
    use crate::compile::objects::request_route::RequestRouteRule;
    use crate::compile::routes::retry;

    /// What a rule with these `timeouts` and this `retry` sets, if its Service has annotations.
    fn merged(timeouts: Option<Value>, retry: Option<Value>) -> TimeoutsAndRetries {
        let timeouts: Option<HttpRouteTimeouts> = timeouts.map(|value| serde_json::from_value(value).unwrap());
        let retry: Option<HttpRouteRetry> = retry.map(|value| serde_json::from_value(value).unwrap());
        let rule = RequestRouteRule {
            name: None,
            matches: UnparsedMatches::Http(&[]),
            filters: &[],
            backends: &[],
            timeouts: timeouts.as_ref(),
            retry: retry.as_ref(),
            session_persistence: None,
        };
        let mut unsupported = Vec::new();
        let fields = retry::translate(&rule, "spec.rules[0]", &mut unsupported);
        assert!(unsupported.is_empty(), "{unsupported:?}");
        let second = Duration::from_secs(1);
        with_service_defaults(
            fields.map(|fields| *fields).unwrap_or_default(),
            TimeoutsAndRetries::per_attempt(second, second, second, 3),
        )
    }

    fn properties(schema: &schemars::Schema) -> Vec<String> {
        schema.get("properties").and_then(Value::as_object).unwrap().keys().cloned().collect()
    }

    #[test]
    fn annotations_of_services_leave_every_timeout_and_retry_of_a_rule() {
        let annotated = merged(None, None);
        assert_ne!(annotated, TimeoutsAndRetries::default());
        for field in properties(&schema_for!(HttpRouteTimeouts)) {
            let set = merged(Some(json!({ &*field: "7s" })), None);
            assert_ne!(set, annotated, "timeouts.{field} of the rule is lost");
            assert_eq!((set.connect, &set.retry), (annotated.connect, &annotated.retry), "timeouts.{field}");
        }
        for field in properties(&schema_for!(HttpRouteRetry)) {
            let value = match field.as_str() {
                "codes" => json!([503]),
                "backoff" => json!("7s"),
                _ => json!(7),
            };
            // `attempts` is not the default, so that only `field` can be the difference.
            let mut retry = json!({"attempts": 5});
            let without = merged(None, Some(retry.clone()));
            retry[&field] = value;
            assert_ne!(merged(None, Some(retry)), without, "retry.{field} of the rule is lost");
        }
    }
}
