//! The value of a cookie, as variables of nginx have it.

use http::HeaderMap;
use http::header::COOKIE;

/// The value of the first cookie with this name, whose letter case does not matter.
pub(super) fn cookie_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers.get_all(COOKIE).iter().find_map(|line| in_line(line.as_bytes(), name.as_bytes()))
}

/// Names end at a comma, too, and values do not. Spaces around the equals sign do not count. A cookie of the name
/// without a value hides the next cookie, because nginx skips the byte after a name that no `=` follows.
fn in_line<'h>(line: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let mut rest = line;
    while !rest.is_empty() {
        if rest.len() >= name.len() && rest[..name.len()].eq_ignore_ascii_case(name) {
            rest = trim_spaces(&rest[name.len()..]);
            if let Some(value) = rest.strip_prefix(b"=") {
                return trim_spaces(value).split(|byte| *byte == b';').next();
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        let end = rest.iter().position(|byte| matches!(byte, b';' | b','));
        rest = end.map_or(&[][..], |end| trim_spaces(&rest[end + 1..]));
    }
    None
}

fn trim_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn values_are_those_of_nginx() {
        for (line, expected) in [
            ("a=1; c=d", Some("d")),
            ("c = d", Some("d")),
            ("c; c=e", None),
            ("c; a=1; c=e", Some("e")),
            ("a=1,c=2", Some("2")),
            ("C=f", Some("f")),
            ("c=", Some("")),
            ("cc=1; c=2", Some("2")),
            ("xc=1", None),
            ("c", None),
            ("", None),
            ("c=1,2;3", Some("1,2")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(line));
            assert_eq!(cookie_value(&headers, "c"), expected.map(str::as_bytes), "{line}");
        }
    }
}
