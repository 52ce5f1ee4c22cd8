//! Text of an object in messages: limited in length, and safe for terminals.

/// The maximum number of characters quoted from a value.
const MAX_QUOTED_CHARS: usize = 80;

/// The first characters of a text, safe for terminals.
pub(super) fn printable(text: &str) -> String {
    escape_controls(&truncate(text))
}

/// Escapes control characters, so that untrusted text cannot send commands to a terminal.
pub(super) fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, char| {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
        shown
    })
}

pub(super) fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
