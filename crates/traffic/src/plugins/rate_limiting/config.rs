//! The configuration of `rate-limiting` and its validation.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::counters::LIMIT_BOUND;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::path_encoding::path_in_requests;
use crate::plugin_api::{BuildCx, record};
use crate::plugin_kit::counting::{LimitBy, Period};
use crate::plugin_kit::redis::{RedisAliases, RedisConfig, RedisServer};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Maximum number of requests per second. Windows follow the UTC clock and calendar: an `hour` begins at each full
    /// hour. At least one of the six limits is required.
    second: Option<u64>,
    /// Maximum number of requests per minute.
    minute: Option<u64>,
    /// Maximum number of requests per hour.
    hour: Option<u64>,
    /// Maximum number of requests per day.
    day: Option<u64>,
    /// Maximum number of requests per calendar month.
    month: Option<u64>,
    /// Maximum number of requests per calendar year.
    year: Option<u64>,
    /// The property of a request that selects its counter: requests with the same value share one. Requests without
    /// this property are counted by client address.
    limit_by: LimitByName,
    /// The request header for `limit_by: header`. Requests that have it several times are counted by client address.
    header_name: Option<String>,
    /// The path for `limit_by: path`. All requests with exactly this path share one counter.
    path: Option<String>,
    /// Where counters are stored.
    policy: PolicyName,
    /// Forward requests while the Redis server is unavailable. If false, they are rejected with 500.
    fault_tolerant: bool,
    /// The server for `policy: redis`.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Omit the response headers with limits and remaining requests.
    hide_client_headers: bool,
    /// Status of the response to requests over the limit, 200 to 599.
    error_code: u16,
    /// Message of the response to requests over the limit.
    error_message: String,
    /// For `policy: redis`: `-1` updates the server on each request. Any other value is an interval in seconds, 0.02 to
    /// 3600: requests are counted in memory and synchronized with the server at this interval, which is faster but less
    /// exact.
    sync_rate: f64,
    /// Alias of `redis.host`. If both are set, the alias is used.
    redis_host: Option<String>,
    /// Alias of `redis.port`. If both are set, the alias is used.
    redis_port: Option<u16>,
    /// Alias of `redis.timeout`. If both are set, the alias is used.
    redis_timeout: Option<u32>,
    /// Alias of `redis.username`. If both are set, the alias is used.
    redis_username: Option<String>,
    /// Alias of `redis.password`. If both are set, the alias is used.
    redis_password: Option<String>,
    /// Alias of `redis.database`. If both are set, the alias is used.
    redis_database: Option<u32>,
    /// Alias of `redis.ssl`. If both are set, the alias is used.
    redis_ssl: Option<bool>,
    /// Alias of `redis.ssl_verify`. If both are set, the alias is used.
    redis_ssl_verify: Option<bool>,
    /// Alias of `redis.server_name`. If both are set, the alias is used.
    redis_server_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            second: None,
            minute: None,
            hour: None,
            day: None,
            month: None,
            year: None,
            limit_by: LimitByName::Consumer,
            header_name: None,
            path: None,
            policy: PolicyName::Local,
            fault_tolerant: true,
            redis: RedisConfig::default(),
            hide_client_headers: false,
            error_code: 429,
            error_message: "API rate limit exceeded".to_owned(),
            sync_rate: SYNC_EACH_REQUEST,
            redis_host: None,
            redis_port: None,
            redis_timeout: None,
            redis_username: None,
            redis_password: None,
            redis_database: None,
            redis_ssl: None,
            redis_ssl_verify: None,
            redis_server_name: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum LimitByName {
    /// The consumer; or the credential, if no consumer belongs to it.
    Consumer,
    /// The credential that authenticated the request: a key, or the user that a token, a certificate or a directory
    /// names.
    Credential,
    /// The client address. IPv6 addresses with the same first 64 bits share a counter.
    Ip,
    /// The service that the request is routed to.
    Service,
    /// The value of the header in `header_name`.
    Header,
    /// The path, for requests whose path equals `path`.
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PolicyName {
    /// In memory: each replica counts separately.
    Local,
    /// Same as `local`, because replicas share no database.
    Cluster,
    /// On a Redis server that all replicas share.
    Redis,
}

/// `None` after an addition to `invalid`.
fn parse_header_name(name: &str, invalid: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    if parsed.is_err() {
        let remedy = "use letters, digits and `-`";
        invalid.push(Diagnostic::in_config("header_name", "is not a valid header name", remedy));
    }
    parsed.ok()
}

/// `None` after an addition to `invalid`.
fn parse_path(path: &str, invalid: &mut Vec<Diagnostic>) -> Option<String> {
    let (message, remedy) = if path.contains(['?', '#', '\0']) || path.contains("%00") {
        ("has a query, a fragment or a NUL, which the path of no request has", "write only the path, such as /cart")
    } else if !path.starts_with('/') {
        ("does not begin with /", "use an absolute path, such as /cart")
    } else if path.contains("//") {
        ("has an empty segment", "write one `/` between segments")
    } else {
        // Compared with paths of requests, so it is written as they are.
        return Some(path_in_requests(path).into_owned());
    };
    invalid.push(Diagnostic::in_config("path", message, remedy));
    None
}

/// A validated configuration.
pub(super) struct ValidatedConfig {
    /// From the shortest period to the longest.
    pub limits: Vec<(Period, u64)>,
    pub limit_by: LimitBy,
    pub policy: Policy,
    pub is_fault_tolerant: bool,
    pub hides_headers: bool,
    pub status: StatusCode,
    pub message: Arc<str>,
}

pub(super) enum Policy {
    Local,
    /// The server, and the interval of the synchronization; without an interval, every request updates the server.
    Redis(Box<RedisServer>, Option<Duration>),
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let limits = self.limits(&mut invalid);
        let by = self.limit_by(&mut invalid);
        let status = StatusCode::from_u16(self.error_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} is not a status of 200 to 599", self.error_code);
            invalid.push(Diagnostic::in_config(
                "error_code",
                message,
                "set it to 429, or to another status in this range",
            ));
        }
        if self.error_message.is_empty() {
            let remedy = "write a message, or remove it for the usual one";
            invalid.push(Diagnostic::in_config("error_message", "is empty", remedy));
        }
        let (is_fault_tolerant, hides_headers) = (self.fault_tolerant, self.hide_client_headers);
        let message = self.error_message.as_str().into();
        let policy = self.policy(cx, &mut invalid);
        match (by, status, policy) {
            (Some(by), Some(status), Some(policy)) if invalid.is_empty() => {
                Ok(ValidatedConfig { limits, limit_by: by, policy, is_fault_tolerant, hides_headers, status, message })
            }
            _ => Err(invalid),
        }
    }

    fn limits(&self, invalid: &mut Vec<Diagnostic>) -> Vec<(Period, u64)> {
        let optional_limits = [self.second, self.minute, self.hour, self.day, self.month, self.year];
        let limits = Period::ALL.into_iter().zip(optional_limits).filter_map(|(period, limit)| Some((period, limit?)));
        let limits: Vec<(Period, u64)> = limits.collect();
        if limits.is_empty() {
            let names = Period::ALL.map(Period::name).join(", ");
            let remedy = format!("set at least one of {names}");
            invalid.push(Diagnostic::in_config("", "has no limit, so it would limit nothing", remedy));
        }
        for (period, limit) in &limits {
            if *limit == 0 || *limit >= LIMIT_BOUND {
                let message = format!("{limit} is out of range");
                invalid.push(Diagnostic::in_config(period.name(), message, format!("use 1 to {}", LIMIT_BOUND - 1)));
            }
        }
        for pair in limits.windows(2) {
            let ((shorter, shorter_limit), (longer, longer_limit)) = (pair[0], pair[1]);
            if longer_limit < shorter_limit {
                let (shorter, longer) = (shorter.name(), longer.name());
                let message = format!(
                    "the limit per {longer} ({longer_limit}) is lower than the limit per {shorter} ({shorter_limit})"
                );
                invalid.push(Diagnostic::in_config(longer, message, format!("raise it, or lower `{shorter}`")));
            }
        }
        limits
    }

    fn limit_by(&self, invalid: &mut Vec<Diagnostic>) -> Option<LimitBy> {
        // A field that is not used is checked as well: it is a mistake that `limit_by` would reveal later.
        let header = self.header_name.as_deref().map(|name| parse_header_name(name, invalid));
        let path = self.path.as_deref().map(|path| parse_path(path, invalid));
        let mut missing = |message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config("limit_by", message, remedy));
            None
        };
        match self.limit_by {
            LimitByName::Consumer => Some(LimitBy::Consumer),
            LimitByName::Credential => Some(LimitBy::Credential),
            LimitByName::Ip => Some(LimitBy::Ip),
            LimitByName::Service => Some(LimitBy::Service),
            LimitByName::Header => match header {
                Some(header) => header.map(LimitBy::Header),
                None => missing("`header` requires the field `header_name`", "set it to the name of a request header"),
            },
            LimitByName::Path => match path {
                Some(path) => path.map(LimitBy::Path),
                None => missing("`path` requires the field `path`", "set it to a path, such as /cart"),
            },
        }
    }

    fn policy(self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<Policy> {
        let interval = (self.sync_rate != SYNC_EACH_REQUEST).then_some(self.sync_rate);
        if let Some(interval) = interval {
            if !(MIN_SYNC_RATE..=MAX_SYNC_RATE).contains(&interval) {
                let message = format!("{interval} is out of range");
                let remedy = "use 0.02 to 3600 seconds, or -1 to update the server on each request";
                invalid.push(Diagnostic::in_config("sync_rate", message, remedy));
            } else if self.policy != PolicyName::Redis {
                let message = "has an effect only with the policy `redis`";
                invalid.push(Diagnostic::in_config("sync_rate", message, "remove it, or set `policy: redis`"));
            }
        }
        match self.policy {
            PolicyName::Local => Some(Policy::Local),
            PolicyName::Cluster => {
                let message = "`cluster` has the same effect as `local`: each replica counts separately";
                cx.note(Diagnostic::in_config("policy", message, "use `redis` to share counters between replicas"));
                Some(Policy::Local)
            }
            PolicyName::Redis => {
                // The conversion of an interval that is out of range could panic.
                let interval = interval.filter(|_| invalid.is_empty()).map(Duration::from_secs_f64);
                match self.redis().validate("redis", cx) {
                    Ok(server) => Some(Policy::Redis(Box::new(server), interval)),
                    Err(errors) => {
                        invalid.extend(errors);
                        None
                    }
                }
            }
        }
    }

    /// The settings in `redis` and their aliases.
    fn redis(self) -> RedisConfig {
        self.redis.with_aliases(RedisAliases {
            host: self.redis_host,
            port: self.redis_port,
            timeout: self.redis_timeout,
            username: self.redis_username,
            password: self.redis_password,
            database: self.redis_database,
            ssl: self.redis_ssl,
            ssl_verify: self.redis_ssl_verify,
            server_name: self.redis_server_name,
        })
    }
}

const SYNC_EACH_REQUEST: f64 = -1.0;
const MIN_SYNC_RATE: f64 = 0.02;
const MAX_SYNC_RATE: f64 = 3600.0;
