//! `forward-proxy`: sends requests to a server outside of the cluster through an HTTP proxy.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: through-proxy
//! plugin: forward-proxy
//! config:
//!   http_proxy_host: proxy.shop.example
//!   http_proxy_port: 3128
//! ---
//! apiVersion: v1
//! kind: Service
//! metadata:
//!   name: partner
//! spec:
//!   type: ExternalName
//!   externalName: api.partner.example
//!   ports:
//!   - port: 80
//! ```
//!
//! The backend of a request must be a Service of the type ExternalName: its name and port go to the proxy, also if
//! Portico cannot resolve the name. A backend without TLS gets requests whose target is a whole URL. For a backend with
//! TLS, the proxy opens a tunnel (`CONNECT`), and Portico verifies the certificate of the backend through it. The host
//! that the backend gets is always its own.
//!
//! The plugin takes the place of the backend, after authorization. Filters of the rule and its timeouts do not apply, a
//! request takes at most 60 seconds, and bodies have at most 8 MiB. Requests fail with 502 if the proxy does not
//! respond or wants other credentials, if they ask for another protocol such as WebSocket, and if their backend is no
//! ExternalName, gets HTTP/2 only, or needs a client certificate: they are never sent without the proxy.

mod tunnel;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::tunnel::ProxyConnector;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::named_backend::NamedServer;
use crate::plugin_api::relayed_response::{relay, remove_fields_of_connection};
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, Remote, RemoteTls};
use crate::plugin_api::remote_client::RemoteClient;
use crate::plugin_api::remote_request::{RemoteRequest, basic_credentials};
use crate::plugin_api::remote_server::ServerReports;
use crate::plugin_api::{AccessOutcome, BeforeForwardCx, Plugin, PluginServices, Reply, ResponseBodyUse, Scopes};

/// Sends requests to a server outside of the cluster through an HTTP proxy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The proxy for backends without TLS. If unset, that of `https_proxy_host`.
    http_proxy_host: Option<String>,
    /// The port of `http_proxy_host`.
    http_proxy_port: Option<u16>,
    /// The proxy for backends with TLS. If unset, that of `http_proxy_host`.
    https_proxy_host: Option<String>,
    /// The port of `https_proxy_host`.
    https_proxy_port: Option<u16>,
    /// How Portico connects to the proxy: without TLS.
    proxy_scheme: ProxyScheme,
    /// Whether to verify the certificates of backends with TLS. Those that the route verifies are verified in any case.
    https_verify: bool,
    /// The user for the proxy.
    auth_username: Option<String>,
    /// The password for the proxy. Write a reference to a Secret.
    auth_password: Option<String>,
    /// What the backend gets of the fields about the client, such as `X-Forwarded-For`: with `append`, what other
    /// backends get; with `transparent`, only the addresses in `X-Forwarded-For` that came before the client's; with
    /// `delete`, nothing.
    x_headers: ClientFields,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http_proxy_host: None,
            http_proxy_port: None,
            https_proxy_host: None,
            https_proxy_port: None,
            proxy_scheme: ProxyScheme::Http,
            https_verify: true,
            auth_username: None,
            auth_password: None,
            x_headers: ClientFields::Append,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ProxyScheme {
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ClientFields {
    Append,
    Transparent,
    Delete,
}

pub(crate) struct ForwardProxy {
    client: RemoteClient,
    services: Arc<dyn PluginServices>,
    reports: Arc<ServerReports>,
    namespace: Option<String>,
    /// The credentials for the proxy.
    authorization: Option<HeaderValue>,
    verifies: bool,
    client_fields: ClientFields,
}

impl PluginKind for ForwardProxy {
    const NAME: &'static str = "forward-proxy";
    const PRIORITY: i32 = 50;
    const PHASES: Phases = Phases::BEFORE_FORWARD;
    // Requests that must go through the proxy must not go around it.
    const FAIL_CLOSED: bool = true;
    // The body of a request is not buffered for a plugin that only its consumer has.
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut proxy = |(host_field, host): (&str, Option<&String>), (port_field, port): (&str, Option<u16>)| {
            let problem = |field: &str, message: &str, remedy: &str| Diagnostic::in_config(field, message, remedy);
            match (host, port) {
                (Some(host), Some(port)) if port > 0 && is_host(host) => {
                    invalid.extend(cx.check_host(host_field, host));
                    let (host, namespace) = (host.clone(), cx.namespace().map(str::to_owned));
                    Some(Remote { host, port, namespace, tls: None, timeout: MAX_REMOTE_TIMEOUT })
                }
                (None, None) => None,
                (Some(host), Some(_)) if !is_host(host) => {
                    let remedy = "write a name such as proxy.shop.example, or an address";
                    invalid.push(problem(host_field, "is not a host", remedy));
                    None
                }
                (Some(_), _) => {
                    invalid.push(problem(
                        port_field,
                        "is missing or 0",
                        "set it to the port of the proxy, such as 3128",
                    ));
                    None
                }
                (None, Some(_)) => {
                    invalid.push(problem(host_field, "is missing", "set it to the host of the proxy"));
                    None
                }
            }
        };
        let plain =
            proxy(("http_proxy_host", config.http_proxy_host.as_ref()), ("http_proxy_port", config.http_proxy_port));
        let secure = proxy(
            ("https_proxy_host", config.https_proxy_host.as_ref()),
            ("https_proxy_port", config.https_proxy_port),
        );
        if invalid.is_empty() && plain.is_none() && secure.is_none() {
            let remedy = "set it and http_proxy_port, or https_proxy_host and https_proxy_port";
            invalid.push(Diagnostic::in_config("http_proxy_host", "is missing", remedy));
        }
        let authorization = match (&config.auth_username, &config.auth_password) {
            (None, None) => None,
            (Some(user), password) if !user.contains(':') => {
                Some(basic_credentials(user.as_bytes(), password.as_deref().unwrap_or_default().as_bytes()))
            }
            (Some(_), _) => {
                let remedy = "use a name without a colon, which ends it";
                invalid.push(Diagnostic::in_config("auth_username", "contains a colon", remedy));
                None
            }
            (None, Some(_)) => {
                let remedy = "set it to the user of the password";
                invalid.push(Diagnostic::in_config("auth_username", "is missing", remedy));
                None
            }
        };
        let (Some(plain), Some(secure), []) =
            (plain.as_ref().or(secure.as_ref()), secure.as_ref().or(plain.as_ref()), &invalid[..])
        else {
            return Err(invalid);
        };
        let field = if config.http_proxy_host.is_some() { "http_proxy_host" } else { "https_proxy_host" };
        let connector = ProxyConnector {
            plain: plain.clone(),
            secure: secure.clone(),
            authorization: authorization.clone(),
            services: Arc::clone(cx.services),
        };
        Ok(ForwardProxy {
            client: RemoteClient::for_proxy(Arc::new(connector)),
            services: Arc::clone(cx.services),
            reports: Arc::new(ServerReports::new(field, cx)),
            namespace: cx.namespace().map(str::to_owned),
            authorization,
            verifies: config.https_verify,
            client_fields: config.x_headers,
        })
    }
}

/// Whether a text may be the host of a proxy: a name, or an address without brackets.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
}

impl Plugin for ForwardProxy {
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        let server = cx
            .backend
            .and_then(|backend| backend.server())
            .filter(|server| !cx.is_upgrade && server.tls.as_ref().is_none_or(|tls| !tls.has_client_certificate));
        let Some(server) = server else { return AccessOutcome::Reply(failed()) };
        let Some(body) = cx.whole_body() else {
            let message = "The body of the request was not read, so it cannot be sent";
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_GATEWAY, message, "body_not_buffered"));
        };
        let Some(request) = self.request(cx, server, body) else { return AccessOutcome::Reply(failed()) };
        let is_plain = request.remote.tls.is_none();
        let (mut sender, receiver) = oneshot::channel();
        let (client, reports) = (self.client.clone(), Arc::clone(&self.reports));
        // On the threads of the control side, where the idle connections are.
        self.services.spawn(Box::pin(async move {
            let response = tokio::select! {
                response = client.send(request) => response,
                // The client is gone.
                () = sender.closed() => return,
            };
            let response = match response {
                // Through a tunnel, the status is that of the backend.
                Ok(response) if is_plain && response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    Err("the proxy wants other credentials (407)".to_owned())
                }
                response => response,
            };
            reports.update(response.as_ref().err().cloned());
            drop(sender.send(response.ok()));
        }));
        AccessOutcome::Wait(Box::pin(async move {
            let response = receiver.await.ok().flatten();
            Some(response.map_or_else(failed, |response| relay(response.status, response)))
        }))
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }
}

impl ForwardProxy {
    /// The request for the backend. `None` if its host cannot be written into one.
    fn request(&self, cx: &BeforeForwardCx<'_>, server: NamedServer, body: Bytes) -> Option<RemoteRequest> {
        let NamedServer { host, port, tls } = server;
        let default_port = if tls.is_some() { 443 } else { 80 };
        let authority = if port == default_port { host.to_string() } else { format!("{host}:{port}") };
        let tls = tls.map(|tls| RemoteTls {
            server_name: tls.name,
            verify: tls.verifies || self.verifies,
            authorities: None,
        });
        let mut headers = cx.head.headers.clone();
        remove_fields_of_connection(&mut headers);
        headers.remove(CONTENT_LENGTH);
        headers.insert(HOST, HeaderValue::try_from(authority).ok()?);
        self.change_client_fields(&mut headers);
        cx.hops.set(&mut headers);
        if tls.is_none() {
            headers.extend(self.authorization.clone().map(|credentials| (PROXY_AUTHORIZATION, credentials)));
        }
        let target = cx.head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some(RemoteRequest {
            remote: Remote { host: host.to_string(), port, namespace: self.namespace.clone(), tls, timeout: TIMEOUT },
            method: cx.head.method.clone(),
            target,
            headers,
            body,
            timeout: TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            response_body: ResponseBodyUse::Collect { max_bytes: MAX_BODY },
        })
    }

    fn change_client_fields(&self, headers: &mut HeaderMap) {
        let before_client = match self.client_fields {
            ClientFields::Append => return,
            ClientFields::Delete => None,
            ClientFields::Transparent => headers.get(&X_FORWARDED_FOR).and_then(|addresses| {
                let (before, _client) = addresses.to_str().ok()?.rsplit_once(',')?;
                HeaderValue::from_str(before.trim_end()).ok()
            }),
        };
        for name in [&X_FORWARDED_FOR, &FORWARDED, &VIA].into_iter().chain(&OF_CLIENT) {
            headers.remove(name);
        }
        headers.extend(before_client.map(|addresses| (X_FORWARDED_FOR, addresses)));
    }
}

/// The reply if the request cannot be sent through the proxy. The condition of the plugin has the reason if it is the
/// proxy's.
fn failed() -> Box<Reply> {
    Reply::negotiated(StatusCode::BAD_GATEWAY, "An invalid response was received from the proxy", "no_proxy_response")
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The other fields about the client that Portico sets.
static OF_CLIENT: [HeaderName; 6] = [
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];
/// Maximum size in bytes of a body, of requests and of responses.
const MAX_BODY: usize = 8 << 20;
const TIMEOUT: Duration = MAX_REMOTE_TIMEOUT;
/// Short, because idle connections count against the limit of all plugins.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
