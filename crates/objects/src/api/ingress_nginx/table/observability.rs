//! Errors, mirrors, logs, tracing, the web application firewall, and snippets.

use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{ON_OFF, Row, host, path};

pub(super) const OBSERVABILITY: &[Row] = &[
    path("custom-http-errors", ValueKind::StatusCodes, "", Reject)
        .says("Replaces responses with these status codes by those of the default backend."),
    path("default-backend", ValueKind::ServiceName, "", Reject)
        .says("Names the Service for error pages, and for requests without an endpoint."),
    path("disable-proxy-intercept-errors", ValueKind::Flag, "false", Default)
        .says("Passes error responses of the backend to the client unchanged."),
    path("mirror-target", ValueKind::ServerName, "", Default).says("Sends a copy of each request to this URL."),
    path("mirror-host", ValueKind::ServerName, "", Default).says("Sets the Host header of the copy."),
    path("mirror-request-body", ON_OFF, "on", Default).says("Sends the copy with its body."),
    path("enable-access-log", ValueKind::Flag, "true", Default).says("Writes requests to the access log."),
    path("enable-rewrite-log", ValueKind::Flag, "false", Default)
        .says("Writes each rewrite to the error log of nginx."),
    path("http2-push-preload", ValueKind::Flag, "false", Reject)
        .says("Pushes preloaded resources by HTTP/2, which browsers have removed."),
    path("enable-opentelemetry", ValueKind::Flag, "false", Default).says("Traces requests with OpenTelemetry."),
    path("opentelemetry-trust-incoming-span", ValueKind::Flag, "true", Default)
        .says("Continues the trace of the client."),
    path("opentelemetry-operation-name", ValueKind::SpacedText(CharacterSet::Identifier), "", Reject)
        .says("Sets the name of the span."),
    path("enable-modsecurity", ValueKind::Flag, "false", Default).says("Inspects requests with ModSecurity."),
    path("enable-owasp-core-rules", ValueKind::Flag, "false", Default)
        .says("Adds the OWASP Core Rule Set to ModSecurity."),
    path("modsecurity-transaction-id", ValueKind::SpacedText(CharacterSet::Variables), "", Default)
        .says("Sets the transaction id of ModSecurity."),
    path("modsecurity-snippet", ValueKind::Any, "", Default).says("Replaces the configuration of ModSecurity."),
    path("configuration-snippet", ValueKind::Any, "", Default).says("Adds configuration of nginx to the paths."),
    host("server-snippet", ValueKind::Any, "", Default).says("Adds configuration of nginx to the host."),
    host("stream-snippet", ValueKind::Any, "", Default)
        .says("Adds configuration of nginx for TCP and UDP to the whole controller."),
];
