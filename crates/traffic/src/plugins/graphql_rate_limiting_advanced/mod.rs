//! `graphql-rate-limiting-advanced`: limits what GraphQL requests cost in several windows of any length.
//!
//! ```yaml
//! plugin: graphql-rate-limiting-advanced
//! config:
//!   limit: [1000]
//!   window_size: [60]
//!   max_cost: 500
//!   introspection_url: http://films.shop:8080/graphql
//!   costs:
//!   - {type_path: Query.allPeople, mul_arguments: [first]}
//! ```
//!
//! A request takes its cost from each window: `cost × score_factor`, rounded up, and at least 1. Requests that are
//! rejected take nothing. Each field costs `add + mul × (what its selections cost)`:
//!
//! | `cost_strategy` | field without an entry in `costs` | operation |
//! | --- | --- | --- |
//! | `default` | add 1, mul 1 | add 1 |
//! | `node_quantifier` | add 0, mul 1 | at least 1 |
//!
//! With an entry, add is `add_constant` and the values of `add_arguments`, and mul is the product of `mul_constant` and
//! the values of `mul_arguments`. Of an argument that is a list, the length counts, and one that is neither given nor
//! has a default does not count. `@skip` and `@include` do not count either: fields that may be left out are paid for.
//!
//! An entry can also be a KongCustomEntity of the type `graphql_ratelimiting_advanced_cost_decoration` whose
//! `parentRef` is the KongPlugin. The types of fields are read from the server by introspection, at most once in five
//! minutes. An entry for a field of an interface is also one for the same field of the objects and interfaces that
//! implement it, and the reverse, unless these have entries of their own.
//!
//! Requests are GET with the parameter `query`, or POST with `application/json` or `application/graphql`. What a server
//! could read in another way is rejected with 400, 405 or 415: batches, persisted queries, forms, repeated names, and
//! documents with more than 256 KiB, 10000 tokens, 64 levels or 1000 aliases.

mod config;
mod cost;
mod schema;
mod schema_source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode, request};
use smallvec::SmallVec;

use self::config::ValidatedConfig;
use self::cost::{CostStrategy, cost_of};
use self::schema::PricedSchema;
use self::schema_source::SchemaSource;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::kind::EntityList;
use crate::plugin_api::{
    AccessOutcome, BeforeForwardCx, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, decimal,
};
use crate::plugin_formats::graphql::{
    CheckedDocument, DocumentLimits, GraphqlRequest, has_graphql_type, upgrade_rejection,
};
use crate::plugin_kit::counting::{
    ActiveLimit, LimitBy, LimitDecision, LimitIdentifier, LimitRule, RateHeaders, RateStore, retry_seconds,
};
use crate::plugin_kit::redis::dumped_fields::NO_CLOUD_LOGIN;

pub(crate) use config::Config;

pub(crate) struct GraphqlRateLimiting {
    rules: Arc<[LimitRule]>,
    headers: RateHeaders,
    identifier: LimitBy,
    store: RateStore,
    hides_headers: bool,
    strategy: CostStrategy,
    max_cost: f64,
    score_factor: f64,
    /// `None` without costs of fields: then no type has to be known.
    schemas: Option<Arc<SchemaSource>>,
}

impl PluginKind for GraphqlRateLimiting {
    const NAME: &'static str = "graphql-rate-limiting-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 902;
    const PHASES: Phases = Phases { before_forward: true, ..Phases::ACCESS };
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13")];
    const ENTITIES: Option<&'static EntityList> = Some(&EntityList {
        types: &[
            "graphql_ratelimiting_advanced_cost_decoration",
            "graphql_ratelimiting_cost_decoration",
            "graphql_ratelimiting_cost_decorations",
        ],
        field: "costs",
    });
    type Config = Config;
    type Plugin = GraphqlRateLimiting;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let ValidatedConfig {
            rules,
            identifier,
            count_strategy,
            namespace,
            hides_headers,
            strategy,
            max_cost,
            score_factor,
            schemas,
        } = config.validate(cx)?;
        let names = (Self::NAME, "graphql-ratelimit-advanced");
        let store = RateStore::build(names, &rules, count_strategy, namespace, cx);
        let headers = RateHeaders::new(&rules);
        Ok(GraphqlRateLimiting {
            rules,
            headers,
            identifier,
            store,
            hides_headers,
            strategy,
            max_cost,
            score_factor,
            schemas,
        })
    }
}

impl Plugin for GraphqlRateLimiting {
    fn may_wait(&self) -> bool {
        self.store.waits() || self.schemas.is_some()
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }

    /// Bodies of other types are rejected by their type.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        head.method != Method::POST || has_graphql_type(&head.headers)
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if !self.hides_headers {
            self.headers.declare(fields);
        }
    }

    /// Operations over an upgraded connection would pass unseen.
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        if cx.is_upgrade { AccessOutcome::Reply(upgrade_rejection()) } else { AccessOutcome::Continue }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if is_plain_options(cx) {
            return AccessOutcome::Continue;
        }
        let body = cx.current_body().cloned().unwrap_or_default();
        let request = match GraphqlRequest::read(&cx.head.method, cx.head.uri.query(), &cx.head.headers, &body) {
            Ok(request) => request,
            Err(error) => {
                return AccessOutcome::Reply(Reply::negotiated(error.status, error.message, "graphql_rejected"));
            }
        };
        if self.may_wait() {
            return AccessOutcome::Wait(Box::pin(self.decide(request, cx)));
        }
        let limits = self.limits_at(cx.now);
        let decided = self.amount(&request, None).map(|amount| {
            let identifier = LimitIdentifier::from_request(&self.identifier, cx);
            let decision = self.store.count_in_memory(&identifier, cx.scope, &self.rules, &limits, amount, false);
            self.apply(&limits, &decision, amount, cx)
        });
        match decided {
            Ok(None) => AccessOutcome::Continue,
            Ok(Some(reply)) | Err(reply) => AccessOutcome::Reply(reply),
        }
    }
}

type Limits = SmallVec<[ActiveLimit; 4]>;

impl GraphqlRateLimiting {
    async fn decide(&self, request: GraphqlRequest, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let schema = match &self.schemas {
            None => None,
            Some(schemas) => match schemas.schema(cx.now).await {
                Ok(schema) => Some(schema),
                Err(_) => {
                    let message = "The cost of the request cannot be determined";
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    return Some(Reply::negotiated(status, message, "graphql_schema_unavailable"));
                }
            },
        };
        let amount = match self.amount(&request, schema.as_deref()) {
            Ok(amount) => amount,
            Err(reply) => return Some(reply),
        };
        let (limits, identifier) = (self.limits_at(cx.now), LimitIdentifier::from_request(&self.identifier, cx));
        let decision = self.store.count(&identifier, cx.scope, &self.rules, &limits, amount, false).await;
        self.apply(&limits, &decision, amount, cx)
    }

    /// What the request takes, or why it is rejected whatever is left.
    fn amount(&self, request: &GraphqlRequest, schema: Option<&PricedSchema>) -> Result<u64, Box<Reply>> {
        let rejected = |message: String| Reply::negotiated(StatusCode::BAD_REQUEST, message, "graphql_rejected");
        let document = CheckedDocument::parse(&request.query, &DocumentLimits::USUAL)
            .map_err(|error| rejected(format!("The GraphQL document is not accepted: {error}")))?;
        let operation =
            document.operation(request.operation_name.as_deref()).map_err(|error| rejected(error.to_string()))?;
        let cost = cost_of(&document, operation, &request.variables, schema, self.strategy).map_err(|error| {
            rejected(format!("The argument {} has no value that a cost can be computed with", error.argument))
        })?;
        if self.max_cost > 0.0 && cost > self.max_cost {
            let message = format!("The request costs {cost}, which is more than {}", self.max_cost);
            return Err(Reply::negotiated(StatusCode::BAD_REQUEST, message, "graphql_too_costly"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is in the range")]
        let amount = (cost * self.score_factor).ceil().clamp(1.0, MAX_AMOUNT) as u64;
        Ok(amount)
    }

    fn limits_at(&self, now: SystemTime) -> Limits {
        self.rules.iter().map(|rule| rule.at(now)).collect()
    }

    fn apply(
        &self,
        limits: &[ActiveLimit],
        decision: &LimitDecision,
        amount: u64,
        cx: &mut RequestCx<'_>,
    ) -> Option<Box<Reply>> {
        if !self.hides_headers {
            self.headers.add_to(cx.response_headers, limits, decision, amount);
        }
        if decision.is_admitted {
            return None;
        }
        let reply = Reply::negotiated(StatusCode::TOO_MANY_REQUESTS, "API rate limit exceeded", "rate_limited");
        match self.hides_headers {
            true => Some(reply),
            false => {
                let seconds = retry_seconds(limits, decision, amount);
                Some(reply.with_header(RETRY_AFTER, decimal::header_value(seconds)))
            }
        }
    }
}

/// An OPTIONS request that asks for nothing, such as a CORS preflight request.
fn is_plain_options(cx: &RequestCx<'_>) -> bool {
    cx.head.method == Method::OPTIONS && cx.head.uri.query().is_none() && cx.current_body().is_none_or(Bytes::is_empty)
}

/// Documents have up to 256 KiB, and variables the rest.
const MAX_BODY: usize = 1 << 20;
/// No limit is higher. Scripts in Redis calculate exactly with such numbers.
const MAX_AMOUNT: f64 = 2_147_483_649.0;
