//! The configuration of `response-ratelimiting` and its validation.

use std::collections::BTreeMap;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reported_use::MAX_AMOUNT;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, record};
use crate::plugin_kit::counting::{LimitBy, LimitKind, LimitRule, Period, WindowLength};
use crate::plugin_kit::redis::{RedisAliases, RedisConfig, RedisServer};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The limits by name. At least one is required. Names have letters, digits, `-` and `_`.
    limits: BTreeMap<String, PeriodLimits>,
    /// The response header in which endpoints report what a request has used, such as `videos=2, images=1`. Clients do
    /// not get it.
    header_name: String,
    /// The property of a request that selects its counters. Requests without this property are counted by client
    /// address.
    limit_by: LimitByName,
    /// Where counters are stored.
    policy: PolicyName,
    /// Forward requests and responses while the Redis server is unavailable. If false, they are replaced by 500.
    fault_tolerant: bool,
    /// The server for `policy: redis`.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Reject requests with 429 if any of the limits has nothing left. If false, only responses that use something of
    /// which nothing is left are replaced by 429.
    block_on_first_violation: bool,
    /// Omit the response headers with limits and what remains.
    hide_client_headers: bool,
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
            limits: BTreeMap::new(),
            header_name: "x-kong-limit".to_owned(),
            limit_by: LimitByName::Consumer,
            policy: PolicyName::Local,
            fault_tolerant: true,
            redis: RedisConfig::default(),
            block_on_first_violation: false,
            hide_client_headers: false,
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

/// The limits of one name. Windows follow the UTC clock and calendar. At least one of the six is required.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PeriodLimits {
    /// The most that may be used per second.
    second: Option<u64>,
    /// The most that may be used per minute.
    minute: Option<u64>,
    /// The most that may be used per hour.
    hour: Option<u64>,
    /// The most that may be used per day.
    day: Option<u64>,
    /// The most that may be used per calendar month.
    month: Option<u64>,
    /// The most that may be used per calendar year.
    year: Option<u64>,
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

/// A validated configuration.
pub(super) struct ValidatedConfig {
    pub(super) limits: Vec<NamedLimits>,
    pub(super) reported: HeaderName,
    pub(super) limit_by: LimitBy,
    pub(super) server: Option<Box<RedisServer>>,
    pub(super) is_fault_tolerant: bool,
    pub(super) hides_headers: bool,
    pub(super) blocks_early: bool,
}

/// The limits of one name, from the shortest period to the longest.
pub(super) struct NamedLimits {
    pub(super) name: String,
    pub(super) rules: Vec<(Period, LimitRule)>,
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let limits = self.limits(&mut invalid);
        let reported = HeaderName::from_bytes(self.header_name.as_bytes()).ok();
        if reported.is_none() {
            let message = "is not a valid header name";
            invalid.push(Diagnostic::in_config("header_name", message, "use letters, digits and `-`"));
        }
        let limit_by = match self.limit_by {
            LimitByName::Consumer => LimitBy::Consumer,
            LimitByName::Credential => LimitBy::Credential,
            LimitByName::Ip => LimitBy::Ip,
        };
        let (is_fault_tolerant, hides_headers, blocks_early) =
            (self.fault_tolerant, self.hide_client_headers, self.block_on_first_violation);
        let server = match self.policy {
            PolicyName::Local => None,
            PolicyName::Cluster => {
                let message = "`cluster` has the same effect as `local`: each replica counts separately";
                cx.note(Diagnostic::in_config("policy", message, "use `redis` to share counters between replicas"));
                None
            }
            PolicyName::Redis => match self.redis().validate("redis", cx) {
                Ok(server) => Some(Box::new(server)),
                Err(errors) => {
                    invalid.extend(errors);
                    None
                }
            },
        };
        match reported {
            Some(reported) if invalid.is_empty() => Ok(ValidatedConfig {
                limits,
                reported,
                limit_by,
                server,
                is_fault_tolerant,
                hides_headers,
                blocks_early,
            }),
            _ => Err(invalid),
        }
    }

    fn limits(&self, invalid: &mut Vec<Diagnostic>) -> Vec<NamedLimits> {
        if self.limits.is_empty() {
            let remedy = "set at least one limit, such as `videos: {minute: 10}`";
            invalid.push(Diagnostic::in_config("limits", "has no limit, so it would limit nothing", remedy));
        }
        if self.limits.len() > MAX_NAMES {
            let message = format!("has more than {MAX_NAMES} names");
            invalid.push(Diagnostic::in_config("limits", message, "use several objects of this plugin"));
        }
        let mut named = Vec::new();
        for (name, limits) in &self.limits {
            let field = format!("limits.{name}");
            let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_plain {
                let remedy = format!("use 1 to {MAX_NAME_BYTES} letters, digits, `-` and `_`");
                invalid.push(Diagnostic::in_config(&field, "is not a valid name, which is part of headers", remedy));
            }
            // Names of headers have no case.
            if named.iter().any(|other: &NamedLimits| other.name.eq_ignore_ascii_case(name)) {
                let message = "differs from another name only by case, so both have the same headers";
                invalid.push(Diagnostic::in_config(&field, message, "use another name"));
            }
            named.push(NamedLimits { name: name.clone(), rules: limits.rules(name, &field, invalid) });
        }
        named
    }

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

impl PeriodLimits {
    fn rules(&self, name: &str, field: &str, invalid: &mut Vec<Diagnostic>) -> Vec<(Period, LimitRule)> {
        let limits = [self.second, self.minute, self.hour, self.day, self.month, self.year];
        let limits: Vec<(Period, u64)> =
            Period::ALL.into_iter().zip(limits).filter_map(|(period, limit)| Some((period, limit?))).collect();
        if limits.is_empty() {
            let remedy = format!("set at least one of {}", Period::ALL.map(Period::name).join(", "));
            invalid.push(Diagnostic::in_config(field, "has no limit, so it would limit nothing", remedy));
        }
        for (period, limit) in &limits {
            if !(1..=MAX_AMOUNT).contains(limit) {
                let (field, message) = (format!("{field}.{}", period.name()), format!("{limit} is out of range"));
                invalid.push(Diagnostic::in_config(field, message, format!("use 1 to {MAX_AMOUNT}")));
            }
        }
        for pair in limits.windows(2) {
            let ((shorter, shorter_limit), (longer, longer_limit)) = (pair[0], pair[1]);
            if longer_limit < shorter_limit {
                let (shorter, longer) = (shorter.name(), longer.name());
                let message = format!(
                    "the limit per {longer} ({longer_limit}) is lower than the limit per {shorter} ({shorter_limit})"
                );
                let field = format!("{field}.{longer}");
                invalid.push(Diagnostic::in_config(field, message, format!("raise it, or lower `{shorter}`")));
            }
        }
        let rule = |max, period| LimitRule::new(max, LimitKind::Fixed(WindowLength::Calendar(period))).named(name);
        limits.into_iter().map(|(period, max)| (period, rule(max, period))).collect()
    }
}

/// Each limit of each name is counted for each request.
const MAX_NAMES: usize = 32;
const MAX_NAME_BYTES: usize = 64;
