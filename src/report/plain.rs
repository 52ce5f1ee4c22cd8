//! Text that goes to a terminal without steering it.

/// The text with control characters written as escapes: what a stranger wrote must not move the cursor or change colors.
pub(super) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, character| {
        if character.is_control() || BIDIRECTIONAL.contains(&character) {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
        plain
    })
}

/// A line of a file, character for character, so that carets stay where they are. The renderer shows the older control
/// characters as signs, but passes on those that Latin-1 has beyond ASCII, which terminals may obey too.
pub(super) fn tame(line: &str) -> String {
    let is_wild = |character: char| ('\u{7f}'..='\u{9f}').contains(&character) || BIDIRECTIONAL.contains(&character);
    line.chars().map(|character| if is_wild(character) { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// Marks that reorder the text around them.
const BIDIRECTIONAL: &[char] = &[
    '\u{061c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}',
    '\u{2067}', '\u{2068}', '\u{2069}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(plain("a\u{1b}[31mb\nc\td"), "a\\u{1b}[31mb\\nc\\td");
        assert_eq!(plain("grün \u{202e}x 路"), "grün \\u{202e}x 路");
    }
}
