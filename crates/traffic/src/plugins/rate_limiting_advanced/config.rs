//! The configuration of `rate-limiting-advanced` and its validation.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::throttle::ThrottleSettings;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::path_encoding::path_in_requests;
use crate::plugin_api::{BuildCx, record};
use crate::plugin_kit::counting::{
    CountStrategy, CountStrategyName, LimitBy, LimitRule, MAX_WINDOW_SECONDS, NEVER_SYNCED, WindowType,
    check_counter_namespace, read_windows,
};
use crate::plugin_kit::redis::RedisConfig;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The maximum number of requests in each window of `window_size`, in the same order. Required.
    limit: Vec<u64>,
    /// The lengths of the windows in seconds. Required.
    window_size: Vec<u64>,
    /// How requests are counted.
    window_type: WindowType,
    /// The property of a request that selects its counter. Requests without this property are counted by client
    /// address.
    identifier: IdentifierName,
    /// Several properties: requests share a counter if all of them are equal. Replaces `identifier`.
    compound_identifier: Vec<IdentifierName>,
    /// The request header for `header`. Requests that have it several times are counted by client address.
    header_name: Option<String>,
    /// The path for `path`. All requests with exactly this path share one counter.
    path: Option<String>,
    /// Objects of one Kubernetes namespace with the same name here, and with windows of the same lengths and type,
    /// share their counters, whatever they are attached to. If unset, the counters belong to this object, separately
    /// for each route, service or other object that it is attached to.
    namespace: Option<String>,
    /// Where counters are stored.
    strategy: CountStrategyName,
    /// For `strategy: redis`, where it is required. `0` updates the server on each request, which is exact for all
    /// replicas. 0.02 to 3600 is an interval in seconds: requests are counted in memory and synchronized with the
    /// server at this interval. `-1` never synchronizes: each replica counts separately.
    sync_rate: Option<f64>,
    /// The server for `strategy: redis`. While it is unavailable, each replica counts separately.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Without effect: the counters in memory have no named dictionary.
    dictionary_name: String,
    /// Omit the response headers with limits and remaining requests.
    hide_client_headers: bool,
    /// Status of the response to requests over the limit, 200 to 599.
    error_code: u16,
    /// Message of the response to requests over the limit.
    error_message: String,
    /// If false, requests over the limit count too, so a client that does not slow down stays limited. If true, only
    /// admitted requests count.
    disable_penalty: bool,
    /// The most seconds that are added to `Retry-After` at random, so that clients do not all return at once.
    retry_after_jitter_max: u64,
    /// Hold requests over the limit for a while instead of rejecting them at once.
    #[serde(deserialize_with = "record")]
    throttling: Throttling,
    /// Rejected if true: attach an object of this plugin to each consumer group instead.
    enforce_consumer_groups: bool,
    /// Rejected unless empty: attach an object of this plugin to each consumer group instead.
    consumer_groups: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limit: Vec::new(),
            window_size: Vec::new(),
            window_type: WindowType::Sliding,
            identifier: IdentifierName::Consumer,
            compound_identifier: Vec::new(),
            header_name: None,
            path: None,
            namespace: None,
            strategy: CountStrategyName::Local,
            sync_rate: None,
            redis: RedisConfig::default(),
            dictionary_name: "kong_rate_limiting_counters".to_owned(),
            hide_client_headers: false,
            error_code: 429,
            error_message: "API rate limit exceeded".to_owned(),
            disable_penalty: false,
            retry_after_jitter_max: 0,
            throttling: Throttling::default(),
            enforce_consumer_groups: false,
            consumer_groups: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum IdentifierName {
    /// The consumer; or the credential, if no consumer belongs to it.
    Consumer,
    /// The client address. IPv6 addresses with the same first 64 bits share a counter.
    Ip,
    /// The credential that authenticated the request: a key, or the user that a token, a certificate or a directory
    /// names.
    Credential,
    /// The service that the request is routed to.
    Service,
    /// The route of the request.
    Route,
    /// The value of the header in `header_name`.
    Header,
    /// The path, for requests whose path equals `path`.
    Path,
    /// The consumer group of the consumer; of several, the first one in alphabetical order.
    ConsumerGroup,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Throttling {
    /// Whether requests over the limit are held. They count only when they are admitted.
    enabled: bool,
    /// Seconds until a held request is counted again, 1 to 60.
    interval: u64,
    /// How many requests are held at once in each replica; others are rejected. 1 to 10000.
    queue_limit: usize,
    /// How often a held request is counted again before it is rejected, 1 to 20.
    retry_times: u32,
}

impl Default for Throttling {
    fn default() -> Self {
        Throttling { enabled: false, interval: 5, queue_limit: 5, retry_times: 3 }
    }
}

/// A validated configuration.
pub(super) struct ValidatedConfig {
    /// From the shortest window to the longest.
    pub(super) rules: Arc<[LimitRule]>,
    pub(super) identifier: Identifier,
    pub(super) strategy: CountStrategy,
    pub(super) namespace: Option<String>,
    pub(super) counts_rejected: bool,
    pub(super) throttling: Option<ThrottleSettings>,
    pub(super) hides_headers: bool,
    pub(super) max_jitter: u64,
    pub(super) status: StatusCode,
    pub(super) message: Arc<str>,
}

/// What requests are counted by.
pub(super) enum Identifier {
    One(LimitBy),
    Compound(Vec<LimitBy>),
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let rules = read_windows(&self.limit, &self.window_size, self.window_type, &mut invalid);
        let identifier = self.identifier(&mut invalid);
        let status = StatusCode::from_u16(self.error_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} is not a status of 200 to 599", self.error_code);
            let remedy = "set it to 429, or to another status in this range";
            invalid.push(Diagnostic::in_config("error_code", message, remedy));
        }
        if self.retry_after_jitter_max > MAX_WINDOW_SECONDS {
            let remedy = format!("use at most {MAX_WINDOW_SECONDS}");
            invalid.push(Diagnostic::in_config("retry_after_jitter_max", "is too long", remedy));
        }
        self.refuse_legacy_groups(&mut invalid);
        check_counter_namespace(self.namespace.as_deref(), &mut invalid);
        let throttling = self.throttling.validate(&mut invalid);
        let (namespace, hides_headers, max_jitter) =
            (self.namespace.clone(), self.hide_client_headers, self.retry_after_jitter_max);
        let (counts_rejected, message) = (!self.disable_penalty, self.error_message.as_str().into());
        let strategy = self.strategy(cx, &mut invalid);
        match (identifier, status, strategy) {
            (Some(identifier), Some(status), Some(strategy)) if invalid.is_empty() => Ok(ValidatedConfig {
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
            }),
            _ => Err(invalid),
        }
    }

    fn identifier(&self, invalid: &mut Vec<Diagnostic>) -> Option<Identifier> {
        if self.compound_identifier.is_empty() {
            return self.property(self.identifier, "identifier", invalid).map(Identifier::One);
        }
        for (index, name) in self.compound_identifier.iter().enumerate() {
            if self.compound_identifier[..index].contains(name) {
                let field = format!("compound_identifier[{index}]");
                invalid.push(Diagnostic::in_config(field, "is listed twice", "remove one of both"));
            }
        }
        let names = self.compound_identifier.iter().enumerate();
        let properties: Vec<LimitBy> = names
            .filter_map(|(index, name)| self.property(*name, &format!("compound_identifier[{index}]"), invalid))
            .collect();
        Some(Identifier::Compound(properties))
    }

    fn property(&self, name: IdentifierName, field: &str, invalid: &mut Vec<Diagnostic>) -> Option<LimitBy> {
        let (field, message, remedy) = match name {
            IdentifierName::Consumer => return Some(LimitBy::Consumer),
            IdentifierName::Ip => return Some(LimitBy::Ip),
            IdentifierName::Credential => return Some(LimitBy::Credential),
            IdentifierName::Service => return Some(LimitBy::Service),
            IdentifierName::Route => return Some(LimitBy::Route),
            IdentifierName::ConsumerGroup => return Some(LimitBy::ConsumerGroup),
            IdentifierName::Header => {
                match self.header_name.as_deref().map(|name| HeaderName::from_bytes(name.as_bytes())) {
                    Some(Ok(name)) => return Some(LimitBy::Header(name)),
                    Some(Err(_)) => ("header_name", "is not a valid header name", "use letters, digits and `-`"),
                    None => (
                        field,
                        "`header` requires the field `header_name`",
                        "set `header_name` to the name of a request header",
                    ),
                }
            }
            IdentifierName::Path => match self.path.as_deref() {
                Some(path) if !path.starts_with('/') || path.contains(['?', '#', '\0']) || path.contains("%00") => {
                    ("path", "is not the path of a request", "use an absolute path without a query, such as /cart")
                }
                // Compared with paths of requests, so it is written as they are.
                Some(path) => return Some(LimitBy::Path(path_in_requests(path).into_owned())),
                None => (field, "`path` requires the field `path`", "set `path` to a path, such as /cart"),
            },
        };
        invalid.push(Diagnostic::in_config(field, message, remedy));
        None
    }

    fn refuse_legacy_groups(&self, invalid: &mut Vec<Diagnostic>) {
        let legacy = [
            ("enforce_consumer_groups", self.enforce_consumer_groups),
            ("consumer_groups", !self.consumer_groups.is_empty()),
        ];
        for (field, _) in legacy.into_iter().filter(|(_, is_set)| *is_set) {
            let message = "limits of consumer groups are not part of this object";
            let remedy = "attach an object of this plugin with the limits of the group to each KongConsumerGroup";
            invalid.push(Diagnostic::in_config(field, message, remedy));
        }
    }

    fn strategy(self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<CountStrategy> {
        let is_synced = self.sync_rate.is_some_and(|rate| rate != NEVER_SYNCED);
        if is_synced && self.strategy == CountStrategyName::Local {
            let message = "has an effect only with the strategy `redis`";
            invalid.push(Diagnostic::in_config("sync_rate", message, "remove it, or set `strategy: redis`"));
        }
        self.strategy.validate(self.sync_rate, self.redis, cx, invalid)
    }
}

impl Throttling {
    fn validate(&self, invalid: &mut Vec<Diagnostic>) -> Option<ThrottleSettings> {
        let ranges = [
            ("interval", self.interval, 60),
            ("queue_limit", self.queue_limit as u64, 10_000),
            ("retry_times", self.retry_times.into(), 20),
        ];
        for (name, value, max) in ranges {
            if !(1..=max).contains(&value) {
                let (field, message) = (format!("throttling.{name}"), format!("{value} is out of range"));
                invalid.push(Diagnostic::in_config(field, message, format!("use 1 to {max}")));
            }
        }
        self.enabled.then(|| ThrottleSettings {
            interval: Duration::from_secs(self.interval),
            queue_limit: self.queue_limit,
            retries: self.retry_times,
        })
    }
}
