//! The name and the attributes of a cookie: which requests the browser sends it with.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cookie_prefix::{has_prefix, requires_secure};
use crate::diagnostic::Diagnostic;

/// The attribute `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CookieSameSite {
    /// Only with requests from pages of the same site.
    Strict,
    /// Also when a link on another site is followed.
    Lax,
    /// With all requests, also of pages of other sites. Requires a secure cookie.
    None,
    /// Without the attribute, so the browser decides.
    Default,
}

/// The configured name and attributes of a cookie.
#[derive(Clone, Debug)]
pub struct CookieSettings<'c> {
    pub name: &'c str,
    pub path: &'c str,
    pub domain: Option<&'c str>,
    pub same_site: CookieSameSite,
    pub http_only: bool,
    /// `None`: the cookie is secure if the request is.
    pub secure: Option<bool>,
}

/// A validated name with the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieAttributes {
    pub(super) name: Box<str>,
    /// All attributes except `Secure`, `HttpOnly` and `Max-Age`, each with the `; ` before it.
    text: Box<str>,
    secure: Option<bool>,
    http_only: bool,
}

impl CookieAttributes {
    /// Validates the settings. `prefix` is that of the fields in the configuration, such as `cookie_`, and `name_field`
    /// the field with the name.
    pub fn validate(
        settings: &CookieSettings<'_>,
        name_field: &str,
        prefix: &str,
    ) -> Result<CookieAttributes, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let CookieSettings { name, path, domain, same_site, http_only, secure } = settings;
        let mut reject = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        let field = |name: &str| format!("{prefix}{name}");
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_token_byte) {
            let remedy = "use at most 64 letters, digits, `-`, `_` and `.`";
            reject(name_field, "is not a valid name of a cookie", remedy);
        }
        let is_attribute = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        if !path.starts_with('/') || !is_attribute(path) {
            reject(&field("path"), "is not a valid path of a cookie", "use an absolute path without `;`, such as /");
        }
        if domain.is_some_and(|domain| domain.is_empty() || domain.contains(',') || !is_attribute(domain)) {
            reject(&field("domain"), "is not a valid domain", "use a domain such as shop.example, or remove it");
        }
        if *same_site == CookieSameSite::None && *secure == Some(false) {
            let message = "`None` requires a secure cookie: browsers reject the cookie otherwise";
            reject(&field("same_site"), message, &format!("set `{}` to true", field("secure")));
        }
        let is_host_cookie = has_prefix(name, "__Host-");
        if requires_secure(name, false) && *secure == Some(false) {
            let message = "begins with __Host- or __Secure-, so browsers accept the cookie only if it is secure";
            reject(name_field, message, &format!("set `{}` to true, or use another name", field("secure")));
        }
        if is_host_cookie && (*path != "/" || domain.is_some()) {
            let message =
                "begins with __Host-, so browsers accept the cookie only without a domain and with the path /";
            let remedy = format!("remove `{}` and `{}`, or use another name", field("domain"), field("path"));
            reject(name_field, message, &remedy);
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let mut text = format!("; Path={path}");
        if let Some(domain) = domain {
            write!(text, "; Domain={domain}").expect("writing to a String does not fail");
        }
        text += match same_site {
            CookieSameSite::Strict => "; SameSite=Strict",
            CookieSameSite::Lax => "; SameSite=Lax",
            CookieSameSite::None => "; SameSite=None",
            CookieSameSite::Default => "",
        };
        let is_always_secure = requires_secure(name, *same_site == CookieSameSite::None);
        let secure = secure.or(is_always_secure.then_some(true));
        Ok(CookieAttributes { name: (*name).into(), text: text.into(), secure, http_only: *http_only })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same attributes with another name. The caller has checked that it is valid.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        CookieAttributes { name: name.into(), ..self.clone() }
    }

    /// The value of `Set-Cookie`. `max_age`: in seconds; `None` for a cookie that ends with the browser.
    pub(super) fn set_cookie(&self, name: &str, value: &str, max_age: Option<u64>, is_secure_request: bool) -> String {
        let mut text = format!("{name}={value}{}", self.text);
        if self.secure.unwrap_or(is_secure_request) {
            text += "; Secure";
        }
        if self.http_only {
            text += "; HttpOnly";
        }
        if let Some(max_age) = max_age {
            write!(text, "; Max-Age={max_age}").expect("writing to a String does not fail");
        }
        text
    }
}

/// RFC 9110, section 5.6.2: the bytes of a token.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CookieSettings<'_> = CookieSettings {
        name: "session",
        path: "/",
        domain: None,
        same_site: CookieSameSite::Strict,
        http_only: true,
        secure: Some(true),
    };

    #[test]
    fn attributes_are_written_in_full() {
        let cookie = |settings: CookieSettings<'_>, max_age, is_secure| {
            let attributes = CookieAttributes::validate(&settings, "cookie_name", "cookie_").unwrap();
            attributes.set_cookie(settings.name, "v", max_age, is_secure)
        };
        for (settings, max_age, expected) in [
            (SETTINGS, None, "session=v; Path=/; SameSite=Strict; Secure; HttpOnly"),
            (
                CookieSettings { path: "/a", domain: Some("a.example"), same_site: CookieSameSite::Lax, ..SETTINGS },
                Some(5),
                "session=v; Path=/a; Domain=a.example; SameSite=Lax; Secure; HttpOnly; Max-Age=5",
            ),
            (
                CookieSettings { same_site: CookieSameSite::None, http_only: false, ..SETTINGS },
                None,
                "session=v; Path=/; SameSite=None; Secure",
            ),
            (
                CookieSettings { same_site: CookieSameSite::Default, secure: Some(false), ..SETTINGS },
                Some(0),
                "session=v; Path=/; HttpOnly; Max-Age=0",
            ),
        ] {
            assert_eq!(cookie(settings, max_age, true), expected);
        }
        let by_request = CookieSettings { secure: None, ..SETTINGS };
        assert!(cookie(by_request.clone(), None, true).ends_with("; Secure; HttpOnly"));
        assert!(!cookie(by_request, None, false).contains("; Secure"));
    }

    #[test]
    fn settings_that_browsers_reject_are_refused() {
        let cases = [
            (CookieSettings { name: "a b", ..SETTINGS }, "config.cookie_name"),
            (CookieSettings { name: "", ..SETTINGS }, "config.cookie_name"),
            (CookieSettings { path: "a", ..SETTINGS }, "config.cookie_path"),
            (CookieSettings { path: "/;x", ..SETTINGS }, "config.cookie_path"),
            (CookieSettings { domain: Some("a; b"), ..SETTINGS }, "config.cookie_domain"),
            (
                CookieSettings { same_site: CookieSameSite::None, secure: Some(false), ..SETTINGS },
                "config.cookie_same_site",
            ),
            (CookieSettings { name: "__Secure-s", secure: Some(false), ..SETTINGS }, "config.cookie_name"),
            (CookieSettings { name: "__Host-s", domain: Some("a.example"), ..SETTINGS }, "config.cookie_name"),
            (CookieSettings { name: "__host-s", path: "/a", ..SETTINGS }, "config.cookie_name"),
        ];
        for (settings, field) in cases {
            let invalid = CookieAttributes::validate(&settings, "cookie_name", "cookie_").unwrap_err();
            assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{settings:?}");
        }
        let host = CookieSettings { name: "__Host-s", ..SETTINGS };
        assert!(CookieAttributes::validate(&host, "cookie_name", "cookie_").is_ok());
    }
}
