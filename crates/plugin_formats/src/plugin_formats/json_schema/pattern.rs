//! Regular expressions in schemas: those of ECMA 262, translated to the syntax of an engine that takes linear time.

use regex::{Regex, RegexBuilder};

use crate::plugin_api::plugin_regex::{count_regex_states, regex_error_message};

/// A compiled pattern with the number of states of its automaton.
#[derive(Debug)]
pub(super) struct SchemaPattern {
    pub(super) regex: Regex,
    pub(super) states: usize,
}

impl SchemaPattern {
    /// Compiles a pattern. The error is a clause about the keyword.
    pub(super) fn compile(pattern: &str) -> Result<SchemaPattern, String> {
        let translated = translate(pattern);
        let regex = RegexBuilder::new(&translated).size_limit(MAX_BYTES).build();
        let regex = regex.map_err(|error| regex_error_message(&error))?;
        let states = count_regex_states("", &[&translated], MAX_STATES).map_err(|problem| problem.message)?;
        Ok(SchemaPattern { regex, states })
    }
}

/// The most states of one pattern.
const MAX_STATES: usize = 10_000;
/// Size limit of one compiled pattern, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Translates the syntax of ECMA 262: `\d`, `\w` and `\s` are ASCII or a fixed set, and brackets and operators inside a
/// class are literal. Look-around and backreferences are left as they are, which the engine rejects.
fn translate(pattern: &str) -> String {
    let mut translated = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    let mut in_class = false;
    let mut previous = '\0';
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('d') => translated.push_str("[0-9]"),
                Some('D') => translated.push_str("[^0-9]"),
                Some('w') => translated.push_str("[A-Za-z0-9_]"),
                Some('W') => translated.push_str("[^A-Za-z0-9_]"),
                Some('s') => translated.push_str(SPACES),
                Some('S') => translated.push_str(&SPACES.replacen('[', "[^", 1)),
                Some('b') if in_class => translated.push_str(r"\x08"),
                Some(boundary @ ('b' | 'B')) => {
                    translated.push_str(if boundary == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
                }
                Some('c') => match characters.next_if(char::is_ascii_alphabetic) {
                    Some(letter) => translated.push_str(&format!("\\x{:02X}", letter as u32 % 32)),
                    None => translated.push_str(r"\\c"),
                },
                Some('0') => translated.push_str(r"\x00"),
                // The engine has other escapes with these characters.
                Some(literal @ ('<' | '>')) => translated.push(literal),
                Some(other) if other.is_ascii_alphabetic() && !"fnprtuvxP".contains(other) => {
                    translated.push_str(UNKNOWN_ESCAPE);
                }
                Some(escaped) => {
                    translated.push('\\');
                    translated.push(escaped);
                }
                None => translated.push('\\'),
            },
            '[' if in_class => translated.push_str(r"\["),
            '[' => {
                in_class = true;
                translated.push('[');
                if characters.next_if_eq(&'^').is_some() {
                    translated.push('^');
                }
            }
            ']' if in_class => {
                in_class = false;
                translated.push(']');
            }
            '&' | '~' | '-' if in_class && previous == character => {
                translated.push('\\');
                translated.push(character);
            }
            _ => translated.push(character),
        }
        previous = character;
    }
    translated
}

/// An escape that the engine rejects.
const UNKNOWN_ESCAPE: &str = r"\y";

/// White space and line terminators of ECMA 262.
const SPACES: &str = r"[\t\n\x0B\f\r \u{A0}\u{1680}\u{2000}-\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_ecmascript() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^\w$", "é", false),
            (r"^\s$", "\u{2029}", true),
            (r"^[[a]$", "[", true),
            (r"^[a&&b]$", "&", true),
            (r"^[\w.-]+@x\.example$", "a-b.c@x.example", true),
            (r"^\/a\/$", "/a/", true),
            (r"^\cC$", "\u{3}", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\p{Letter}+$", "été", true),
            ("b", "abc", true),
            (r"^\<a\>$", "<a>", true),
        ] {
            let pattern = SchemaPattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(pattern.regex.is_match(text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn unsupported_and_huge_patterns_are_errors() {
        for (pattern, expected) in [
            ("(?=a)", "is not a valid regular expression"),
            (r"(a)\1", "is not a valid regular expression"),
            (r"a\Z", "is not a valid regular expression"),
            ("(", "is not a valid regular expression"),
            ("a{12000}", "the regular expressions have more than 10000 states together"),
            ("(?:a{1000}){1000}", "is not a valid regular expression"),
        ] {
            let error = SchemaPattern::compile(pattern).expect_err(pattern);
            assert!(error.contains(expected) || error.contains("size limit"), "{pattern}: {error}");
        }
    }
}
