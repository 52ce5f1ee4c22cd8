//! Names of header fields that have a meaning of their own: for every configuration that names a field to write.
//!
//! | what is written | may be in a field about |
//! | --- | --- |
//! | a configured value, such as a header of checks | everything except the message, its connection, and its host |
//! | an identifier of the request | the request and its trace |
//! | a token or claims | credentials, the user |
//! | what Portico generates, such as a session or a number | nothing that has a meaning |

use http::HeaderName;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

use crate::diagnostic::Diagnostic;

/// What a field is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldMeaning {
    /// The length of the body and the connection, which Portico writes for each message.
    Framing,
    /// The connection to the next peer, such as `Expect`. Such fields are not forwarded.
    Connection,
    Host,
    /// The client, as Portico knows it.
    Client,
    /// The consumer or user, as plugins have found it.
    User,
    /// The request or its trace.
    Identifier,
    Credentials,
    Cookies,
    /// The content, or what the client accepts.
    Content,
}

/// What a configuration writes into a field that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenValue {
    /// A text of the configuration, or what a server of the configuration has sent.
    Configured,
    /// What Portico generates, such as a session or the number of an attempt.
    Generated,
    /// An identifier of the request or of its trace.
    Identifier,
    /// What is known about the user.
    User,
    /// A token that authenticates the request.
    Token,
}

impl FieldMeaning {
    /// The meaning of a field; `None` if it has none. `_` stands for `-`, as many backends read it.
    pub(crate) fn of(name: &HeaderName) -> Option<Self> {
        let with_dashes;
        let mut name = name.as_str();
        if name.contains('_') {
            with_dashes = name.replace('_', "-");
            name = &with_dashes;
        }
        let exact = MEANINGS.iter().find(|(_, names)| names.contains(&name));
        let prefix = || PREFIXES.iter().find(|(_, prefixes)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        exact.or_else(prefix).map(|(meaning, _)| *meaning)
    }

    /// Whether a field with the meaning may have such a value.
    fn permits(self, value: WrittenValue) -> bool {
        match self {
            FieldMeaning::Framing | FieldMeaning::Connection | FieldMeaning::Host => false,
            FieldMeaning::Client | FieldMeaning::Cookies | FieldMeaning::Content => value == WrittenValue::Configured,
            FieldMeaning::User => {
                matches!(value, WrittenValue::Configured | WrittenValue::User | WrittenValue::Token)
            }
            FieldMeaning::Identifier => matches!(value, WrittenValue::Configured | WrittenValue::Identifier),
            FieldMeaning::Credentials => matches!(value, WrittenValue::Configured | WrittenValue::Token),
        }
    }

    /// A clause with the field as its subject.
    fn clause(self) -> &'static str {
        match self {
            FieldMeaning::Framing | FieldMeaning::Connection => "depends on the connection and the body",
            FieldMeaning::Host => "is the host of the request",
            FieldMeaning::Client => "says what Portico knows about the client",
            FieldMeaning::User => "says what plugins know about the user",
            FieldMeaning::Identifier => "identifies the request or its trace",
            FieldMeaning::Credentials => "has credentials",
            FieldMeaning::Cookies => "has cookies",
            FieldMeaning::Content => "describes the content, or what the client accepts",
        }
    }
}

/// Why a configuration cannot write such a value into the field: a clause with the field as its subject.
pub fn refusal(name: &HeaderName, value: WrittenValue) -> Option<&'static str> {
    FieldMeaning::of(name).filter(|meaning| !meaning.permits(value)).map(FieldMeaning::clause)
}

/// The name of a field in the configuration of a plugin, which writes such a value into it.
pub fn parse_written_name(path: &str, name: &str, value: WrittenValue) -> Result<HeaderName, Diagnostic> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        let message = format!("`{name}` is not a valid header name");
        Diagnostic::in_config(path, message, "use letters, digits, `-` and `_` only")
    })?;
    match refusal(&parsed, value) {
        None => Ok(parsed),
        Some(reason) => {
            let message = format!("{parsed} {reason}, so the plugin cannot write it");
            Err(Diagnostic::in_config(path, message, "use a name without such a meaning"))
        }
    }
}

/// Whether Portico writes the field for each message, because another value could contradict the body or the
/// connection.
pub fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(name)
}

static FRAMING: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// In lower case.
const MEANINGS: &[(FieldMeaning, &[&str])] = &[
    (FieldMeaning::Framing, &["connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"]),
    (FieldMeaning::Connection, &["expect", "http2-settings", "keep-alive", "proxy-connection"]),
    (FieldMeaning::Host, &["host"]),
    (
        FieldMeaning::Client,
        &[
            "forwarded",
            "portico-hops",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-path",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-proto",
            "x-real-ip",
        ],
    ),
    (FieldMeaning::User, &["x-anonymous-consumer", "x-authenticated-groups", "x-credential-identifier"]),
    (
        FieldMeaning::Identifier,
        &[
            "b3",
            "kong-request-id",
            "traceparent",
            "tracestate",
            "uber-trace-id",
            "x-amzn-trace-id",
            "x-cloud-trace-context",
            "x-request-id",
        ],
    ),
    (FieldMeaning::Credentials, &["authorization", "proxy-authenticate", "proxy-authorization", "www-authenticate"]),
    (FieldMeaning::Cookies, &["cookie", "set-cookie"]),
    (
        FieldMeaning::Content,
        &[
            "accept",
            "accept-charset",
            "accept-encoding",
            "accept-language",
            "accept-ranges",
            "age",
            "allow",
            "cache-control",
            "date",
            "etag",
            "expires",
            "last-modified",
            "location",
            "origin",
            "range",
            "retry-after",
            "server",
            "user-agent",
            "vary",
        ],
    ),
];

/// Of names that are not in [`MEANINGS`].
const PREFIXES: &[(FieldMeaning, &[&str])] = &[
    (FieldMeaning::User, &["x-consumer-"]),
    (FieldMeaning::Identifier, &["ot-tracer-", "x-b3-", "x-datadog-", "x-instana-"]),
    (FieldMeaning::Content, &["access-control-", "content-", "grpc-", "if-", "sec-"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        text.parse().unwrap()
    }

    #[test]
    fn names_have_one_meaning_and_are_lower_case() {
        let names: Vec<&str> = MEANINGS.iter().flat_map(|(_, names)| *names).copied().collect();
        for text in &names {
            assert_eq!(name(text).as_str(), *text);
            assert_eq!(names.iter().filter(|other| *other == text).count(), 1, "{text}");
        }
        assert!(FRAMING.iter().all(|name| FieldMeaning::of(name) == Some(FieldMeaning::Framing)));
        let framing = MEANINGS.iter().find(|(meaning, _)| *meaning == FieldMeaning::Framing).unwrap().1;
        assert!(framing.iter().all(|text| is_framing(&name(text))));
    }

    #[test]
    fn each_value_is_refused_where_it_would_change_the_meaning() {
        use WrittenValue::{Configured, Generated, Identifier, Token, User};
        for (text, permitted) in [
            ("content-length", &[][..]),
            ("transfer-encoding", &[]),
            ("expect", &[]),
            ("host", &[]),
            ("x-forwarded-for", &[Configured]),
            ("X_Forwarded_Proto", &[Configured]),
            ("x-forwarded-user", &[Configured, Generated, Identifier, User, Token]),
            ("cookie", &[Configured]),
            ("content-type", &[Configured]),
            ("grpc-timeout", &[Configured]),
            ("x-consumer-id", &[Configured, User, Token]),
            ("x-request-id", &[Configured, Identifier]),
            ("x-b3-traceid", &[Configured, Identifier]),
            ("authorization", &[Configured, Token]),
            ("x-attempt", &[Configured, Generated, Identifier, User, Token]),
            ("accept-version", &[Configured, Generated, Identifier, User, Token]),
        ] {
            for value in [Configured, Generated, Identifier, User, Token] {
                let refused = refusal(&name(text), value);
                assert_eq!(refused.is_none(), permitted.contains(&value), "{text}, {value:?}: {refused:?}");
            }
        }
    }
}
