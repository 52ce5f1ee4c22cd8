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
//! The plugin takes the place of the backend, after authorization and the filters of the rule. Mirrors, timeouts and
//! retries cannot apply, so a rule with them is invalid; sessions have no effect. Connecting takes at most 30 seconds,
//! and the response, and each part of its body, comes within 60 seconds. Bodies of requests have at most 8 MiB.
//! Requests fail with 502 if the proxy does not respond or wants other credentials, and if they cannot be sent through
//! it: if they ask for another protocol such as WebSocket, or if their backend is no ExternalName or gets HTTP/2 only.
//! They are never sent without the proxy.
//!
//! Connections stay open for 15 seconds after a response, also those of tunnels. If the other side closes one while a
//! request is on the way to it, and has sent no byte of a response, the request is sent once more, on a new connection:
//! if its method is idempotent (RFC 9110, section 9.2.2), such as GET and PUT, and any request of which no byte was
//! sent. Over TLS, a request that Portico has begun to send counts as sent. Others get 502.
//!
//! The certificate of a backend with TLS is verified as its BackendTLSPolicy, or the annotations of its Service, say,
//! and a client certificate that they name is presented to it. Without them, the certificate authorities of the system
//! count.

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
use tracing::debug;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::http_proxy::{HttpProxy, ProxyRoute};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::named_backend::NamedServer;
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, Remote, RemoteTls, is_host};
use crate::plugin_api::remote_request::{RemoteRequest, basic_credentials};
use crate::plugin_api::{
    BackendReplacement, Plugin, PluginServices, RemoteFailure, ReplaceBackendCx, Reply, ResponseBodyUse, Scopes,
};
use crate::plugin_kit::relayed_response::{relay_stream, remove_fields_of_connection};
use crate::plugin_kit::remote_server::{REPORT_HOLD, ServerReports};

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
    proxy: Arc<HttpProxy>,
    services: Arc<dyn PluginServices>,
    reports: ServerReports,
    namespace: Option<String>,
    verifies: bool,
    client_fields: ClientFields,
}

impl PluginKind for ForwardProxy {
    const NAME: &'static str = "forward-proxy";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 50;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests that must go through the proxy must not go around it.
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["ca_certificates"], DumpedValue::Nothing, "3.12")];
    // Once the consumer is known, bodies are read for plugins of the access phase only, and this one has none.
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
                    Some(Remote { host, port, namespace, tls: None, timeout: CONNECT_TIMEOUT })
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
        Ok(ForwardProxy {
            proxy: Arc::new(HttpProxy { plain: plain.clone(), secure: secure.clone(), authorization }),
            services: Arc::clone(cx.services),
            reports: ServerReports::new(field, cx).holding(REPORT_HOLD),
            namespace: cx.namespace().map(str::to_owned),
            verifies: config.https_verify,
            client_fields: config.x_headers,
        })
    }
}

impl Plugin for ForwardProxy {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let server = cx.backend.server().filter(|_| !cx.is_upgrade);
        let connection = server.and_then(|server| self.connection(server));
        let Some(connection) = connection else {
            let message = "The request cannot be sent through a proxy to the backend of its route";
            return BackendReplacement::Reply(Reply::negotiated(
                StatusCode::BAD_GATEWAY,
                message,
                "backend_not_supported",
            ));
        };
        let Some(body) = cx.whole_body() else {
            let message = "The body of the request was not read, so it cannot be sent";
            return BackendReplacement::Reply(Reply::negotiated(StatusCode::BAD_GATEWAY, message, "body_not_buffered"));
        };
        let is_plain = connection.remote.tls.is_none();
        let request = self.request(cx, &connection, body);
        let sending = self.services.send_in_place_of_backend(cx.client.address, request, Some(connection.route));
        BackendReplacement::Wait(Box::pin(async move {
            match sending.await {
                // Through a tunnel, the status is that of the backend.
                Ok(response) if is_plain && response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    self.reports.update(Some("the proxy wants other credentials (407)".to_owned()));
                    failed()
                }
                Ok(response) => {
                    self.reports.update(None);
                    relay_stream(response)
                }
                Err(RemoteFailure::Busy(_)) => {
                    let message = "Too many requests wait for the proxy";
                    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "proxy_busy")
                }
                Err(RemoteFailure::Unreachable(error)) => {
                    self.reports.update(Some(error));
                    failed()
                }
                // What a client asks for may take too long, or have a head that is too large.
                Err(RemoteFailure::NoResponse(error)) => {
                    debug!(error, "A request through a proxy has no response");
                    self.reports.note_unanswered(error);
                    failed()
                }
            }
        }))
    }

    fn needs_named_backend(&self) -> bool {
        true
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }
}

/// The backend, and the way to it.
struct BackendConnection {
    remote: Remote,
    route: ProxyRoute,
    /// The value of `Host`.
    authority: HeaderValue,
}

impl ForwardProxy {
    /// `None` if the backend cannot be reached as its TLS settings and those of the plugin say.
    fn connection(&self, server: NamedServer) -> Option<BackendConnection> {
        let NamedServer { host, port, tls } = server;
        let default_port = if tls.is_some() { 443 } else { 80 };
        let authority = if port == default_port { host.to_string() } else { format!("{host}:{port}") };
        let authority = HeaderValue::try_from(authority).ok()?;
        // The settings of the backend have its authorities and names, and its client certificate. Those that verify
        // nothing and present nothing are replaced by those of the system.
        let own = tls.as_ref().map(|tls| &tls.settings).filter(|own| own.verifies() || !self.verifies);
        if own.is_none() && tls.as_ref().is_some_and(|tls| tls.settings.has_client_certificate()) {
            return None;
        }
        let route = ProxyRoute { proxy: Arc::clone(&self.proxy), tls: own.cloned() };
        let tls = tls.map(|tls| RemoteTls { server_name: tls.name, verify: true, files: None });
        let (host, namespace) = (host.to_string(), self.namespace.clone());
        Some(BackendConnection { remote: Remote { host, port, namespace, tls, timeout: TIMEOUT }, route, authority })
    }

    fn request(&self, cx: &ReplaceBackendCx<'_>, connection: &BackendConnection, body: Bytes) -> RemoteRequest {
        let mut headers = cx.head.headers.clone();
        remove_fields_of_connection(&mut headers);
        headers.remove(CONTENT_LENGTH);
        headers.insert(HOST, connection.authority.clone());
        self.change_client_fields(&mut headers);
        cx.hops.set(&mut headers);
        if connection.remote.tls.is_none() {
            headers.extend(self.proxy.authorization.clone().map(|credentials| (PROXY_AUTHORIZATION, credentials)));
        }
        RemoteRequest {
            remote: connection.remote.clone(),
            method: cx.head.method.clone(),
            target: cx.head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
            body,
            timeout: TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        }
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

/// The reply if there is no response. The condition of the plugin has the reason if it is the proxy's.
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
/// Maximum size in bytes of the body of a request.
const MAX_BODY: usize = 8 << 20;
/// For the head of the response, and for each part of its body.
const TIMEOUT: Duration = MAX_REMOTE_TIMEOUT;
/// For name resolution, connecting to the proxy, and the tunnel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Short, because idle connections count against the limit of all plugins.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
