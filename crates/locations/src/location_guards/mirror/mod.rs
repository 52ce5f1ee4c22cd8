//! Sends a copy of each request to another server, and ignores its responses.
//!
//! The client never waits for a copy: it is sent in a task of its own, and without a place for it, it is not sent. As
//! in nginx, the body is read before the request is forwarded, so that only a body of known and moderate length is
//! copied; requests with another body have no copy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use schemars::JsonSchema;
use serde::Deserialize;

use super::server_url::{host_of, path_and_query, split};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::{
    AccessOutcome, BeforeForwardCx, BuildCx, Phases, Plugin, PluginKind, PluginServices, Remote, RemoteRequest,
    RemoteUrl, RequestCx, ResponseBodyUse, Share, SharedLimit,
};
use crate::snapshot::location_snippet::SnippetText;
use crate::snapshot::location_steps::RequestValues;

/// Where copies are sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// An `http` or `https` URL. Variables may be in its path and its query.
    url: String,
    /// The `Host` of copies, which may have variables. `None`: the host of the URL.
    #[serde(default)]
    host: Option<String>,
    /// Whether copies have the body.
    body: bool,
}

/// The mirror of one Ingress.
pub(crate) struct LocationMirror {
    server: Remote,
    target: SnippetText,
    host: SnippetText,
    has_body: bool,
    services: Arc<dyn PluginServices>,
    /// The copies that are in progress, in the whole process.
    copies: Arc<SharedLimit>,
    /// What the namespace of the Ingress has of them.
    share: Arc<Share>,
}

/// Where the copy of one request is sent.
struct CopyAddress {
    target: PathAndQuery,
    host: HeaderValue,
}

impl PluginKind for LocationMirror {
    const NAME: &'static str = "location-mirror";
    const HAS_CREDENTIALS: bool = false;
    /// After the guards: nginx copies what they admit.
    const PRIORITY: i32 = i32::MAX - 3;
    const PHASES: Phases = Phases { before_forward: true, ..Phases::ACCESS };
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let refuse = |error: String| {
            let remedy = "write the URL of a server, such as https://test.example$request_uri";
            vec![Diagnostic::in_config("url", error, remedy)]
        };
        let (origin, target) = parts(&config.url).ok_or_else(|| refuse("the host has a variable".to_owned()))?;
        let url = RemoteUrl::parse(origin).map_err(refuse)?;
        let mut invalid: Vec<Diagnostic> = cx.check_host("url", &url.host).into_iter().collect();
        let mut text = |field: &str, text: &str| {
            let remedy = "use variables of nginx that requests have, such as $request_uri";
            let parsed = SnippetText::parse(text);
            parsed.map_err(|error| invalid.push(Diagnostic::in_config(field, error.to_string(), remedy))).ok()
        };
        let target = text("url", target);
        let host = text("host", config.host.as_deref().unwrap_or(host_of(origin)));
        let (Some(target), Some(host), []) = (target, host, &invalid[..]) else { return Err(invalid) };
        let copies = cx.state.get_or_create("location mirrors", || SharedLimit::new(MAX_COPIES));
        Ok(LocationMirror {
            // As nginx does by default.
            server: url.remote(cx.namespace(), false, TIMEOUT),
            target,
            host,
            has_body: config.body,
            services: Arc::clone(cx.services),
            share: copies.share(cx.namespace().unwrap_or_default()),
            copies,
        })
    }
}

impl Plugin for LocationMirror {
    fn may_wait(&self) -> bool {
        false
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.has_body.then_some(MAX_BODY)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        // A larger body would be rejected, and the length of another one is not known yet.
        length(&head.headers).is_some_and(|length| length <= MAX_BODY)
    }

    /// Determines what variables stand for, as long as they are known.
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if let Some(address) = self.address(&RequestValues::new(cx)) {
            cx.set_plugin_data(address);
        }
        AccessOutcome::Continue
    }

    /// Sends the copy of a request that no plugin has rejected.
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        let body = match self.has_body {
            true => cx.whole_body().filter(|body| body.len() <= MAX_BODY),
            false => Some(Bytes::new()),
        };
        // The server could not continue another protocol.
        if let Some(body) = body.filter(|_| !cx.is_upgrade)
            && let Some(address) = cx.stored_in_access::<CopyAddress>()
            && let Ok(place) = self.copies.try_take(&self.share, 1)
        {
            let request = self.copy(cx, address, body);
            let sending = self.services.send_for_client(cx.client.address, request);
            // The client does not wait for the task, which ends within the timeout of the request.
            self.services.spawn(Box::pin(async move {
                let _place = place;
                if let Err(failure) = sending.await {
                    tracing::debug!(error = failure.into_message(), "A copy of a request had no response");
                }
            }));
        }
        AccessOutcome::Continue
    }
}

impl LocationMirror {
    /// `None` if a value is not valid in a request.
    fn address(&self, values: &RequestValues<'_>) -> Option<CopyAddress> {
        let target = path_and_query(&self.target.expand(values)?)?;
        let host = HeaderValue::from_str(&self.host.expand(values)?).ok()?;
        Some(CopyAddress { target, host })
    }

    fn copy(&self, cx: &BeforeForwardCx<'_>, address: &CopyAddress, body: Bytes) -> RemoteRequest {
        let head = &*cx.head;
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 1);
        let is_copied = |name: &HeaderName| !MESSAGE_FIELDS.contains(name);
        for (name, value) in head.headers.iter().filter(|(name, _)| is_copied(name)) {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(HOST, address.host.clone());
        cx.hops.set(&mut headers);
        RemoteRequest {
            remote: self.server.clone(),
            method: head.method.clone(),
            target: address.target.clone(),
            headers,
            body,
            timeout: TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        }
    }
}

/// A URL as scheme and host, and what follows, which may begin with a variable for a path. `None` if the host has one.
fn parts(url: &str) -> Option<(&str, &str)> {
    let (origin, _) = split(url);
    let (origin, target) = url.split_at(origin.find('$').unwrap_or(origin.len()));
    let name = target.strip_prefix('$').map(|name| name.trim_start_matches('{'));
    let is_path = |name: &str| PATHS.iter().any(|path| name.starts_with(path));
    name.is_none_or(is_path).then_some((origin, target))
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The variables that begin with a slash.
const PATHS: [&str; 3] = ["request_uri", "uri", "document_uri"];
/// The copies of the process, with [`MAX_BODY`] bytes each. They are fewer than the requests that plugins may send, so
/// that a slow server of copies leaves most of these to logins.
const MAX_COPIES: usize = 64;
/// The largest body of a request that is copied, in bytes, as for the mirrors of routes.
const MAX_BODY: usize = 64 << 10;
/// From the connection to the end of the response, as for the mirrors of routes.
const TIMEOUT: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
