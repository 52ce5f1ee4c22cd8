//! The header fields of a request as the conditions of rules see them: as the endpoint would get them, so that no
//! client selects a rule by a field that the endpoint does not see.

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::RoutingRequest;
use crate::snapshot::rule_options::ForwardingHeaderStyle;

/// The fields that the proxy itself sets, replaces or removes before it forwards a request.
pub trait ForwardedFields: fmt::Debug {
    /// The fields among which conditions on this name find it. `None` if those of the request are forwarded as they
    /// are. `style` is that of the rule with the condition.
    fn find(&self, name: &HeaderName, style: ForwardingHeaderStyle) -> Option<&HeaderMap>;
}

/// Where a condition on a field finds its value.
pub(super) enum ConditionField<'a> {
    /// It sees no such field.
    Absent,
    /// The host of the request, which HTTP/2 and absolute targets have outside of the fields.
    Host(&'a [u8]),
    /// In these fields.
    Among(&'a HeaderMap),
}

impl<'a> RoutingRequest<'a> {
    /// Where a condition of a rule with this style finds the field.
    pub(super) fn field(&self, name: &HeaderName, style: ForwardingHeaderStyle) -> ConditionField<'a> {
        if *name == HOST {
            return ConditionField::Host(self.authority);
        }
        // Before `Connection`, because the proxy forwards the fields that it sets itself nevertheless.
        if let Some(forwarded) = self.forwarded.and_then(|forwarded| forwarded.find(name, style)) {
            return ConditionField::Among(forwarded);
        }
        if self.is_removed_by_connection(name) {
            return ConditionField::Absent;
        }
        ConditionField::Among(self.headers)
    }

    /// Whether the client names the field in `Connection`, so that it is not forwarded (RFC 9110, section 7.6.1). The
    /// fields that belong there, such as `Upgrade`, are no reason to ignore a condition on them.
    pub(super) fn is_removed_by_connection(&self, name: &HeaderName) -> bool {
        let is_named = |value: &HeaderValue| {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        self.headers.get_all(CONNECTION).iter().any(is_named) && !OF_CONNECTION.contains(name)
    }
}

/// Fields that belong to the connection anyway, and `Content-Length`, which is forwarded nevertheless.
static OF_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const STYLE: ForwardingHeaderStyle = ForwardingHeaderStyle::Forwarded;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn value(request: &RoutingRequest<'_>, name: &'static str) -> Option<String> {
        let name = HeaderName::from_static(name);
        match request.field(&name, STYLE) {
            ConditionField::Absent => None,
            ConditionField::Host(host) => Some(String::from_utf8(host.to_vec()).unwrap()),
            ConditionField::Among(fields) => fields.get(name).map(|value| value.to_str().unwrap().to_owned()),
        }
    }

    #[test]
    fn fields_of_the_connection_are_not_seen() {
        let headers = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "upgrade,content-length"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("upgrade", "websocket"),
            ("content-length", "3"),
        ]);
        let request = RoutingRequest::plaintext("/", None, &Method::GET, &headers);
        for (name, expected) in
            [("x-secret", None), ("x-other", Some("2")), ("upgrade", Some("websocket")), ("content-length", Some("3"))]
        {
            assert_eq!(value(&request, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn host_is_that_of_the_request() {
        let headers = headers(&[("host", "other.example")]);
        let request = RoutingRequest {
            authority: b"a.example:80",
            ..RoutingRequest::plaintext("/", None, &Method::GET, &headers)
        };
        assert_eq!(value(&request, "host").as_deref(), Some("a.example:80"));
    }
}
