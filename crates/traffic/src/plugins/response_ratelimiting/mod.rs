//! `response-ratelimiting`: limits what clients use, as endpoints report it in a header of their responses.
//!
//! ```yaml
//! plugin: response-ratelimiting
//! config: {limits: {videos: {minute: 10, day: 100}, images: {hour: 50}}, limit_by: consumer}
//! ```
//!
//! An endpoint that responds with `X-Kong-Limit: videos=2, images=1` has used two videos and an image.

mod config;
mod reported_use;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;
use tokio::time::Instant;

use self::config::ValidatedConfig;
use self::reported_use::read_amounts;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, ReplyBody, RequestCx, ResponseCx,
    ResponseOutcome, ResponseSource, decimal,
};
use crate::plugin_kit::counting::{ActiveLimit, LimitBy, LimitDecision, LimitIdentifier, LimitRule, LimitStore};
use crate::plugin_kit::redis::RedisUnavailable;
use crate::plugin_kit::redis::dumped_fields::NO_CLOUD_LOGIN;

pub(crate) use config::Config;

pub(crate) struct ResponseRatelimiting {
    resources: Box<[LimitedUse]>,
    /// The limits of all resources.
    rules: Arc<[LimitRule]>,
    /// For each limit, the response headers.
    headers: Box<[LimitHeaders]>,
    /// The header in which endpoints report what a request has used.
    reported: HeaderName,
    limit_by: LimitBy,
    store: LimitStore,
    is_fault_tolerant: bool,
    hides_headers: bool,
    blocks_early: bool,
}

/// What a limit applies to.
struct LimitedUse {
    name: Box<str>,
    /// The limits of the resource, as indexes of the rules.
    limits: std::ops::Range<usize>,
    /// The request header with what remains.
    remaining: HeaderName,
}

struct LimitHeaders {
    limit: HeaderName,
    remaining: HeaderName,
    limit_value: HeaderValue,
}

/// What the response phase needs of a request.
struct CountedRequest {
    identifier: LimitIdentifier,
    now: SystemTime,
    start: Instant,
    /// What was used before this request. `None` if the server is unavailable.
    decision: Option<LimitDecision>,
}

impl PluginKind for ResponseRatelimiting {
    const NAME: &'static str = "response-ratelimiting";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 900;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13")];
    type Config = Config;
    type Plugin = ResponseRatelimiting;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let ValidatedConfig { limits, reported, limit_by, server, is_fault_tolerant, hides_headers, blocks_early } =
            config.validate(cx)?;
        let (mut resources, mut rules, mut headers) = (Vec::new(), Vec::new(), Vec::new());
        for limited in limits {
            let first = rules.len();
            for (period, rule) in limited.rules {
                headers.push(LimitHeaders {
                    limit: header_name(&["x-ratelimit-limit", &limited.name, period.name()]),
                    remaining: header_name(&["x-ratelimit-remaining", &limited.name, period.name()]),
                    limit_value: decimal::header_value(rule.max),
                });
                rules.push(rule);
            }
            resources.push(LimitedUse {
                remaining: header_name(&["x-ratelimit-remaining", &limited.name]),
                limits: first..rules.len(),
                name: limited.name.into(),
            });
        }
        let rules: Arc<[LimitRule]> = rules.into();
        let store = LimitStore::build(Arc::clone(&rules), "response-ratelimit", server, cx);
        Ok(ResponseRatelimiting {
            resources: resources.into(),
            rules,
            headers: headers.into(),
            reported,
            limit_by,
            store,
            is_fault_tolerant,
            hides_headers,
            blocks_early,
        })
    }
}

impl Plugin for ResponseRatelimiting {
    fn may_wait(&self) -> bool {
        self.store.waits()
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(self.resources.iter().map(|resource| &resource.remaining));
        fields.response.add(&self.reported);
        if !self.hides_headers {
            fields.response.add_all(self.headers.iter().flat_map(|headers| [&headers.limit, &headers.remaining]));
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        // The endpoint must not read what the client claims.
        for resource in &self.resources {
            cx.head.headers.remove(&resource.remaining);
        }
        let identifier = LimitIdentifier::from_request(&self.limit_by, cx);
        let limits = self.limits_at(cx.now);
        if self.store.waits() {
            return AccessOutcome::Wait(Box::pin(async move {
                let used = self.store.count_at_server(&identifier, cx.scope, &limits, 0).await;
                self.begin(identifier, &limits, used, cx)
            }));
        }
        let used = self.store.count_in_memory(&identifier, cx.scope, &limits, 0);
        match self.begin(identifier, &limits, Ok(used), cx) {
            Some(reply) => AccessOutcome::Reply(reply),
            None => AccessOutcome::Continue,
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let amounts = match cx.source {
            ResponseSource::Service => {
                let names = self.resources.iter().map(|resource| &*resource.name);
                read_amounts(cx.headers.get_all(&self.reported), names)
            }
            // Only endpoints report what they have used.
            ResponseSource::Plugin | ResponseSource::Proxy => SmallVec::new(),
        };
        cx.headers.remove(&self.reported);
        let scope = cx.scope;
        let Some(request) = cx.plugin_data::<CountedRequest>() else { return ResponseOutcome::Continue };
        let Some(used) = request.decision.take() else { return ResponseOutcome::Continue };
        let limits = self.limits_at(request.now + request.start.elapsed());
        if amounts.iter().all(|amount| *amount == 0) {
            self.write_headers(&limits, &used, &self.amounts_by_limit(&[]), cx.headers);
            return ResponseOutcome::Continue;
        }
        let amounts = self.amounts_by_limit(&amounts);
        let identifier = request.identifier.clone();
        if self.store.waits() {
            return ResponseOutcome::Wait(Box::pin(async move {
                match self.store.add_at_server(&identifier, scope, &limits, &amounts).await {
                    Ok(is_admitted) => {
                        let used = LimitDecision { is_admitted, ..used };
                        self.end(&limits, &used, &amounts, cx)
                    }
                    Err(RedisUnavailable) if self.is_fault_tolerant => None,
                    Err(RedisUnavailable) => Some(counters_unavailable()),
                }
            }));
        }
        let used = self.store.add_in_memory(&identifier, scope, &limits, &amounts);
        match self.end(&limits, &used, &amounts, cx) {
            Some(reply) => ResponseOutcome::Replace(reply),
            None => ResponseOutcome::Continue,
        }
    }
}

type Limits = SmallVec<[ActiveLimit; 4]>;
type Amounts = SmallVec<[u64; 4]>;

impl ResponseRatelimiting {
    fn limits_at(&self, now: SystemTime) -> Limits {
        self.rules.iter().map(|rule| rule.at(now)).collect()
    }

    /// The amount of the resource of each limit. Resources without an amount have used nothing.
    fn amounts_by_limit(&self, amounts: &[u64]) -> Amounts {
        let mut by_limit = Amounts::from_elem(0, self.rules.len());
        for (resource, amount) in self.resources.iter().zip(amounts) {
            by_limit[resource.limits.clone()].fill(*amount);
        }
        by_limit
    }

    /// Tells the endpoint what remains, and rejects the request if nothing does.
    fn begin(
        &self,
        identifier: LimitIdentifier,
        limits: &[ActiveLimit],
        used: Result<LimitDecision, RedisUnavailable>,
        cx: &mut RequestCx<'_>,
    ) -> Option<Box<Reply>> {
        let (decision, reply) = match used {
            Ok(used) => {
                let reply = self.tell_endpoint(limits, &used, cx);
                (Some(used), reply)
            }
            Err(RedisUnavailable) if self.is_fault_tolerant => (None, None),
            Err(RedisUnavailable) => (None, Some(counters_unavailable())),
        };
        cx.set_plugin_data(CountedRequest { identifier, now: cx.now, start: Instant::now(), decision });
        reply
    }

    fn tell_endpoint(
        &self,
        limits: &[ActiveLimit],
        used: &LimitDecision,
        cx: &mut RequestCx<'_>,
    ) -> Option<Box<Reply>> {
        let mut reply = None;
        for resource in &self.resources {
            let remaining = |index: usize| limits[index].remaining(used.uses[index], 0);
            let lowest = resource.limits.clone().map(remaining).min().unwrap_or_default();
            cx.head.headers.insert(resource.remaining.clone(), decimal::header_value(lowest));
            if lowest == 0 && self.blocks_early && reply.is_none() {
                let message = format!("API rate limit exceeded for '{}'", resource.name);
                reply = Some(Reply::negotiated(StatusCode::TOO_MANY_REQUESTS, message, "rate_limited"));
            }
        }
        reply
    }

    /// Reports what remains to the client, and replaces the response if a resource had nothing left.
    fn end(
        &self,
        limits: &[ActiveLimit],
        used: &LimitDecision,
        amounts: &[u64],
        cx: &mut ResponseCx<'_>,
    ) -> Option<Box<Reply>> {
        if used.is_admitted {
            self.write_headers(limits, used, amounts, cx.headers);
            return None;
        }
        let mut reply = Reply::new(StatusCode::TOO_MANY_REQUESTS, ReplyBody::Empty, "rate_limited");
        self.write_headers(limits, used, amounts, &mut reply.headers);
        Some(reply)
    }

    fn write_headers(&self, limits: &[ActiveLimit], used: &LimitDecision, amounts: &[u64], to: &mut HeaderMap) {
        if self.hides_headers {
            return;
        }
        let counted = limits.iter().zip(&used.uses).zip(amounts);
        for (((limit, counts), amount), headers) in counted.zip(&self.headers) {
            to.insert(headers.limit.clone(), headers.limit_value.clone());
            to.insert(headers.remaining.clone(), decimal::header_value(limit.remaining(*counts, *amount)));
        }
    }
}

fn counters_unavailable() -> Box<Reply> {
    let message = "An unexpected error occurred";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "counters_unavailable")
}

/// A name of these parts. Names of resources are valid parts: the configuration was checked.
fn header_name(parts: &[&str]) -> HeaderName {
    HeaderName::try_from(parts.join("-")).expect("the configuration accepts only parts of names")
}
