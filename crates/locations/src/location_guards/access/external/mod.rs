//! A server that permits or refuses each request, as `auth_request` of nginx asks it.

mod auth_request;
mod server_verdict;
mod sign_in;
mod stored_verdicts;

use std::sync::Arc;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Check;
use crate::diagnostic::Diagnostic;
use crate::location_guards::server_url::{host_of, split};
use crate::plugin_api::consumers::sha256;
use crate::plugin_api::{Assertions, BuildCx, RequestCx};
use crate::plugin_kit::authentication::parse_copied_headers;
use crate::plugin_kit::digest_cache::DigestCache;
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use crate::snapshot::location_snippet::SnippetText;
use auth_request::AuthRequestSettings;
use server_verdict::{ServerVerdict, failed};
use sign_in::VARIABLE_REMEDY;
pub(super) use sign_in::{SignInConfig, SignInPage};
use stored_verdicts::StoredVerdicts;

/// The server, what it gets and what becomes of its response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// An `http` or `https` URL. Variables may be in its path and its query.
    url: String,
    /// The method of requests to it.
    #[serde(default)]
    method: Option<String>,
    /// Whether it gets no headers of the client, but only those that describe the request, and further ones.
    #[serde(default)]
    hides_client_headers: bool,
    /// Headers of its response that the endpoint gets.
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
    /// With which text verdicts are stored. `None`: they are not.
    #[serde(default)]
    cache_key: Option<String>,
    /// For how many seconds verdicts with a status are stored.
    #[serde(default)]
    cache_seconds: Vec<(u16, u64)>,
}

/// The server of one Ingress.
pub(super) struct AuthServer {
    server: RemoteServer,
    request: AuthRequestSettings,
    response_headers: Box<[HeaderName]>,
    always_sets_cookie: bool,
    stored: Option<StoredVerdicts>,
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
                max_response: MAX_RESPONSE,
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
        let stored = key.map(|key| StoredVerdicts {
            key,
            seconds: config.cache_seconds.clone().into(),
            stored: cx.state.get_or_create("location auth verdicts", DigestCache::default),
            of_server: sha256(format!("{}\n{config:?}", cx.object).as_bytes()),
        });
        let method = config.method.as_deref().map(|method| Method::from_bytes(method.as_bytes()));
        let host = host_of(origin).parse();
        match (server, method.transpose(), host) {
            (Ok(server), Ok(method), Ok(host)) if invalid.is_empty() => Ok(AuthServer {
                server,
                request: AuthRequestSettings {
                    target,
                    host,
                    method,
                    hides_client_headers: config.hides_client_headers,
                    request_redirect: config.request_redirect.and_then(|value| value.parse().ok()),
                    headers: names.into_iter().zip(values.into_iter().flatten()).collect(),
                },
                response_headers,
                always_sets_cookie: config.always_set_cookie,
                stored,
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

    /// Removes what the client has sent in place of the response.
    pub(super) fn remove_asserted(&self, cx: &mut RequestCx<'_>) {
        for name in &self.response_headers {
            cx.declare_request_field(name);
            cx.assert_none(name);
        }
    }

    pub(super) async fn check(&self, cx: &mut RequestCx<'_>) -> Check {
        let digest = self.stored.as_ref().and_then(|stored| Some((stored, stored.digest(cx)?)));
        let verdict = match digest.as_ref().and_then(|(stored, digest)| stored.find(digest, cx)) {
            Some(verdict) => verdict,
            None => {
                let Some(verdict) = self.send(cx).await else { return Check::Failed(failed()) };
                let verdict = Arc::new(verdict);
                if let Some((stored, digest)) = digest {
                    stored.insert(digest, &verdict, cx);
                }
                verdict
            }
        };
        if verdict.is_success() {
            self.remove_asserted(cx);
        }
        verdict.apply(self.always_sets_cookie, cx)
    }

    async fn send(&self, cx: &RequestCx<'_>) -> Option<ServerVerdict> {
        let request = self.request.request(cx)?;
        let response = self.server.send_for_client(cx.client.address, |message| request.write_to(message), |_| true);
        Some(ServerVerdict::of(response.await.ok()?, &self.response_headers))
    }
}

/// As in nginx, whose default it is.
const TIMEOUT: u32 = 60_000;
const KEEP_ALIVE: u32 = 60_000;
/// Nothing uses the body of a response.
const MAX_RESPONSE: usize = 64 * 1024;
