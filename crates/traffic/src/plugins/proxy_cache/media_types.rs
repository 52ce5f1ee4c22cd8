//! Which media types of responses are stored, as Kong compares them.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Media types, whose parts may be `*`. Parameters must be the same, in any order.
pub(super) struct MediaTypes(Vec<StorableType>);

pub(super) struct StorableType {
    kind: String,
    subtype: String,
    /// Sorted.
    parameters: Vec<(String, String)>,
}

impl MediaTypes {
    pub(super) fn new(types: Vec<StorableType>) -> Self {
        MediaTypes(types)
    }

    /// Reads a media type of the configuration.
    pub(super) fn check(text: &str) -> Option<StorableType> {
        StorableType::parse(text)
    }

    /// Whether the media type of a response is one of these.
    pub(super) fn contains(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some(found) = value.to_str().ok().and_then(StorableType::parse) else { return false };
        let is_same = |wanted: &str, found: &str| wanted == "*" || wanted == found;
        self.0.iter().any(|wanted| {
            is_same(&wanted.kind, &found.kind)
                && is_same(&wanted.subtype, &found.subtype)
                && wanted.parameters == found.parameters
        })
    }
}

impl StorableType {
    fn parse(text: &str) -> Option<StorableType> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let is_token = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '/');
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut parameters = Vec::new();
        for parameter in parts {
            let (name, value) = parameter.split_once('=')?;
            parameters.push((name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_ascii_lowercase()));
        }
        parameters.sort_unstable();
        Some(StorableType { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), parameters })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // docs/kong-compatibility.md, 7.20
    #[test]
    fn parameters_are_compared_exactly() {
        for (wanted, found, expected) in [
            ("application/json", "application/json", true),
            ("application/json", "Application/JSON", true),
            ("application/json", "application/json; charset=utf-8", false),
            ("application/json; charset=utf-8", "application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=utf-8", "application/json", false),
            ("text/*", "text/html", true),
            ("*/*", "image/png", true),
            ("*/*", "image/png; a=b", false),
            ("text/plain", "text", false),
            ("application/xml", "application/xml;", false),
        ] {
            let types = MediaTypes::new(vec![StorableType::parse(wanted).unwrap()]);
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(found))].into_iter().collect();
            assert_eq!(types.contains(&headers), expected, "{wanted} {found}");
        }
        for text in ["", "text", "/x", "text/", "a b/c", "a/b; c", "a/b;"] {
            assert!(StorableType::parse(text).is_none(), "{text}");
        }
        assert!(!MediaTypes::new(vec![StorableType::parse("*/*").unwrap()]).contains(&HeaderMap::new()));
    }
}
