//! A cookie that responses set.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::cookie_prefix::requires_secure;

/// A cookie that responses set: all of it but its value. As JSON, what hashes and sessions say of it alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetCookie {
    #[serde(skip)]
    pub name: Box<str>,
    pub path: Box<str>,
    #[serde(skip)]
    pub max_age: Option<Duration>,
    pub same_site: SameSite,
    /// What follows all values in `Set-Cookie`, except `Secure`: `; Path=/; HttpOnly; SameSite=Strict`.
    #[serde(skip)]
    pub attributes: Box<str>,
    /// Whether clients keep the cookie only with `Secure`.
    #[serde(skip)]
    requires_secure: bool,
    /// Whether clients that do not support `SameSite=None` get the cookie without it.
    #[serde(skip)]
    is_conditional: bool,
}

/// The attribute `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}

impl SetCookie {
    /// A cookie that scripts cannot read. Without `max_age`, clients forget it when they close; a shorter time than a
    /// second is a second, because zero would remove the cookie.
    pub fn new(name: &str, path: &str, max_age: Option<Duration>, same_site: SameSite) -> Self {
        let mut attributes = format!("; Path={path}");
        if let Some(max_age) = max_age {
            write!(attributes, "; Max-Age={}", max_age.as_secs().max(1)).expect("writing to a string cannot fail");
        }
        attributes.push_str(match same_site {
            SameSite::Strict => "; HttpOnly; SameSite=Strict",
            SameSite::Lax => "; HttpOnly; SameSite=Lax",
            SameSite::None => "; HttpOnly; SameSite=None",
        });
        let requires_secure = requires_secure(name, same_site == SameSite::None);
        let attributes = attributes.into();
        let (name, path) = (name.into(), path.into());
        SetCookie { name, path, max_age, same_site, attributes, requires_secure, is_conditional: false }
    }

    /// With what follows all values in place of the usual attributes, and whether `Secure` follows them always.
    #[must_use]
    pub fn with_attributes(self, attributes: String, is_always_secure: bool) -> Self {
        SetCookie { attributes: attributes.into(), requires_secure: is_always_secure, ..self }
    }

    /// Whether clients that do not support `SameSite=None` get the cookie without it. The attributes have to end with
    /// it.
    #[must_use]
    pub fn with_conditional_same_site(self, is_conditional: bool) -> Self {
        SetCookie { is_conditional, ..self }
    }

    pub fn has_conditional_same_site(&self) -> bool {
        self.is_conditional
    }

    /// The cookie for clients that do not support `SameSite=None`.
    #[must_use]
    pub fn without_same_site_none(&self) -> Self {
        let attributes = self.attributes.strip_suffix(SAME_SITE_NONE).unwrap_or(&self.attributes);
        SetCookie { attributes: attributes.into(), ..self.clone() }
    }

    /// The field of a response for this value. `max_age`: for how many seconds clients keep it, if values have times of
    /// their own. `is_secure`: the client uses TLS.
    pub fn with_value(&self, value: impl fmt::Display, max_age: Option<u64>, is_secure: bool) -> String {
        let SetCookie { name, attributes, .. } = self;
        let mut field = format!("{name}={value}{attributes}");
        if let Some(seconds) = max_age {
            write!(field, "; Max-Age={seconds}").expect("writing to a string cannot fail");
        }
        if is_secure || self.requires_secure {
            field.push_str("; Secure");
        }
        field
    }
}

const SAME_SITE_NONE: &str = "; SameSite=None";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_have_the_configured_attributes() {
        let second = Duration::from_secs(1);
        for (max_age, same_site, is_secure, expected) in [
            (None, SameSite::Lax, false, "c=1; Path=/a; HttpOnly; SameSite=Lax"),
            (Some(60 * second), SameSite::Strict, true, "c=1; Path=/a; Max-Age=60; HttpOnly; SameSite=Strict; Secure"),
            (Some(second / 2), SameSite::None, true, "c=1; Path=/a; Max-Age=1; HttpOnly; SameSite=None; Secure"),
        ] {
            assert_eq!(SetCookie::new("c", "/a", max_age, same_site).with_value(1, None, is_secure), expected);
        }
        for (name, same_site, is_secure) in [
            ("c", SameSite::Lax, false),
            ("c", SameSite::None, true),
            ("__Host-c", SameSite::Strict, true),
            ("__secure-c", SameSite::Lax, true),
            ("__Hostess", SameSite::Lax, false),
        ] {
            let field = SetCookie::new(name, "/", None, same_site).with_value(1, None, false);
            assert_eq!(field.ends_with("; Secure"), is_secure, "browsers keep it only so: {field}");
        }
        let cookie = SetCookie::new("c", "/", None, SameSite::None);
        assert_eq!(cookie.without_same_site_none().with_value(1, None, true), "c=1; Path=/; HttpOnly; Secure");
        let cookie = SetCookie::new("c", "/", None, SameSite::Strict);
        assert_eq!(cookie.without_same_site_none(), cookie);
        assert_eq!(cookie.with_value("v", Some(9), true), "c=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=9; Secure");
    }
}
