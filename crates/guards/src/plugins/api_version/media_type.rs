//! The parameters of media types in `Accept` (RFC 9110, 12.5.1).

use std::borrow::Cow;

/// The values of a parameter in a list of media types. Quoted values are decoded.
pub(super) fn parameter_values<'a>(list: &'a [u8], name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    split(list, b',').flat_map(|range| split(range, b';').skip(1)).filter_map(move |parameter| {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| unquote(value))
    })
}

/// The parts between delimiters that are not within quotes.
fn split(text: &[u8], delimiter: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |byte| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match byte {
            _ if was_escaped => false,
            b'\\' => {
                is_escaped = is_quoted;
                false
            }
            b'"' => {
                is_quoted = !is_quoted;
                false
            }
            _ => *byte == delimiter && !is_quoted,
        }
    })
}

fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(quoted) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    if !quoted.contains(&b'\\') {
        return Cow::Borrowed(quoted);
    }
    let mut bytes = quoted.iter().copied();
    let mut unescaped = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next() {
        unescaped.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    Cow::Owned(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_outside_of_quotes() {
        for (list, expected) in [
            ("", &[][..]),
            ("version=1", &[]),
            ("application/json", &[]),
            ("application/json;version=2", &["2"]),
            ("application/json ; Version = 2 ; q=0.5, */*", &["2"]),
            ("a/b;version=1, a/c;version=2", &["1", "2"]),
            ("a/b;x=\"; version=3, c\";version=\"4\"", &["4"]),
            ("a/b;x=\"\\\";version=3\";version=\"\\5\"", &["5"]),
            ("a/b;version", &[]),
            ("a/b;version=", &[""]),
            ("a/b;version=\"", &["\""]),
        ] {
            let values: Vec<_> = parameter_values(list.as_bytes(), "version").collect();
            let expected: Vec<&[u8]> = expected.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(values, expected, "{list}");
        }
    }
}
