//! The media types whose bodies are compressed.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::diagnostic::Diagnostic;

/// A list of media types such as `text/*`, `application/json` and `application/*+json`.
pub(super) struct MediaTypes(Box<[MediaTypePattern]>);

#[derive(Debug, PartialEq)]
struct MediaTypePattern {
    main: Box<str>,
    /// The subtype, or its beginning or end before or after the asterisk.
    subtype: SubtypePattern,
}

#[derive(Debug, PartialEq)]
enum SubtypePattern {
    Any,
    Exact(Box<str>),
    /// A suffix such as `+json` (RFC 6839).
    Suffix(Box<str>),
}

impl MediaTypes {
    pub(super) fn build(field: &str, names: &[String]) -> Result<MediaTypes, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        if names.len() > MAX_TYPES {
            let message = format!("has {} media types, more than {MAX_TYPES}", names.len());
            problems.push(Diagnostic::in_config(field, message, "use types/* and application/*+suffix"));
        }
        let mut patterns = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match parse(&name.to_ascii_lowercase()) {
                Ok(pattern) => patterns.push(pattern),
                Err(message) => {
                    let remedy = "write a media type such as text/html, text/* or application/*+json";
                    problems.push(Diagnostic::in_config(format!("{field}[{index}]"), message, remedy));
                }
            }
        }
        if problems.is_empty() { Ok(MediaTypes(patterns.into())) } else { Err(problems) }
    }

    /// Whether the response has one of the types. Not without a type, and never for gRPC, whose messages have a coding
    /// of their own.
    pub(super) fn include(&self, headers: &HeaderMap) -> bool {
        let Some(media_type) = media_type(headers) else { return false };
        let Some((main, subtype)) = media_type.split_once('/') else { return false };
        if main == "application" && is_grpc(subtype) {
            return false;
        }
        self.0.iter().any(|pattern| {
            *pattern.main == *main
                && match &pattern.subtype {
                    SubtypePattern::Any => true,
                    SubtypePattern::Exact(name) => **name == *subtype,
                    SubtypePattern::Suffix(suffix) => subtype.ends_with(&**suffix),
                }
        })
    }
}

/// Whether the body is that of a gRPC call.
pub(super) fn is_grpc_message(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|name| name.strip_prefix("application/").is_some_and(is_grpc))
}

/// The type and subtype in lowercase. `None` if there are several or none.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase())
}

fn is_grpc(subtype: &str) -> bool {
    subtype.strip_prefix("grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-']))
}

fn parse(name: &str) -> Result<MediaTypePattern, &'static str> {
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let Some((main, subtype)) = name.split_once('/') else { return Err("is not a media type") };
    if !is_name(main) {
        return Err("does not begin with the name of a type");
    }
    let subtype_pattern = match subtype.strip_prefix('*') {
        Some("") => SubtypePattern::Any,
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('+') && is_name(suffix) => {
            SubtypePattern::Suffix(suffix.into())
        }
        None if main == "application" && is_grpc(subtype) => {
            return Err("is the type of gRPC, which is never compressed");
        }
        None if is_name(subtype) => SubtypePattern::Exact(subtype.into()),
        _ => return Err("has no valid subtype"),
    };
    Ok(MediaTypePattern { main: main.into(), subtype: subtype_pattern })
}

const MAX_TYPES: usize = 100;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn patterns_match_types() {
        let names = ["text/*", "application/json", "Application/*+JSON", "image/svg+xml"].map(str::to_owned);
        let types = MediaTypes::build("types", &names).unwrap_or_else(|problems| panic!("{problems:?}"));
        for (value, expected) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/Event-Stream", true),
            ("application/json", true),
            ("application/problem+json;a=b", true),
            ("application/jsonx", false),
            ("image/svg+xml", true),
            ("image/png", false),
            ("text", false),
            ("", false),
            ("application/grpc+json", false),
            ("application/grpc-web+json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            assert_eq!(types.include(&headers), expected, "{value}");
            headers.append(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            assert!(!types.include(&headers), "two types");
        }
        assert!(!types.include(&HeaderMap::new()));
    }

    #[test]
    fn invalid_patterns_are_refused() {
        for name in [
            "",
            "text",
            "/",
            "*/*",
            "text/",
            "/html",
            "text/h tml",
            "a/*b",
            "a/*+",
            "text/html;q=1",
            "application/grpc",
        ] {
            let problems = MediaTypes::build("types", &[name.to_owned()]).map(drop).unwrap_err();
            assert_eq!(problems[0].field, "config.types[0]", "{name}");
        }
        assert!(MediaTypes::build("types", &vec!["text/html".to_owned(); 101]).is_err());
    }
}
