//! How strongly and how recently a user must have logged in, by the claims `acr`, `amr` and `auth_time` (OpenID Connect
//! Core, section 2), and how clients learn that: by parameters of logins, and by the challenge of RFC 9470.

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::claims::{ClaimSources, boxed, satisfies_any};
use super::super::config::Config;
use crate::diagnostic::Diagnostic;

/// A required level of authentication. A login keeps the level for which it has begun, because the plugin of another
/// route may finish it. The names are short, because the cookie of the login contains them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::plugins::openid_connect) struct AuthenticationLevel {
    /// Classes of which the login must have one. Empty for any.
    #[serde(rename = "a")]
    acr: Box<[Box<str>]>,
    /// Methods of which one alternative must have been used, by all of its words. Empty for any.
    #[serde(rename = "m")]
    amr: Box<[Box<str>]>,
    /// Seconds since the login.
    #[serde(rename = "t")]
    max_age: Option<u32>,
    /// Seconds by which the clocks may differ.
    #[serde(rename = "l")]
    leeway: u32,
}

impl AuthenticationLevel {
    /// The level that a configuration requires. `None` if it requires none.
    pub(in crate::plugins::openid_connect) fn new(config: &Config, invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let mut reject = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        for (index, class) in config.acr_required.iter().enumerate() {
            // The parameter is a list with spaces, and the challenge has it in quotes.
            let is_class = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
            if class.is_empty() || !class.bytes().all(is_class) {
                let message = "is empty, or has a space, a quote, a backslash or a character outside of ASCII";
                reject(&format!("acr_required[{index}]"), message, "use a value that the provider documents for `acr`");
            }
        }
        for (index, methods) in config.amr_required.iter().enumerate() {
            if methods.split_ascii_whitespace().next().is_none() {
                let message = "is empty, so no login could have it";
                reject(
                    &format!("amr_required[{index}]"),
                    message,
                    "use methods such as `pwd otp`, or remove the entry",
                );
            }
        }
        for (field, values) in [("acr_required", &config.acr_required), ("amr_required", &config.amr_required)] {
            if values.iter().map(String::len).sum::<usize>() > MAX_BYTES {
                let message = format!("has more than {MAX_BYTES} bytes, which the cookie of a login contains");
                reject(field, &message, "list fewer values");
            }
        }
        if config.max_age == Some(0) {
            let message = "0 is exceeded when the browser comes back from the login";
            reject("max_age", message, "use a number of seconds, such as 300");
        }
        let names = &config.authorization_query_args_names;
        for (name, field, is_set) in [
            (ACR_VALUES, "acr_required", !config.acr_required.is_empty()),
            (MAX_AGE, "max_age", config.max_age.is_some()),
        ] {
            if let Some(index) = names.iter().position(|other| other == name).filter(|_| is_set) {
                let message = format!("`{name}` is set by `{field}`");
                reject(&format!("authorization_query_args_names[{index}]"), &message, "remove it");
            }
        }
        let level = AuthenticationLevel {
            acr: boxed(&config.acr_required),
            amr: boxed(&config.amr_required),
            max_age: config.max_age,
            leeway: config.leeway,
        };
        let is_any = level.acr.is_empty() && level.amr.is_empty() && level.max_age.is_none();
        (!is_any).then_some(level)
    }

    /// The field of the configuration that the claims do not satisfy. `now`: in seconds since 1970.
    pub(in crate::plugins::openid_connect) fn unmet(&self, claims: &ClaimSources, now: u64) -> Option<&'static str> {
        let claim = |name| claims.claim(name);
        if !self.acr.is_empty() {
            let class = claim("acr").and_then(Value::as_str);
            if !class.is_some_and(|class| self.acr.iter().any(|required| **required == *class)) {
                return Some("acr_required");
            }
        }
        if !self.amr.is_empty() && !claim("amr").is_some_and(|methods| satisfies_any(methods, &self.amr)) {
            return Some("amr_required");
        }
        if let Some(max_age) = self.max_age {
            let since_login = |time: f64| now as f64 - time;
            let limit = f64::from(max_age) + f64::from(self.leeway);
            if !claim("auth_time").and_then(Value::as_f64).is_some_and(|time| since_login(time) <= limit) {
                return Some("max_age");
            }
        }
        None
    }

    /// The parameters of login requests. There is none for methods.
    pub(in crate::plugins::openid_connect) fn parameters(&self) -> Vec<(String, String)> {
        let classes = (!self.acr.is_empty()).then(|| (ACR_VALUES.to_owned(), self.acr.join(" ")));
        let max_age = self.max_age.map(|max_age| (MAX_AGE.to_owned(), max_age.to_string()));
        classes.into_iter().chain(max_age).collect()
    }

    /// The value of `WWW-Authenticate` for clients whose token is not sufficient (RFC 9470, section 3).
    pub(in crate::plugins::openid_connect) fn challenge(&self) -> HeaderValue {
        let mut text = String::from("Bearer error=\"insufficient_user_authentication\"");
        for (name, value) in self.parameters() {
            text += &format!(", {name}=\"{value}\"");
        }
        HeaderValue::try_from(text).expect("classes consist of visible ASCII characters")
    }
}

const ACR_VALUES: &str = "acr_values";
const MAX_AGE: &str = "max_age";
/// How long the values of a field may be together. The cookie of a login also contains two URLs.
const MAX_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn level(config: Value) -> Result<Option<AuthenticationLevel>, Vec<String>> {
        let mut invalid = Vec::new();
        let level = AuthenticationLevel::new(&serde_json::from_value(config).unwrap(), &mut invalid);
        match &*invalid {
            [] => Ok(level),
            _ => Err(invalid.into_iter().map(|diagnostic| diagnostic.field).collect()),
        }
    }

    #[test]
    fn levels_are_compared_with_claims() {
        let acr = json!({"acr_required": ["gold", "silver"]});
        let amr = json!({"amr_required": ["pwd otp", "hwk"]});
        let max_age = json!({"max_age": 300, "leeway": 5});
        for (config, claims, expected) in [
            (&acr, json!({"acr": "silver"}), None),
            (&acr, json!({"acr": "gold silver"}), Some("acr_required")),
            (&acr, json!({"acr": ["gold"]}), Some("acr_required")),
            (&acr, json!({"acr": "Gold"}), Some("acr_required")),
            (&acr, json!({"acr": null}), Some("acr_required")),
            (&acr, json!({}), Some("acr_required")),
            (&amr, json!({"amr": ["otp", "pwd"]}), None),
            (&amr, json!({"amr": ["hwk"]}), None),
            (&amr, json!({"amr": ["pwd"]}), Some("amr_required")),
            (&amr, json!({"amr": {"hwk": true}}), Some("amr_required")),
            (&amr, json!({}), Some("amr_required")),
            (&max_age, json!({"auth_time": 9695}), None),
            (&max_age, json!({"auth_time": 9694}), Some("max_age")),
            // The clock of the provider is ahead.
            (&max_age, json!({"auth_time": 10_001}), None),
            (&max_age, json!({"auth_time": "10000"}), Some("max_age")),
            (&max_age, json!({"iat": 10_000}), Some("max_age")),
        ] {
            let level = level(config.clone()).unwrap().unwrap();
            let sources = ClaimSources(vec![json!({}), claims.clone()].into_iter().map(to_map).collect());
            assert_eq!(level.unmet(&sources, 10_000), expected, "{config} {claims}");
        }
        assert_eq!(level(json!({})).unwrap(), None);
    }

    fn to_map(value: Value) -> serde_json::Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    // RFC 9470, section 3
    #[test]
    fn clients_learn_the_level_by_parameters_and_challenge() {
        let both = level(json!({"acr_required": ["gold", "urn:a:silver"], "max_age": 300})).unwrap().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(both.parameters(), [pair("acr_values", "gold urn:a:silver"), pair("max_age", "300")]);
        let expected =
            r#"Bearer error="insufficient_user_authentication", acr_values="gold urn:a:silver", max_age="300""#;
        assert_eq!(both.challenge(), expected);
        let methods = level(json!({"amr_required": ["otp"]})).unwrap().unwrap();
        assert_eq!(methods.parameters(), []);
        assert_eq!(methods.challenge(), r#"Bearer error="insufficient_user_authentication""#);
        let kept: AuthenticationLevel = serde_json::from_str(&serde_json::to_string(&both).unwrap()).unwrap();
        assert_eq!(kept, both);
    }

    #[test]
    fn levels_that_no_login_can_have_are_rejected() {
        let long = "a".repeat(MAX_BYTES + 1);
        for (config, field) in [
            (json!({"acr_required": [""]}), "acr_required[0]"),
            (json!({"acr_required": ["a", "b c"]}), "acr_required[1]"),
            (json!({"acr_required": ["a\"b"]}), "acr_required[0]"),
            (json!({"acr_required": ["\u{e9}"]}), "acr_required[0]"),
            (json!({"acr_required": [long]}), "acr_required"),
            (json!({"amr_required": [" "]}), "amr_required[0]"),
            (json!({"amr_required": [long]}), "amr_required"),
            (json!({"max_age": 0}), "max_age"),
            (json!({"max_age": 1, "authorization_query_args_names": ["max_age"]}), "authorization_query_args_names[0]"),
            (
                json!({"acr_required": ["a"], "authorization_query_args_names": ["prompt", "acr_values"]}),
                "authorization_query_args_names[1]",
            ),
        ] {
            let fields = level(config.clone()).unwrap_err();
            assert_eq!(fields.len(), 1, "{config}");
            assert!(fields[0].ends_with(field), "{config}: {fields:?}");
        }
        let own = json!({"amr_required": ["otp"], "authorization_query_args_names": ["acr_values", "max_age"]});
        level(own).unwrap();
    }
}
