//! `rate-limiting-advanced`: limits the number of requests in several windows of any length, fixed or sliding.
//!
//! ```yaml
//! plugin: rate-limiting-advanced
//! config: {limit: [10, 200], window_size: [1, 60], identifier: consumer, strategy: local}
//! ```

mod config;
#[cfg(test)]
mod tests;
mod throttle;

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use http::header::RETRY_AFTER;
use smallvec::SmallVec;
use tokio::time::Instant;

use self::config::{Identifier, ValidatedConfig};
use self::throttle::Throttle;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::{AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, decimal};
use crate::plugin_kit::counting::{
    ActiveLimit, LimitDecision, LimitIdentifier, LimitRule, RateHeaders, RateStore, retry_seconds,
};
use crate::plugin_kit::redis::dumped_fields::NO_CLOUD_LOGIN;

pub(crate) use config::Config;

pub(crate) struct RateLimitingAdvanced {
    rules: Arc<[LimitRule]>,
    headers: RateHeaders,
    identifier: Identifier,
    store: RateStore,
    counts_rejected: bool,
    throttle: Option<Throttle>,
    hides_headers: bool,
    max_jitter: u64,
    status: StatusCode,
    message: Arc<str>,
}

impl PluginKind for RateLimitingAdvanced {
    const NAME: &'static str = "rate-limiting-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(&["lock_dictionary_name"], DumpedValue::Text("kong_locks"), "3.4"),
        DumpedFields::new(&["redis.redis_proxy_type"], DumpedValue::Nothing, "3.9"),
        DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13"),
    ];
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
        let store = RateStore::build((Self::NAME, "ratelimit-advanced"), &rules, strategy, namespace, cx);
        let throttle = throttling.map(|settings| Throttle::build(settings, cx));
        let headers = RateHeaders::new(&rules);
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
            self.headers.declare(fields);
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
        let decision = self.store.count_in_memory(&identifier, cx.scope, &self.rules, &limits, 1, self.counts_rejected);
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
        self.store.count(identifier, scope, &self.rules, limits, 1, self.counts_rejected).await
    }

    fn limits_at(&self, now: SystemTime) -> Limits {
        self.rules.iter().map(|rule| rule.at(now)).collect()
    }

    /// Sets the response headers, and rejects a request that was not admitted.
    fn apply(&self, limits: &[ActiveLimit], decision: &LimitDecision, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        if !self.hides_headers {
            self.headers.add_to(cx.response_headers, limits, decision, 1);
        }
        if decision.is_admitted {
            return None;
        }
        let mut reply = Reply::negotiated(self.status, self.message.to_string(), "rate_limited");
        if !self.hides_headers {
            let jitter = if self.max_jitter > 0 { fastrand::u64(0..=self.max_jitter) } else { 0 };
            let seconds = retry_seconds(limits, decision, 1).saturating_add(jitter);
            reply = reply.with_header(RETRY_AFTER, decimal::header_value(seconds));
        }
        Some(reply)
    }
}
