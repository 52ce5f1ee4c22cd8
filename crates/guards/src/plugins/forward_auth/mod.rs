//! `forward-auth`: lets another server allow or deny each request, as `ForwardAuth` of Traefik and `auth_request` of
//! nginx do.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: sign-in
//! plugin: forward-auth
//! config:
//!   address: http://auth.default.svc/check
//!   response_headers: [x-auth-user]
//! ```
//!
//! For each request, the server gets a GET request with the headers of the client, and these about its request:
//!
//! | header | value |
//! | --- | --- |
//! | `X-Forwarded-Method`, `X-Original-Method` | the method |
//! | `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Port` | scheme, host and port as the client used them |
//! | `X-Forwarded-Uri`, `X-Original-URI` | the path that selected the route, and the query |
//! | `X-Original-URL` | all of these as a URL |
//! | `X-Forwarded-For` | the address of the client |
//!
//! Values of these headers that clients send are replaced. What proxies in front of Portico report about the client is
//! used if `--trusted-ips` lists them.
//!
//! A response with a 2xx status allows the request. One with another status below 500 denies it: the client gets this
//! response, with all its headers, so a server can redirect to a login page and set cookies. If the server does not
//! respond in time, or with a 5xx status, the request is rejected with 503.

mod check_request;
mod decision;
#[cfg(test)]
mod tests;

use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, Plugin, RemoteUrl, Reply, RequestCx, ResponseCx, ResponseOutcome,
};
use crate::plugin_kit::authentication::{declare_identity, parse_copied_headers, parse_header_name};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use decision::AllowedResponse;

/// Lets another server allow or deny each request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// URL of the server, with `http` or `https`. A host without dots is a Service in the namespace of the plugin.
    address: String,
    /// Names of the request headers that the server gets, in addition to those about the request. If empty, it gets all
    /// of them except those about the connection, the body, ranges and conditions.
    request_headers: Vec<String>,
    /// Names of headers of the server's response that the request to the endpoint gets. The values that the client sent
    /// are removed, also if the response does not have the header.
    response_headers: Vec<String>,
    /// Names of headers of the server's response that the client gets with the response of the endpoint.
    client_response_headers: Vec<String>,
    /// Names of cookies that the server sets and that the client gets with the response of the endpoint.
    cookies: Vec<String>,
    /// Name of a header of the server's response with the username or custom id of the consumer. It authenticates the
    /// request for plugins such as acl and rate-limiting, also if there is no such consumer.
    user_header: Option<String>,
    /// Name of a header of the server's response with the groups of the client, separated by commas, for acl. Requires
    /// `user_header`.
    groups_header: Option<String>,
    /// Send the requests to the server with the method of the client instead of GET.
    preserve_method: bool,
    /// Maximum size in bytes of the bodies that the server gets. Larger bodies are rejected with 413. With 0, the
    /// server gets no bodies, and their size is not limited.
    #[schemars(range(max = 10_485_760))]
    max_body_size: u32,
    /// URL of a login page, to which clients are redirected if the server responds with 401.
    sign_in_url: Option<String>,
    /// Name of the query parameter in `sign_in_url` that gets the URL of the request.
    sign_in_parameter: String,
    /// Timeout in milliseconds for a request to the server, from connecting to the end of the response. At most 60000
    /// takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection to the server is kept open; 0 closes it at once. At most 600000 takes
    /// effect.
    keepalive: u32,
    /// Whether to verify the certificate of the server with the system's root certificates.
    ssl_verify: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            address: String::new(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            client_response_headers: Vec::new(),
            cookies: Vec::new(),
            user_header: None,
            groups_header: None,
            preserve_method: false,
            max_body_size: 0,
            sign_in_url: None,
            sign_in_parameter: "rd".to_owned(),
            timeout: 5000,
            keepalive: 60_000,
            ssl_verify: true,
        }
    }
}

/// Maximum size in bytes of the body with which the server denies a request.
const MAX_RESPONSE: usize = 256 * 1024;
/// The largest `max_body_size`.
const MAX_BODY: u32 = 10 << 20;

#[derive(Debug)]
pub(crate) struct ForwardAuth {
    server: RemoteServer,
    /// None for all.
    request_headers: Option<Box<[HeaderName]>>,
    response_headers: Box<[HeaderName]>,
    client_response_headers: Box<[HeaderName]>,
    cookies: Box<[Box<str>]>,
    identity: Option<IdentityHeaders>,
    preserves_method: bool,
    max_body: usize,
    sign_in: Option<SignIn>,
}

/// The headers of the response that identify the client.
#[derive(Debug)]
struct IdentityHeaders {
    user: HeaderName,
    groups: Option<HeaderName>,
    /// The object that configures the plugin, which distinguishes the users of several servers.
    object: Box<str>,
}

/// Where clients that are not authenticated are redirected.
#[derive(Debug)]
struct SignIn {
    /// The URL up to the value of the parameter.
    prefix: Box<str>,
}

impl PluginKind for ForwardAuth {
    const NAME: &'static str = "forward-auth";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1040;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let server = RemoteServerConfig {
            field: "address",
            url: &config.address,
            timeout_field: "timeout",
            timeout: config.timeout,
            keep_alive: config.keepalive,
            verify: config.ssl_verify,
            max_response: MAX_RESPONSE,
        };
        let server = RemoteServer::new(server, cx).map_err(|errors| invalid.extend(errors)).ok();
        if RemoteUrl::parse(&config.address).is_ok_and(|url| url.authorization.is_some()) {
            let remedy = "remove it: the server gets the header Authorization of the client";
            invalid.push(Diagnostic::in_config("address", "contains a username", remedy));
        }
        let mut names = |field: &str, names: &[String]| parse_copied_headers(field, names, &mut invalid);
        let request_headers = names("request_headers", &config.request_headers);
        let response_headers = names("response_headers", &config.response_headers);
        let client_response_headers = names("client_response_headers", &config.client_response_headers);
        if let Some(index) = client_response_headers.iter().position(|name| *name == SET_COOKIE) {
            let path = format!("client_response_headers[{index}]");
            invalid.push(Diagnostic::in_config(path, "cannot be Set-Cookie", "list the names in `cookies`"));
        }
        for (index, _) in config.cookies.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            invalid.push(Diagnostic::in_config(format!("cookies[{index}]"), "is empty", "set it to a name"));
        }
        let identity = config.identity(cx, &mut invalid);
        let sign_in = config.sign_in(&mut invalid);
        if config.max_body_size > MAX_BODY {
            let message = format!("is larger than {MAX_BODY}");
            invalid.push(Diagnostic::in_config("max_body_size", message, "use at most 10 MiB"));
        }
        let (Some(server), []) = (server, &invalid[..]) else { return Err(invalid) };
        Ok(ForwardAuth {
            server,
            request_headers: Some(request_headers).filter(|names| !names.is_empty()),
            response_headers,
            client_response_headers,
            cookies: config.cookies.into_iter().map(String::into_boxed_str).collect(),
            identity,
            preserves_method: config.preserve_method,
            max_body: usize::try_from(config.max_body_size).unwrap_or(usize::MAX),
            sign_in,
        })
    }
}

impl Config {
    fn identity(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<IdentityHeaders> {
        let mut parse = |field: &str, name: &Option<String>| {
            let name = parse_header_name(field, name.as_deref()?);
            name.map_err(|error| invalid.push(error)).ok()
        };
        let (user, groups) = (parse("user_header", &self.user_header), parse("groups_header", &self.groups_header));
        if self.groups_header.is_some() && self.user_header.is_none() {
            let remedy = "set user_header to the header with the name of the user";
            invalid.push(Diagnostic::in_config("groups_header", "requires user_header", remedy));
        }
        Some(IdentityHeaders { user: user?, groups, object: cx.object.into() })
    }

    fn sign_in(&self, invalid: &mut Vec<Diagnostic>) -> Option<SignIn> {
        let url = self.sign_in_url.as_deref()?;
        let is_valid_url = url.starts_with("https://") || url.starts_with("http://") || url.starts_with('/');
        if !is_valid_url || url.contains('#') || HeaderValue::from_str(url).is_err() || url.starts_with("//") {
            let remedy = "use a URL with https:// or http://, or a path, without a fragment";
            invalid.push(Diagnostic::in_config("sign_in_url", "is not the URL of a page", remedy));
        }
        let name = &self.sign_in_parameter;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            let remedy = "use letters, digits, `-`, `_` and `.` only, for example rd";
            invalid.push(Diagnostic::in_config("sign_in_parameter", "is not the name of a parameter", remedy));
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        Some(SignIn { prefix: format!("{url}{separator}{name}=").into() })
    }
}

impl Plugin for ForwardAuth {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Wait(Box::pin(self.decide(cx)))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(allowed) = cx.plugin_data::<AllowedResponse>() {
            let allowed = std::mem::take(allowed);
            allowed.apply(cx.headers);
        }
        ResponseOutcome::Continue
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(&self.response_headers);
        // The server gets credentials of the client also if it replaces them.
        let is_sent = |name: &&HeaderName| self.request_headers.as_ref().is_none_or(|sent| sent.contains(name));
        assertions.read.extend(self.response_headers.iter().filter(is_sent).cloned());
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.response.add_all(&self.client_response_headers);
        if !self.cookies.is_empty() {
            fields.response.add(&SET_COOKIE);
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(self.max_body).filter(|limit| *limit > 0)
    }
}

impl ForwardAuth {
    /// Sends the request to the server and applies its decision.
    async fn decide(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let Some(check) = self.check_request(cx) else { return Some(unavailable()) };
        let is_decision = |status: StatusCode| status.as_u16() >= 200 && !status.is_server_error();
        match self.server.send_for_client(cx.client.address, |request| check.write_to(request), is_decision).await {
            Ok(response) if response.status.is_success() => {
                self.allow(cx, &response);
                None
            }
            Ok(response) => Some(self.deny(cx, response)),
            Err(_) => Some(unavailable()),
        }
    }
}

/// The reply while no decision can be made.
fn unavailable() -> Box<Reply> {
    let message = "The server that authorizes requests is not available";
    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "no_decision")
}
