//! Rewrites, redirects, hosts and backends.

use super::super::annotation::OnBadValue::{Default, Deny503, DropGroup, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{Row, host, path, service};

pub(super) const ROUTING: &[Row] = &[
    host("rewrite-target", ValueKind::Text(CharacterSet::Captures), "", Default)
        .says("Replaces the path by this text with captures, and puts the host into regex mode."),
    host("use-regex", ValueKind::Flag, "false", Default).says("Treats all paths of the host as regular expressions."),
    host("app-root", ValueKind::AbsolutePath, "", Default).says("Redirects requests for / to this path."),
    path("ssl-redirect", ValueKind::Flag, "true", Default)
        .says("Redirects HTTP to HTTPS if the Ingress has TLS for the host."),
    path("force-ssl-redirect", ValueKind::Flag, "false", Default)
        .says("Redirects HTTP to HTTPS, also without TLS in the Ingress."),
    path("preserve-trailing-slash", ValueKind::Flag, "false", Default)
        .says("Keeps the slash at the end of the URL in redirects to HTTPS."),
    path("permanent-redirect", ValueKind::Text(CharacterSet::Url), "", Reject)
        .says("Redirects all requests to this URL, by default with status 301."),
    path("permanent-redirect-code", ValueKind::Integer { min: 300, max: 308 }, "301", Reject)
        .wrong_form(Default)
        .says("Sets the status code of the permanent redirect."),
    path("temporal-redirect", ValueKind::RedirectUrl, "", Reject)
        .wrong_form(DropGroup)
        .says("Redirects all requests to this URL, by default with status 302."),
    path("temporal-redirect-code", ValueKind::Integer { min: 300, max: 307 }, "302", Reject)
        .wrong_form(Default)
        .says("Sets the status code of the temporal redirect."),
    host("from-to-www-redirect", ValueKind::Flag, "false", Reject).says("Redirects www.HOST to HOST, or the reverse."),
    path("relative-redirects", ValueKind::Flag, "false", Reject)
        .says("Writes the Location of generated redirects without scheme and host."),
    path("use-port-in-redirects", ValueKind::Flag, "false", Default)
        .says("Writes the port into the Location of generated redirects."),
    host("server-alias", ValueKind::ServerNames, "", Reject).says("Serves the host under further names."),
    path("upstream-vhost", ValueKind::ServerName, "", Reject).says("Sets the Host header of requests to the backend."),
    path("x-forwarded-prefix", ValueKind::SpacedText(CharacterSet::Captures), "", Reject)
        .says("Sends this X-Forwarded-Prefix header to the backend with a rewritten path."),
    service("service-upstream", ValueKind::Flag, "false", Default)
        .says("Sends requests to the cluster IP of the Service instead of its endpoints."),
    path("backend-protocol", PROTOCOLS, "HTTP", Default).says("Sets the protocol to the backend."),
    path("fastcgi-index", ValueKind::Text(CharacterSet::FileName), "", Reject)
        .says("Sets the file that a FastCGI backend gets for a path with a slash at its end."),
    path("fastcgi-params-configmap", ValueKind::Reference, "", Reject)
        .wrong_form(Deny503)
        .says("Names the ConfigMap with parameters for a FastCGI backend."),
    path("proxy-redirect-from", ValueKind::SpacedText(CharacterSet::Url), "off", Default)
        .says("Sets the prefix of Location headers of the backend that is replaced."),
    path("proxy-redirect-to", ValueKind::SpacedText(CharacterSet::Url), "off", Default)
        .says("Sets what replaces the prefix of Location headers of the backend."),
    path("proxy-cookie-domain", ValueKind::CookieDomain, "off", Default)
        .says("Replaces the domain of cookies of the backend."),
    path("proxy-cookie-path", ValueKind::SpacedText(CharacterSet::Url), "off", Default)
        .says("Replaces the prefix of the path of cookies of the backend."),
    path("custom-headers", ValueKind::QualifiedReference, "", Default)
        .wrong_form(Deny503)
        .says("Names the ConfigMap with headers for all responses."),
    path("connection-proxy-header", CONNECTION, "", Reject)
        .says("Sets the Connection header of requests to the backend."),
];

const PROTOCOLS: ValueKind = ValueKind::OneOfAnyCase(&["HTTP", "HTTPS", "GRPC", "GRPCS", "AUTO_HTTP", "FCGI"]);
const CONNECTION: ValueKind = ValueKind::OneOf(&["close", "keep-alive"]);
