//! Dictionaries of Structured Fields (RFC 9651, sections 3.2 and 4.2.2): the members of a field such as
//! `CDN-Cache-Control`, or that it is none.

use http::{HeaderMap, HeaderName};

/// A member without its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DictionaryMember<'f> {
    pub(super) key: &'f str,
    pub(super) value: MemberValue,
}

/// What directives can have. Other types are not distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberValue {
    Boolean(bool),
    Integer(i64),
    Other,
}

/// All lines of a field as one.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().ok());
    Some(lines.collect::<Option<Vec<_>>>()?.join(","))
}

/// The members in their order; of a repeated key, the last one counts. `None` if the text is no dictionary, so that the
/// field must be ignored as a whole.
pub(super) fn parse_dictionary(text: &str) -> Option<Vec<DictionaryMember<'_>>> {
    let mut input = FieldInput(text.trim_matches(' '));
    let mut members: Vec<DictionaryMember<'_>> = Vec::new();
    if input.0.is_empty() {
        return Some(members);
    }
    loop {
        let key = input.key()?;
        let value = match input.eat('=') {
            true => input.item_or_list()?,
            false => MemberValue::Boolean(true),
        };
        input.parameters()?;
        members.retain(|member| member.key != key);
        members.push(DictionaryMember { key, value });
        input.skip_optional_space();
        if input.0.is_empty() {
            return Some(members);
        }
        if !input.eat(',') {
            return None;
        }
        // Nothing follows a comma at the end, so there is no key.
        input.skip_optional_space();
    }
}

/// What is left to parse.
struct FieldInput<'f>(&'f str);

impl<'f> FieldInput<'f> {
    fn eat(&mut self, expected: char) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_optional_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches(' ');
    }

    /// The characters of this kind.
    fn take(&mut self, is_kind: impl Fn(u8) -> bool) -> &'f str {
        let end = self.0.bytes().position(|byte| !is_kind(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Option<&'f str> {
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        let key = self.take(is_key);
        key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*').then_some(key)
    }

    fn item_or_list(&mut self) -> Option<MemberValue> {
        if !self.eat('(') {
            return self.bare_item();
        }
        loop {
            self.skip_spaces();
            if self.eat(')') {
                return Some(MemberValue::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !self.0.starts_with([' ', ')']) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(';') {
            self.skip_spaces();
            self.key()?;
            if self.eat('=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<MemberValue> {
        match self.0.bytes().next()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.eat('?');
                let is_true = self.eat('1');
                (is_true || self.eat('0')).then_some(MemberValue::Boolean(is_true))
            }
            b':' => {
                self.eat(':');
                self.take(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.eat(':').then_some(MemberValue::Other)
            }
            b'@' => {
                self.eat('@');
                matches!(self.number()?, MemberValue::Integer(_)).then_some(MemberValue::Other)
            }
            b'%' => {
                self.eat('%');
                self.string()
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.take(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(MemberValue::Other)
            }
            _ => None,
        }
    }

    /// An integer of up to 15 digits, or a decimal number of up to 12 and 3.
    fn number(&mut self) -> Option<MemberValue> {
        let sign = if self.eat('-') { -1 } else { 1 };
        let digits = self.take(|byte| byte.is_ascii_digit());
        if !self.eat('.') {
            let number = (1..=15).contains(&digits.len()).then(|| digits.parse::<i64>().ok())??;
            return Some(MemberValue::Integer(sign * number));
        }
        let fraction = self.take(|byte| byte.is_ascii_digit());
        ((1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len())).then_some(MemberValue::Other)
    }

    fn string(&mut self) -> Option<MemberValue> {
        if !self.eat('"') {
            return None;
        }
        loop {
            self.take(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\');
            if self.eat('"') {
                return Some(MemberValue::Other);
            }
            if !(self.eat('\\') && (self.eat('"') || self.eat('\\'))) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 9651, section 4.2.2
    #[test]
    fn dictionaries_are_parsed_or_refused_as_a_whole() {
        use MemberValue::{Boolean, Integer, Other};
        type Expected = Option<&'static [(&'static str, MemberValue)]>;
        let cases: [(&str, Expected); 34] = [
            ("", Some(&[])),
            (" max-age=60, no-store ", Some(&[("max-age", Integer(60)), ("no-store", Boolean(true))])),
            ("a=?0,\tb=?1;x;y=1", Some(&[("a", Boolean(false)), ("b", Boolean(true))])),
            ("a=1, b=2, a=3", Some(&[("b", Integer(2)), ("a", Integer(3))])),
            ("max-age=-1", Some(&[("max-age", Integer(-1))])),
            ("max-age=60.5", Some(&[("max-age", Other)])),
            ("max-age=\"60\"", Some(&[("max-age", Other)])),
            ("a=\"\\\"\\\\ b\"", Some(&[("a", Other)])),
            ("a=(b \"c\";d=1 2)", Some(&[("a", Other)])),
            ("a=()", Some(&[("a", Other)])),
            ("a=:aGk=:, b=@1, c=%\"d\"", Some(&[("a", Other), ("b", Other), ("c", Other)])),
            ("*a=b/c", Some(&[("*a", Other)])),
            ("&&&&&", None),
            ("max-age=60,", None),
            ("max-age=60, ", None),
            (",max-age=60", None),
            ("max-age=60,,no-store", None),
            ("max-age=60 no-store", None),
            ("Max-Age=60", None),
            ("max-age =60", None),
            ("max-age= 60", None),
            ("max-age=", None),
            ("max-age=1234567890123456", None),
            ("max-age=1.2345", None),
            ("max-age=-", None),
            ("a=\"b", None),
            ("a=\"\\b\"", None),
            ("a=(b", None),
            ("a=(b\"c\")", None),
            ("a=?2", None),
            ("a=:b", None),
            ("a=b;", None),
            ("1a", None),
            ("a=@1.5", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|members| {
                members.iter().map(|(key, value)| DictionaryMember { key, value: *value }).collect::<Vec<_>>()
            });
            assert_eq!(parse_dictionary(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-z=,;()\"\\\\?:@%0-9 é-]{0,30}") {
            drop(parse_dictionary(&text));
        }
    }
}
