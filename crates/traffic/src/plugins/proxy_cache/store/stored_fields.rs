//! The fields of a stored response in one allocation.
//!
//! A map of fields takes about 120 bytes for each, and its values are parts of the buffer that the response was
//! received in, which would stay in memory as long as one of them.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, AGE, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING,
    CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, ETAG, EXPIRES,
    LAST_MODIFIED, LINK, LOCATION, REFERRER_POLICY, SERVER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, VARY, VIA,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// For each field: the code of its name, the length of the value, and the value. Behind code 0, the name follows with
/// its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredFields {
    bytes: Bytes,
    count: u32,
}

impl StoredFields {
    /// A copy of those fields that are kept.
    pub(crate) fn copy(headers: &HeaderMap, is_kept: impl Fn(&HeaderName) -> bool) -> Self {
        let kept =
            || headers.iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name, code_of(name), value));
        let size = kept().map(|(name, code, value)| {
            let name = if code == 0 { NAME_LENGTH + name.as_str().len() } else { 0 };
            FIXED + name + value.len()
        });
        let mut bytes = BytesMut::with_capacity(size.sum());
        let mut count = 0;
        for (name, code, value) in kept() {
            let (Ok(name_length), Ok(length)) = (u16::try_from(name.as_str().len()), u32::try_from(value.len())) else {
                continue;
            };
            bytes.put_u8(code);
            bytes.put_u32(length);
            if code == 0 {
                bytes.put_u16(name_length);
                bytes.put_slice(name.as_str().as_bytes());
            }
            bytes.put_slice(value.as_bytes());
            count += 1;
        }
        StoredFields { bytes: bytes.freeze(), count }
    }

    /// The fields as a map, whose values are parts of the copy. It has room for a few more.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.count as usize + FURTHER_FIELDS);
        let bytes = &self.bytes[..];
        let mut at = 0;
        while let Some(([code, length @ ..], _)) = bytes[at..].split_first_chunk::<FIXED>() {
            at += FIXED;
            let name = match usize::from(*code).checked_sub(1) {
                Some(index) => KNOWN.get(index).cloned(),
                None => bytes[at..].split_first_chunk::<NAME_LENGTH>().and_then(|(length, rest)| {
                    let length = usize::from(u16::from_be_bytes(*length));
                    at += NAME_LENGTH + length;
                    HeaderName::from_bytes(&rest[..length]).ok()
                }),
            };
            let end = at + u32::from_be_bytes(*length) as usize;
            let value = HeaderValue::from_maybe_shared(self.bytes.slice(at..end));
            at = end;
            if let (Some(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        map
    }

    /// The bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The code of a name, which is 0 for those that are not in [`KNOWN`].
fn code_of(name: &HeaderName) -> u8 {
    KNOWN.iter().zip(1..).find_map(|(known, code)| (known == name).then_some(code)).unwrap_or(0)
}

/// Names that need not be parsed for each reply.
static KNOWN: [HeaderName; 25] = [
    CONTENT_TYPE,
    CACHE_CONTROL,
    ETAG,
    LAST_MODIFIED,
    DATE,
    EXPIRES,
    VARY,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    CONTENT_LOCATION,
    CONTENT_SECURITY_POLICY,
    SERVER,
    SET_COOKIE,
    AGE,
    LINK,
    LOCATION,
    VIA,
    ACCEPT_RANGES,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    STRICT_TRANSPORT_SECURITY,
    REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
];
/// The bytes of a code and of the length of a value.
const FIXED: usize = 5;
const NAME_LENGTH: usize = 2;
/// Such as `Age` and what filters add.
const FURTHER_FIELDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_as_they_were() {
        let mut map = HeaderMap::new();
        assert_eq!(StoredFields::copy(&map, |_| true).to_map(), map);
        for (name, value) in [
            ("content-type", &b"text/plain"[..]),
            ("x-empty", b""),
            ("set-cookie", b"a"),
            ("set-cookie", b"b\xe9"),
            ("x-long", &[b'x'; 70_000]),
        ] {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let stored = StoredFields::copy(&map, |_| true);
        assert_eq!(stored.to_map(), map);
        assert_eq!(StoredFields::copy(&stored.to_map(), |_| true).bytes(), stored.bytes());
    }

    #[test]
    fn values_do_not_keep_the_buffer_that_they_came_in() {
        let buffer = Bytes::from(vec![b'x'; 100_000]);
        let mut map = HeaderMap::new();
        map.insert("x-a", HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap());
        let stored = StoredFields::copy(&map, |_| true);
        drop(map);
        assert!(buffer.is_unique(), "nothing refers to the buffer");
        assert_eq!(stored.bytes(), FIXED + NAME_LENGTH + 3 + 10);
    }
}
