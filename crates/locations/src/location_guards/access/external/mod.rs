//! A server that permits or refuses each request, as `auth_request` of nginx asks it.

mod check_request;
mod decision;
mod sign_in;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Check, Refusal};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::{Assertions, BuildCx, Reply, RequestCx};
use crate::plugin_kit::authentication::parse_copied_headers;
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use crate::snapshot::location_snippet::SnippetText;
use crate::snapshot::location_steps::RequestValues;
pub(super) use decision::PassedCookies;
use decision::{Decision, lifetime};
pub(super) use sign_in::{SignIn, SignInConfig};

/// The server, what it gets and what becomes of its answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// An `http` or `https` URL. Variables may be in its path and its query.
    url: String,
    /// The method of requests to it.
    #[serde(default)]
    method: Option<String>,
    /// Headers of its answer that the endpoint gets.
    #[serde(default)]
    response_headers: Vec<String>,
    /// The value of `X-Auth-Request-Redirect`, if it is not the target of the request.
    #[serde(default)]
    request_redirect: Option<String>,
    /// Further headers of requests to it, which may have variables.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Whether clients get its cookies with any status.
    #[serde(default)]
    always_set_cookie: bool,
    /// With which text answers are stored. `None`: they are not.
    #[serde(default)]
    cache_key: Option<String>,
    /// For how many seconds answers are stored: those with a status.
    #[serde(default)]
    cache_seconds: Vec<(u16, u64)>,
}

/// The server of one Ingress.
pub(super) struct AuthServer {
    server: RemoteServer,
    /// `None` for that of the URL.
    target: Option<SnippetText>,
    host: http::HeaderValue,
    /// `None` for GET; a method that is set also lets the server get the target of the request.
    method: Option<Method>,
    response_headers: Box<[HeaderName]>,
    request_redirect: Option<http::HeaderValue>,
    headers: Box<[(HeaderName, SnippetText)]>,
    always_sets_cookie: bool,
    cache: Option<AnswerCache>,
}

/// Answers of the server, by a text of the request.
struct AnswerCache {
    key: SnippetText,
    seconds: Box<[(u16, u64)]>,
    /// That of the process.
    stored: Arc<DigestCache<Expiring<Decision>>>,
    /// Of the Ingress and of all that the answers depend on.
    of_server: Sha256Digest,
}

impl AuthServer {
    pub(super) fn new(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let (origin, target) = split(&config.url);
        let mut invalid = Vec::new();
        let has_variables = target.contains('$');
        let url = if has_variables { format!("{origin}/") } else { config.url.clone() };
        let server = RemoteServer::new(
            RemoteServerConfig {
                field: "url",
                url: &url,
                timeout_field: "timeout",
                timeout: TIMEOUT,
                keep_alive: KEEP_ALIVE,
                verify: false,
                max_response: MAX_ANSWER,
            },
            cx,
        );
        let mut text = |field: &str, text: &str| {
            let parsed = SnippetText::parse(text);
            parsed.map_err(|error| invalid.push(Diagnostic::in_config(field, error.to_string(), VARIABLE_REMEDY))).ok()
        };
        let target = has_variables.then(|| text("url", target)).flatten();
        let values: Vec<Option<SnippetText>> = config.headers.iter().map(|(_, value)| text("headers", value)).collect();
        let key = config.cache_key.as_deref().and_then(|key| text("cache_key", key));
        let names: Vec<String> = config.headers.iter().map(|(name, _)| name.clone()).collect();
        let names = parse_copied_headers("headers", &names, &mut invalid);
        let response_headers = parse_copied_headers("response_headers", &config.response_headers, &mut invalid);
        if origin.starts_with("https://") {
            let message = "the certificate of the server is not verified, as in ingress-nginx";
            let remedy = "use a server that only Portico can reach, or the plugin forward-auth";
            cx.note(Diagnostic::in_config("url", message, remedy));
        }
        let cache = key.map(|key| AnswerCache {
            key,
            seconds: config.cache_seconds.clone().into(),
            stored: cx.state.get_or_create("location auth answers", DigestCache::default),
            of_server: sha256(format!("{}\n{config:?}", cx.object).as_bytes()),
        });
        let method = config.method.as_deref().map(|method| Method::from_bytes(method.as_bytes()));
        let host = origin.split_once("//").map_or(origin, |(_, authority)| authority);
        let host = without_port(host).parse();
        match (server, method.transpose(), host) {
            (Ok(server), Ok(method), Ok(host)) if invalid.is_empty() => Ok(AuthServer {
                server,
                target,
                host,
                method,
                response_headers,
                request_redirect: config.request_redirect.and_then(|value| value.parse().ok()),
                headers: names.into_iter().zip(values.into_iter().flatten()).collect(),
                always_sets_cookie: config.always_set_cookie,
                cache,
            }),
            (server, ..) => {
                invalid.extend(server.err().into_iter().flatten());
                if invalid.is_empty() {
                    invalid.push(Diagnostic::in_config("url", "has an invalid host or method", "correct it"));
                }
                Err(invalid)
            }
        }
    }

    pub(super) fn declare_assertions(&self, assertions: &mut Assertions) {
        assertions.fields.add_all(&self.response_headers);
        // The server gets what the client has sent for them.
        assertions.read.extend(self.response_headers.iter().cloned());
    }

    /// Removes what the client has sent in place of the answer.
    pub(super) fn remove_asserted(&self, cx: &mut RequestCx<'_>) {
        for name in &self.response_headers {
            cx.declare_request_field(name);
            cx.assert_none(name);
        }
    }

    pub(super) async fn check(&self, cx: &mut RequestCx<'_>) -> Check {
        let key = self.cache.as_ref().and_then(|cache| cache.digest(cx));
        let stored = key.zip(self.cache.as_ref()).and_then(|(key, cache)| cache.stored.find_value(&key, cx.now));
        let decision = match stored {
            Some(decision) => decision,
            None => {
                let Some(decision) = self.ask(cx).await else { return Check::Failed(failed()) };
                let decision = Arc::new(decision);
                if let (Some(key), Some(cache)) = (key, &self.cache)
                    && let Some(seconds) = lifetime(&decision, &cache.seconds)
                {
                    let expires = cx.now + Duration::from_secs(seconds);
                    cache.stored.insert_value(key, Arc::clone(&decision), expires, cx.now);
                }
                decision
            }
        };
        decision.apply(self, cx)
    }

    async fn ask(&self, cx: &RequestCx<'_>) -> Option<Decision> {
        let check = self.check_request(cx)?;
        let response = self.server.send_for_client(cx.client.address, |request| check.write_to(request), |_| true);
        Some(Decision::of(response.await.ok()?, &self.response_headers))
    }
}

impl AnswerCache {
    /// `None` if the answer is not stored: the text is too long, or is none.
    fn digest(&self, cx: &RequestCx<'_>) -> Option<Sha256Digest> {
        let values = RequestValues::new(cx);
        let key = self.key.expand(&values)?;
        // In place of bytes that are no text, so that several values would have the same key.
        if key.contains(char::REPLACEMENT_CHARACTER) {
            return None;
        }
        // The scope has the host and the path of the rule, so that others never get the answer.
        Some(sha256(&[&self.of_server[..], cx.scope.as_bytes(), b"\n", key.as_bytes()].concat()))
    }
}

/// The reply if the server has not decided.
fn failed() -> Box<Reply> {
    let message = "The server that authorizes requests did not decide";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "no_decision")
}

/// A URL as scheme and host, and what follows.
fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[host..].find(['/', '?']).map_or(url.len(), |path| host + path);
    url.split_at(end)
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// As in nginx, whose default it is.
const TIMEOUT: u32 = 60_000;
const KEEP_ALIVE: u32 = 60_000;
/// Nothing uses the body of an answer.
const MAX_ANSWER: usize = 64 * 1024;
const VARIABLE_REMEDY: &str = "use variables of nginx that requests have, such as $request_uri";
