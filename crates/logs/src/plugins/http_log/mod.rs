//! `http-log`: sends a JSON object about each request to an HTTP server.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: http-log
//! config:
//!   http_endpoint: https://logs.example/requests
//!   queue: {max_batch_size: 100}
//! ```
//!
//! Requests never wait for the server. Their objects wait in a queue, which is limited by `queue` and, together with
//! the queues of all plugins, by `--max-queued-bytes`. Each object is sent in a request of its own; if `max_batch_size`
//! is above 1, a request has a list of objects. If the server does not respond with a status below 300, the batch is
//! sent again. The metrics `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! The objects have the fields that Kong's log plugins write. `REDACTED` replaces the values of `Authorization` and
//! `Proxy-Authorization`, and all credentials that plugins of the route read, also where a field such as `Referer` or
//! `Location` repeats a query. Values with more than 8 KiB are cut.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DeliveryReports, HttpBody, HttpSender};
use crate::plugin_api::batch_queue::{BatchQueue, DeprecatedQueueFields, QueueConfig, QueueSettings};
use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{
    BuildCx, LogCx, Phases, Plugin, PluginKind, RemoteRequest, RemoteUrl, ResponseBodyUse, record,
};
use crate::plugin_kit::log_fields::CustomFields;
use crate::plugin_kit::sent_headers::parse_sent_headers;

/// Sends logs of requests to an HTTP server.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// URL of the server, with `http` or `https`. A host without dots is a Service in the namespace of the plugin. User
    /// and password in the URL are sent as Basic authentication. The query is part of the requests, unlike in Kong.
    http_endpoint: Option<String>,
    /// Method of the requests to the server.
    method: LogMethod,
    /// `Content-Type` of the requests to the server.
    content_type: LogContentType,
    /// Timeout in milliseconds for a request to the server, from connecting to the end of the response. At most 60000
    /// takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection to the server is kept open, unless other requests of plugins need the
    /// room. At most 600000 takes effect.
    keepalive: u32,
    /// Further headers of the requests to the server. `Host`, `Content-Type` and `Content-Length` cannot be set.
    headers: BTreeMap<String, String>,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, such as
    /// `return kong.request.get_header("x-tenant")`. A field `a.b` is the field `b` of the object `a`, and a dot after
    /// a backslash is part of the name. A field whose expression returns `nil` is removed. Expressions get
    /// `REDACTED` instead of credentials.
    custom_fields_by_lua: BTreeMap<String, String>,
    /// Whether to verify the certificate of the server with the system's root certificates. Kong does not verify it.
    /// Without verification, the logs are not protected against impersonation of the server.
    ssl_verify: bool,
    /// How objects are collected and sent. If the server does not keep up, the oldest objects are dropped.
    #[serde(deserialize_with = "record")]
    queue: QueueConfig,
    /// No effect: `queue.max_retry_time` limits retries.
    retry_count: Option<u32>,
    /// Alias of `queue.max_batch_size`. If both are set, the alias is used.
    queue_size: Option<usize>,
    /// Alias of `queue.max_coalescing_delay`. If both are set, the alias is used.
    flush_timeout: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http_endpoint: None,
            method: LogMethod::Post,
            content_type: LogContentType::Json,
            timeout: 10_000,
            keepalive: 60_000,
            headers: BTreeMap::new(),
            custom_fields_by_lua: BTreeMap::new(),
            ssl_verify: true,
            queue: QueueConfig::default(),
            retry_count: None,
            queue_size: None,
            flush_timeout: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum LogMethod {
    Post,
    Put,
    Patch,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
enum LogContentType {
    #[serde(rename = "application/json")]
    Json,
    #[serde(rename = "application/json; charset=utf-8")]
    JsonUtf8,
}

pub(crate) struct HttpLog {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
}

impl PluginKind for HttpLog {
    const NAME: &'static str = "http-log";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 12;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = HttpLog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let url = config.parse_endpoint(cx).map_err(|error| invalid.push(error)).ok();
        for (field, value) in [("timeout", config.timeout), ("keepalive", config.keepalive)] {
            if value == 0 {
                let remedy = "use a number of milliseconds, such as 10000";
                invalid.push(Diagnostic::in_config(field, "must not be 0", remedy));
            }
        }
        let headers = config.parse_headers(&mut invalid);
        if headers.contains_key(AUTHORIZATION) && url.as_ref().is_some_and(|url| url.authorization.is_some()) {
            let message = "cannot be set, because `http_endpoint` has a user";
            let remedy = "remove it, or remove user and password from the URL";
            invalid.push(Diagnostic::in_config("headers[Authorization]", message, remedy));
        }
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let queue = config.queue_settings(cx).map_err(|errors| invalid.extend(errors)).ok();
        let (Some(url), Some(settings), true) = (url, queue, invalid.is_empty()) else { return Err(invalid) };
        // Objects that wait are kept while the configuration of the plugin stays the same.
        let name = format!("{} {}", cx.object, config.fingerprint(&settings));
        let request = config.request(&url, headers, cx);
        let queue = cx.state.get_or_create(&name, || {
            let body = if settings.max_batch_size > 1 { HttpBody::JsonList } else { HttpBody::JsonObject };
            let sender = HttpSender::new(request, body, DeliveryReports::new("http_endpoint", cx), cx).retry_all();
            BatchQueue::start(settings, Arc::new(sender), cx)
        });
        Ok(HttpLog { queue, custom_fields })
    }
}

impl Plugin for HttpLog {
    fn log(&self, cx: &LogCx<'_>) {
        self.queue.push_for(&cx.names.namespace, Bytes::from(self.custom_fields.object(cx)));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

impl Config {
    /// Parses the URL. No message contains a part of it except the host, because it may contain a password.
    fn parse_endpoint(&self, cx: &BuildCx<'_>) -> Result<RemoteUrl, Diagnostic> {
        const FIELD: &str = "http_endpoint";
        const REMEDY: &str = "set it to the URL of the server, such as https://logs.example/requests";
        let text = self.http_endpoint.as_deref().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Diagnostic::in_config(FIELD, "is missing", REMEDY))?;
        let url = RemoteUrl::parse(text).map_err(|error| Diagnostic::in_config(FIELD, error, REMEDY))?;
        match cx.check_host(FIELD, &url.host) {
            Some(blocked) => Err(blocked),
            None => Ok(url),
        }
    }

    fn parse_headers(&self, invalid: &mut Vec<Diagnostic>) -> HeaderMap {
        let reserved = [
            (HOST, "remove it: the host is that of `http_endpoint`"),
            (CONTENT_TYPE, "remove it, and set `content_type`"),
            (CONTENT_LENGTH, "remove it: the length is that of each body"),
        ];
        parse_sent_headers("headers", &self.headers, &reserved, invalid)
    }

    /// The settings of the queue, after the deprecated fields were applied.
    fn queue_settings(&self, cx: &BuildCx<'_>) -> Result<QueueSettings, Vec<Diagnostic>> {
        let Config { retry_count, queue_size, flush_timeout, .. } = *self;
        DeprecatedQueueFields { retry_count, queue_size, flush_timeout }.apply(&self.queue, cx)
    }

    /// The request for each batch, without its body.
    fn request(&self, url: &RemoteUrl, mut headers: HeaderMap, cx: &BuildCx<'_>) -> RemoteRequest {
        headers.insert(HOST, url.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type.as_str()));
        if let Some(authorization) = &url.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let timeout = cx.limited_duration("timeout", self.timeout, MAX_REMOTE_TIMEOUT);
        let keep_alive = cx.limited_duration("keepalive", self.keepalive, MAX_KEEP_ALIVE);
        RemoteRequest {
            remote: url.remote(cx.namespace(), self.ssl_verify, timeout),
            method: match self.method {
                LogMethod::Post => Method::POST,
                LogMethod::Put => Method::PUT,
                LogMethod::Patch => Method::PATCH,
            },
            target: url.target.clone(),
            headers,
            body: Bytes::new(),
            timeout,
            keep_alive: Some(keep_alive),
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        }
    }

    /// A digest of everything that the queue and its requests depend on.
    fn fingerprint(&self, settings: &QueueSettings) -> String {
        let Config { http_endpoint, method, content_type, timeout, keepalive, headers, ssl_verify, .. } = self;
        let request = (http_endpoint, method, content_type, timeout, keepalive, headers, ssl_verify);
        hex(&sha256(format!("{request:?} {settings:?}").as_bytes()))
    }
}

impl LogContentType {
    fn as_str(self) -> &'static str {
        match self {
            LogContentType::Json => "application/json",
            LogContentType::JsonUtf8 => "application/json; charset=utf-8",
        }
    }
}

/// The longest time that an idle connection is kept open.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);
