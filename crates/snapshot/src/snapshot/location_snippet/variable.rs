//! The variables of nginx and of ingress-nginx that texts may contain.

use std::borrow::Cow;

use http::HeaderName;

/// A variable whose value the request, its connection or its location has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnippetVariable {
    /// `$host`: in lower case, without a port.
    Host,
    /// `$best_http_host`: with the port, as the client or a trusted proxy sent it.
    BestHttpHost,
    /// `$http_x_name`. `$http_host` is the field `Host`, also if the request has `:authority` in its place.
    RequestField(HeaderName),
    /// `$arg_name`: as in the query, with its escapes.
    Parameter(Box<str>),
    /// `$cookie_name`.
    Cookie(Box<str>),
    /// `$args` and `$query_string`: without the question mark.
    Args,
    /// `$is_args`: a question mark if there is a query.
    IsArgs,
    /// `$uri` and `$document_uri`: the path as locations are matched with it, thus decoded.
    Uri,
    /// `$request_uri`: path and query as the client sent them.
    RequestUri,
    /// `$escaped_request_uri`: the same as a parameter of another target.
    EscapedRequestUri,
    RequestMethod,
    /// `$request`: the request line.
    Request,
    /// `$scheme`, of the connection.
    Scheme,
    /// `$pass_access_scheme`: that of `X-Forwarded-Proto`.
    PassAccessScheme,
    /// `$server_name`: the host of the rule.
    ServerName,
    ServerPort,
    /// `$pass_port`: that of `X-Forwarded-Port`.
    PassPort,
    ServerProtocol,
    /// `$remote_addr` and `$the_real_ip`.
    RemoteAddr,
    /// `$realip_remote_addr`: that of the connection.
    RealipRemoteAddr,
    RemotePort,
    /// `$proxy_add_x_forwarded_for`: the field as it arrived, and `$remote_addr`.
    ProxyAddXForwardedFor,
    /// `$req_id` and `$request_id`: that of `X-Request-ID`.
    RequestId,
    /// `$time_iso8601`: local time.
    TimeIso8601,
    /// `$msec`: seconds since 1970, with milliseconds after a dot.
    Msec,
    ContentType,
    ContentLength,
    Namespace,
    IngressName,
    ServiceName,
    ServicePort,
    LocationPath,
    RemoteUser,
    /// `$ssl_client_…`
    ClientCertificate(CertificateVariable),
}

/// A variable about the certificate of the client, which has a value if the host verifies certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateVariable {
    /// `$ssl_client_verify`: `NONE` if there is no certificate. Empty in plain text.
    Result,
    /// `$ssl_client_s_dn`
    Subject,
    /// `$ssl_client_i_dn`
    Issuer,
    /// `$ssl_client_escaped_cert`: in PEM, with escapes as in URLs.
    EscapedPem,
}

/// A variable that has a value once there is a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponseVariable {
    Status,
    /// `$upstream_http_x_name`: as the endpoint sent it.
    UpstreamField(HeaderName),
    /// `$sent_http_x_name`: with the changes so far.
    SentField(HeaderName),
}

/// The values of one request.
pub trait SnippetValues {
    /// Empty if the request has none, as in nginx.
    fn value(&self, variable: &SnippetVariable) -> Cow<'_, str>;
}

impl SnippetVariable {
    /// Whether its value is that of a rule, or depends on what the host of a rule says about certificates.
    pub(super) fn is_of_location(&self) -> bool {
        matches!(
            self,
            SnippetVariable::Namespace
                | SnippetVariable::IngressName
                | SnippetVariable::ServiceName
                | SnippetVariable::ServicePort
                | SnippetVariable::LocationPath
                | SnippetVariable::ServerName
                | SnippetVariable::ClientCertificate(_)
        )
    }

    /// The variable with this name, in lower case.
    pub(in crate::snapshot) fn parse(name: &str) -> Option<Self> {
        if let Some((_, variable)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Some(variable.clone());
        }
        if let Some(field) = name.strip_prefix("http_") {
            return field_name(field).map(SnippetVariable::RequestField);
        }
        if let Some(parameter) = name.strip_prefix("arg_").filter(|parameter| !parameter.is_empty()) {
            return Some(SnippetVariable::Parameter(parameter.into()));
        }
        let cookie = name.strip_prefix("cookie_").filter(|cookie| !cookie.is_empty())?;
        Some(SnippetVariable::Cookie(cookie.into()))
    }
}

impl ResponseVariable {
    /// The variable with this name, in lower case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if name == "status" {
            return Some(ResponseVariable::Status);
        }
        if let Some(field) = name.strip_prefix("upstream_http_") {
            return field_name(field).map(ResponseVariable::UpstreamField);
        }
        field_name(name.strip_prefix("sent_http_")?).map(ResponseVariable::SentField)
    }
}

fn field_name(written: &str) -> Option<HeaderName> {
    HeaderName::try_from(written.replace('_', "-")).ok()
}

/// All variables, except those that end with the name of a field, a parameter or a cookie.
const NAMES: &[(&str, SnippetVariable)] = &[
    ("host", SnippetVariable::Host),
    ("best_http_host", SnippetVariable::BestHttpHost),
    ("args", SnippetVariable::Args),
    ("query_string", SnippetVariable::Args),
    ("is_args", SnippetVariable::IsArgs),
    ("uri", SnippetVariable::Uri),
    ("document_uri", SnippetVariable::Uri),
    ("request_uri", SnippetVariable::RequestUri),
    ("escaped_request_uri", SnippetVariable::EscapedRequestUri),
    ("request_method", SnippetVariable::RequestMethod),
    ("request", SnippetVariable::Request),
    ("scheme", SnippetVariable::Scheme),
    ("pass_access_scheme", SnippetVariable::PassAccessScheme),
    ("server_name", SnippetVariable::ServerName),
    ("server_port", SnippetVariable::ServerPort),
    ("pass_port", SnippetVariable::PassPort),
    ("pass_server_port", SnippetVariable::PassPort),
    ("server_protocol", SnippetVariable::ServerProtocol),
    ("remote_addr", SnippetVariable::RemoteAddr),
    ("the_real_ip", SnippetVariable::RemoteAddr),
    ("realip_remote_addr", SnippetVariable::RealipRemoteAddr),
    ("remote_port", SnippetVariable::RemotePort),
    ("proxy_add_x_forwarded_for", SnippetVariable::ProxyAddXForwardedFor),
    ("req_id", SnippetVariable::RequestId),
    ("request_id", SnippetVariable::RequestId),
    ("time_iso8601", SnippetVariable::TimeIso8601),
    ("msec", SnippetVariable::Msec),
    ("content_type", SnippetVariable::ContentType),
    ("content_length", SnippetVariable::ContentLength),
    ("namespace", SnippetVariable::Namespace),
    ("ingress_name", SnippetVariable::IngressName),
    ("service_name", SnippetVariable::ServiceName),
    ("service_port", SnippetVariable::ServicePort),
    ("location_path", SnippetVariable::LocationPath),
    ("remote_user", SnippetVariable::RemoteUser),
    ("ssl_client_verify", SnippetVariable::ClientCertificate(CertificateVariable::Result)),
    ("ssl_client_s_dn", SnippetVariable::ClientCertificate(CertificateVariable::Subject)),
    ("ssl_client_i_dn", SnippetVariable::ClientCertificate(CertificateVariable::Issuer)),
    ("ssl_client_escaped_cert", SnippetVariable::ClientCertificate(CertificateVariable::EscapedPem)),
];
