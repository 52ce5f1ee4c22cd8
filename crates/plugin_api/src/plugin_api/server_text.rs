//! Texts of servers, which messages and logs contain only up to a limit.

use std::borrow::Cow;

/// The text, without what is beyond 512 bytes.
pub fn shorten(text: &str) -> Cow<'_, str> {
    shorten_to(text, MAX_BYTES)
}

/// The text, without what is beyond `limit` bytes. A text that is cut ends with `…`.
pub fn shorten_to(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(limit)]))
}

/// Enough for every message of a server that works.
const MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let exact = "a".repeat(MAX_BYTES);
        assert_eq!(shorten(&exact), exact);
        assert_eq!(shorten(&format!("{exact}b")), format!("{exact}…"));
        for (text, limit, expected) in
            [("aäb", 2, "a…"), ("aäb", 3, "aä…"), ("aäb", 4, "aäb"), ("ä", 0, "…"), ("", 0, "")]
        {
            assert_eq!(shorten_to(text, limit), expected, "{text} {limit}");
        }
    }
}
