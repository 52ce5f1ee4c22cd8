//! Media types: those of `Content-Type`, and the ranges that configurations and `Accept` compare them with.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// The media type of a message, with its parameters (RFC 9110, section 8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// In lower case, such as `application/json`.
    pub essence: String,
    /// Names in lower case, and values without quotes, in order of the names.
    pub parameters: Vec<(String, String)>,
}

impl MediaType {
    /// `None` if the text is not a media type or range.
    pub fn parse(text: &str) -> Option<MediaType> {
        let mut pieces = split_quoted(text)?.into_iter();
        let essence = pieces.next()?.trim().to_ascii_lowercase();
        let (main, sub) = essence.split_once('/')?;
        if !is_token(main) || !is_token(sub) {
            return None;
        }
        let mut parameters = Vec::new();
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=')?;
            let name = name.to_ascii_lowercase();
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?.replace('\\', ""),
                None if is_token(value) => value.to_owned(),
                None => return None,
            };
            if !is_token(&name) {
                return None;
            }
            // The only parameter whose value is compared without regard to case.
            let value = if name == "charset" { value.to_ascii_lowercase() } else { value };
            parameters.push((name, value));
        }
        parameters.sort();
        Some(MediaType { essence, parameters })
    }

    /// The type of a message. `None` if `Content-Type` is missing, repeated or invalid.
    pub fn of(headers: &HeaderMap) -> Option<MediaType> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        MediaType::parse(value.to_str().ok()?)
    }

    /// Whether the type is `application/json`, or has the suffix `+json` (RFC 6839, section 3.1).
    pub fn is_json(&self) -> bool {
        self.essence == "application/json" || self.essence.ends_with("+json")
    }

    /// Whether the text is a range without parameters: `*/*`, `text/*`, or a type.
    pub fn is_range(text: &str) -> bool {
        let Some(range) = MediaType::parse(text).filter(|range| range.parameters.is_empty()) else { return false };
        range.essence == "*/*" || !range.essence.strip_suffix("/*").unwrap_or(&range.essence).contains('*')
    }

    /// Whether a range without parameters contains the type: `*/*`, `text/*`, or the type itself.
    pub fn is_in(&self, range: &str) -> bool {
        match range.strip_suffix('*') {
            Some("*/") => true,
            Some(prefix) if prefix.ends_with('/') => {
                self.essence.len() >= prefix.len() && self.essence[..prefix.len()].eq_ignore_ascii_case(prefix)
            }
            _ => self.essence.eq_ignore_ascii_case(range),
        }
    }
}

/// Whether a request or response is gRPC or gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    grpc_suffix(headers).is_some()
}

/// What follows `application/grpc` in the content type. Media types are compared without case (RFC 9110, section
/// 8.3.1).
pub fn grpc_suffix(headers: &HeaderMap) -> Option<&[u8]> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes)?;
    let (media_type, suffix) = content_type.split_at_checked(GRPC.len())?;
    media_type.eq_ignore_ascii_case(GRPC).then_some(suffix)
}

const GRPC: &[u8] = b"application/grpc";

/// The ranges of `Accept`, the preferred ones first, without those that the client refuses (RFC 9110, section 12.5.1).
/// At most 32 are read.
pub fn accepted_ranges<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<String> {
    let mut ranges: Vec<(f32, usize, String)> = Vec::new();
    let texts = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for text in texts.take(32) {
        let Some(range) = MediaType::parse(text) else { continue };
        let quality = range.parameters.iter().find(|(name, _)| name == "q").map_or(1.0, |(_, value)| {
            value.parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(1.0)
        });
        if quality > 0.0 {
            // Of the same quality, the more specific range is preferred.
            let wildcards = range.essence.matches('*').count();
            ranges.push((quality, wildcards, range.essence));
        }
    }
    ranges.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    ranges.into_iter().map(|(_, _, range)| range).collect()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The parts between semicolons that are not in quotes. `None` if a quote is not closed.
fn split_quoted(text: &str) -> Option<Vec<&str>> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                pieces.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    (!quoted).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_parsed() {
        let parameters = |text: &str| MediaType::parse(text).map(|found| (found.essence, found.parameters));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("Application/JSON", Some(("application/json", vec![]))),
            ("text/plain; Charset=UTF-8", Some(("text/plain", vec![pair("charset", "utf-8")]))),
            ("a/b;y=2; x=\"1;\\\"\"", Some(("a/b", vec![pair("x", "1;\""), pair("y", "2")]))),
            ("a/b;", Some(("a/b", vec![]))),
            ("json", None),
            ("a/b; c", None),
            ("a/b; c=\"d", None),
            ("a/b c", None),
            ("", None),
        ] {
            let expected = expected.map(|(essence, parameters)| (essence.to_owned(), parameters));
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_contain_types() {
        let ranges = ["*/*", "a/*", "a/b", "*/b", "a/b*", "a", "a/b; c=d"].map(MediaType::is_range);
        assert_eq!(ranges, [true, true, true, false, false, false, false]);
        let json = MediaType::parse("application/problem+json; charset=utf-8").unwrap();
        assert!(json.is_json());
        for (range, expected) in [
            ("*/*", true),
            ("application/*", true),
            ("Application/Problem+JSON", true),
            ("application/json", false),
            ("text/*", false),
            ("*", false),
        ] {
            assert_eq!(json.is_in(range), expected, "{range}");
        }
    }

    #[test]
    fn preferred_ranges_are_first() {
        let values = ["text/html;q=0.5, */*;q=0.1", "application/json, text/plain;q=0, text/*;q=0.5"];
        let values = values.map(HeaderValue::from_static);
        assert_eq!(accepted_ranges(values.iter()), ["application/json", "text/html", "text/*", "*/*"]);
    }
}
