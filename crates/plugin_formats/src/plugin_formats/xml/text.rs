//! Names, references and the declared encoding of XML documents.

use std::borrow::Cow;

/// How bytes above 127 are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XmlEncoding {
    Utf8,
    /// An encoding in which every byte is a character, and those below 128 are ASCII.
    SingleByte,
}

impl XmlEncoding {
    /// The encoding of a declaration without `<?xml` and `?>`. `None` if the declaration is invalid, or if the document
    /// may have other characters than the scanner sees.
    pub(crate) fn declared(declaration: &[u8]) -> Option<XmlEncoding> {
        let text = std::str::from_utf8(declaration).ok()?;
        let mut rest = text;
        let mut encoding = XmlEncoding::Utf8;
        for (index, expected) in ["version", "encoding", "standalone"].into_iter().enumerate() {
            let trimmed = rest.trim_ascii_start();
            let Some(after) = trimmed.strip_prefix(expected) else {
                // Only the version is required.
                if index == 0 { return None } else { continue }
            };
            if trimmed.len() == rest.len() {
                return None;
            }
            let value = after.trim_ascii_start().strip_prefix('=')?.trim_ascii_start();
            let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let (value, after) = value[1..].split_once(quote)?;
            rest = after;
            match expected {
                "version" if value != "1.0" && value != "1.1" => return None,
                "encoding" => encoding = XmlEncoding::find(value)?,
                "standalone" if value != "yes" && value != "no" => return None,
                _ => {}
            }
        }
        rest.trim_ascii().is_empty().then_some(encoding)
    }

    fn find(name: &str) -> Option<XmlEncoding> {
        let name = name.to_ascii_lowercase();
        let numbered = |prefix: &str| {
            let number = name.strip_prefix(prefix)?;
            (!number.is_empty() && number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
        };
        match name.as_str() {
            "utf-8" | "us-ascii" => Some(XmlEncoding::Utf8),
            "latin1" => Some(XmlEncoding::SingleByte),
            _ => numbered("iso-8859-").or_else(|| numbered("windows-12")).map(|()| XmlEncoding::SingleByte),
        }
    }
}

/// Whether the bytes are a name. Characters above 127 are not distinguished.
pub fn is_name(name: &[u8]) -> bool {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || byte >= 0x80;
    let continues = |byte: &u8| starts(*byte) || byte.is_ascii_digit() || *byte == b'-' || *byte == b'.';
    name.first().is_some_and(|byte| starts(*byte)) && name.iter().all(continues)
}

/// Checks that all references in a text are those of the five predefined entities, or of characters that XML allows.
/// Returns the position of the first other one.
pub fn check_references(text: &[u8]) -> Result<(), usize> {
    for position in memchr::memchr_iter(b'&', text) {
        let rest = &text[position + 1..];
        // Longer references have leading zeros, which no serializer writes.
        let rest = &rest[..rest.len().min(MAX_REFERENCE)];
        let end = memchr::memchr(b';', rest).ok_or(position)?;
        let is_valid = match &rest[..end] {
            b"amp" | b"lt" | b"gt" | b"apos" | b"quot" => true,
            [b'#', b'x', digits @ ..] => is_character(digits, 16),
            [b'#', digits @ ..] => is_character(digits, 10),
            _ => false,
        };
        if !is_valid {
            return Err(position);
        }
    }
    Ok(())
}

/// The text with the characters that its references stand for. References that `check_references` refuses stay.
pub(crate) fn resolve_references(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'&', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let (mut resolved, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find('&') {
        resolved.push_str(&rest[..start]);
        rest = &rest[start..];
        let reference = rest[1..].split_once(';').and_then(|(name, after)| Some((referenced(name)?, after)));
        match reference {
            Some((character, after)) => {
                resolved.push(character);
                rest = after;
            }
            None => {
                resolved.push('&');
                rest = &rest[1..];
            }
        }
    }
    resolved.push_str(rest);
    Cow::Owned(resolved)
}

fn referenced(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "apos" => '\'',
        "quot" => '"',
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => digits.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

const MAX_REFERENCE: usize = 16;

fn is_character(digits: &[u8], radix: u32) -> bool {
    let is_number = !digits.is_empty() && digits.iter().all(|digit| char::from(*digit).is_digit(radix));
    let code = std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, radix).ok());
    let is_allowed = |code: &u32| match char::from_u32(*code) {
        Some('\t' | '\n' | '\r') => true,
        Some('\u{FFFE}' | '\u{FFFF}') | None => false,
        Some(character) => character >= ' ',
    };
    is_number && code.as_ref().is_some_and(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_name_encodings() {
        for (declaration, expected) in [
            (" version=\"1.0\"", Some(XmlEncoding::Utf8)),
            (" version='1.0' encoding='UTF-8' standalone='yes' ", Some(XmlEncoding::Utf8)),
            (" version=\"1.0\" encoding=\"ISO-8859-15\"", Some(XmlEncoding::SingleByte)),
            (" version=\"1.0\" encoding=\"UTF-16\"", None),
            (" version=\"1.0\" encoding=\"UTF-7\"", None),
            (" version=\"2.0\"", None),
            (" encoding=\"UTF-8\"", None),
            (" version=\"1.0\"encoding=\"UTF-8\"", None),
            (" version=\"1.0\" other=\"1\"", None),
        ] {
            assert_eq!(XmlEncoding::declared(declaration.as_bytes()), expected, "{declaration}");
        }
    }

    #[test]
    fn references_are_checked() {
        for (text, expected) in [
            ("a &amp; b &#65; &#x1F600;", Ok(())),
            ("a &b;", Err(2)),
            ("&amp", Err(0)),
            ("&#0;", Err(0)),
            ("&#xD800;", Err(0)),
            ("&#xFFFF;", Err(0)),
            ("&#;", Err(0)),
            ("&#+65;", Err(0)),
        ] {
            assert_eq!(check_references(text.as_bytes()), expected, "{text}");
        }
    }
}
