//! Translates the CORS filter of the API to that of the snapshot.

use http::HeaderValue;

use crate::api::gateway::Cors as ApiCors;
use crate::diagnostic::Diagnostic;
use crate::snapshot::cors::{AllowedOrigins, CorsFilter, CorsList, OriginPattern};

/// `field` is the path of the filter. Invalid values are reported in `unsupported`, and the rule is then not served.
pub(in crate::compile) fn translate(raw: &ApiCors, field: &str, unsupported: &mut Vec<Diagnostic>) -> CorsFilter {
    let mut reject = |subfield: String, message: String, remedy: &str| {
        unsupported.push(Diagnostic::error(format!("{field}.cors.{subfield}"), message, remedy));
    };
    let origins = match &raw.allow_origins[..] {
        [only] if only == "*" => AllowedOrigins::Any,
        several => {
            let mut origins = Vec::new();
            for (index, text) in several.iter().enumerate() {
                match OriginPattern::parse(text) {
                    Some(origin) => origins.push(origin),
                    None => reject(
                        format!("allowOrigins[{index}]"),
                        format!("{text:?} is not an origin"),
                        "write it like https://app.example, https://*.example:8443, or a single * for all origins",
                    ),
                }
            }
            AllowedOrigins::Listed(origins.into())
        }
    };
    let mut parse_names = |subfield: &str, names: &[String]| {
        CorsList::from_names(names.iter().map(String::as_str)).unwrap_or_else(|| {
            reject(subfield.to_owned(), "a name has control characters".to_owned(), "remove these characters");
            CorsList::Empty
        })
    };
    CorsFilter {
        methods: parse_names("allowMethods", &raw.allow_methods),
        headers: parse_names("allowHeaders", &raw.allow_headers),
        expose: parse_names("exposeHeaders", &raw.expose_headers),
        origins,
        credentials: raw.allow_credentials == Some(true),
        max_age: HeaderValue::from(raw.max_age.max(0)),
    }
}
