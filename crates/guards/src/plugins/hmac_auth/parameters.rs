//! The parameters of a signature in `Authorization`: username, algorithm, signed headers and the signature itself.

use crate::plugin_api::login::strip_scheme;

/// The scheme of the header.
const HMAC_SCHEME: &str = "hmac";

/// The parameters, in whatever order the client has written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignatureParameters<'h> {
    pub(super) username: &'h str,
    pub(super) algorithm: &'h str,
    /// Names of headers, separated by spaces.
    headers: &'h str,
    /// In base64.
    pub(super) signature: &'h str,
}

/// The most headers that a client may sign.
const MAX_HEADERS: usize = 128;

impl<'h> SignatureParameters<'h> {
    /// Parses the value of the header. `None` if the scheme is another one, if a parameter is missing or present twice,
    /// or if the list of headers is too long or names a header twice. A header that is named very often would take the
    /// time of as many headers.
    pub(super) fn parse(value: &'h [u8]) -> Option<Self> {
        let mut rest = std::str::from_utf8(strip_hmac_scheme(value)?).ok()?;
        let mut found = [None; 4];
        loop {
            let (name, value, after) = parse_parameter(rest)?;
            if let Some(index) = ["username", "algorithm", "headers", "signature"].iter().position(|own| *own == name) {
                let is_repeated = found[index].replace(value).is_some();
                if is_repeated {
                    return None;
                }
            }
            match after.trim_start_matches(WHITESPACE) {
                "" => break,
                after => rest = after.strip_prefix(',')?,
            }
        }
        let [Some(username), Some(algorithm), Some(headers), Some(signature)] = found else { return None };
        let parameters = SignatureParameters { username, algorithm, headers, signature };
        parameters.has_valid_headers().then_some(parameters)
    }

    /// The names of the signed headers, in order.
    pub(super) fn headers(&self) -> impl Iterator<Item = &'h str> {
        self.headers.split(' ').filter(|name| !name.is_empty())
    }

    /// Whether the client has signed this header. `name` is in lower case.
    pub(super) fn signs(&self, name: &str) -> bool {
        self.headers().any(|signed| signed.eq_ignore_ascii_case(name))
    }

    fn has_valid_headers(&self) -> bool {
        let count = self.headers().take(MAX_HEADERS + 1).count();
        let is_first = |(index, name): (usize, &str)| {
            !self.headers().take(index).any(|earlier| earlier.eq_ignore_ascii_case(name))
        };
        (1..=MAX_HEADERS).contains(&count) && self.headers().enumerate().all(is_first)
    }
}

/// What follows the scheme. A quotation mark may precede it, as some clients of Kong write one.
pub(super) fn strip_hmac_scheme(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    strip_scheme(value.strip_prefix(b"\"").unwrap_or(value), HMAC_SCHEME)
}

const WHITESPACE: [char; 2] = [' ', '\t'];

/// The name and the value of the first parameter, and what follows. A value has no escapes, as in Kong: a backslash is
/// part of it, for usernames of Windows domains.
fn parse_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    let (value, rest) = rest.trim_start_matches(WHITESPACE).strip_prefix('"')?.split_once('"')?;
    let name = name.trim_matches(WHITESPACE);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token) && !value.is_empty()).then_some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // docs/kong-compatibility.md, 4.13
    #[test]
    fn parameters_have_any_order_and_no_duplicates() {
        let expected = SignatureParameters { username: "u", algorithm: "a", headers: "date host", signature: "s=" };
        let valid = [
            r#"hmac username="u", algorithm="a", headers="date host", signature="s=""#,
            r#"HMAC   signature="s=",headers="date host"	,  algorithm = "a",username="u""#,
            r#"Hmac username="u", algorithm="a", headers="date host", signature="s=", version="1""#,
            r#""hmac username="u", algorithm="a", headers="date host", signature="s=""#,
        ];
        for text in valid {
            assert_eq!(SignatureParameters::parse(text.as_bytes()), Some(expected), "{text}");
        }
        let invalid = [
            "",
            "hmac",
            "hmac ",
            "hmacusername",
            r#"Bearer username="u", algorithm="a", headers="date", signature="s""#,
            r#"hmac algorithm="a", headers="date", signature="s""#,
            r#"hmac username="u", headers="date", signature="s""#,
            r#"hmac username="u", algorithm="a", signature="s""#,
            r#"hmac username="u", algorithm="a", headers="date""#,
            r#"hmac username="", algorithm="a", headers="date", signature="s""#,
            r#"hmac username="u", username="v", algorithm="a", headers="date", signature="s""#,
            r#"hmac username="u", algorithm="a", headers="date", signature="s", signature="s""#,
            r#"hmac username=u, algorithm="a", headers="date", signature="s""#,
            r#"hmac username="u" algorithm="a", headers="date", signature="s""#,
            r#"hmac username="u", algorithm="a", headers="date", signature="s"#,
            r#"hmac username="u", algorithm="a", headers="date", signature="s","#,
            r#"hmac username="u", algorithm="a", headers=" ", signature="s""#,
            r#"hmac username="u", algorithm="a", headers="date host Date", signature="s""#,
            r#"""hmac username="u", algorithm="a", headers="date host", signature="s=""#,
        ];
        for text in invalid {
            assert_eq!(SignatureParameters::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_number_of_signed_headers_is_limited() {
        for (count, is_accepted) in [(128, true), (129, false), (20_000, false)] {
            let names = (0..count).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(" ");
            let text = format!(r#"hmac username="u", algorithm="a", headers="{names}", signature="s""#);
            assert_eq!(SignatureParameters::parse(text.as_bytes()).is_some(), is_accepted, "{count}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            fragments in proptest::collection::vec(prop_oneof![
                Just("hmac "), Just("username"), Just("="), Just("\""), Just(", "), Just("headers=\"a b\""), Just("ä"),
            ], 0..20),
        ) {
            let text = format!("hmac {}", fragments.concat());
            for bytes in [&bytes, text.as_bytes()] {
                if let Some(parameters) = SignatureParameters::parse(bytes) {
                    prop_assert!(parameters.headers().count() > 0);
                }
            }
        }
    }
}
