//! A text that a regular expression matches, so that a request can be sent for it.

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

/// A short text that the pattern matches as a whole, of characters that `is_usable` accepts. The error is a clause that
/// says why there is none: "…".
pub(super) fn sample(pattern: &str, is_usable: fn(char) -> bool) -> Result<String, String> {
    let parsed = regex_syntax::parse(pattern).map_err(|_| format!("{pattern} is not a valid regular expression"))?;
    let expression = Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|_| format!("{pattern} is not a regular expression that can be compiled"))?;
    // Without optional parts first. Assertions such as \b may need them.
    for repetitions in 0..=2 {
        let mut sample = Sample { text: String::new(), repetitions, is_usable };
        if sample.append(&parsed).is_some() && expression.is_match(&sample.text) {
            return Ok(sample.text);
        }
    }
    Err(format!("no text was found that the regular expression {pattern} matches; send a request by hand"))
}

struct Sample {
    text: String,
    /// How often optional parts occur.
    repetitions: u32,
    is_usable: fn(char) -> bool,
}

impl Sample {
    /// Appends a text for the expression. `None` if there is none that is short and usable.
    fn append(&mut self, expression: &Hir) -> Option<()> {
        match expression.kind() {
            // Whether an assertion holds is decided when the whole text is matched.
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => self.push(str::from_utf8(&literal.0).ok()?)?,
            HirKind::Class(class) => self.push(self.member(class)?.encode_utf8(&mut [0; 4]))?,
            HirKind::Repetition(repetition) => {
                let wanted = self.repetitions.min(repetition.max.unwrap_or(u32::MAX));
                for _ in 0..repetition.min.max(wanted) {
                    self.append(&repetition.sub)?;
                }
            }
            HirKind::Capture(capture) => self.append(&capture.sub)?,
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.append(part))?,
            HirKind::Alternation(alternatives) => {
                let length = self.text.len();
                alternatives.iter().find_map(|alternative| {
                    self.text.truncate(length);
                    self.append(alternative)
                })?;
            }
        }
        Some(())
    }

    fn push(&mut self, text: &str) -> Option<()> {
        let is_appendable = self.text.len() + text.len() <= MAX_LENGTH && text.chars().all(self.is_usable);
        is_appendable.then(|| self.text.push_str(text))
    }

    /// A usable member of the class, preferably one that is common in paths and values.
    fn member(&self, class: &Class) -> Option<char> {
        let contains = |character: &char| match class {
            Class::Unicode(class) => {
                class.ranges().iter().any(|range| (range.start()..=range.end()).contains(character))
            }
            Class::Bytes(class) => u8::try_from(*character)
                .is_ok_and(|byte| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&byte))),
        };
        let usable = |character: &char| contains(character) && (self.is_usable)(*character);
        PREFERRED.chars().find(usable).or_else(|| (' '..='~').find(usable))
    }
}

const PREFERRED: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
/// Longer paths and values are unusual, and the repetitions of an expression multiply.
const MAX_LENGTH: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_visible(character: char) -> bool {
        character.is_ascii_graphic()
    }

    #[test]
    fn samples_match_their_patterns() {
        for (pattern, expected) in [
            ("/users/[0-9]+", "/users/0"),
            (r"/users/\d+/(orders|carts)", "/users/0/orders"),
            ("/api/.*", "/api/"),
            ("(/|$)(.*)", "/"),
            ("^v[2-4]{2}$", "v22"),
            ("(?i)Shop", "shop"),
            ("[^/]+", "a"),
            (r"[\x00-\x1f]?é?x", "x"),
            (r"a*\b", "a"),
            ("(?:(?:ab){3}){2}", "abababababab"),
            ("", ""),
        ] {
            assert_eq!(sample(pattern, is_visible).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn patterns_without_sample_say_so() {
        for (pattern, expected) in [
            ("(", "( is not a valid regular expression"),
            ("é", "no text was found that the regular expression é matches"),
            (r"[\x00-\x1f]", "no text was found"),
            (r"a\Bb^", "no text was found"),
            ("(?:(?:a{99}){99}){99}", "is not a regular expression that can be compiled"),
            ("(?:a{99}){99}", "no text was found"),
        ] {
            let error = sample(pattern, is_visible).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_sample_is_usable(pattern in "[abc/.*+?|()\\[\\]^$0-9{},-]{0,12}") {
            if let Ok(sample) = sample(&pattern, is_visible) {
                proptest::prop_assert!(sample.chars().all(is_visible) && sample.len() <= MAX_LENGTH);
            }
        }
    }
}
