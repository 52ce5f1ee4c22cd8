//! Masks what has the form of personal data in a text: addresses of e-mail, numbers of payment cards, IBANs, and what
//! matches an expression of the configuration.

use std::ops::Range;

use regex::bytes::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A form of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MaskedKind {
    /// Addresses such as `jane@shop.example`, also with `%40` as in URLs.
    Email,
    /// Numbers of 13 to 19 digits with a correct check digit, also in groups with spaces or hyphens between them.
    PaymentCard,
    /// International bank account numbers with correct check digits, also in groups with spaces between them.
    Iban,
}

/// Replaces parts of texts.
#[derive(Clone, Debug)]
pub struct TextMask {
    email: Option<Regex>,
    has_cards: bool,
    has_ibans: bool,
    patterns: Vec<Regex>,
    replacement: Box<str>,
}

impl TextMask {
    /// Everything is searched in the original text, so replacements are never masked again.
    pub fn new(kinds: &[MaskedKind], patterns: Vec<Regex>, replacement: &str) -> Self {
        let email = || Regex::new(EMAIL).expect("a constant expression that a test compiles");
        TextMask {
            email: kinds.contains(&MaskedKind::Email).then(email),
            has_cards: kinds.contains(&MaskedKind::PaymentCard),
            has_ibans: kinds.contains(&MaskedKind::Iban),
            patterns,
            replacement: replacement.into(),
        }
    }

    /// Whether no text is changed.
    pub fn is_empty(&self) -> bool {
        self.email.is_none() && !self.has_cards && !self.has_ibans && self.patterns.is_empty()
    }

    pub fn replacement(&self) -> &str {
        &self.replacement
    }

    /// The text with everything replaced that is masked. `None` if nothing is.
    pub fn apply(&self, text: &str) -> Option<String> {
        let masked = self.apply_to_bytes(text.as_bytes())?;
        // An expression without Unicode mode may have cut a character.
        Some(String::from_utf8(masked).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The same for a text whose encoding is not known, but contains ASCII.
    pub fn apply_to_bytes(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for pattern in self.email.iter().chain(&self.patterns) {
            // A match without characters replaces nothing.
            found.extend(pattern.find_iter(text).map(|found| found.range()).filter(|range| !range.is_empty()));
        }
        if self.has_cards {
            found.extend(Cards { text, at: 0 });
        }
        if self.has_ibans {
            found.extend(Ibans { text, at: 0 });
        }
        found.sort_unstable_by_key(|range| range.start);
        self.replace(text, &found)
    }

    /// Replaces these parts, which are ordered by their starts. Those that touch or overlap are replaced as one. `None`
    /// if there are none.
    fn replace(&self, text: &[u8], parts: &[Range<usize>]) -> Option<Vec<u8>> {
        let max_bytes = text.len().saturating_mul(MAX_GROWTH).saturating_add(self.replacement.len());
        let mut replaced = Vec::with_capacity(text.len());
        let mut parts = parts.iter().cloned().peekable();
        let mut end = 0;
        parts.peek()?;
        while let Some(mut part) = parts.next() {
            while let Some(next) = parts.next_if(|next| next.start <= part.end) {
                part.end = part.end.max(next.end);
            }
            replaced.extend_from_slice(&text[end..part.start]);
            replaced.extend_from_slice(self.replacement.as_bytes());
            end = part.end;
            if replaced.len() > max_bytes {
                return Some(self.replacement.as_bytes().to_vec());
            }
        }
        replaced.extend_from_slice(&text[end..]);
        Some(replaced)
    }
}

/// How many times as long as a text the masked one may be. A text that would be longer is replaced as a whole.
const MAX_GROWTH: usize = 4;

/// Letters beyond ASCII are single bytes here, because their encoding is not known.
const EMAIL: &str = r"(?-u)[A-Za-z0-9._%+'\x80-\xff-]+(?:@|%40)[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)+";

/// The numbers of payment cards in a text.
struct Cards<'t> {
    text: &'t [u8],
    at: usize,
}

impl Iterator for Cards<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while self.at < self.text.len() {
            let start = self.at;
            let begins_group = self.text[start].is_ascii_digit()
                && start.checked_sub(1).is_none_or(|before| !self.text[before].is_ascii_digit());
            if let Some(end) = begins_group.then(|| card_end(self.text, start)).flatten() {
                self.at = end;
                return Some(start..end);
            }
            self.at += 1;
        }
        None
    }
}

/// The end of the longest card number that begins here.
fn card_end(text: &[u8], start: usize) -> Option<usize> {
    let mut digits = Vec::with_capacity(MAX_CARD_DIGITS);
    let (mut at, mut end) = (start, None);
    while digits.len() < MAX_CARD_DIGITS {
        match text.get(at) {
            Some(byte) if byte.is_ascii_digit() => digits.push(byte - b'0'),
            Some(b' ' | b'-') if text.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                at += 1;
                continue;
            }
            Some(_) | None => break,
        }
        at += 1;
        let is_end_of_group = !text.get(at).is_some_and(u8::is_ascii_digit);
        if digits.len() >= MIN_CARD_DIGITS && is_end_of_group && has_check_digit(&digits) {
            end = Some(at);
        }
    }
    end
}

/// Whether the last digit is that of the Luhn algorithm (ISO/IEC 7812-1, annex B).
fn has_check_digit(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let weighted = digits.iter().rev().enumerate().map(|(index, digit)| match index % 2 {
        0 => u32::from(*digit),
        _ => u32::from(doubled(*digit)),
    });
    weighted.sum::<u32>() % 10 == 0 && digits.iter().any(|digit| *digit != 0)
}

const MIN_CARD_DIGITS: usize = 13;
const MAX_CARD_DIGITS: usize = 19;

/// The IBANs in a text.
struct Ibans<'t> {
    text: &'t [u8],
    at: usize,
}

impl Iterator for Ibans<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while self.at < self.text.len() {
            let start = self.at;
            let begins_word = start.checked_sub(1).is_none_or(|before| !self.text[before].is_ascii_alphanumeric());
            if let Some(end) = begins_word.then(|| iban_end(self.text, start)).flatten() {
                self.at = end;
                return Some(start..end);
            }
            self.at += 1;
        }
        None
    }
}

/// The end of the longest IBAN that begins here.
fn iban_end(text: &[u8], start: usize) -> Option<usize> {
    let is_character = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    match text.get(start..start + 4)? {
        [a, b, c, d]
            if a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_digit() && d.is_ascii_digit() => {}
        _ => return None,
    }
    let mut characters = Vec::with_capacity(MAX_IBAN);
    let (mut at, mut end) = (start, None);
    while characters.len() < MAX_IBAN {
        match text.get(at) {
            Some(byte) if is_character(byte) => characters.push(*byte),
            Some(b' ') if text.get(at + 1).is_some_and(is_character) => {
                at += 1;
                continue;
            }
            Some(_) | None => break,
        }
        at += 1;
        let is_end_of_word = !text.get(at).is_some_and(u8::is_ascii_alphanumeric);
        if characters.len() >= MIN_IBAN && is_end_of_word && has_iban_remainder(&characters) {
            end = Some(at);
        }
    }
    end
}

/// Whether the check digits are correct: the number modulo 97 is 1 (ISO 13616-1).
fn has_iban_remainder(characters: &[u8]) -> bool {
    let rotated = characters[4..].iter().chain(&characters[..4]);
    let remainder = rotated.fold(0_u32, |remainder, character| match character {
        digit @ b'0'..=b'9' => (remainder * 10 + u32::from(digit - b'0')) % 97,
        letter => (remainder * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    remainder == 1
}

const MIN_IBAN: usize = 15;
const MAX_IBAN: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(kinds: &[MaskedKind], patterns: &[&str]) -> TextMask {
        TextMask::new(kinds, patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect(), "***")
    }

    fn check(mask: &TextMask, cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            assert_eq!(mask.apply(text).as_deref(), *expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_mail_are_masked() {
        check(
            &mask(&[MaskedKind::Email], &[]),
            &[
                ("jane@shop.example", Some("***")),
                ("To: Jane <jane.o'neil+x@mail.shop.example>, bob@b.example.", Some("To: Jane <***>, ***.")),
                ("/users/jane%40shop.example/cart?x=1", Some("/users/***/cart?x=1")),
                ("jürgen@müller.example", Some("***")),
                ("jane@localhost", None),
                ("@handle and a @ b.c", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn card_numbers_with_check_digits_are_masked() {
        check(
            &mask(&[MaskedKind::PaymentCard], &[]),
            &[
                ("4111111111111111", Some("***")),
                ("card 4111 1111 1111 1111, 378282246310005", Some("card ***, ***")),
                ("order 12 4111-1111-1111-1111", Some("order 12 ***")),
                ("4111111111111112", None),
                ("41111111111111111111111", None),
                ("0000000000000000", None),
                ("2026-11-28 12:00:00", None),
            ],
        );
    }

    #[test]
    fn account_numbers_with_check_digits_are_masked() {
        check(
            &mask(&[MaskedKind::Iban], &[]),
            &[
                ("DE89370400440532013000", Some("***")),
                ("pay to GB82 WEST 1234 5698 7654 32 AND SMILE", Some("pay to *** AND SMILE")),
                ("DE88370400440532013000", None),
                ("XDE89370400440532013000", None),
                ("DE8937040044", None),
            ],
        );
    }

    #[test]
    fn patterns_replace_what_they_match_and_never_nothing() {
        check(
            &mask(&[], &["K-[0-9]+", "x*"]),
            &[("K-12 and K-x", Some("*** and K-***")), ("abc", None), ("xx", Some("***"))],
        );
        assert!(mask(&[], &[]).is_empty() && !mask(&[MaskedKind::Iban], &[]).is_empty());
        assert_eq!(mask(&[], &["a"]).apply_to_bytes(b"\xff a"), Some(b"\xff ***".to_vec()));
    }

    #[test]
    fn replacements_are_not_masked_again_and_do_not_multiply_texts() {
        let long = TextMask::new(&[], vec![Regex::new(r"\*").unwrap(); 32], &"*".repeat(64));
        assert_eq!(long.apply("a * b"), Some(format!("a {} b", "*".repeat(64))));
        assert_eq!(long.apply(&"* ".repeat(1000)), Some("*".repeat(64)), "more than four times as long");
        check(&mask(&[], &["ab", "bc", "c"]), &[("abc-abc", Some("***-***"))]);
    }

    #[test]
    fn long_texts_take_linear_time() {
        let all = mask(&[MaskedKind::Email, MaskedKind::PaymentCard, MaskedKind::Iban], &[]);
        for text in ["1 ", "DE12 ", "a", "a@", "9"] {
            let text = text.repeat(1 << 18);
            assert!(all.apply(&text).is_none_or(|masked| masked.len() <= text.len()), "{}", &text[..8]);
        }
    }
}
