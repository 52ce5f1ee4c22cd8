//! Finds parameters in texts that repeat a query, such as `Referer`, or a parameter with the URL of the next page. The
//! repeated query may be encoded, once or more often.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The text with the values of parameters replaced whose decoded names are wanted. `None` if there are none.
pub(super) fn replace_values(text: &str, is_wanted: impl Fn(&[u8]) -> bool, replacement: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut replaced = String::new();
    // Where the current name begins, and what is already copied.
    let (mut name_start, mut copied, mut position) = (0, 0, 0);
    while position < bytes.len() {
        let Some(delimiter) = Delimiter::at(bytes, position) else {
            position += 1;
            continue;
        };
        let name = &bytes[name_start..position];
        position += delimiter.length;
        if delimiter.byte == b'=' && is_wanted_name(name, delimiter.encodings, &is_wanted) {
            replaced.push_str(&text[copied..position]);
            replaced.push_str(replacement);
            position = value_end(bytes, position, delimiter.encodings);
            copied = position;
        }
        name_start = position;
    }
    if copied == 0 {
        return None;
    }
    replaced.push_str(&text[copied..]);
    Some(replaced)
}

/// A byte that ends a name or a value.
struct Delimiter {
    byte: u8,
    /// How often it is percent-encoded.
    encodings: usize,
    length: usize,
}

impl Delimiter {
    fn at(text: &[u8], position: usize) -> Option<Self> {
        let rest = &text[position..];
        let byte = rest[0];
        if byte != b'%' {
            let is_delimiter = b"?&#=;,<>\"'".contains(&byte) || byte.is_ascii_whitespace();
            return is_delimiter.then_some(Delimiter { byte, encodings: 0, length: 1 });
        }
        // `%25` is an encoded percent sign.
        let repeated = rest[1..].chunks_exact(2).take_while(|pair| *pair == b"25").count();
        let length = 1 + 2 * repeated + 2;
        let byte = match rest.get(length - 2..length)?.to_ascii_uppercase()[..] {
            [b'3', b'F'] => b'?',
            [b'2', b'6'] => b'&',
            [b'2', b'3'] => b'#',
            [b'3', b'D'] => b'=',
            [b'3', b'B'] => b';',
            _ => return None,
        };
        Some(Delimiter { byte, encodings: repeated + 1, length })
    }

    /// Whether it ends the value of a parameter whose `=` is encoded so often.
    fn ends_value(&self, encodings: usize) -> bool {
        match self.encodings {
            0 => b"&#<>\"".contains(&self.byte) || self.byte.is_ascii_whitespace(),
            // More often encoded ones belong to the value.
            own => own <= encodings && matches!(self.byte, b'&' | b'#'),
        }
    }
}

fn value_end(text: &[u8], start: usize, encodings: usize) -> usize {
    let ends =
        |position: &usize| Delimiter::at(text, *position).is_some_and(|delimiter| delimiter.ends_value(encodings));
    (start..text.len()).find(ends).unwrap_or(text.len())
}

/// Whether a name is wanted, in one of its decoded forms.
fn is_wanted_name(name: &[u8], encodings: usize, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut name = Cow::Borrowed(name);
    for _ in 0..=encodings.min(MAX_ENCODINGS) {
        if is_wanted(&name) {
            return true;
        }
        if !name.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            return false;
        }
        let with_spaces: Vec<u8> = name.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        name = Cow::Owned(percent_decode(&with_spaces).collect());
    }
    is_wanted(&name)
}

/// How often a name is decoded at most.
const MAX_ENCODINGS: usize = 4;
