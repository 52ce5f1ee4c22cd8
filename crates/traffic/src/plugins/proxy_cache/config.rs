//! The configuration of both plugins, as users write it and as requests use it.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::media_types::MediaTypes;
use super::remote::MAX_REMOTE_BODY;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, optional_record, record};
use crate::plugin_kit::redis::{RedisConfig, RedisServer};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where responses are stored: in the `memory` of each replica, or at a `redis` server that replicas share.
    strategy: Strategy,
    /// The server for `strategy: redis`.
    #[serde(default, deserialize_with = "optional_record")]
    redis: Option<RedisConfig>,
    /// Whether requests are forwarded while the server of `strategy: redis` does not respond. Otherwise they get 500.
    #[serde(default)]
    bypass_on_err: bool,
    /// Which rules apply. With `kong`, the fields of this configuration decide what is stored and for how long. With
    /// `rfc9111`, the fields of requests and responses do, such as `Cache-Control`, `Vary` and `ETag`.
    #[serde(default)]
    mode: Mode,
    /// The statuses of responses that are stored. Only with `mode: kong`.
    #[serde(default = "default_statuses")]
    response_code: Vec<u16>,
    /// The methods of requests whose responses are stored. Only with `mode: kong`; with `rfc9111`, it is GET, and HEAD
    /// gets the head of the response to GET.
    #[serde(default = "default_methods")]
    request_method: Vec<String>,
    /// The media types of responses that are stored. Parameters must be the same: `application/json` does not contain
    /// `application/json; charset=utf-8`. Each part may be `*`. Only with `mode: kong`.
    #[serde(default = "default_types")]
    content_type: Vec<String>,
    /// How many seconds a response is sent again. With `mode: rfc9111`, the longest time for a response that does not
    /// say how long it is fresh, but when it was modified.
    #[serde(default = "default_ttl")]
    cache_ttl: u32,
    /// How many seconds a response is kept. If unset, as long as it is fresh with `mode: kong`, and a day longer than
    /// that with `mode: rfc9111`, where it may then be validated.
    #[serde(default)]
    storage_ttl: Option<u32>,
    /// Whether `Cache-Control` of requests and responses is obeyed. Only with `mode: kong`; with `rfc9111`, it is.
    #[serde(default)]
    cache_control: bool,
    /// Whether targets that differ only by the case of the path have the same response. Use it only if the backend does
    /// not distinguish them.
    #[serde(default)]
    ignore_uri_case: bool,
    /// The parameters of the query on which the response depends. If unset, all. Those that a backend may read as one
    /// of these count, too: with another letter case, with other characters in the name than letters, digits, `-` and
    /// `_`, or with a semicolon.
    #[serde(default)]
    vary_query_params: Vec<String>,
    /// The fields of the request on which the response depends, in addition to those that `Vary` names.
    #[serde(default)]
    vary_headers: Vec<String>,
    /// Accepted as in Kong.
    #[serde(default, deserialize_with = "record")]
    #[expect(dead_code, reason = "Kong's shared dictionaries have no counterpart")]
    memory: Memory,
    /// The fields that are added to responses.
    #[serde(default, deserialize_with = "record")]
    response_headers: ResponseFields,
    /// The largest body in bytes that is stored, at most 64 MiB. `--max-cache-bytes` limits all of them together.
    #[serde(default = "default_body_size")]
    max_body_size: u32,
    /// Whether responses to requests with `Authorization` are stored, for all clients that send the same target, if no
    /// plugin has authenticated them. Responses to authenticated clients are stored for each of them, except for those
    /// whose credential does not say whose it is.
    #[serde(default)]
    cache_authorization: bool,
    /// Whether responses with `Set-Cookie` are stored, so that several clients get the same cookie.
    #[serde(default)]
    cache_set_cookie: bool,
    /// How many milliseconds a request waits if another one for the same response was forwarded before. 0: not at all.
    /// If unset, 0 with `mode: kong` and 5000 with `rfc9111`.
    #[serde(default)]
    collapse_timeout: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Kong,
    Rfc9111,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::plugins) enum Strategy {
    Memory,
    Redis,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Memory {
    /// Without effect: all caches share the memory of `--max-cache-bytes`, of which each namespace has its part.
    dictionary_name: String,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { dictionary_name: "kong_db_cache".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResponseFields {
    /// Whether to add `Age` to stored responses. With `mode: rfc9111`, they always have it.
    pub(super) age: bool,
    /// Whether to add `X-Cache-Status`. With `mode: rfc9111`, the field is `Cache-Status`.
    #[serde(rename = "X-Cache-Status")]
    pub(super) status: bool,
    /// Whether to add `X-Cache-Key`.
    #[serde(rename = "X-Cache-Key")]
    pub(super) key: bool,
}

impl Default for ResponseFields {
    fn default() -> Self {
        ResponseFields { age: true, status: true, key: true }
    }
}

/// A valid configuration.
pub(super) struct CacheSettings {
    pub(super) mode: Mode,
    pub(super) statuses: Vec<StatusCode>,
    pub(super) methods: Vec<Method>,
    pub(super) types: MediaTypes,
    pub(super) ttl: Duration,
    pub(super) storage_ttl: Option<Duration>,
    pub(super) cache_control: bool,
    pub(super) ignores_case: bool,
    pub(super) parameters: Vec<String>,
    /// Sorted.
    pub(super) fields: Vec<HeaderName>,
    pub(super) response_fields: ResponseFields,
    pub(super) max_body: usize,
    pub(super) shares_authorized: bool,
    pub(super) stores_cookies: bool,
    /// Zero: requests do not wait for one another.
    pub(super) collapse: Duration,
    /// For a cache in which the content of requests selects the response: whether a complete body may be stored.
    /// Requests whose content is not known are forwarded.
    pub(super) accepts_body: Option<BodyTest>,
}

/// Decides about a complete body.
pub(in crate::plugins) type BodyTest = fn(&[u8]) -> bool;

/// A cache for requests of which the content selects the response.
pub(in crate::plugins) struct ContentCacheConfig {
    pub(in crate::plugins) strategy: Strategy,
    pub(in crate::plugins) redis: Option<RedisConfig>,
    pub(in crate::plugins) bypass_on_err: bool,
    pub(in crate::plugins) cache_ttl: u32,
    pub(in crate::plugins) vary_headers: Vec<String>,
    pub(in crate::plugins) max_body_size: u32,
    pub(in crate::plugins) content_type: Vec<String>,
    pub(in crate::plugins) accepts_body: BodyTest,
}

impl ContentCacheConfig {
    /// The configuration of the cache, and what it stores of it.
    pub(super) fn into_config(self) -> (Config, BodyTest) {
        let config = Config {
            strategy: self.strategy,
            redis: self.redis,
            // Reading from the memory does not fail.
            bypass_on_err: self.bypass_on_err && self.strategy == Strategy::Redis,
            mode: Mode::Kong,
            response_code: vec![200],
            request_method: vec!["GET".to_owned(), "POST".to_owned()],
            content_type: self.content_type,
            cache_ttl: self.cache_ttl,
            storage_ttl: None,
            cache_control: false,
            ignore_uri_case: false,
            vary_query_params: Vec::new(),
            vary_headers: self.vary_headers,
            memory: Memory::default(),
            response_headers: ResponseFields::default(),
            max_body_size: self.max_body_size,
            cache_authorization: false,
            cache_set_cookie: false,
            collapse_timeout: None,
        };
        (config, self.accepts_body)
    }
}

impl Config {
    /// The server of `strategy: redis`, and whether requests are forwarded without it.
    pub(super) fn server(&mut self, cx: &BuildCx<'_>) -> Result<(Option<RedisServer>, bool), Vec<Diagnostic>> {
        let redis = self.redis.take();
        let problem =
            |field: &str, message: &str, remedy: &str| Err(vec![Diagnostic::in_config(field, message, remedy)]);
        match (self.strategy, redis) {
            (Strategy::Memory, Some(_)) => {
                problem("redis", "has no effect with `strategy: memory`", "remove it, or set strategy to redis")
            }
            (Strategy::Memory, None) if self.bypass_on_err => {
                let message = "has no effect with `strategy: memory`";
                problem("bypass_on_err", message, "remove it, or set strategy to redis")
            }
            (Strategy::Memory, None) => Ok((None, false)),
            (Strategy::Redis, None) => {
                problem("redis", "is required with `strategy: redis`", "set it to a Redis server")
            }
            (Strategy::Redis, Some(_)) if self.max_body_size > MAX_REMOTE_BODY => {
                let message = "is more than the largest value with `strategy: redis`";
                problem("max_body_size", message, "set it to 1048576 or less")
            }
            (Strategy::Redis, Some(redis)) => Ok((Some(redis.validate("redis", cx)?), self.bypass_on_err)),
        }
    }

    pub(super) fn resolve(self, cx: &BuildCx<'_>) -> Result<CacheSettings, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let statuses = resolve_each(&mut invalid, "response_code", &self.response_code, |code| {
            let status = StatusCode::from_u16(*code).ok().filter(|status| status.as_u16() <= 900);
            let status =
                status.ok_or_else(|| (format!("{code} is not a status of 100 to 900"), "use a status such as 200"))?;
            if OF_RANGES_AND_CONDITIONS.contains(&status) {
                let remedy = "remove it; with `mode: rfc9111`, ranges and 304 are made from whole responses";
                return Err((format!("a response with {code} is only for its own request"), remedy));
            }
            Ok(status)
        });
        let methods = resolve_each(&mut invalid, "request_method", &self.request_method, |name| {
            let method = ["HEAD", "GET", "POST", "PATCH", "PUT"].contains(&name.as_str());
            let method = method.then(|| Method::from_bytes(name.as_bytes()).ok()).flatten();
            method.ok_or_else(|| (format!("{name:?} is not supported"), "use HEAD, GET, POST, PATCH or PUT"))
        });
        let mut types = Vec::new();
        for (index, text) in self.content_type.iter().enumerate() {
            let parsed = MediaTypes::check(text);
            if parsed.is_none() {
                let message = format!("{text:?} is not a media type, so no response has it");
                let remedy = "write type/subtype, such as application/json or text/*";
                cx.note(Diagnostic::in_config(format!("content_type[{index}]"), message, remedy));
            }
            types.extend(parsed);
        }
        if types.is_empty() && !self.content_type.is_empty() {
            let remedy = "write type/subtype, such as application/json or text/*";
            invalid.push(Diagnostic::in_config(
                "content_type",
                "has no media type, so nothing would be stored",
                remedy,
            ));
        }
        let mut fields = resolve_each(&mut invalid, "vary_headers", &self.vary_headers, |name| {
            name.parse::<HeaderName>()
                .map_err(|_| (format!("{name:?} is not the name of a field"), "use letters, digits and hyphens"))
        });
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        for (field, is_empty) in [
            ("response_code", self.response_code.is_empty()),
            ("request_method", self.request_method.is_empty()),
            ("content_type", self.content_type.is_empty()),
        ] {
            if is_empty {
                let remedy = "list what is stored, or remove the field for its default";
                invalid.push(Diagnostic::in_config(field, "is empty, so nothing would be stored", remedy));
            }
        }
        for (field, value, smallest) in [
            ("cache_ttl", Some(self.cache_ttl), 1),
            ("storage_ttl", self.storage_ttl, 1),
            ("max_body_size", Some(self.max_body_size), 1),
        ] {
            if value.is_some_and(|value| value < smallest) {
                invalid.push(Diagnostic::in_config(field, "0 would store nothing", "set it to 1 or more"));
            }
        }
        if self.max_body_size > MAX_BODY {
            let message = format!("{} is more than the largest value", self.max_body_size);
            invalid.push(Diagnostic::in_config("max_body_size", message, format!("set it to {MAX_BODY} or less")));
        }
        if self.collapse_timeout.is_some_and(|timeout| timeout > MAX_COLLAPSE) {
            let message = "is more than the largest value";
            invalid.push(Diagnostic::in_config(
                "collapse_timeout",
                message,
                format!("set it to {MAX_COLLAPSE} or less"),
            ));
        }
        if self.mode == Mode::Rfc9111 {
            let other_values = [
                ("response_code", self.response_code != default_statuses()),
                ("request_method", self.request_method != default_methods()),
                ("content_type", self.content_type != default_types()),
                ("cache_control", self.cache_control),
            ];
            for (field, _) in other_values.iter().filter(|(_, is_set)| *is_set) {
                let message = "has no effect with `mode: rfc9111`, where requests and responses decide";
                invalid.push(Diagnostic::in_config(field, message, "remove it, or use `mode: kong`"));
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let default_collapse = if self.mode == Mode::Rfc9111 { 5000 } else { 0 };
        Ok(CacheSettings {
            mode: self.mode,
            statuses,
            methods,
            types: MediaTypes::new(types),
            ttl: Duration::from_secs(self.cache_ttl.into()),
            storage_ttl: self.storage_ttl.map(|ttl| Duration::from_secs(ttl.into())),
            cache_control: self.cache_control,
            ignores_case: self.ignore_uri_case,
            parameters: self.vary_query_params,
            fields,
            response_fields: self.response_headers,
            max_body: self.max_body_size as usize,
            shares_authorized: self.cache_authorization,
            stores_cookies: self.cache_set_cookie,
            collapse: Duration::from_millis(self.collapse_timeout.unwrap_or(default_collapse).into()),
            accepts_body: None,
        })
    }
}

/// Resolves the elements of a list, and adds a diagnostic for each that is invalid.
fn resolve_each<'v, T, V>(
    invalid: &mut Vec<Diagnostic>,
    field: &str,
    values: &'v [V],
    resolve: impl Fn(&'v V) -> Result<T, (String, &'static str)>,
) -> Vec<T> {
    let mut resolved = Vec::new();
    for (index, value) in values.iter().enumerate() {
        match resolve(value) {
            Ok(value) => resolved.push(value),
            Err((message, remedy)) => {
                invalid.push(Diagnostic::in_config(format!("{field}[{index}]"), message, remedy));
            }
        }
    }
    resolved
}

fn default_statuses() -> Vec<u16> {
    vec![200, 301, 404]
}

fn default_methods() -> Vec<String> {
    vec!["GET".to_owned(), "HEAD".to_owned()]
}

fn default_types() -> Vec<String> {
    vec!["text/plain".to_owned(), "application/json".to_owned()]
}

fn default_ttl() -> u32 {
    300
}

fn default_body_size() -> u32 {
    1 << 20
}

/// The statuses of responses that depend on ranges and conditions of their request, which the key does not contain.
const OF_RANGES_AND_CONDITIONS: [StatusCode; 4] = [
    StatusCode::PARTIAL_CONTENT,
    StatusCode::NOT_MODIFIED,
    StatusCode::PRECONDITION_FAILED,
    StatusCode::RANGE_NOT_SATISFIABLE,
];
const MAX_BODY: u32 = 64 << 20;
/// A minute in milliseconds.
const MAX_COLLAPSE: u32 = 60_000;
