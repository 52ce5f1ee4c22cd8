//! The configuration of `rate-limiting`, and what can be used of it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cell::MOST;
use super::window::Period;
use crate::plugin::redis::{RedisConfig, Server};
use crate::plugin::{BuildCx, Invalid, record};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How many requests there may be in a second. Windows are those of the clock and the calendar in UTC. With no limit at
    /// all nothing is limited.
    second: Option<u64>,
    /// How many in a minute.
    minute: Option<u64>,
    /// How many in an hour.
    hour: Option<u64>,
    /// How many in a day.
    day: Option<u64>,
    /// How many in a month of the calendar.
    month: Option<u64>,
    /// How many in a year of the calendar.
    year: Option<u64>,
    /// For whom it is counted apart. Where that is missing in a request, by the client's address.
    limit_by: By,
    /// The request header to limit by.
    header_name: Option<String>,
    /// The path to limit by: requests with exactly this path share one count.
    path: Option<String>,
    /// Where it is counted.
    policy: Where,
    /// Lets requests through while the server cannot be asked. If not, they are answered 500.
    fault_tolerant: bool,
    /// The server of the policy `redis`.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Keeps to itself how many requests are left.
    hide_client_headers: bool,
    /// The status for requests that are too many, 200 to 599.
    error_code: u16,
    /// What they are told.
    error_message: String,
    /// With the policy `redis`: how often the server is told what was counted here, in seconds, at least 0.02. Less exact and
    /// quicker than `-1`, which asks it at each request.
    sync_rate: f64,
    /// Short for `redis.host`, and goes before it.
    redis_host: Option<String>,
    /// Short for `redis.port`.
    redis_port: Option<u16>,
    /// Short for `redis.timeout`.
    redis_timeout: Option<u32>,
    /// Short for `redis.username`.
    redis_username: Option<String>,
    /// Short for `redis.password`.
    redis_password: Option<String>,
    /// Short for `redis.database`.
    redis_database: Option<u32>,
    /// Short for `redis.ssl`.
    redis_ssl: Option<bool>,
    /// Short for `redis.ssl_verify`.
    redis_ssl_verify: Option<bool>,
    /// Short for `redis.server_name`.
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
            limit_by: By::Consumer,
            header_name: None,
            path: None,
            policy: Where::Local,
            fault_tolerant: true,
            redis: RedisConfig::default(),
            hide_client_headers: false,
            error_code: 429,
            error_message: "API rate limit exceeded".to_owned(),
            sync_rate: AT_EACH_REQUEST,
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
enum By {
    /// The consumer, or the credential without one.
    Consumer,
    /// The credential that was shown.
    Credential,
    /// The client's address.
    Ip,
    /// The service that requests go to.
    Service,
    /// The value of the header `header_name`.
    Header,
    /// The path, if it is `path`.
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Where {
    /// In this process: each replica counts for itself.
    Local,
    /// As `local`: there is no database that replicas share.
    Cluster,
    /// On a Redis server, for all replicas together.
    Redis,
}

/// A configuration that can be used.
pub(super) struct Checked {
    /// From the shortest period to the longest.
    pub limits: Vec<(Period, u64)>,
    pub by: LimitBy,
    pub policy: Policy,
    pub is_fault_tolerant: bool,
    pub hides_headers: bool,
    pub status: StatusCode,
    pub message: Arc<str>,
}

pub(super) enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header(HeaderName),
    Path(String),
}

pub(super) enum Policy {
    Local,
    /// Told every so often, or asked at each request.
    Redis(Box<Server>, Option<Duration>),
}

impl Config {
    pub(super) fn checked(self, cx: &BuildCx<'_>) -> Result<Checked, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let limits = self.limits(&mut invalid);
        let by = self.limit_by(&mut invalid);
        let status = StatusCode::from_u16(self.error_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} cannot be the status of a whole answer", self.error_code);
            invalid.push(Invalid::new("error_code", message, "use one of 200 to 599, such as 429"));
        }
        let (is_fault_tolerant, hides_headers) = (self.fault_tolerant, self.hide_client_headers);
        let message = self.error_message.as_str().into();
        let policy = self.policy(cx, &mut invalid);
        match (by, status, policy) {
            (Some(by), Some(status), Some(policy)) if invalid.is_empty() => {
                Ok(Checked { limits, by, policy, is_fault_tolerant, hides_headers, status, message })
            }
            _ => Err(invalid),
        }
    }

    fn limits(&self, invalid: &mut Vec<Invalid>) -> Vec<(Period, u64)> {
        let all = [self.second, self.minute, self.hour, self.day, self.month, self.year];
        let set = Period::ALL.into_iter().zip(all).filter_map(|(period, limit)| Some((period, limit?)));
        let limits: Vec<(Period, u64)> = set.collect();
        for (period, limit) in &limits {
            if *limit == 0 || *limit >= MOST {
                let message = format!("{limit} is no limit that can be counted");
                invalid.push(Invalid::new(period.name(), message, format!("use 1 to {}", MOST - 1)));
            }
        }
        for pair in limits.windows(2) {
            let ((shorter, most), (longer, limit)) = (pair[0], pair[1]);
            if limit < most {
                let (shorter, longer) = (shorter.name(), longer.name());
                let message = format!("the limit of a {longer} ({limit}) is lower than that of a {shorter} ({most})");
                invalid.push(Invalid::new(longer, message, format!("raise it, or lower `{shorter}`")));
            }
        }
        limits
    }

    fn limit_by(&self, invalid: &mut Vec<Invalid>) -> Option<LimitBy> {
        match self.limit_by {
            By::Consumer => Some(LimitBy::Consumer),
            By::Credential => Some(LimitBy::Credential),
            By::Ip => Some(LimitBy::Ip),
            By::Service => Some(LimitBy::Service),
            By::Header => {
                let name = self.header_name.as_deref().map(|name| HeaderName::from_bytes(name.as_bytes()));
                let (field, message, remedy) = match name {
                    Some(Ok(name)) => return Some(LimitBy::Header(name)),
                    Some(Err(_)) => ("header_name", "cannot be the name of a header", "use letters, digits and `-`"),
                    None => ("limit_by", "header needs header_name", "set `header_name` to the header to limit by"),
                };
                invalid.push(Invalid::new(field, message, remedy));
                None
            }
            By::Path => match &self.path {
                Some(path) if path.starts_with('/') => Some(LimitBy::Path(path.clone())),
                Some(_) => {
                    invalid.push(Invalid::new("path", "does not begin with /", "write the whole path, such as /cart"));
                    None
                }
                None => {
                    let remedy = "set `path` to the path to limit by";
                    invalid.push(Invalid::new("limit_by", "path needs path", remedy));
                    None
                }
            },
        }
    }

    fn policy(self, cx: &BuildCx<'_>, invalid: &mut Vec<Invalid>) -> Option<Policy> {
        let every = (self.sync_rate != AT_EACH_REQUEST).then_some(self.sync_rate);
        if let Some(every) = every {
            if !(SHORTEST_SYNC..=LONGEST_SYNC).contains(&every) {
                let message = format!("{every} is no such time");
                let remedy = "use -1 to ask the server at each request, or 0.02 to 3600 seconds";
                invalid.push(Invalid::new("sync_rate", message, remedy));
            } else if self.policy != Where::Redis {
                let message = "has a meaning with the policy `redis` only";
                invalid.push(Invalid::new("sync_rate", message, "remove it, or set `policy: redis`"));
            }
        }
        match self.policy {
            Where::Local => Some(Policy::Local),
            Where::Cluster => {
                let message =
                    "`cluster` is in effect as `local`: there is no database, and each replica counts for itself";
                cx.note(Invalid::new("policy", message, "use `redis` if replicas are to count together"));
                Some(Policy::Local)
            }
            Where::Redis => {
                let every = every.filter(|_| invalid.is_empty()).map(Duration::from_secs_f64);
                match self.redis().checked("redis", cx) {
                    Ok(server) => Some(Policy::Redis(Box::new(server), every)),
                    Err(wrong) => {
                        invalid.extend(wrong);
                        None
                    }
                }
            }
        }
    }

    fn redis(self) -> RedisConfig {
        let nested = self.redis;
        RedisConfig {
            host: self.redis_host.or(nested.host),
            port: self.redis_port.unwrap_or(nested.port),
            timeout: self.redis_timeout.unwrap_or(nested.timeout),
            username: self.redis_username.or(nested.username),
            password: self.redis_password.or(nested.password),
            database: self.redis_database.unwrap_or(nested.database),
            ssl: self.redis_ssl.unwrap_or(nested.ssl),
            ssl_verify: self.redis_ssl_verify.unwrap_or(nested.ssl_verify),
            server_name: self.redis_server_name.or(nested.server_name),
        }
    }
}

const AT_EACH_REQUEST: f64 = -1.0;
const SHORTEST_SYNC: f64 = 0.02;
const LONGEST_SYNC: f64 = 3600.0;
