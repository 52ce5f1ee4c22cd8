//! The encoding of LDAP messages: the part of BER that LDAP uses (RFC 4511, section 5.1).

/// Tags of universal types.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Adds an element with this tag, whose content consists of the parts.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut encoded = Vec::with_capacity(length + 6);
    encoded.push(tag);
    match u8::try_from(length) {
        Ok(length) if length < 0x80 => encoded.push(length),
        _ => {
            let bytes = length.to_be_bytes();
            let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            let count = u8::try_from(significant.len()).expect("a length has at most eight bytes");
            encoded.push(0x80 | count);
            encoded.extend_from_slice(significant);
        }
    }
    parts.iter().for_each(|part| encoded.extend_from_slice(part));
    encoded
}

pub(super) fn integer(tag: u8, value: i32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    // The first byte must not be redundant, and its first bit is the sign.
    let is_redundant = |window: &[u8]| matches!(window, [0, next, ..] if *next < 0x80);
    let start = (0..3).take_while(|start| is_redundant(&bytes[*start..])).count();
    element(tag, &[&bytes[start..]])
}

/// Bytes that are not the expected element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the elements of a content, one after the other. Elements inside of an element are read only on demand, so
/// nested ones take no stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements<'m>(pub(super) &'m [u8]);

impl<'m> Elements<'m> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag and its content.
    pub(super) fn next(&mut self) -> Result<(u8, &'m [u8]), Malformed> {
        let [tag, rest @ ..] = self.0 else { return Err(Malformed) };
        let (length, rest) = split_length(rest)?.ok_or(Malformed)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((*tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'m [u8], Malformed> {
        let (found, content) = self.next()?;
        if found == tag { Ok(content) } else { Err(Malformed) }
    }

    /// The next element as a number that is not negative.
    pub(super) fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        let content = self.expect(tag)?;
        if content.is_empty() || content.len() > 4 || content[0] >= 0x80 {
            return Err(Malformed);
        }
        Ok(content.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// The length at the beginning of these bytes, and what follows it. `None` if it is not complete yet.
pub(super) fn split_length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Malformed> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    if *first < 0x80 {
        return Ok(Some((usize::from(*first), rest)));
    }
    // Zero stands for an indefinite length, which LDAP does not permit.
    let count = usize::from(*first & 0x7f);
    if count == 0 || count > 4 {
        return Err(Malformed);
    }
    let Some((length, rest)) = rest.split_at_checked(count) else { return Ok(None) };
    Ok(Some((length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_have_definite_lengths() {
        assert_eq!(element(OCTET_STRING, &[b"ab", b"c"]), b"\x04\x03abc");
        assert_eq!(element(OCTET_STRING, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(element(SEQUENCE, &[&[7; 300]])[..4], [0x30, 0x82, 1, 44]);
        for (value, expected) in [(0, &[0][..]), (127, &[127]), (128, &[0, 128]), (65_536, &[1, 0, 0])] {
            assert_eq!(integer(INTEGER, value)[2..], *expected, "{value}");
            assert_eq!(Elements(&integer(INTEGER, value)).number(INTEGER), Ok(value.try_into().unwrap()));
        }
    }

    #[test]
    fn malformed_elements_are_rejected() {
        let cases: [&[u8]; 9] = [
            b"",
            b"\x04",
            b"\x04\x02a",
            b"\x04\x80",
            b"\x04\x85\0\0\0\0\0",
            b"\x04\x82\x01",
            b"\x02\0",
            b"\x02\x01\xff",
            b"\x02\x05\0\0\0\0\x01",
        ];
        for bytes in cases {
            assert_eq!(Elements(bytes).number(INTEGER), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut elements = Elements(&bytes);
            while elements.next().is_ok() {}
            let encoded = element(OCTET_STRING, &[&bytes]);
            prop_assert_eq!(Elements(&encoded).expect(OCTET_STRING), Ok(&bytes[..]));
        }
    }
}
