//! The kinds of values that annotations have, and what is wrong with a value that is not of its kind.

use super::characters::CharacterSet;
use super::form;

/// Which values an annotation accepts.
///
/// The rules are those of ingress-nginx. Where a value passes its checks there and is ignored later, or breaks the
/// configuration of nginx, it is refused here: the row of the annotation says what then applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`, in the spellings of [`flag`].
    Flag,
    /// A decimal number, both bounds included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A decimal number of seconds without a unit.
    Seconds {
        /// The least.
        min: i64,
    },
    /// A number of bytes, as [`size`] reads it.
    Size,
    /// A [`Self::Size`] without unit g, which nginx does not know for buffers.
    BufferSize,
    /// One of these words, as they are spelled.
    OneOf(&'static [&'static str]),
    /// One of these words in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// A text that contains one of these words.
    Containing(&'static [&'static str]),
    /// Some of these words, with spaces between them.
    Words(&'static [&'static str]),
    /// A text of these characters.
    Text(CharacterSet),
    /// A text of these characters and of spaces, which do not count.
    SpacedText(CharacterSet),
    /// A name of a server: it may be a regular expression, and has spaces only around it.
    ServerName,
    /// A list of [`Self::ServerName`].
    ServerNames,
    /// A path that begins with a slash, with captures.
    AbsolutePath,
    /// A URL of scheme http or https without variables.
    RedirectUrl,
    /// A URL with scheme and host, and with variables.
    AbsoluteUrl,
    /// A URL, a host with a path, a path, or the name of a location after `@`.
    ErrorPage,
    /// The name of an object, or its namespace, a slash and its name.
    Reference,
    /// The namespace of an object, a slash and its name.
    QualifiedReference,
    /// The name of a Service in the namespace of the Ingress.
    ServiceName,
    /// A list of names of headers.
    HeaderNames,
    /// A list of origins. An entry of the right characters that is no origin matches no request, and does not make the
    /// list bad.
    OriginList,
    /// A list of status codes from 400 to 599.
    StatusCodes,
    /// A list of addresses and networks.
    AddressList,
    /// A list of lifetimes, each with the status codes that it is for.
    CacheDurations,
    /// `off`, or a domain and what replaces it.
    CookieDomain,
    /// A list of ciphers of OpenSSL with its commands `@STRENGTH` and `@SECLEVEL=`.
    CipherList,
    /// `CN=` and a regular expression, which is not compiled here.
    SubjectPattern,
    /// Any text: a snippet, whose parser has the rules.
    Any,
}

impl ValueKind {
    /// Whether the value is of this kind. The error is a clause that says what would be right.
    ///
    /// An empty value counts as unset, and is always accepted. So is one of spaces where these do not count: what
    /// reads a value has to trim it first.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self.fault(value) {
            None => Ok(()),
            Some(BadValue::Type(remedy) | BadValue::Form(remedy)) => Err(remedy),
        }
    }

    pub(super) fn fault(self, value: &str) -> Option<BadValue> {
        if value.is_empty() {
            return None;
        }
        self.inspect(value).err()
    }

    fn inspect(self, value: &str) -> Result<(), BadValue> {
        match self {
            Self::Flag => flag(value).map(drop).ok_or_else(|| wrong_type("write true or false")),
            Self::Integer { min, max } => number(value, min, max),
            Self::Seconds { min } => seconds(value, min),
            Self::Size => byte_count(value, true),
            Self::BufferSize => byte_count(value, false),
            Self::OneOf(words) => one_of(words, words.contains(&value.trim())),
            Self::OneOfAnyCase(words) => {
                one_of(words, words.iter().any(|word| word.eq_ignore_ascii_case(value.trim())))
            }
            Self::Containing(words) => {
                one_of(words, !value.contains(['\r', '\n']) && words.iter().any(|word| value.contains(word)))
            }
            Self::Words(words) => some_of(words, value),
            Self::Text(set) => characters(set, value),
            Self::SpacedText(set) => characters(set, &without_spaces(value)),
            Self::ServerName => form::server_name(value),
            Self::ServerNames => value.split(',').try_for_each(form::server_name),
            Self::AbsolutePath => form::absolute_path(value),
            Self::RedirectUrl => form::redirect_url(value),
            Self::AbsoluteUrl => form::absolute_url(value),
            Self::ErrorPage => form::error_page(value),
            Self::Reference => form::reference(value, false),
            Self::QualifiedReference => form::reference(value, true),
            Self::ServiceName => form::service_name(value),
            Self::HeaderNames => form::header_names(value),
            Self::OriginList => form::origins(value),
            Self::StatusCodes => form::status_codes(value),
            Self::AddressList => form::addresses(value),
            Self::CacheDurations => form::cache_durations(value),
            Self::CookieDomain => form::cookie_domain(value),
            Self::CipherList => form::ciphers(value),
            Self::SubjectPattern => form::subject_pattern(value),
            Self::Any => Ok(()),
        }
    }
}

/// What is wrong with a value, as a clause that says what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadValue {
    /// It has another type, or a character that is not permitted.
    Type(String),
    /// It has the type and the characters, but makes no sense.
    Form(String),
}

pub(super) fn wrong_type(remedy: impl Into<String>) -> BadValue {
    BadValue::Type(remedy.into())
}

pub(super) fn wrong_form(remedy: impl Into<String>) -> BadValue {
    BadValue::Form(remedy.into())
}

/// A flag. The spellings are those of Go, so `on` and `yes` are none.
pub fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A decimal number with an optional sign, without a unit and without spaces.
pub fn integer(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// A number of bytes, with unit k, m or g in any case. `None` also for unit b, which ingress-nginx accepts and then
/// leaves out of the configuration, and for more bytes than a `u64` holds.
pub fn size(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bytes: u64 = match &value[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(bytes)
}

/// The items of a list with commas, without spaces around them. Empty ones are skipped.
pub fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn number(value: &str, min: i64, max: i64) -> Result<(), BadValue> {
    let Some(number) = integer(value) else {
        return Err(wrong_type("write a whole number without a unit, such as 10"));
    };
    if (min..=max).contains(&number) {
        return Ok(());
    }
    Err(wrong_form(match max {
        i64::MAX => format!("write a whole number that is at least {min}"),
        _ => format!("write a whole number from {min} to {max}"),
    }))
}

fn seconds(value: &str, min: i64) -> Result<(), BadValue> {
    let Some(seconds) = integer(value) else {
        return Err(wrong_type("write a whole number of seconds without a unit, such as 60"));
    };
    if seconds >= min {
        return Ok(());
    }
    Err(wrong_form(format!("write a whole number of seconds that is at least {min}, such as 60")))
}

fn byte_count(value: &str, giga: bool) -> Result<(), BadValue> {
    let units = if giga { "k, m, g" } else { "k, m" };
    let compact = without_spaces(value);
    let digits = compact.strip_suffix(['b', 'k', 'm', 'g', 'B', 'K', 'M', 'G']).unwrap_or(&compact);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong_type(format!("write a size such as 8m (units {units})")));
    }
    if compact.ends_with(['b', 'B']) {
        return Err(wrong_form(format!("write a size without unit b, such as 8m (units {units})")));
    }
    if size(value).is_none() || !giga && compact.ends_with(['g', 'G']) {
        return Err(wrong_form(format!("write a smaller size without spaces, such as 8m (units {units})")));
    }
    Ok(())
}

fn one_of(words: &[&str], found: bool) -> Result<(), BadValue> {
    if found { Ok(()) } else { Err(wrong_type(format!("write {}", alternatives(words)))) }
}

fn some_of(words: &[&str], value: &str) -> Result<(), BadValue> {
    let mut chosen = value.split(' ').filter(|word| !word.is_empty()).peekable();
    if chosen.peek().is_some() && chosen.all(|word| words.contains(&word)) {
        return Ok(());
    }
    Err(wrong_type(format!("write words with a space between them, each {}", alternatives(words))))
}

/// Words as the end of a sentence: `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [before, last] => format!("{before} or {last}"),
        [first @ .., before, last] => format!("{}, {before} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

pub(super) fn characters(set: CharacterSet, text: &str) -> Result<(), BadValue> {
    match set.first_outside(text) {
        None => Ok(()),
        Some(character) => Err(wrong_type(format!("write only {}, not {character:?}", set.description()))),
    }
}

pub(super) fn without_spaces(value: &str) -> String {
    value.replace(' ', "")
}

#[cfg(test)]
mod tests;
