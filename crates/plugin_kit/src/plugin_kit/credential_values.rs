//! The credentials of one request, to find copies of them in what functions and expressions add to its log object.

use http::header::COOKIE;
use serde_json::Value;

use crate::plugin_api::completed_request::{CredentialLocations, LoggedHeads, REDACTED};
use crate::plugin_api::fields::UrlEncodedForm;

/// The values, the longest first, so that one that contains another is replaced as a whole.
pub(super) struct CredentialValues(Vec<String>);

impl CredentialValues {
    /// The values at these locations of a request.
    pub(super) fn of_request(heads: &LoggedHeads, locations: &CredentialLocations) -> Self {
        let mut values = Vec::new();
        for (name, value) in &heads.request {
            let text = String::from_utf8_lossy(value.as_bytes());
            if locations.has_header(name) {
                // Functions often remove a scheme such as `Bearer`.
                values.extend(text.split_once(' ').map(|(_scheme, credential)| credential.trim().to_owned()));
                values.push(text.into_owned());
            } else if *name == COOKIE {
                let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
                let credentials = pairs.filter(|(name, _)| locations.has_cookie(name.trim()));
                values.extend(credentials.map(|(_, value)| value.trim().to_owned()));
            }
        }
        let query = heads.target.query().unwrap_or_default();
        for (raw, pair) in query.split('&').zip(UrlEncodedForm(query.as_bytes()).pairs()) {
            if locations.has_parameter(&pair.name()) {
                values.extend(raw.split_once('=').map(|(_, value)| value.to_owned()));
                values.extend(pair.value().map(|value| String::from_utf8_lossy(&value).into_owned()));
            }
        }
        values.retain(|value| !value.is_empty());
        values.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        CredentialValues(values)
    }

    /// A value of a log object without copies of the credentials.
    pub(super) fn redact(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact_text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.redact(item)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, self.redact(value))).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    fn redact_text(&self, text: String) -> String {
        self.0.iter().fold(text, |text, credential| {
            if text == *credential {
                REDACTED.to_owned()
            } else if credential.len() >= MIN_PART && text.contains(credential) {
                text.replace(credential, REDACTED)
            } else {
                text
            }
        })
    }
}

/// Shorter credentials are only found if a text is nothing else: as parts, they would make other texts unreadable.
const MIN_PART: usize = 4;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
    use serde_json::json;

    use super::*;
    use crate::plugin_api::Scheme;

    fn values(fields: &[(&'static str, &'static str)], target: &'static str) -> CredentialValues {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let heads = LoggedHeads {
            method: Method::GET,
            target: Uri::from_static(target),
            version: Version::HTTP_11,
            client: [192, 0, 2, 1].into(),
            scheme: Scheme::Http,
            host: HeaderValue::from_static("a.example"),
            port: 80,
            request: fields.iter().map(field).collect(),
            response: HeaderMap::new(),
            upstream_target: None,
        };
        let locations = CredentialLocations {
            headers: vec![HeaderName::from_static("x-key")],
            parameters: vec!["apikey".into()],
            cookies: vec!["session".into()],
            masks: Vec::new(),
        };
        CredentialValues::of_request(&heads, &locations)
    }

    #[test]
    fn copies_of_credentials_are_replaced() {
        let fields = [
            ("authorization", "Bearer secret-token"),
            ("x-key", "key-of-client"),
            ("x-other", "tenant-name"),
            ("cookie", "theme=dark-mode; Session=cookie-value"),
        ];
        let values = values(&fields, "/?apikey=a%2Fb%2Fc%2Fd&page=first");
        for (value, expected) in [
            (json!("Bearer secret-token"), json!("REDACTED")),
            (json!("secret-token"), json!("REDACTED")),
            (json!("token: secret-token, key: key-of-client"), json!("token: REDACTED, key: REDACTED")),
            (json!("theme=dark-mode; Session=cookie-value"), json!("theme=dark-mode; Session=REDACTED")),
            (json!(["a/b/c/d", "x=a%2Fb%2Fc%2Fd"]), json!(["REDACTED", "x=REDACTED"])),
            (json!({"key": {"inner": "key-of-client"}, "n": 1}), json!({"key": {"inner": "REDACTED"}, "n": 1})),
            (json!("tenant-name dark-mode first"), json!("tenant-name dark-mode first")),
        ] {
            assert_eq!(values.redact(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn short_credentials_are_replaced_as_a_whole() {
        let values = values(&[("x-key", "abc"), ("authorization", "")], "/?apikey=&apikey");
        assert_eq!(values.redact(json!(["abc", "abcd", ""])), json!(["REDACTED", "abcd", ""]));
    }

    #[test]
    fn longer_credential_is_replaced_first() {
        let values = values(&[("x-key", "secret"), ("authorization", "secret-and-more")], "/");
        assert_eq!(values.redact(json!("a secret-and-more")), json!("a REDACTED"));
    }
}
