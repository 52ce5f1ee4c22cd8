//! Reads and edits the attributes of a `Set-Cookie` field in the way of nginx: `sid=1; Path=/; Secure`.

use std::borrow::Cow;

/// The attributes of a cookie. The first one is the cookie itself.
pub(super) struct CookieFieldParts<'v>(Vec<CookieAttribute<'v>>);

pub(super) struct CookieAttribute<'v> {
    pub(super) name: Cow<'v, [u8]>,
    /// `None` without an equals sign.
    pub(super) value: Option<Cow<'v, [u8]>>,
}

/// The flags that a cookie gets or loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CookieFlags {
    secure: Option<bool>,
    http_only: Option<bool>,
    same_site: Option<WantedSameSite>,
}

/// The first one counts if a text has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WantedSameSite {
    Strict,
    Lax,
    None,
    Removed,
}

impl WantedSameSite {
    fn value(self) -> Option<&'static str> {
        match self {
            WantedSameSite::Strict => Some("Strict"),
            WantedSameSite::Lax => Some("Lax"),
            WantedSameSite::None => Some("None"),
            WantedSameSite::Removed => None,
        }
    }
}

impl CookieFlags {
    /// Adds a flag as `proxy_cookie_flags` has it, in any case. Returns false if there is no such flag.
    pub(super) fn add(&mut self, flag: &str) -> bool {
        let same_site = match &flag.to_ascii_lowercase()[..] {
            "secure" => return set(&mut self.secure, true),
            "nosecure" => return set(&mut self.secure, false),
            "httponly" => return set(&mut self.http_only, true),
            "nohttponly" => return set(&mut self.http_only, false),
            "samesite=strict" => WantedSameSite::Strict,
            "samesite=lax" => WantedSameSite::Lax,
            "samesite=none" => WantedSameSite::None,
            "nosamesite" => WantedSameSite::Removed,
            _ => return false,
        };
        self.same_site = Some(self.same_site.map_or(same_site, |known| known.min(same_site)));
        true
    }

    pub(super) fn is_empty(self) -> bool {
        self == CookieFlags::default()
    }
}

/// One that is both set and removed is set.
fn set(flag: &mut Option<bool>, is_on: bool) -> bool {
    *flag = Some(is_on || *flag == Some(true));
    true
}

impl<'v> CookieFieldParts<'v> {
    /// `None` if the field has no cookie with an equals sign, which nginx leaves alone.
    pub(super) fn parse(field: &'v [u8]) -> Option<Self> {
        let attribute = |text: &'v [u8]| {
            let mut parts = text.splitn(2, |byte| *byte == b'=');
            let name = trim_spaces(parts.next().unwrap_or_default());
            CookieAttribute { name: name.into(), value: parts.next().map(|value| trim_spaces(value).into()) }
        };
        let attributes: Vec<_> = field.split(|byte| *byte == b';').map(attribute).collect();
        attributes.first()?.value.as_ref()?;
        Some(CookieFieldParts(attributes))
    }

    /// The name of the cookie.
    pub(super) fn cookie_name(&self) -> &[u8] {
        self.0.first().map_or(&[], |cookie| &cookie.name)
    }

    /// What follows the name and the value of the cookie, which are the first one.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut CookieAttribute<'v>> {
        self.0.iter_mut().skip(1)
    }

    /// Sets and removes flags. Of several with the same name, the first one is the one that is set.
    pub(super) fn set_flags(&mut self, flags: CookieFlags) {
        self.set_flag("Secure", flags.secure);
        self.set_flag("HttpOnly", flags.http_only);
        match flags.same_site.map(WantedSameSite::value) {
            None => {}
            Some(None) => self.remove("SameSite"),
            Some(Some(wanted)) => {
                let known = self.iter_mut().find(|attribute| attribute.is_named("SameSite"));
                let is_wanted = |value: &Cow<'_, [u8]>| value.eq_ignore_ascii_case(wanted.as_bytes());
                let attribute = || CookieAttribute {
                    name: Cow::Borrowed(b"SameSite"),
                    value: Some(Cow::Borrowed(wanted.as_bytes())),
                };
                match known {
                    Some(known) if known.value.as_ref().is_some_and(is_wanted) => {}
                    Some(known) => *known = attribute(),
                    None => self.0.push(attribute()),
                }
            }
        }
    }

    fn set_flag(&mut self, name: &'static str, is_on: Option<bool>) {
        match is_on {
            None => {}
            Some(false) => self.remove(name),
            Some(true) if self.iter_mut().any(|attribute| attribute.is_named(name)) => {}
            Some(true) => self.0.push(CookieAttribute { name: Cow::Borrowed(name.as_bytes()), value: None }),
        }
    }

    fn remove(&mut self, name: &str) {
        let mut is_cookie = true;
        self.0.retain(|attribute| std::mem::take(&mut is_cookie) || !attribute.is_named(name));
    }

    pub(super) fn to_field(&self) -> Vec<u8> {
        let mut field = Vec::new();
        for (index, CookieAttribute { name, value }) in self.0.iter().enumerate() {
            if index > 0 {
                field.extend_from_slice(b"; ");
            }
            field.extend_from_slice(name);
            if let Some(value) = value {
                field.push(b'=');
                field.extend_from_slice(value);
            }
        }
        field
    }
}

impl CookieAttribute<'_> {
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b" ") {
        text = rest;
    }
    while let Some(rest) = text.strip_suffix(b" ") {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_by_nginx() {
        for (field, expected) in [
            ("a=b", Some("a=b")),
            ("a = b ;Path=/;;", Some("a=b; Path=/; ; ")),
            ("=b;  PATH = /x", Some("=b; PATH=/x")),
            ("a=b=c; Expires=Thu, 01 Jan 1970", Some("a=b=c; Expires=Thu, 01 Jan 1970")),
            ("a; Path=/", None),
            ("", None),
        ] {
            let written = CookieFieldParts::parse(field.as_bytes()).map(|attributes| attributes.to_field());
            assert_eq!(written, expected.map(|field| field.as_bytes().to_vec()), "{field}");
        }
    }

    #[test]
    fn flags_are_set_and_removed() {
        for (flags, field, expected) in [
            (&["secure", "HTTPOnly", "samesite=none"][..], "a=1", "a=1; Secure; HttpOnly; SameSite=None"),
            (&["secure", "httponly"], "a=1;secure; HttpOnly=1", "a=1; secure; HttpOnly=1"),
            (&["samesite=strict"], "a=1; samesite=STRICT", "a=1; samesite=STRICT"),
            (&["samesite=strict"], "a=1; samesite", "a=1; SameSite=Strict"),
            (&["samesite=none"], "a=1; SameSite=Lax; SameSite=Lax", "a=1; SameSite=None; SameSite=Lax"),
            (&["nosecure", "nohttponly", "nosamesite"], "a=1;Secure;Path=/;SameSite=Lax;HttpOnly", "a=1; Path=/"),
            (&["nosecure"], "secure=1; Secure", "secure=1"),
            (&["secure", "nosecure", "samesite=lax", "nosamesite"], "a=1", "a=1; Secure; SameSite=Lax"),
        ] {
            let mut wanted = CookieFlags::default();
            assert!(flags.iter().all(|flag| wanted.add(flag)), "{flags:?}");
            let mut attributes = CookieFieldParts::parse(field.as_bytes()).unwrap();
            attributes.set_flags(wanted);
            assert_eq!(String::from_utf8(attributes.to_field()).unwrap(), expected, "{flags:?} {field}");
        }
        assert!(!CookieFlags::default().add("partitioned"));
    }
}
