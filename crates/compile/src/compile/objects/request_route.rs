//! What HTTPRoute and GRPCRoute have in common: the fields from which their rules are compiled.

use crate::api::gateway::{
    BackendRef, Filter, GrpcRoute, GrpcRouteMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteTimeouts,
    ParentReference, SessionPersistence,
};
use crate::api::{Kind, Meta, Object, ObjectId};
use crate::store::Store;

/// A route of requests: an HTTPRoute or a GRPCRoute.
#[derive(Debug)]
pub(in crate::compile) struct RequestRoute<'a> {
    pub kind: Kind,
    pub meta: &'a Meta,
    pub parents: &'a [ParentReference],
    pub default_gateways: Option<&'a str>,
    pub hostnames: &'a [String],
    pub rules: Vec<RequestRouteRule<'a>>,
}

/// A rule of an HTTPRoute or a GRPCRoute. Only an HTTPRoute has timeouts and retries.
#[derive(Debug)]
pub(in crate::compile) struct RequestRouteRule<'a> {
    pub name: Option<&'a str>,
    pub matches: UnparsedMatches<'a>,
    pub filters: &'a [Filter],
    pub backends: &'a [BackendRef],
    pub timeouts: Option<&'a HttpRouteTimeouts>,
    pub retry: Option<&'a HttpRouteRetry>,
    pub session_persistence: Option<&'a SessionPersistence>,
}

/// The matches of a rule. Without any, the rule matches all requests, or all gRPC calls.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) enum UnparsedMatches<'a> {
    Http(&'a [HttpRouteMatch]),
    Grpc(&'a [GrpcRouteMatch]),
}

impl UnparsedMatches<'_> {
    /// The number of matches, where a rule without any has one.
    pub(in crate::compile) fn count(&self) -> usize {
        let length = match self {
            UnparsedMatches::Http(matches) => matches.len(),
            UnparsedMatches::Grpc(matches) => matches.len(),
        };
        length.max(1)
    }
}

impl<'a> RequestRoute<'a> {
    /// `None` if the object does not exist, or has another kind.
    pub(in crate::compile) fn find(store: &'a Store, id: &ObjectId) -> Option<Self> {
        match id.kind {
            Kind::HttpRoute => store.http_routes.get(&id.key).map(|route| (&**route).into()),
            Kind::GrpcRoute => store.grpc_routes.get(&id.key).map(|route| (&**route).into()),
            _ => None,
        }
    }

    /// The kind with its article, for messages.
    pub(in crate::compile) fn described_kind(&self) -> &'static str {
        if self.kind == Kind::GrpcRoute { "a GRPCRoute" } else { "an HTTPRoute" }
    }

    /// The number of matches of all rules.
    pub(in crate::compile) fn match_count(&self) -> usize {
        self.rules.iter().map(|rule| rule.matches.count()).sum()
    }
}

impl<'a> From<&'a Object<HttpRoute>> for RequestRoute<'a> {
    fn from(route: &'a Object<HttpRoute>) -> Self {
        let rules = route.spec.rules.iter().map(|rule| RequestRouteRule {
            name: rule.name.as_deref(),
            matches: UnparsedMatches::Http(&rule.matches),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: rule.timeouts.as_ref(),
            retry: rule.retry.as_ref(),
            session_persistence: rule.session_persistence.as_ref(),
        });
        RequestRoute {
            kind: Kind::HttpRoute,
            meta: &route.meta,
            parents: &route.spec.parent_refs,
            default_gateways: route.spec.use_default_gateways.as_deref(),
            hostnames: &route.spec.hostnames,
            rules: rules.collect(),
        }
    }
}

impl<'a> From<&'a Object<GrpcRoute>> for RequestRoute<'a> {
    fn from(route: &'a Object<GrpcRoute>) -> Self {
        let rules = route.spec.rules.iter().map(|rule| RequestRouteRule {
            name: rule.name.as_deref(),
            matches: UnparsedMatches::Grpc(&rule.matches),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: None,
            retry: None,
            session_persistence: rule.session_persistence.as_ref(),
        });
        RequestRoute {
            kind: Kind::GrpcRoute,
            meta: &route.meta,
            parents: &route.spec.parent_refs,
            default_gateways: route.spec.use_default_gateways.as_deref(),
            hostnames: &route.spec.hostnames,
            rules: rules.collect(),
        }
    }
}
