//! Header fields that a plugin is configured to send to its server.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::authentication::parse_header_name;
use crate::diagnostic::Diagnostic;

/// The fields of the setting `field`, without those that the plugin sets itself. Their values may be secrets, so no
/// message contains one.
pub fn parse_sent_headers(
    field: &str,
    configured: &BTreeMap<String, String>,
    set_by_plugin: &[HeaderName],
    invalid: &mut Vec<Diagnostic>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let path = format!("{field}[{name}]");
        match (parse_header_name(&path, name), HeaderValue::from_str(value)) {
            (Ok(name), _) if set_by_plugin.contains(&name) => {
                invalid.push(Diagnostic::in_config(path, "cannot be set", "remove it: the plugin sets it"));
            }
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            (Err(error), _) => invalid.push(error),
            (_, Err(_)) => {
                let remedy = "use visible ASCII characters and spaces only";
                invalid.push(Diagnostic::in_config(path, "is not a valid header value", remedy));
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;

    #[test]
    fn fields_of_the_plugin_and_invalid_ones_are_rejected() {
        let configured = [("X-Key", "secret"), ("Host", "a"), ("x y", "b"), ("x-line", "secret\n")];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut invalid = Vec::new();
        let headers = parse_sent_headers("auth.headers", &configured, &[HOST], &mut invalid);
        assert!(headers.len() == 1 && headers["x-key"] == "secret" && headers["x-key"].is_sensitive());
        let expected = [
            ("config.auth.headers[Host]", "cannot be set"),
            ("config.auth.headers[x y]", "`x y` is not a valid header name"),
            ("config.auth.headers[x-line]", "is not a valid header value"),
        ];
        let found: Vec<_> = invalid.iter().map(|problem| (&*problem.field, &*problem.message)).collect();
        assert_eq!(found, expected);
    }
}
