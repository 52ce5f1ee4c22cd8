//! The case of field names. Names are case-insensitive (RFC 9110, section 5.1), but some old servers and clients
//! recognize only the one that they expect.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};

use super::known_names::with_known_names;

/// In which case the names of fields are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameCase {
    #[default]
    Lower,
    /// As they were received. In such a message, the words of added names begin with capitals.
    Received,
}

/// The names of the fields of a head as they were received: an extension of the message, only with
/// [`NameCase::Received`].
#[derive(Clone, Debug)]
pub(super) struct ReceivedNames(HeaderMap<Bytes>);

impl ReceivedNames {
    /// The names of the fields in `head`, which have been collected in a map before.
    pub(super) fn collect(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let mut names = HeaderMap::default();
        with_known_names(|known| {
            for field in parsed {
                // Of several fields with the same name, the first one decides.
                if let Ok(name) = known.get(field.name.as_bytes()) {
                    names.entry(name).or_insert_with(|| head.slice_ref(field.name.as_bytes()));
                }
            }
        });
        ReceivedNames(names)
    }
}

/// Writes the name of a field. `received` are the names of the message if their case is kept.
#[inline]
pub(super) fn write_name(name: &HeaderName, received: Option<&ReceivedNames>, out: &mut BytesMut) {
    match received {
        None => out.put_slice(name.as_str().as_bytes()),
        Some(received) => write_cased_name(name, received, out),
    }
}

/// Not inlined, so that heads without received names are written by little code.
#[inline(never)]
fn write_cased_name(name: &HeaderName, ReceivedNames(received): &ReceivedNames, out: &mut BytesMut) {
    if let Some(received) = received.get(name) {
        return out.put_slice(received);
    }
    let mut begins_word = true;
    for byte in name.as_str().bytes() {
        out.put_u8(if begins_word { byte.to_ascii_uppercase() } else { byte });
        begins_word = byte == b'-';
    }
}
