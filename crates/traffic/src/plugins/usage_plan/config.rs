//! The configuration of `usage-plan` and its validation.

use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::PlanSettings;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::optional_record;
use crate::plugin_api::{BuildCx, record};
use crate::plugin_kit::counting::{LimitBy, LimitKind, LimitRule, Period, WindowLength};
use crate::plugin_kit::redis::{RedisConfig, RedisServer};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The plans. The first one with a group of the consumer applies; the last one may have no groups, and then applies
    /// to all other clients. If no plan applies, requests are rejected with 403.
    plans: Vec<PlanConfig>,
    /// The property of a request that selects its counters: requests with the same value share the rate and the quotas
    /// of a plan, on all routes of this object. Requests without this property are counted by client address.
    limit_by: LimitByName,
    /// The request header for `limit_by: header`. Requests that have it several times are counted by client address.
    header_name: Option<String>,
    /// Where the use is counted.
    policy: PolicyName,
    /// The server for `policy: redis`.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Forward requests while the Redis server is unavailable. If false, they are rejected with 500.
    fault_tolerant: bool,
    /// The percentage of a quota, 1 to 100, from which on responses have the header `X-Usage-Warning`, such as
    /// `"month";used=85`. 0 turns warnings off.
    warn_at: u64,
    /// Omit the response headers `RateLimit`, `RateLimit-Policy` and `X-Usage-Warning`.
    hide_client_headers: bool,
    /// Message of the response, with status 429, to requests beyond the plan.
    error_message: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            plans: Vec::new(),
            limit_by: LimitByName::Consumer,
            header_name: None,
            policy: PolicyName::Memory,
            redis: RedisConfig::default(),
            fault_tolerant: false,
            warn_at: 80,
            hide_client_headers: false,
            error_message: "Usage plan exceeded".to_owned(),
        }
    }
}

/// A plan, with a rate, quotas or both.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PlanConfig {
    /// Name of the plan, in reports and metrics: letters, digits, `-`, `_` and `.`.
    name: String,
    /// Consumer groups that have this plan: names of KongConsumerGroups of the namespace of this object, or
    /// `namespace/name`.
    groups: Vec<String>,
    /// How fast requests may be sent.
    #[serde(default, deserialize_with = "optional_record")]
    rate: Option<RateConfig>,
    /// How many requests may be sent in a day or month.
    #[serde(deserialize_with = "record")]
    quotas: QuotaConfig,
}

/// A rate. Each request takes a token of a bucket, which is full at first and gets new tokens evenly.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RateConfig {
    /// Requests in each second or minute.
    requests: u64,
    /// The unit of `requests`.
    per: RateUnit,
    /// The size of the bucket: how many requests may be sent at once after a pause; if unset, `requests`.
    burst: Option<u64>,
}

impl Default for RateConfig {
    fn default() -> Self {
        RateConfig { requests: 0, per: RateUnit::Second, burst: None }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RateUnit {
    Second,
    Minute,
}

/// Quotas. Days and months are those of the calendar in UTC.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct QuotaConfig {
    /// Requests per day.
    day: Option<u64>,
    /// Requests per month.
    month: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum LimitByName {
    /// The consumer; or the credential, if no consumer belongs to it.
    Consumer,
    /// The consumer group; of several, the first one in alphabetical order.
    ConsumerGroup,
    /// The credential that authenticated the request: a key, or the user that a token, a certificate or a directory
    /// names.
    Credential,
    /// The value of the header in `header_name`.
    Header,
    /// The client address.
    Ip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PolicyName {
    /// In memory: each replica counts separately, and begins again when it is restarted. A rate and a quota keep their
    /// counts when they or others of the plan are changed. While the plan does not exist, such as because of a mistake
    /// in the configuration, its counts are kept for 10 minutes, unless those of other plugins need their room.
    Memory,
    /// On a Redis server that all replicas share.
    Redis,
}

/// A validated configuration.
pub(super) struct ValidatedConfig {
    pub(super) plans: Vec<PlanSettings>,
    pub(super) limit_by: LimitBy,
    pub(super) server: Option<Box<RedisServer>>,
    pub(super) warn_at: Option<u64>,
    pub(super) is_fault_tolerant: bool,
    pub(super) hides_headers: bool,
    pub(super) message: Arc<str>,
}

impl Config {
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let plans = self.plans(cx, &mut invalid);
        let limit_by = self.limit_by(&mut invalid);
        if self.warn_at > 100 {
            let message = format!("{} is not a percentage", self.warn_at);
            invalid.push(Diagnostic::in_config("warn_at", message, "use 1 to 100, or 0 for no warnings"));
        }
        if self.header_name.is_some() && !matches!(self.limit_by, LimitByName::Header) {
            let message = "has an effect only with `limit_by: header`";
            invalid.push(Diagnostic::in_config("header_name", message, "remove it, or set `limit_by` to header"));
        }
        let server = match self.policy {
            PolicyName::Memory if self.redis.has_servers() => {
                let message = "has no effect with `policy: memory`, which loses what was used at a restart";
                invalid.push(Diagnostic::in_config("redis", message, "set `policy` to redis, or remove it"));
                None
            }
            PolicyName::Memory => {
                let message =
                    "the use is counted in memory: a restart begins again, and each replica counts separately";
                cx.note(Diagnostic::in_config("policy", message, "use `redis` to keep and share what was used"));
                None
            }
            PolicyName::Redis => match self.redis.validate("redis", cx) {
                Ok(server) => Some(Box::new(server)),
                Err(errors) => {
                    invalid.extend(errors);
                    None
                }
            },
        };
        match limit_by {
            Some(limit_by) if invalid.is_empty() => Ok(ValidatedConfig {
                plans,
                limit_by,
                server,
                warn_at: Some(self.warn_at).filter(|percent| *percent > 0),
                is_fault_tolerant: self.fault_tolerant,
                hides_headers: self.hide_client_headers,
                message: self.error_message.into(),
            }),
            _ => Err(invalid),
        }
    }

    fn plans(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Vec<PlanSettings> {
        if self.plans.is_empty() || self.plans.len() > MAX_PLANS {
            let message = if self.plans.is_empty() { "is missing" } else { "has too many plans" };
            invalid.push(Diagnostic::in_config("plans", message, format!("list 1 to {MAX_PLANS} plans")));
        }
        let mut plans: Vec<PlanSettings> = Vec::new();
        for (index, plan) in self.plans.iter().enumerate() {
            let field = format!("plans[{index}]");
            let is_plain = plan.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if plan.name.is_empty() || plan.name.len() > MAX_NAME_BYTES || !is_plain {
                let remedy = format!("use 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`");
                invalid.push(Diagnostic::in_config(format!("{field}.name"), "is not a valid name", remedy));
            } else if plans.iter().any(|other| other.name == plan.name) {
                let message = "is the name of another plan";
                invalid.push(Diagnostic::in_config(format!("{field}.name"), message, "use another name"));
            }
            if plan.groups.is_empty() && index + 1 < self.plans.len() {
                let message = "applies to all clients, so the plans after it never apply";
                let remedy = "list the consumer groups of the plan, or move it to the end";
                invalid.push(Diagnostic::in_config(format!("{field}.groups"), message, remedy));
            }
            plans.push(PlanSettings {
                name: plan.name.clone(),
                groups: plan.group_names(&field, cx, invalid),
                rules: plan.rules(&field, cx, invalid),
            });
        }
        plans
    }

    fn limit_by(&self, invalid: &mut Vec<Diagnostic>) -> Option<LimitBy> {
        let header = self.header_name.as_deref().map(|name| HeaderName::from_bytes(name.as_bytes()));
        let (field, message, remedy) = match (self.limit_by, header) {
            (LimitByName::Consumer, _) => return Some(LimitBy::Consumer),
            (LimitByName::ConsumerGroup, _) => return Some(LimitBy::ConsumerGroup),
            (LimitByName::Credential, _) => return Some(LimitBy::Credential),
            (LimitByName::Ip, _) => return Some(LimitBy::Ip),
            (LimitByName::Header, Some(Ok(name))) => return Some(LimitBy::Header(name)),
            (LimitByName::Header, Some(Err(_))) => {
                ("header_name", "is not a valid header name", "use letters, digits and `-`")
            }
            (LimitByName::Header, None) => (
                "limit_by",
                "`header` requires the field `header_name`",
                "set `header_name` to the name of a request header",
            ),
        };
        invalid.push(Diagnostic::in_config(field, message, remedy));
        None
    }
}

impl PlanConfig {
    /// The groups as consumers have them, with their namespaces.
    fn group_names(&self, field: &str, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Vec<String> {
        let mut names = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            match (group.split_once('/'), cx.namespace()) {
                (Some(_), _) => names.push(group.clone()),
                (None, Some(namespace)) => names.push(format!("{namespace}/{group}")),
                (None, None) => {
                    let field = format!("{field}.groups[{index}]");
                    let message = "has no namespace, and neither has this object";
                    invalid.push(Diagnostic::in_config(field, message, format!("write namespace/{group}")));
                }
            }
        }
        names
    }

    /// A quota that one burst exceeds ends before the rate rejects anything.
    fn note_unused_rate(&self, field: &str, burst: u64, cx: &BuildCx<'_>) {
        for (name, quota) in [("day", self.quotas.day), ("month", self.quotas.month)] {
            if let Some(quota) = quota.filter(|quota| *quota < burst) {
                let message = format!(
                    "the quota per {name} ({quota}) is lower than a burst of the rate ({burst}), so it ends first"
                );
                let remedy = format!("raise it, or set `rate.burst` to {quota} or less");
                cx.note(Diagnostic::in_config(format!("{field}.quotas.{name}"), message, remedy));
            }
        }
    }

    fn rules(&self, field: &str, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Vec<LimitRule> {
        let mut rules = Vec::new();
        if let Some(rate) = &self.rate {
            let unit_us = match rate.per {
                RateUnit::Second => 1_000_000,
                RateUnit::Minute => 60_000_000,
            };
            let burst = rate.burst.unwrap_or(rate.requests);
            for (name, value) in [("requests", rate.requests), ("burst", burst)] {
                if !(1..=MAX_RATE).contains(&value) && (name == "requests" || rate.burst.is_some()) {
                    let (field, message) = (format!("{field}.rate.{name}"), format!("{value} is out of range"));
                    invalid.push(Diagnostic::in_config(field, message, format!("use 1 to {MAX_RATE}")));
                }
            }
            let interval_us = unit_us / rate.requests.clamp(1, MAX_RATE);
            rules.push(LimitRule::new(burst, LimitKind::Bucket { interval_us }));
            self.note_unused_rate(field, burst, cx);
        }
        let quotas = [(Period::Day, self.quotas.day), (Period::Month, self.quotas.month)];
        for (period, quota) in quotas.into_iter().filter_map(|(period, quota)| Some((period, quota?))) {
            if !(1..=MAX_QUOTA).contains(&quota) {
                let (field, message) =
                    (format!("{field}.quotas.{}", period.name()), format!("{quota} is out of range"));
                invalid.push(Diagnostic::in_config(field, message, format!("use 1 to {MAX_QUOTA}")));
            }
            rules.push(LimitRule::new(quota, LimitKind::Fixed(WindowLength::Calendar(period))));
        }
        if let (Some(day), Some(month)) = (self.quotas.day, self.quotas.month)
            && month < day
        {
            let message = format!("the quota per month ({month}) is lower than the quota per day ({day})");
            invalid.push(Diagnostic::in_config(format!("{field}.quotas.month"), message, "raise it, or lower `day`"));
        }
        if rules.is_empty() {
            let message = "has neither a rate nor a quota, so it would limit nothing";
            invalid.push(Diagnostic::in_config(field, message, "set `rate`, `quotas.day` or `quotas.month`"));
        }
        rules
    }
}

const MAX_PLANS: usize = 64;
const MAX_NAME_BYTES: usize = 64;
/// One request per microsecond, the unit of buckets.
const MAX_RATE: u64 = 1_000_000;
const MAX_QUOTA: u64 = 1 << 40;
