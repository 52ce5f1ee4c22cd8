//! Fuzzing of requests for codes: each parameter has one source, and no value changes where a browser is sent.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::authorize::with_query;
use super::grant::{SentToken, TokenKind};
use super::parameters::Parameters;
use crate::plugin_api::fields::{BodyFields, FieldValue, UrlEncodedForm};

/// The first line is the query, the second one the media type, and the rest is the body.
pub(crate) fn token_request(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (query, content_type, body) = (next(), next(), next());
    let (Ok(query), Ok(content_type)) = (std::str::from_utf8(query), HeaderValue::from_bytes(content_type)) else {
        return;
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
    let Ok(parameters) = Parameters::read(Some(query), &headers, body) else { return };

    let in_query = UrlEncodedForm(query.as_bytes());
    let in_body = BodyFields::parse(&headers, body);
    for (name, value) in [("state", &parameters.state), ("scope", &parameters.scope), ("code", &parameters.code)] {
        let Some(value) = value else { continue };
        let found =
            [in_query.find(name.as_bytes()), in_body.as_ref().map_or(FieldValue::Absent, |body| body.find(name))];
        let is_source =
            |field: &FieldValue<'_>| matches!(field, FieldValue::Single(text) if **text == *value.as_bytes());
        // A field without a value may occur next to the one with a value.
        assert!(found.iter().any(|field| is_source(field) || *field == FieldValue::Multiple), "{name}: {found:?}");
    }
    if let Some(state) = &parameters.state {
        let uri = with_query("https://app.example/callback", &[("state", state)]);
        let sent = uri.strip_prefix("https://app.example/callback?").expect("the browser is sent to the client");
        assert!(!sent.contains(['#', '?', '\r', '\n', ' ']), "{sent}");
        assert_eq!(UrlEncodedForm(sent.as_bytes()).find(b"state"), FieldValue::Single(state.as_bytes().into()));
    }
    for kind in [TokenKind::Code, TokenKind::Access, TokenKind::Refresh] {
        assert!(SentToken::parse(kind, body).is_none() || body.len() == 66, "tokens have one length");
    }
}
