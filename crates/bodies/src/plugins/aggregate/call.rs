//! One call: its request, and its result.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::CallFailure;
use super::config::{CallConfig, CallMethod, FailurePolicy, MAX_RESPONSE};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::lua_value::Budget;
use crate::plugin_api::{KeptBytes, ReplaceBackendCx};
use crate::plugin_formats::template::{Template, Variables};
use crate::plugin_kit::form_body::query_value;
use crate::plugin_kit::relayed_response::is_of_connection;
use crate::plugin_kit::remote_server::{NotAnswered, RemoteServer, RemoteServerConfig};

pub(super) struct AggregateCall {
    pub(super) name: Box<str>,
    pub(super) on_failure: FailurePolicy,
    server: RemoteServer,
    method: Method,
    target: Template,
    headers: Vec<(HeaderName, Template)>,
    forward_headers: Vec<HeaderName>,
    forward_body: bool,
}

/// A call with the values of one request.
pub(super) struct PreparedCall {
    client: IpAddr,
    target: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
}

impl AggregateCall {
    pub(super) fn build(config: &CallConfig, index: usize, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let field = |name: &str| format!("calls[{index}].{name}");
        let mut invalid = Vec::new();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if config.name.is_empty() || !config.name.bytes().all(is_name) {
            let remedy = "use letters, digits, - and _";
            invalid.push(Diagnostic::in_config(field("name"), "is missing or is not a name", remedy));
        }
        if !(1..=MAX_RESPONSE).contains(&config.max_response_size) {
            let message = format!("{} is not from 1 to {MAX_RESPONSE}", config.max_response_size);
            invalid.push(Diagnostic::in_config(field("max_response_size"), message, "change it"));
        }
        let (server_url, target) = split_url(&config.url);
        if server_url.contains("$(") {
            let remedy = "write the server as it is: only path and query may have templates";
            invalid.push(Diagnostic::in_config(field("url"), "has a template before its path", remedy));
        }
        let mut template = |path: String, text: &str| {
            let parsed = Template::parse(text);
            parsed.map_err(|error| invalid.push(error.into_diagnostic(path))).ok()
        };
        let target = template(field("url"), &target);
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let path = field(&format!("headers[{name}]"));
            headers.extend(template(path.clone(), value).map(|value| (path, name, value)));
        }
        let mut names = Vec::new();
        for (path, name, value) in headers {
            match sendable(&path, name) {
                Ok(name) => names.push((name, value)),
                Err(problem) => invalid.push(problem),
            }
        }
        let mut forward_headers = Vec::new();
        for (index, name) in config.forward_headers.iter().enumerate() {
            let path = field(&format!("forward_headers[{index}]"));
            match sendable(&path, name) {
                Ok(name) => forward_headers.push(name),
                Err(problem) => invalid.push(problem),
            }
        }
        let (url_field, timeout_field) = (field("url"), field("timeout"));
        let server = RemoteServerConfig {
            field: &url_field,
            url: &server_url,
            timeout_field: &timeout_field,
            timeout: config.timeout,
            keep_alive: config.keepalive,
            verify: config.ssl_verify,
            max_response: config.max_response_size,
        };
        let server = RemoteServer::new(server, cx).map_err(|problems| invalid.extend(problems));
        let (Some(target), Ok(server), []) = (target, server, &invalid[..]) else { return Err(invalid) };
        Ok(AggregateCall {
            name: config.name.as_str().into(),
            on_failure: config.on_failure,
            server,
            method: match config.method {
                CallMethod::Get => Method::GET,
                CallMethod::Post => Method::POST,
                CallMethod::Put => Method::PUT,
                CallMethod::Patch => Method::PATCH,
                CallMethod::Delete => Method::DELETE,
            },
            target,
            headers: names,
            forward_headers,
            forward_body: config.forward_body,
        })
    }

    pub(super) fn sends_body(&self) -> bool {
        self.forward_body
    }

    /// Whether the request fails because of the call. A null for a call that Portico has not made would look like that
    /// of a server which has nothing.
    pub(super) fn is_required(&self, failure: CallFailure) -> bool {
        match self.on_failure {
            FailurePolicy::Fail => true,
            FailurePolicy::Null => matches!(failure, CallFailure::Busy | CallFailure::NotSent),
            FailurePolicy::Error => false,
        }
    }

    /// `None` if the request lacks a value, or has one that the call cannot contain.
    pub(super) fn prepare(
        &self,
        cx: &ReplaceBackendCx<'_>,
        variables: &dyn Variables,
        budget: &mut Budget,
    ) -> Option<PreparedCall> {
        let target = self.target.render_escaped(variables, budget, part_of_target).ok()??;
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok()?;
        let mut headers = HeaderMap::new();
        for name in &self.forward_headers {
            for value in cx.head.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        if self.forward_body
            && let Some(value) = cx.head.headers.get(CONTENT_TYPE)
        {
            headers.insert(CONTENT_TYPE, value.clone());
        }
        for (name, value) in &self.headers {
            let value = value.render_escaped(variables, budget, |value| Some(value.to_vec())).ok()??;
            headers.insert(name.clone(), HeaderValue::from_maybe_shared(Bytes::from(value)).ok()?);
        }
        let body = if self.forward_body { cx.body.cloned().unwrap_or_default() } else { Bytes::new() };
        Some(PreparedCall { client: cx.client.address, target, headers, body })
    }

    /// The bytes of the response are taken from `kept`.
    pub(super) async fn send(&self, prepared: PreparedCall, kept: &mut dyn KeptBytes) -> Result<Value, CallFailure> {
        let pending = self.server.begin(prepared.client, |request| {
            request.method = self.method.clone();
            request.target = prepared.target;
            request.headers.extend(prepared.headers);
            request.body = prepared.body;
        });
        let response = pending.collect(|_| true, kept).await.map_err(|reason| match reason {
            NotAnswered::Busy => CallFailure::Busy,
            NotAnswered::Failed => CallFailure::NoResponse,
        })?;
        if !response.status.is_success() {
            return Err(CallFailure::Status(response.status));
        }
        if response.body.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&response.body).map_err(|_| CallFailure::NotJson)
    }
}

/// The URL up to the path, and the template of the rest.
fn split_url(url: &str) -> (String, String) {
    let authority = url.find("://").map_or(0, |scheme| scheme + 3);
    let path = url[authority..].find(['/', '?']).map_or(url.len(), |path| authority + path);
    let (server, rest) = url.split_at(path);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    (server.to_owned(), rest)
}

/// A value within a path or a query. A segment of dots would lead to another path, and the value may be a whole
/// segment.
fn part_of_target(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let has_meaning = text.is_empty() || text == "." || text == "..";
    (!has_meaning).then(|| query_value(text).into_bytes())
}

fn sendable(path: &str, name: &str) -> Result<HeaderName, Diagnostic> {
    let name = parse_written_name(path, name, WrittenValue::Configured)?;
    if is_of_connection(&name) {
        let message = format!("{name} cannot be set");
        return Err(Diagnostic::in_config(path, message, "remove it: it is about a connection to a proxy"));
    }
    Ok(name)
}
