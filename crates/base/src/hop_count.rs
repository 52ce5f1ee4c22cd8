//! How many Portico processes have forwarded a request: the field `Portico-Hops`, which ends loops that lead through
//! other proxies.
//!
//! The field is not a part of the header map while a request is in Portico, so nothing that changes headers changes
//! it: it is taken out when the request arrives, and written when a request is sent.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The number of Portico processes that have forwarded a request. 0 for a request that none has forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HopCount(u8);

impl HopCount {
    /// The field with the number.
    pub const FIELD: HeaderName = HeaderName::from_static("portico-hops");
    pub const ZERO: HopCount = HopCount(0);

    pub const fn new(count: u8) -> Self {
        HopCount(count)
    }

    /// Whether this is the field, or the spelling that proxies which replace hyphens by underscores make of it.
    #[inline]
    pub fn is_field(name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        name.len() == LENGTH
            && matches!(name, [b'p', b'o', b'r', b't', b'i', b'c', b'o', b'-' | b'_', b'h', b'o', b'p', b's'])
    }

    /// Takes the fields with the number out of the header. The highest number counts: a client may have sent others in
    /// front of a proxy that has appended its own. What is not a number does not count.
    pub fn take(headers: &mut HeaderMap) -> Self {
        let values = SPELLINGS.iter().flat_map(|name| headers.get_all(name));
        let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let highest = items.filter_map(parse).max().unwrap_or_default();
        HopCount::remove(headers);
        HopCount(highest)
    }

    /// Removes what appears to be the field.
    pub fn remove(headers: &mut HeaderMap) {
        for name in &SPELLINGS {
            headers.remove(name);
        }
    }

    /// Replaces the field in a header, unless the number is 0.
    pub fn set(self, headers: &mut HeaderMap) {
        if headers.keys().any(HopCount::is_field) {
            HopCount::remove(headers);
        }
        if self > HopCount::ZERO {
            headers.insert(HopCount::FIELD, self.value());
        }
    }

    /// The number after another process has forwarded the request.
    pub const fn next(self) -> Self {
        HopCount(self.0.saturating_add(1))
    }

    pub const fn get(self) -> u8 {
        self.0
    }

    fn value(self) -> HeaderValue {
        let position = usize::from(self.0).wrapping_sub(1);
        match DIGITS.get(position..=position) {
            Some(digit) => HeaderValue::from_static(digit),
            None => HeaderValue::from(u16::from(self.0)),
        }
    }

    /// The field as a line of an HTTP/1 header, with its end. `None` if the number is 0, or has several digits.
    #[inline]
    pub fn line(self) -> Option<&'static [u8]> {
        LINES.get(usize::from(self.0).wrapping_sub(1)).map(<[u8; LINE_LENGTH]>::as_slice)
    }
}

/// A number of digits; higher ones than 255 are 255.
fn parse(item: &[u8]) -> Option<u8> {
    let digits = item.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number: u8, digit| number.saturating_mul(10).saturating_add(digit - b'0')))
}

static SPELLINGS: [HeaderName; 2] = [HopCount::FIELD, HeaderName::from_static("portico_hops")];
/// The length of each spelling.
const LENGTH: usize = 12;

/// The numbers that are written without an allocation.
const DIGITS: &str = "123456789";

const LINE_LENGTH: usize = 17;
/// The lines of the numbers from 1 to 9.
static LINES: [[u8; LINE_LENGTH]; 9] = {
    let mut lines = [*b"portico-hops: 0\r\n"; 9];
    let mut index = 0;
    while index < lines.len() {
        lines[index][LINE_LENGTH - 3] += index as u8 + 1;
        index += 1;
    }
    lines
};

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn highest_number_of_all_fields_counts() {
        for (fields, expected) in [
            (&[][..], 0),
            (&[("portico-hops", "3")], 3),
            (&[("portico_hops", "3")], 3),
            (&[("portico-hops", "2"), ("portico_hops", "5"), ("portico-hops", "4")], 5),
            (&[("portico-hops", "0, 7 ,1")], 7),
            (&[("portico-hops", "00012")], 12),
            (&[("portico-hops", "255")], 255),
            (&[("portico-hops", "256")], 255),
            (&[("portico-hops", "99999999999999999999999")], 255),
            (&[("portico-hops", ""), ("portico-hops", "+1"), ("portico-hops", "-1"), ("portico-hops", "1.5")], 0),
            (&[("portico-hops", "x, 2, y")], 2),
            (&[("portico-hop", "3"), ("portico.hops", "3"), ("x-portico-hops", "3")], 0),
        ] {
            let mut all = headers(fields);
            all.insert("accept", HeaderValue::from_static("*/*"));
            let others = all.keys().filter(|name| !HopCount::is_field(name)).count();
            assert_eq!(HopCount::take(&mut all).get(), expected, "{fields:?}");
            assert_eq!(all.keys_len(), others, "{fields:?}");
            assert!(!all.keys().any(HopCount::is_field), "{fields:?}");
        }
    }

    #[test]
    fn set_replaces_what_others_have_set() {
        let mut all = headers(&[("portico-hops", "0"), ("portico_hops", "0"), ("accept", "*/*")]);
        HopCount::new(12).set(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*"), ("portico-hops", "12")]));
        HopCount::ZERO.set(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn lines_have_the_number() {
        for count in 0..=255 {
            let expected = (1..10).contains(&count).then(|| format!("portico-hops: {count}\r\n").into_bytes());
            assert_eq!(HopCount::new(count).line(), expected.as_deref());
            assert_eq!(HopCount::new(count).value(), *count.to_string());
        }
        assert_eq!(HopCount::new(255).next().get(), 255);
    }
}
