//! The members of header fields in which clients weight what they accept, such as `Accept` and `Accept-Encoding`
//! (RFC 9110, section 12.4.2).

use http::HeaderValue;

/// The members of a field with these lines, each in lowercase with its weight in thousandths. Members that are not
/// valid are left out, and so are those after the first 64. Parameters other than `q` are ignored.
pub fn weighted_members<'h>(lines: impl IntoIterator<Item = &'h HeaderValue>) -> Vec<(String, u16)> {
    let lines = lines.into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).take(MAX_MEMBERS).filter_map(weighted_member).collect()
}

fn weighted_member(member: &str) -> Option<(String, u16)> {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().filter(|name| is_name(name))?.to_ascii_lowercase();
    let mut weight = 1000;
    for parameter in parts {
        let (key, value) = parameter.split_once('=')?;
        if key.trim_end().eq_ignore_ascii_case("q") {
            weight = parse_weight(value.trim_start())?;
            break;
        }
    }
    Some((name, weight))
}

/// Whether this is a token, or two with a slash between them.
fn is_name(name: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    name.split_once('/').map_or_else(|| is_token(name), |(first, second)| is_token(first) && is_token(second))
}

/// A weight such as `0.25` in thousandths.
fn parse_weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Clients send less than twenty members.
const MAX_MEMBERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn members(value: &str) -> Vec<(String, u16)> {
        weighted_members([&HeaderValue::from_str(value).unwrap()])
    }

    // RFC 9110, section 12.4.2
    #[test]
    fn members_have_weights() {
        for (value, expected) in [
            ("gzip", &[("gzip", 1000)][..]),
            ("GZIP;q=0.5, br ; Q = 1.000,*;q=0", &[("gzip", 500), ("br", 1000), ("*", 0)]),
            ("text/html;level=1;q=0.25, */*;q=0.001", &[("text/html", 250), ("*/*", 1)]),
            ("", &[]),
            (",,;q=1,", &[]),
            ("gzip;q=2, br;q=1.001, zstd;q=0.1234, a;q=, b;q=-1, c;q=1e0, d;q=NaN, e;x, f;q=0.5", &[("f", 500)]),
            ("a b, \"gzip\", gzip", &[("gzip", 1000)]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
            assert_eq!(members(value), expected, "{value}");
        }
    }

    #[test]
    fn members_beyond_the_limit_are_ignored() {
        assert_eq!(members(&"a,".repeat(1000)).len(), MAX_MEMBERS);
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in "[ -~]{0,80}") {
            for (_, weight) in members(&value) {
                proptest::prop_assert!(weight <= 1000);
            }
        }
    }
}
