//! The CORS filter: from what the API says to what is written into answers.

use http::HeaderValue;

use super::verdict::Problem;
use crate::api::gateway::Cors as Raw;
use crate::snapshot::cors::{Cors, List, Origin, Origins};

/// `field` is that of the filter.
pub(super) fn translate(raw: &Raw, field: &str, unsupported: &mut Vec<Problem>) -> Cors {
    let mut refuse = |part: String, message: String, remedy: &str| {
        unsupported.push(Problem::new(format!("{field}.cors.{part}"), message, remedy));
    };
    let origins = match &raw.allow_origins[..] {
        [only] if only == "*" => Origins::Any,
        several => {
            let mut origins = Vec::new();
            for (index, text) in several.iter().enumerate() {
                match Origin::parse(text) {
                    Some(origin) => origins.push(origin),
                    None => refuse(
                        format!("allowOrigins[{index}]"),
                        format!("{text:?} is no origin"),
                        "write it like https://app.example, https://*.example:8443, or * alone for all",
                    ),
                }
            }
            Origins::These(origins.into())
        }
    };
    let mut list = |part: &str, names: &[String]| {
        List::of(names.iter().map(String::as_str)).unwrap_or_else(|| {
            refuse(part.to_owned(), "a name has control characters".to_owned(), "remove them");
            List::None
        })
    };
    Cors {
        methods: list("allowMethods", &raw.allow_methods),
        headers: list("allowHeaders", &raw.allow_headers),
        expose: list("exposeHeaders", &raw.expose_headers),
        origins,
        credentials: raw.allow_credentials == Some(true),
        max_age: HeaderValue::from(raw.max_age.max(0)),
    }
}
