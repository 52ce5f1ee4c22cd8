//! Makes text safe for terminals.

/// Escapes control characters, so that untrusted text cannot move the cursor or change colors.
pub(super) fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, character| {
        if character.is_control() || BIDIRECTIONAL.contains(&character) {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
        plain
    })
}

/// Replaces control characters of a line one to one, so that carets stay aligned. The renderer shows ASCII control
/// characters as symbols, but passes on the C1 controls of Latin-1, which terminals may interpret too.
pub(super) fn replace_controls(line: &str) -> String {
    let is_wild = |character: char| ('\u{7f}'..='\u{9f}').contains(&character) || BIDIRECTIONAL.contains(&character);
    line.chars().map(|character| if is_wild(character) { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// Characters that reorder the text around them.
const BIDIRECTIONAL: &[char] = &[
    '\u{061c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}',
    '\u{2067}', '\u{2068}', '\u{2069}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_controls("a\u{1b}[31mb\nc\td"), "a\\u{1b}[31mb\\nc\\td");
        assert_eq!(escape_controls("grün \u{202e}x 路"), "grün \\u{202e}x 路");
    }
}
