//! `rate-limiting-advanced`: limits the number of requests in several windows of any length, fixed or sliding.
//!
//! ```yaml
//! plugin: rate-limiting-advanced
//! config: {limit: [10, 200], window_size: [1, 60], identifier: consumer, strategy: local}
//! ```

mod config;
mod store;
#[cfg(test)]
mod tests;
mod throttle;

use std::sync::Arc;
use std::time::SystemTime;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;
use tokio::time::Instant;

use self::config::{Identifier, ValidatedConfig};
use self::store::RateStore;
use self::throttle::Throttle;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::counting::{ActiveLimit, LimitDecision, LimitIdentifier, LimitRule};
use crate::plugin_api::{AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, decimal};

pub(crate) use config::Config;

pub(crate) struct RateLimitingAdvanced {
    rules: Arc<[LimitRule]>,
    headers: Box<[LimitHeaders]>,
    identifier: Identifier,
    store: RateStore,
    counts_rejected: bool,
    throttle: Option<Throttle>,
    hides_headers: bool,
    max_jitter: u64,
    status: StatusCode,
    message: Arc<str>,
}

/// The response headers of a window.
struct LimitHeaders {
    limit: HeaderName,
    remaining: HeaderName,
    limit_value: HeaderValue,
}

impl PluginKind for RateLimitingAdvanced {
    const NAME: &'static str = "rate-limiting-advanced";
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RateLimitingAdvanced;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let ValidatedConfig {
            rules,
            identifier,
            strategy,
            namespace,
            counts_rejected,
            throttling,
            hides_headers,
            max_jitter,
            status,
            message,
        } = config.validate(cx)?;
        let store = RateStore::build(&rules, strategy, namespace, cx);
        let throttle = throttling.map(|settings| Throttle::build(settings, cx));
        let headers = rules.iter().map(LimitHeaders::new).collect();
        // A request that is held asks again, and would otherwise delay itself.
        let counts_rejected = counts_rejected && throttle.is_none();
        Ok(RateLimitingAdvanced {
            rules,
            headers,
            identifier,
            store,
            counts_rejected,
            throttle,
            hides_headers,
            max_jitter,
            status,
            message,
        })
    }
}

impl Plugin for RateLimitingAdvanced {
    fn may_wait(&self) -> bool {
        self.store.waits() || self.throttle.is_some()
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if !self.hides_headers {
            fields.response.add_all(self.headers.iter().flat_map(|headers| [&headers.limit, &headers.remaining]));
            fields.response.add_all(&[RATELIMIT_LIMIT, RATELIMIT_REMAINING, RATELIMIT_RESET]);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let identifier = match &self.identifier {
            Identifier::One(property) => LimitIdentifier::from_request(property, cx),
            Identifier::Compound(properties) => LimitIdentifier::compound(properties, cx),
        };
        if self.may_wait() {
            return AccessOutcome::Wait(Box::pin(self.decide_or_hold(identifier, cx)));
        }
        let limits = self.limits_at(cx.now);
        let decision = self.store.count_in_memory(&identifier, cx.scope, &self.rules, &limits, self.counts_rejected);
        match self.apply(&limits, &decision, cx) {
            Some(reply) => AccessOutcome::Reply(reply),
            None => AccessOutcome::Continue,
        }
    }
}

type Limits = SmallVec<[ActiveLimit; 4]>;

impl RateLimitingAdvanced {
    /// Decides, and holds a request that is not admitted if throttling is enabled and its queue has room.
    async fn decide_or_hold(&self, identifier: LimitIdentifier, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let start = Instant::now();
        let mut limits = self.limits_at(cx.now);
        let mut decision = self.count(&identifier, cx.scope, &limits).await;
        if !decision.is_admitted
            && let Some(throttle) = &self.throttle
            && let Some(_place) = throttle.enter()
        {
            for _ in 0..throttle.retries() {
                tokio::time::sleep(throttle.interval()).await;
                limits = self.limits_at(cx.now + start.elapsed());
                decision = self.count(&identifier, cx.scope, &limits).await;
                if decision.is_admitted {
                    break;
                }
            }
        }
        self.apply(&limits, &decision, cx)
    }

    async fn count(&self, identifier: &LimitIdentifier, scope: &str, limits: &[ActiveLimit]) -> LimitDecision {
        self.store.count(identifier, scope, &self.rules, limits, self.counts_rejected).await
    }

    fn limits_at(&self, now: SystemTime) -> Limits {
        self.rules.iter().map(|rule| rule.at(now)).collect()
    }

    /// Sets the response headers, and rejects a request that was not admitted.
    fn apply(&self, limits: &[ActiveLimit], decision: &LimitDecision, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let is_admitted = decision.is_admitted;
        let uses = limits.iter().zip(&decision.uses);
        if !self.hides_headers {
            // The limit of which the fewest requests remain, and the longest of several.
            let mut lowest: Option<(u64, u64, &LimitHeaders)> = None;
            for ((limit, counts), headers) in uses.clone().zip(&self.headers) {
                let remaining = limit.remaining(*counts, u64::from(is_admitted));
                cx.response_headers.insert(headers.limit.clone(), headers.limit_value.clone());
                cx.response_headers.insert(headers.remaining.clone(), decimal::header_value(remaining));
                if lowest.is_none_or(|(least, ..)| remaining <= least) {
                    let reset_ms = if is_admitted { limit.rest_ms } else { limit.rest_ms.max(limit.wait_ms(*counts)) };
                    lowest = Some((remaining, reset_ms.div_ceil(1000).max(1), headers));
                }
            }
            if let Some((remaining, reset, headers)) = lowest {
                cx.response_headers.insert(RATELIMIT_LIMIT, headers.limit_value.clone());
                cx.response_headers.insert(RATELIMIT_REMAINING, decimal::header_value(remaining));
                cx.response_headers.insert(RATELIMIT_RESET, decimal::header_value(reset));
            }
        }
        if is_admitted {
            return None;
        }
        let mut reply = Reply::negotiated(self.status, self.message.to_string(), "rate_limited");
        if !self.hides_headers {
            let wait_ms = uses.map(|(limit, counts)| limit.wait_ms(*counts)).max().unwrap_or_default();
            let jitter = if self.max_jitter > 0 { fastrand::u64(0..=self.max_jitter) } else { 0 };
            let seconds = wait_ms.div_ceil(1000).max(1).saturating_add(jitter);
            reply = reply.with_header(RETRY_AFTER, decimal::header_value(seconds));
        }
        Some(reply)
    }
}

impl LimitHeaders {
    fn new(rule: &LimitRule) -> Self {
        let name = config::window_name(rule);
        let header = |kind: &str| {
            HeaderName::try_from(format!("x-ratelimit-{kind}-{name}")).expect("a number or a word is part of a name")
        };
        LimitHeaders {
            limit: header("limit"),
            remaining: header("remaining"),
            limit_value: decimal::header_value(rule.max),
        }
    }
}

const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
