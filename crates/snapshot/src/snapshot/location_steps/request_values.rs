//! What the variables of nginx stand for in a request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client_certificates::CertificateStep;
use super::cookie_value::cookie_value;
use super::https_redirect::without_port;
use crate::plugin_api::login::{Login, strip_scheme};
use crate::plugin_api::{ClientInfo, RequestCx};
use crate::snapshot::location_path::decoded_path;
use crate::snapshot::location_snippet::{SnippetValues, SnippetVariable};

/// What a location is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocationNames {
    pub namespace: Arc<str>,
    pub ingress: Arc<str>,
    pub service: Arc<str>,
    pub service_port: Arc<str>,
    /// The path of the rule.
    pub path: Arc<str>,
    /// The host of the rule; `_` for none.
    pub host: Arc<str>,
}

/// The values of one request.
pub struct RequestValues<'r> {
    pub headers: &'r HeaderMap,
    pub method: &'r Method,
    pub version: Version,
    pub raw_target: &'r str,
    pub client: ClientInfo<'r>,
    pub id: &'r HeaderValue,
    pub now: SystemTime,
    pub names: Option<&'r LocationNames>,
    /// What the location does about certificates.
    pub certificates: Option<&'r CertificateStep>,
}

impl<'r> RequestValues<'r> {
    /// Those of a request in `access`, whose location has no names.
    pub fn new(cx: &'r RequestCx<'_>) -> Self {
        RequestValues::of_location(cx, None, None)
    }

    pub(super) fn of_location(
        cx: &'r RequestCx<'_>,
        names: Option<&'r LocationNames>,
        certificates: Option<&'r CertificateStep>,
    ) -> Self {
        RequestValues {
            headers: &cx.head.headers,
            method: &cx.head.method,
            version: cx.head.version,
            raw_target: cx.raw_target,
            client: cx.client,
            id: cx.id,
            now: cx.now,
            names,
            certificates,
        }
    }

    /// The values of a field. Bytes that are no text do not hide the others, so that conditions still match them.
    fn field(&self, name: &HeaderName) -> Cow<'r, str> {
        let mut values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let separator = if *name == COOKIE { "; " } else { ", " };
        let first = values.next().unwrap_or_default();
        values.fold(first, |joined, value| Cow::Owned(format!("{joined}{separator}{value}")))
    }

    fn query(&self) -> &'r str {
        self.raw_target.split_once('?').map_or("", |(_, query)| query)
    }

    fn parameter(&self, name: &str) -> &'r str {
        let mut pairs = self.query().split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn name(&self, name: impl Fn(&'r LocationNames) -> &'r Arc<str>) -> Cow<'r, str> {
        Cow::Borrowed(self.names.map_or("", |names| name(names)))
    }

    fn request_line(&self) -> String {
        format!("{} {} {:?}", self.method, self.raw_target, self.version)
    }

    /// The user that the client says it is.
    fn remote_user(&self) -> Option<String> {
        let credentials = strip_scheme(self.headers.get(AUTHORIZATION)?.as_bytes(), "basic")?;
        Login::decode(credentials).map(|login| login.username)
    }

    fn forwarded_for(&self) -> String {
        let address = self.client.address;
        match &*self.field(&ORIGINAL_FORWARDED_FOR) {
            "" => address.to_string(),
            before => format!("{before}, {address}"),
        }
    }
}

impl SnippetValues for RequestValues<'_> {
    fn value(&self, variable: &SnippetVariable) -> Cow<'_, str> {
        let client = &self.client;
        match variable {
            SnippetVariable::Host => Cow::Owned(without_port(client.host).trim_end_matches('.').to_ascii_lowercase()),
            SnippetVariable::BestHttpHost => Cow::Borrowed(client.host),
            SnippetVariable::RequestField(name) if *name == HOST => Cow::Borrowed(client.received.host),
            SnippetVariable::RequestField(name) => self.field(name),
            SnippetVariable::Parameter(name) => Cow::Borrowed(self.parameter(name)),
            SnippetVariable::Cookie(name) => {
                String::from_utf8_lossy(cookie_value(self.headers, name).unwrap_or_default())
            }
            SnippetVariable::Args => Cow::Borrowed(self.query()),
            SnippetVariable::IsArgs => Cow::Borrowed(if self.query().is_empty() { "" } else { "?" }),
            SnippetVariable::Uri => {
                let path = self.raw_target.split('?').next().unwrap_or_default();
                decoded_path(path).map_or(Cow::Borrowed(""), |path| Cow::Owned(path.into_owned()))
            }
            SnippetVariable::RequestUri => Cow::Borrowed(self.raw_target),
            SnippetVariable::EscapedRequestUri => Cow::Owned(utf8_percent_encode(self.raw_target, ESCAPED).to_string()),
            SnippetVariable::RequestMethod => Cow::Borrowed(self.method.as_str()),
            SnippetVariable::Request => Cow::Owned(self.request_line()),
            SnippetVariable::Scheme => Cow::Borrowed(client.received.scheme.as_str()),
            SnippetVariable::PassAccessScheme => Cow::Borrowed(client.scheme.as_str()),
            SnippetVariable::ServerName => self.name(|names| &names.host),
            SnippetVariable::ServerPort => Cow::Owned(client.received.port.to_string()),
            SnippetVariable::PassPort => Cow::Owned(client.port.to_string()),
            SnippetVariable::ServerProtocol => Cow::Owned(format!("{:?}", self.version)),
            SnippetVariable::RemoteAddr => Cow::Owned(client.address.to_string()),
            SnippetVariable::RealipRemoteAddr => Cow::Owned(client.received.peer.ip().to_string()),
            SnippetVariable::RemotePort => Cow::Owned(client.received.peer.port().to_string()),
            SnippetVariable::ProxyAddXForwardedFor => Cow::Owned(self.forwarded_for()),
            SnippetVariable::RequestId => Cow::Borrowed(self.id.to_str().unwrap_or_default()),
            SnippetVariable::TimeIso8601 => {
                let time = Timestamp::try_from(self.now).unwrap_or_default();
                Cow::Owned(time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string())
            }
            SnippetVariable::Msec => {
                let elapsed = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Cow::Owned(format!("{}.{:03}", elapsed.as_secs(), elapsed.subsec_millis()))
            }
            SnippetVariable::ContentType => self.field(&CONTENT_TYPE),
            SnippetVariable::ContentLength => self.field(&CONTENT_LENGTH),
            SnippetVariable::Namespace => self.name(|names| &names.namespace),
            SnippetVariable::IngressName => self.name(|names| &names.ingress),
            SnippetVariable::ServiceName => self.name(|names| &names.service),
            SnippetVariable::ServicePort => self.name(|names| &names.service_port),
            SnippetVariable::LocationPath => self.name(|names| &names.path),
            SnippetVariable::RemoteUser => self.remote_user().map_or(Cow::Borrowed(""), Cow::Owned),
            SnippetVariable::ClientCertificate(variable) => {
                CertificateStep::variable(self.certificates, client, self.now, *variable)
            }
        }
    }
}

const ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
/// What stays as it is in a target that is a parameter of another one.
pub const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
