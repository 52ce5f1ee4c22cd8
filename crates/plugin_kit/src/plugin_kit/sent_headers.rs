//! Header fields that a plugin is configured to send to its server.

use std::collections::BTreeMap;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::authentication::parse_header_name;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::{WrittenValue, refusal};

/// The fields of the setting `field`. `reserved`: those that cannot be set, with the remedy. The values may be secrets,
/// so no message contains one.
pub fn parse_sent_headers(
    field: &str,
    configured: &BTreeMap<String, String>,
    reserved: &[(HeaderName, &str)],
    invalid: &mut Vec<Diagnostic>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let path = format!("{field}[{name}]");
        let name = match parse_header_name(&path, name) {
            Ok(name) => name,
            Err(error) => {
                invalid.push(error);
                continue;
            }
        };
        if let Some((_, remedy)) = reserved.iter().find(|(reserved, _)| *reserved == name) {
            invalid.push(Diagnostic::in_config(path, "cannot be set", *remedy));
            continue;
        }
        // Servers may have several hosts at one address.
        if let Some(reason) = refusal(&name, WrittenValue::Configured).filter(|_| name != HOST) {
            invalid.push(Diagnostic::in_config(path, format!("cannot be set: {name} {reason}"), "remove it"));
            continue;
        }
        match HeaderValue::from_str(value) {
            // Kong's schema refuses it, too.
            Ok(value) if value.is_empty() => {
                invalid.push(Diagnostic::in_config(path, "is empty", "write a value, or remove the header"));
            }
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            Err(_) => {
                let remedy = "use visible ASCII characters and spaces only";
                invalid.push(Diagnostic::in_config(path, "is not a valid header value", remedy));
            }
        }
    }
    headers
}

/// The remedy for a field that is set to a fixed value, or to one that depends on the request.
pub const SET_BY_PLUGIN: &str = "remove it: the plugin sets it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_plugin_and_invalid_ones_are_rejected() {
        let configured = [("X-Key", "secret"), ("Host", "a"), ("x y", "b"), ("x-empty", ""), ("x-line", "secret\n")];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut invalid = Vec::new();
        let headers = parse_sent_headers("auth.headers", &configured, &[(HOST, "remove it")], &mut invalid);
        assert!(headers.len() == 1 && headers["x-key"] == "secret" && headers["x-key"].is_sensitive());
        let expected = [
            ("config.auth.headers[Host]", "cannot be set"),
            ("config.auth.headers[x y]", "`x y` is not a valid header name"),
            ("config.auth.headers[x-empty]", "is empty"),
            ("config.auth.headers[x-line]", "is not a valid header value"),
        ];
        let found: Vec<_> = invalid.iter().map(|problem| (&*problem.field, &*problem.message)).collect();
        assert_eq!(found, expected);
    }
}
