//! The header fields of a request as the conditions of rules see them: as the endpoint would get them, so that no
//! client selects a rule by a field that the endpoint does not see.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::by_conditions::PathCondition;
use super::matched::MatchedPath;
use super::request::RoutingRequest;
use crate::snapshot::regex_steps::RegexInput;
use crate::snapshot::rule::RouteRule;

/// Where a condition on a field finds its value.
pub(super) enum ConditionField<'a> {
    /// It sees no such field.
    Absent,
    /// The host of the request, which HTTP/2 and absolute targets have outside of the fields, or a field that the rule
    /// adds.
    Line(&'a [u8]),
    /// In these fields.
    Among(&'a HeaderMap),
}

/// A rule that may serve a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub rule: &'a RouteRule,
    /// What has matched the path, and the path as it was matched.
    pub matched: MatchedPath<'a>,
    pub path: &'a str,
}

impl RoutingRequest<'_> {
    /// Where a condition of a rule finds the field.
    pub(super) fn field<'s>(&'s self, name: &HeaderName, candidate: Candidate<'s>) -> ConditionField<'s> {
        if *name == HOST {
            return ConditionField::Line(self.authority);
        }
        let style = candidate.rule.options().forwarding_headers;
        // Before `Connection`, because the proxy forwards the fields that it sets itself nevertheless.
        let forwarded = self.forwarded.and_then(|forwarded| forwarded.find(name, style));
        let fields = forwarded.or_else(|| (!self.is_removed_by_connection(name)).then_some(self.headers));
        if *name == X_FORWARDED_PREFIX
            && !fields.is_some_and(|fields| fields.contains_key(name))
            && let Some(prefix) = self.forwarded_prefix(candidate)
        {
            return ConditionField::Line(prefix.as_bytes());
        }
        fields.map_or(ConditionField::Absent, ConditionField::Among)
    }

    /// The `X-Forwarded-Prefix` that the rule adds.
    fn forwarded_prefix<'s>(&self, candidate: Candidate<'s>) -> Option<&'s str> {
        let Candidate { rule, matched, path } = candidate;
        // Finding the matched part takes steps of its own.
        if let MatchedPath::ByConditions(Some(PathCondition::Regex(regex))) = matched
            && !self.regex_steps.admit(regex.states(), path.len(), RegexInput::Target)
        {
            return None;
        }
        matched.forwarded_prefix(rule, path)
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

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

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

    use super::super::tests::rule;
    use super::*;
    use crate::snapshot::rule::{Action, Filters, RouteFailure};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn value(request: &RoutingRequest<'_>, name: &'static str) -> Option<String> {
        let name = HeaderName::from_static(name);
        let rule = rule("a", "0", Filters::default(), Action::Fail(RouteFailure::NoBackends));
        let candidate = Candidate { rule: &rule, matched: MatchedPath::ByConditions(None), path: request.path };
        match request.field(&name, candidate) {
            ConditionField::Absent => None,
            ConditionField::Line(host) => Some(String::from_utf8(host.to_vec()).unwrap()),
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
