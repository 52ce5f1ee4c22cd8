//! The texts that a client may have meant: its bytes, and the same bytes without escapes.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Calls a function with a text and with its decoded forms, until it returns true. Attacks are often escaped, and some
/// servers decode twice.
pub(super) fn any_form(text: &[u8], plus_is_space: bool, mut check: impl FnMut(&[u8]) -> bool) -> bool {
    if check(text) {
        return true;
    }
    let once = decode(text, plus_is_space);
    if let Cow::Owned(once) = &once {
        if check(once) {
            return true;
        }
        if let Cow::Owned(twice) = decode(once, plus_is_space) {
            return check(&twice);
        }
    }
    false
}

fn decode(text: &[u8], plus_is_space: bool) -> Cow<'_, [u8]> {
    let has_plus = plus_is_space && memchr::memchr(b'+', text).is_some();
    if !has_plus && memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    if !has_plus {
        return match percent_decode(text).into() {
            Cow::Owned(decoded) => Cow::Owned(decoded),
            Cow::Borrowed(_) => Cow::Borrowed(text),
        };
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// A body of JSON without the escapes of strings: `\u003cscript` is `<script`. `None` without escapes.
pub(super) fn without_json_escapes(body: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', body)?;
    let mut text = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else { break };
        rest = after;
        match escape {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' | b'f' => text.push(b' '),
            b'u' => {
                let digits = rest.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                rest = rest.get(4..).unwrap_or_default();
                // Halves of surrogates are no characters of attacks.
                let character = code.and_then(char::from_u32).unwrap_or(' ');
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => text.push(*other),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_twice() {
        for (text, plus_is_space, expected) in [
            ("a", false, vec!["a"]),
            ("a+b", false, vec!["a+b"]),
            ("a+b", true, vec!["a+b", "a b"]),
            ("%27", false, vec!["%27", "'"]),
            ("%2527", false, vec!["%2527", "%27", "'"]),
            ("%zz", false, vec!["%zz"]),
        ] {
            let mut forms = Vec::new();
            any_form(text.as_bytes(), plus_is_space, |form| {
                forms.push(String::from_utf8(form.to_vec()).unwrap());
                false
            });
            assert_eq!(forms, expected, "{text}");
        }
        assert_eq!(without_json_escapes(br#""\u003cscript\/\n\ud83d""#).unwrap(), b"\"<script/\n \"");
        assert_eq!(without_json_escapes(b"{}"), None);
        assert_eq!(without_json_escapes(b"\\u00").unwrap(), b" ");
    }
}
