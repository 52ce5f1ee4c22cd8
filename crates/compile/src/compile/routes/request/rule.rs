//! Translates one rule of a route: matches, filters, backends, timeouts and retries.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::gateway::{BackendObjectReference, BackendRef, Filter};
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::reference;
use crate::compile::backend::reference::{ResolvedReference, SettingsReader};
use crate::compile::budgets::RegexBudget;
use crate::compile::kong::{plugins, service_annotations};
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::objects::request_route::{RequestRoute, RequestRouteRule, UnparsedMatches};
use crate::compile::policies::session_persistence;
use crate::compile::routes::filter_parts::FilterBackend;
use crate::compile::routes::filters;
use crate::compile::routes::filters::{FilterLevel, TranslatedFilters};
use crate::compile::routes::grpc_matches;
use crate::compile::routes::matches;
use crate::compile::routes::matches::ParsedMatch;
use crate::compile::routes::retry;
use crate::diagnostic::Diagnostic;
use crate::snapshot::router::PathMatch;
use crate::snapshot::rule::{Action, Backend, BackendTarget, RouteFailure, RouteRule, RuleId, WeightedBackends};
use crate::upstream::{Upstream, UpstreamKey};
use crate::verdict::Code;

/// A rule for the proxy, with what it refers to and what is wrong with it.
pub(super) struct TranslatedRule {
    /// KongPlugins of filters, each with the path of its field.
    pub extensions: Vec<(ObjectKey, String)>,
    pub rule: RouteRule,
    pub matches: Vec<ParsedMatch>,
    pub upstreams: BTreeSet<UpstreamKey>,
    pub unreachable_services: BTreeSet<ObjectKey>,
    /// Diagnostics because of which the rule is not served.
    pub dropped: Vec<Diagnostic>,
    /// References that cannot be resolved, each with the code for the condition ResolvedRefs.
    pub unresolved: Vec<(Code, Diagnostic)>,
    pub notes: Vec<Diagnostic>,
}

pub(super) fn translate(
    cx: CompileContext<'_>,
    route: &RequestRoute<'_>,
    raw: &RequestRouteRule<'_>,
    regexes: &RegexBudget<'_>,
    field: &str,
    id: RuleId,
) -> TranslatedRule {
    let mut references = References::new(cx, route);
    let mut dropped = Vec::new();
    let mut notes = Vec::new();
    let matches = translate_matches(raw.matches, regexes, field, &mut dropped, &mut notes);
    let prefix = replaceable_prefix(raw, &matches);
    let session = raw.session_persistence.and_then(|persistence| {
        let owner = format!("{}/{}", id.route, id.rule);
        session_persistence::translate(persistence, &owner, &format!("{field}.sessionPersistence"), &mut dropped)
    });
    let timeouts_and_retries = retry::translate(raw, field, &mut dropped);
    let translated = references.translate_filters(raw.filters, FilterLevel::Rule, prefix, field);
    let has_unresolved_filter = !translated.unresolved.is_empty();
    dropped.extend(translated.unsupported);
    references.record_unresolved_filters(translated.unresolved);

    let backends = raw.backends.iter().enumerate();
    let backends = backends
        .map(|(index, backend)| {
            references.translate_backend(backend, prefix, &format!("{field}.backendRefs[{index}]"), &mut dropped)
        })
        .collect();
    references.record_filter_targets();

    if translated.redirect.is_some() && !translated.filters.mirrors.is_empty() {
        notes.push(Diagnostic::warning(
            format!("{field}.filters"),
            "the rule redirects, so it has no requests to mirror",
            "remove the mirror, or move it to a separate rule",
        ));
    }
    if translated.redirect.is_some() && session.is_some() {
        notes.push(Diagnostic::warning(
            format!("{field}.sessionPersistence"),
            "the rule redirects, so it has no sessions",
            "remove it, or move it to a separate rule",
        ));
    }
    let action = if !dropped.is_empty() || has_unresolved_filter {
        Action::Fail(RouteFailure::Unsupported)
    } else if translated.lacks_authorization_server {
        Action::Fail(RouteFailure::NoAuthorizationServer)
    } else if let Some(redirect) = translated.redirect {
        Action::Redirect(redirect)
    } else {
        match WeightedBackends::new(backends) {
            Some(mut split) => {
                split.timeouts_and_retries = timeouts_and_retries;
                split.honors_call_deadlines = route.kind == Kind::GrpcRoute;
                split.set_affinity(session);
                notes.extend(unpinned_backends(&split, &format!("{field}.sessionPersistence")));
                Action::Forward(split)
            }
            None => Action::Fail(RouteFailure::NoBackends),
        }
    };
    let extensions = translated.extensions.into_iter();
    let References { upstreams, unreachable_services, unresolved, .. } = references;
    TranslatedRule {
        extensions: extensions.map(|(name, field)| (ObjectKey::new(&route.meta.key.namespace, &name), field)).collect(),
        rule: RouteRule { id, filters: translated.filters, plugins: None, action, options: None },
        matches,
        upstreams,
        unreachable_services,
        dropped,
        unresolved,
        notes,
    }
}

fn translate_matches(
    raw: UnparsedMatches<'_>,
    regexes: &RegexBudget<'_>,
    field: &str,
    dropped: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> Vec<ParsedMatch> {
    let field = |index| format!("{field}.matches[{index}]");
    match raw {
        UnparsedMatches::Http([]) => vec![matches::match_all()],
        UnparsedMatches::Http(raw) => {
            let parse = |(index, raw)| matches::parse(raw, regexes, &field(index), dropped, notes);
            raw.iter().enumerate().filter_map(parse).collect()
        }
        UnparsedMatches::Grpc([]) => vec![grpc_matches::match_all()],
        UnparsedMatches::Grpc(raw) => {
            let parse = |(index, raw)| grpc_matches::parse(raw, regexes, &field(index), dropped, notes);
            raw.iter().enumerate().filter_map(parse).collect()
        }
    }
}

/// The prefix that filters with ReplacePrefixMatch replace. Such a filter requires a rule with exactly one match, of
/// type PathPrefix; a rule without matches has the default one. `matches` lacks the invalid matches of `raw`, which
/// count too.
fn replaceable_prefix<'m>(raw: &RequestRouteRule<'_>, matches: &'m [ParsedMatch]) -> Option<&'m str> {
    match matches {
        [ParsedMatch { path: PathMatch::Prefix(prefix), .. }] if raw.matches.count() == 1 => Some(prefix),
        _ => None,
    }
}

/// Warnings about backends of a rule with sessions that are not connected to directly, so that the cluster's network
/// selects an endpoint for each connection.
fn unpinned_backends(split: &WeightedBackends, field: &str) -> Vec<Diagnostic> {
    let backends = split.backends().iter().filter(|_| split.affinity().is_some());
    let upstreams = backends.filter_map(|backend| match &backend.target {
        BackendTarget::Upstream(upstream) if upstream.key.via_cluster_ip => Some(&upstream.key),
        BackendTarget::Upstream(_) | BackendTarget::Fail(_) => None,
    });
    let warnings = upstreams.map(|UpstreamKey { namespace, service, .. }| {
        let message =
            format!("requests to Service {namespace}/{service} go to its ClusterIP, so sessions have no effect there");
        Diagnostic::warning(field, message, "remove the annotation ingress.kubernetes.io/service-upstream")
    });
    warnings.collect()
}

/// Resolves the references of one rule, and collects their upstreams and diagnostics.
struct References<'a> {
    cx: CompileContext<'a>,
    from: Referrer<'a>,
    settings: SettingsReader,
    upstreams: BTreeSet<UpstreamKey>,
    unreachable_services: BTreeSet<ObjectKey>,
    unresolved: Vec<(Code, Diagnostic)>,
    /// The targets of filters, which are reported after the backends.
    filter_targets: Vec<ResolvedReference>,
}

impl<'a> References<'a> {
    fn new(cx: CompileContext<'a>, route: &RequestRoute<'a>) -> Self {
        References {
            cx,
            from: Referrer { kind: route.kind, namespace: &route.meta.key.namespace },
            settings: match route.kind {
                Kind::GrpcRoute => service_annotations::for_grpc,
                _ => service_annotations::for_gateway_api,
            },
            upstreams: BTreeSet::new(),
            unreachable_services: BTreeSet::new(),
            unresolved: Vec::new(),
            filter_targets: Vec::new(),
        }
    }

    fn resolve(&self, target: &BackendObjectReference, field: &str) -> ResolvedReference {
        reference::resolve(self.cx, self.from, target, self.settings, field)
    }

    fn resolve_filter_target(
        &mut self,
        target: &BackendObjectReference,
        backend: FilterBackend,
        field: &str,
    ) -> Option<Arc<Upstream>> {
        let service = |settings| reference::resolve_service(self.cx, self.from, target, settings, field);
        let resolved = match backend {
            FilterBackend::Mirror => self.resolve(target, field),
            FilterBackend::HttpAuthorization => service(service_annotations::for_gateway_api),
            FilterBackend::GrpcAuthorization => service(service_annotations::for_grpc),
        };
        let upstream = match &resolved.target {
            BackendTarget::Upstream(upstream) => Some(upstream.clone()),
            BackendTarget::Fail(_) => None,
        };
        self.filter_targets.push(resolved);
        upstream
    }

    fn translate_filters(
        &mut self,
        raw: &[Filter],
        level: FilterLevel,
        prefix: Option<&str>,
        field: &str,
    ) -> TranslatedFilters {
        let (cx, namespace) = (self.cx, self.from.namespace);
        let missing_plugin = |field: &str, name: &str| {
            (!plugins::exists(cx.store, namespace, name)).then(|| plugins::missing_filter_plugin(cx, field, name))
        };
        let mut resolve = |target: &BackendObjectReference, backend: FilterBackend, field: &str| {
            self.resolve_filter_target(target, backend, field)
        };
        filters::translate(raw, level, prefix, field, &missing_plugin, &mut resolve)
    }

    fn translate_backend(
        &mut self,
        raw: &BackendRef,
        prefix: Option<&str>,
        field: &str,
        dropped: &mut Vec<Diagnostic>,
    ) -> Backend {
        let translated = self.translate_filters(&raw.filters, FilterLevel::Backend, prefix, field);
        dropped.extend(translated.unsupported);
        let resolved = self.resolve(&raw.target, field);
        let mut target = self.record(resolved);
        if !translated.unresolved.is_empty() {
            target = BackendTarget::Fail(RouteFailure::Unsupported);
            self.record_unresolved_filters(translated.unresolved);
        } else if translated.lacks_authorization_server {
            target = BackendTarget::Fail(RouteFailure::NoAuthorizationServer);
        }
        Backend { weight: u32::try_from(raw.weight).unwrap_or(0), filters: translated.filters, target }
    }

    /// Records what a reference leads to, and returns the target for the proxy.
    fn record(&mut self, resolved: ResolvedReference) -> BackendTarget {
        match resolved.upstream {
            Ok(key) => drop(self.upstreams.insert(key)),
            Err((code, problem)) => {
                if code == Code::RouteInvalidBackendTls {
                    self.unreachable_services.extend(resolved.service);
                }
                self.unresolved.push((code, problem));
            }
        }
        resolved.target
    }

    fn record_filter_targets(&mut self) {
        for resolved in std::mem::take(&mut self.filter_targets) {
            self.record(resolved);
        }
    }

    fn record_unresolved_filters(&mut self, problems: Vec<Diagnostic>) {
        self.unresolved.extend(problems.into_iter().map(|problem| (Code::RouteInvalidKind, problem)));
    }
}
