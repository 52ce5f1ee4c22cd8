//! `opa`: lets policies of an Open Policy Agent server allow or deny each request.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: policy
//! plugin: opa
//! config:
//!   opa_host: opa.default.svc
//!   opa_path: /v1/data/shop/allow
//! ```
//!
//! The server gets a POST request with the document `input`:
//!
//! ```json
//! {"input": {"request": {"http": {
//!   "host": "shop.example", "port": 80, "method": "GET", "scheme": "http", "path": "/cart",
//!   "querystring": {"page": "2"}, "headers": {"accept": "*/*"}
//! }}, "client_ip": "192.0.2.1"}}
//! ```
//!
//! Its `result` is `true` or `false`, or an object with the member `allow`. With `allow: true`, the headers in
//! `headers` are set on the request to the endpoint, in place of those of the client, also of those that have `_` for
//! `-` in their names. With `allow: false`, the client gets a response with `status`, by default 403, `headers` and
//! `message`. Any other response of the server, and none at all, gets status 500.
//!
//! If the server closes a kept connection before any byte of its response, the question is sent once more, so its
//! decision log can have it twice.
//!
//! **A header that the policy sets for some requests only can come from the client in all others.** Let the policy set
//! it for each allowed request, or remove the client's before the policy decides, also with `_` in the name, which some
//! servers take for the same header:
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: without-user-of-client
//! plugin: request-transformer
//! config:
//!   remove:
//!     headers: [x-user, x_user]
//! ordering:
//!   before:
//!     access: [opa]
//! ```

mod input;
mod policy_decision;
#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::remote::is_host;
use crate::plugin_api::{AccessOutcome, Assertions, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::declare_identity;
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use policy_decision::PolicyDecision;

/// Lets policies allow or deny each request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the server. A host without dots is a Service in the namespace of the plugin.
    opa_host: String,
    /// Port of the server.
    opa_port: u16,
    /// Protocol of the server.
    opa_protocol: OpaProtocol,
    /// Path of the policy's decision, such as `/v1/data/shop/allow`. Required.
    opa_path: String,
    /// Add the name of the Service to the input, as `service.name`.
    include_service_in_opa_input: bool,
    /// Add the name of the route to the input, as `route.name`.
    include_route_in_opa_input: bool,
    /// Add `id`, `username` and `custom_id` of the authenticated consumer to the input, in `consumer`.
    include_consumer_in_opa_input: bool,
    /// Add the body of the request to the input, as `request.http.body`, with `body_size`. Bodies larger than 1 MiB are
    /// rejected with 413.
    include_body_in_opa_input: bool,
    /// Add the body of the request to the input, as `request.http.parsed_body`, if its type is `application/json`.
    /// Bodies larger than 1 MiB are rejected with 413.
    include_parsed_json_body_in_opa_input: bool,
    /// Add the groups of the route's regular expression to the input, in `request.http.uri_captures.unnamed`.
    include_uri_captures_in_opa_input: bool,
    /// Whether to verify the certificate of the server with the system's root certificates.
    ssl_verify: bool,
    /// Timeout in milliseconds for a request to the server, from connecting to the end of the response. At most 60000
    /// takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection to the server is kept open. At most 600000 takes effect.
    keepalive: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OpaProtocol {
    Http,
    Https,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            opa_host: "localhost".to_owned(),
            opa_port: 8181,
            opa_protocol: OpaProtocol::Http,
            opa_path: String::new(),
            include_service_in_opa_input: false,
            include_route_in_opa_input: false,
            include_consumer_in_opa_input: false,
            include_body_in_opa_input: false,
            include_parsed_json_body_in_opa_input: false,
            include_uri_captures_in_opa_input: false,
            ssl_verify: true,
            timeout: 5000,
            keepalive: 60_000,
        }
    }
}

/// Maximum size in bytes of a body in the input.
const MAX_BODY: usize = 1 << 20;
/// Maximum size in bytes of a response of the server.
const MAX_RESPONSE: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Opa {
    server: RemoteServer,
    parts: InputParts,
}

/// The optional parts of the input.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the configuration")]
#[derive(Clone, Copy, Debug)]
struct InputParts {
    service: bool,
    route: bool,
    consumer: bool,
    body: bool,
    parsed_body: bool,
    uri_captures: bool,
}

impl PluginKind for Opa {
    const NAME: &'static str = "opa";
    const HAS_CREDENTIALS: bool = false;
    const JUDGES_CONSUMERS: bool = true;
    const PRIORITY: i32 = 920;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if !config.opa_path.starts_with('/') || config.opa_path.contains('#') {
            let remedy = "set it to the path of the decision, such as /v1/data/shop/allow";
            invalid.push(Diagnostic::in_config("opa_path", "is missing or is not a path", remedy));
        }
        let in_brackets = config.opa_host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if !in_brackets.map_or(is_host(&config.opa_host), |host| host.parse::<Ipv6Addr>().is_ok()) {
            let remedy = "set it to a name or an IP address, without scheme, port and path";
            invalid.push(Diagnostic::in_config("opa_host", "is not a host", remedy));
        }
        if config.opa_port == 0 {
            invalid.push(Diagnostic::in_config("opa_port", "must not be 0", "set it to the port of the server"));
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let scheme = match config.opa_protocol {
            OpaProtocol::Http => "http",
            OpaProtocol::Https => "https",
        };
        let is_bare_ipv6 = config.opa_host.contains(':') && !config.opa_host.starts_with('[');
        let host = if is_bare_ipv6 { format!("[{}]", config.opa_host) } else { config.opa_host.clone() };
        let server = RemoteServerConfig {
            field: "opa_host",
            url: &format!("{scheme}://{host}:{}{}", config.opa_port, config.opa_path),
            timeout_field: "timeout",
            timeout: config.timeout,
            keep_alive: config.keepalive,
            verify: config.ssl_verify,
            max_response: MAX_RESPONSE,
        };
        let parts = InputParts {
            service: config.include_service_in_opa_input,
            route: config.include_route_in_opa_input,
            consumer: config.include_consumer_in_opa_input,
            body: config.include_body_in_opa_input,
            parsed_body: config.include_parsed_json_body_in_opa_input,
            uri_captures: config.include_uri_captures_in_opa_input,
        };
        Ok(Opa { server: RemoteServer::new(server, cx)?, parts })
    }
}

impl Plugin for Opa {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Wait(Box::pin(self.decide(cx)))
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        (self.parts.body || self.parts.parsed_body).then_some(MAX_BODY)
    }
}

impl Opa {
    async fn decide(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let body = Bytes::from(self.parts.input(cx).to_string());
        let sending = self.server.send_for_client(
            cx.client.address,
            |request| {
                request.method = Method::POST;
                request.is_repeatable = true;
                request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
                request.body = body;
            },
            |status| status == StatusCode::OK,
        );
        let Ok(response) = sending.await else { return Some(no_decision()) };
        match PolicyDecision::parse(&response.body) {
            Ok(PolicyDecision::Allow(headers)) => {
                for (name, value) in headers {
                    cx.assert_decided_field(&name, value);
                }
                None
            }
            Ok(PolicyDecision::Deny(reply)) => Some(reply),
            Err(error) => {
                self.server.failed(error);
                Some(no_decision())
            }
        }
    }
}

/// The reply if the server makes no decision.
fn no_decision() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "no_decision")
}
