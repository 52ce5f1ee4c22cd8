//! Options of a rule: how its requests are accepted and forwarded, and how its responses look. The defaults are those
//! of the Gateway API; each dialect of the configuration sets the options in which it differs.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use super::error_backend::ErrorBackend;
use super::fast_cgi::FastCgiSettings;
use super::location_path::PathReplacement;
use super::response_rate::ResponseRate;
use super::rule_telemetry::RuleTelemetry;
use super::upstream_path::UpstreamPath;
use crate::upstream::settings::RequestHash;

/// The options of a rule in addition to its filters. Each option is independent of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleOptions {
    /// The protocols that requests may use. Stream protocols have no effect here.
    pub protocols: Protocols,
    /// The response to a plain-text request if `protocols` has `https` but not `http`.
    pub https_redirect: HttpsRedirect,
    pub upgrades: AcceptedUpgrades,
    /// What the field `Connection` of requests to HTTP/1 endpoints contains. No upgrade is requested then.
    pub connection: Option<HeaderValue>,
    pub forwarding_headers: ForwardingHeaderStyle,
    /// How the path for the endpoint is derived. `None` forwards the path as the client wrote it.
    pub upstream_path: Option<UpstreamPath>,
    /// Replaces the path that the client wrote, in place of `upstream_path`.
    pub path_replacement: Option<Arc<PathReplacement>>,
    /// Whether a target that nothing replaces is forwarded as the client sent it, even if its path is not normalized.
    pub forwards_raw_target: bool,
    pub host: UpstreamHost,
    pub trailer_header: TrailerHeader,
    /// The header fields that identify the proxy and report its latencies. `None` adds none, unless they are enabled
    /// for all requests of the process.
    pub product_headers: Option<&'static ProductHeaderNames>,
    pub errors: ErrorStyle,
    pub grpc_errors: GrpcErrorStyle,
    /// What responds in place of errors.
    pub error_backend: Option<Arc<ErrorBackend>>,
    /// What FastCGI servers get of the requests.
    pub fast_cgi: Option<Arc<FastCgiSettings>>,
    /// What is hashed of the requests, for upstreams that leave it to their rules.
    pub request_hash: Option<Arc<RequestHash>>,
    /// Whether the access log has the requests.
    pub access_log: bool,
    /// At which rate responses are sent; `None` without a limit.
    pub response_rate: Option<ResponseRate>,
    /// How requests are named in logs and metrics, and traced. `None`: as those of all rules.
    pub telemetry: Option<Arc<RuleTelemetry>>,
}

/// The protocols that a rule accepts from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

impl Protocols {
    pub const ALL: Protocols = Protocols { http: true, https: true, grpc: true, grpcs: true };

    /// Parses the names of protocols. Names of stream protocols do not apply to requests and are ignored.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut protocols = Protocols { http: false, https: false, grpc: false, grpcs: false };
        for name in names {
            match name {
                "http" => protocols.http = true,
                "https" => protocols.https = true,
                "grpc" => protocols.grpc = true,
                "grpcs" => protocols.grpcs = true,
                _ => {}
            }
        }
        protocols
    }

    /// The names that [`Protocols::from_names`] parses, in alphabetical order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Protocols { http, https, grpc, grpcs } = self;
        let all = [("grpc", grpc), ("grpcs", grpcs), ("http", http), ("https", https)];
        all.into_iter().filter_map(|(name, is_included)| is_included.then_some(name))
    }
}

/// The Host header sent to the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The Host header of the client.
    #[default]
    Preserved,
    /// A configured host, or the name of the service. The port follows the name unless it is the default of the
    /// protocol.
    Fixed(HeaderValue),
}

/// The response to a plain-text request that has to use HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 426 (Upgrade Required) has no `Location`; 301, 302, 307 and 308 redirect to the same host and path over HTTPS.
    pub status: StatusCode,
    /// The HTTPS port that clients see.
    pub port: u16,
    /// The port for plain text that clients should see. If it is another one than 80, and a client does not name a
    /// port, something in front of Portico maps the ports, and the redirect is to 443 as in Kong. `None`: not known.
    pub plain_port: Option<u16>,
}

/// The protocols to which a connection may be upgraded. A request for another protocol is forwarded without the
/// upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptedUpgrades {
    #[default]
    All,
    WebSocket,
}

/// The header fields that inform the endpoint about the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingHeaderStyle {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    #[default]
    Forwarded,
    /// Also `X-Real-IP`, `X-Forwarded-Path` and `X-Forwarded-Prefix`. `X-Forwarded-Host` has no port.
    RealIp,
    /// Also `X-Real-IP`, `X-Scheme`, `X-Forwarded-Scheme` and `X-Original-Forwarded-For`. `X-Forwarded-For` is only the
    /// client, as ingress-nginx sends it.
    SingleClient,
}

/// When the `Trailer` field of an endpoint's response is forwarded. Trailers themselves are always forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailerHeader {
    #[default]
    Forwarded,
    /// Only to clients that sent `TE: trailers`.
    IfAccepted,
}

/// The status and message of errors for which load balancers differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorStyle {
    /// 503 if an endpoint refuses the connection, as Envoy responds.
    #[default]
    Unavailable,
    /// 502 if an endpoint refuses the connection, and the message of a ring balancer if there are no endpoints, as
    /// proxies based on OpenResty respond.
    RingBalancer,
}

/// The `grpc-status` of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcErrorStyle {
    /// That of the cause if the Gateway API or gRPC defines one: 12 (UNIMPLEMENTED) if no rule matches, and 14
    /// (UNAVAILABLE) for an invalid backend and for connections that are lost or not established. That of the HTTP
    /// status for all other causes.
    #[default]
    Cause,
    /// That of the HTTP status.
    HttpStatus,
}

/// How responses to requests look that no rule matches, as the options of a rule with these names.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnmatchedStyle {
    pub product_headers: Option<&'static ProductHeaderNames>,
    pub grpc_errors: GrpcErrorStyle,
}

/// The names of the header fields that identify a request and report latencies in milliseconds. `Via` and `Server` are
/// added with them.
#[derive(Debug, PartialEq, Eq)]
pub struct ProductHeaderNames {
    /// The id of the request, in requests and responses.
    pub request_id: HeaderName,
    /// The time until a response that no endpoint sent.
    pub response_latency: HeaderName,
    /// The time from forwarding the request to the response of the endpoint.
    pub upstream_latency: HeaderName,
    /// The time until the request was forwarded.
    pub proxy_latency: HeaderName,
}

impl RuleOptions {
    /// The options of a rule that sets none.
    pub const DEFAULT: &'static RuleOptions = &RuleOptions {
        protocols: Protocols::ALL,
        https_redirect: HttpsRedirect::DEFAULT,
        upgrades: AcceptedUpgrades::All,
        connection: None,
        forwarding_headers: ForwardingHeaderStyle::Forwarded,
        upstream_path: None,
        path_replacement: None,
        forwards_raw_target: false,
        host: UpstreamHost::Preserved,
        trailer_header: TrailerHeader::Forwarded,
        product_headers: None,
        errors: ErrorStyle::Unavailable,
        grpc_errors: GrpcErrorStyle::Cause,
        error_backend: None,
        fast_cgi: None,
        request_hash: None,
        access_log: true,
        response_rate: None,
        telemetry: None,
    };
}

impl Default for RuleOptions {
    fn default() -> Self {
        RuleOptions::DEFAULT.clone()
    }
}

impl HttpsRedirect {
    const DEFAULT: HttpsRedirect = HttpsRedirect { status: StatusCode::UPGRADE_REQUIRED, port: 443, plain_port: None };
}

impl Default for HttpsRedirect {
    fn default() -> Self {
        HttpsRedirect::DEFAULT
    }
}

impl RuleOptions {
    /// Text for dumps: a line for each option with a value, and one for all others that differ from the defaults.
    pub(in crate::snapshot) fn describe(&self) -> Vec<String> {
        let RuleOptions { protocols, https_redirect, host, upstream_path, path_replacement, .. } = self;
        let mut lines = Vec::new();
        if let Some(UpstreamPath { strip_matched, prefix, template }) = upstream_path {
            if *strip_matched {
                lines.push("strip path".to_owned());
            }
            if &**prefix != "/" {
                lines.push(format!("path {prefix}"));
            }
            if let Some(template) = template {
                lines.push(format!("rewrite {template}"));
            }
        }
        if let Some(replacement) = path_replacement {
            lines.push(format!("replace {replacement}"));
        }
        if let UpstreamHost::Fixed(host) = host {
            lines.push(format!("host {}", String::from_utf8_lossy(host.as_bytes())));
        }
        if let Some(connection) = &self.connection {
            lines.push(format!("connection {}", String::from_utf8_lossy(connection.as_bytes())));
        }
        if *protocols != Protocols::ALL {
            let names: Vec<&str> = protocols.names().collect();
            lines.push(format!("protocols {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        }
        // The redirect applies only to plain-text requests that `protocols` excludes.
        if protocols.https && !protocols.http {
            lines.push(format!("https redirect {} to port {}", https_redirect.status.as_u16(), https_redirect.port));
        }
        lines.extend(self.error_backend.iter().map(ToString::to_string));
        lines.extend(self.fast_cgi.iter().map(ToString::to_string));
        if let Some(hash) = &self.request_hash {
            let parts: Vec<String> = hash.keys.iter().map(|key| format!("{:?}", key.source)).collect();
            lines.push(format!("hash of {}", parts.join(", ")));
        }
        lines.extend(self.response_rate.iter().map(ToString::to_string));
        // The names say nothing about what happens to requests.
        let tracing = self.telemetry.iter().map(|telemetry| telemetry.tracing.to_string());
        lines.extend(tracing.filter(|text| !text.is_empty()));
        lines.extend(self.describe_styles());
        lines
    }

    /// One line for the options of requests that have no value, and one for those of responses.
    fn describe_styles(&self) -> impl Iterator<Item = String> + use<> {
        let RuleOptions {
            upstream_path,
            forwards_raw_target,
            upgrades,
            forwarding_headers,
            trailer_header,
            product_headers,
            errors,
            grpc_errors,
            access_log,
            ..
        } = self;
        let of_requests = [
            (upstream_path.is_some(), "normalized path"),
            (*forwards_raw_target, "raw target"),
            (*forwarding_headers == ForwardingHeaderStyle::RealIp, "real-IP headers"),
            (*forwarding_headers == ForwardingHeaderStyle::SingleClient, "single-client headers"),
            (*upgrades == AcceptedUpgrades::WebSocket, "WebSocket upgrades only"),
            (!access_log, "no access log"),
        ];
        let of_responses = [
            (*trailer_header == TrailerHeader::IfAccepted, "Trailer if accepted"),
            (product_headers.is_some(), "product headers"),
            (*errors == ErrorStyle::RingBalancer, "ring-balancer errors"),
            (*grpc_errors == GrpcErrorStyle::HttpStatus, "gRPC status of the HTTP status"),
        ];
        let line = |name: &str, options: &[(bool, &str)]| {
            let texts: Vec<&str> = options.iter().filter(|(differs, _)| *differs).map(|(_, text)| *text).collect();
            (!texts.is_empty()).then(|| format!("{name} with {}", texts.join(", ")))
        };
        [line("requests", &of_requests), line("responses", &of_responses)].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_show_each_option_that_differs_from_the_default() {
        static NAMES: ProductHeaderNames = ProductHeaderNames {
            request_id: HeaderName::from_static("x-id"),
            response_latency: HeaderName::from_static("x-response"),
            upstream_latency: HeaderName::from_static("x-upstream"),
            proxy_latency: HeaderName::from_static("x-proxy"),
        };
        let default = RuleOptions::default;
        let with_path = |path| RuleOptions { upstream_path: Some(path), ..default() };
        let cases: [(RuleOptions, &[&str]); 11] = [
            (default(), &[]),
            (with_path(UpstreamPath::default()), &["requests with normalized path"]),
            (
                with_path(UpstreamPath { strip_matched: true, prefix: "/v1".into(), template: None }),
                &["strip path", "path /v1", "requests with normalized path"],
            ),
            (
                RuleOptions { upgrades: AcceptedUpgrades::WebSocket, ..default() },
                &["requests with WebSocket upgrades only"],
            ),
            (RuleOptions { connection: Some(HeaderValue::from_static("close")), ..default() }, &["connection close"]),
            (RuleOptions { access_log: false, ..default() }, &["requests with no access log"]),
            (
                RuleOptions { forwarding_headers: ForwardingHeaderStyle::RealIp, ..default() },
                &["requests with real-IP headers"],
            ),
            (
                RuleOptions { trailer_header: TrailerHeader::IfAccepted, ..default() },
                &["responses with Trailer if accepted"],
            ),
            (
                RuleOptions { product_headers: Some(&NAMES), errors: ErrorStyle::RingBalancer, ..default() },
                &["responses with product headers, ring-balancer errors"],
            ),
            (
                RuleOptions { grpc_errors: GrpcErrorStyle::HttpStatus, ..default() },
                &["responses with gRPC status of the HTTP status"],
            ),
            (
                RuleOptions { protocols: Protocols { http: false, ..Protocols::ALL }, ..default() },
                &["protocols grpc, grpcs, https", "https redirect 426 to port 443"],
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(options.describe(), expected, "{options:?}");
        }
    }
}
