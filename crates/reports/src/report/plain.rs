//! Makes text safe for terminals.

/// Escapes control characters, so that untrusted text cannot move the cursor or change colors.
pub fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if character.is_control() || BIDIRECTIONAL.contains(&character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
        escaped
    })
}

/// Replaces each unsafe character of a line by one other, so that carets stay aligned. ASCII control characters stay,
/// since the renderer shows them as symbols. C1 controls of Latin-1 do not stay: the renderer would pass them on to the
/// terminal, which may interpret them, too.
pub(super) fn replace_controls(line: &str) -> String {
    let is_unsafe = |character: char| ('\u{7f}'..='\u{9f}').contains(&character) || BIDIRECTIONAL.contains(&character);
    line.chars().map(|character| if is_unsafe(character) { char::REPLACEMENT_CHARACTER } else { character }).collect()
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
