//! Request IDs: 32 hexadecimal digits, generated in blocks so that a request needs no allocation.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

use crate::hex_digits::hex_digits;

/// Generates the request IDs of one worker. They are random, but not meant to be secret.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestIds {
    /// The digits of the IDs that are not used yet.
    block: RefCell<Bytes>,
}

impl RequestIds {
    pub(in crate::proxy) fn next(&self) -> HeaderValue {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            *block = random_digits();
        }
        HeaderValue::from_maybe_shared(block.split_to(ID_LENGTH)).expect("hexadecimal digits form a valid header value")
    }
}

/// The digits of a block.
fn random_digits() -> Bytes {
    let mut digits = Vec::with_capacity(ID_LENGTH * BLOCK_IDS);
    for _ in 0..BLOCK_IDS {
        let number = fastrand::u128(..);
        digits.extend_from_slice(&hex_digits((number >> 64) as u64));
        digits.extend_from_slice(&hex_digits(number as u64));
    }
    Bytes::from(digits)
}

const ID_LENGTH: usize = 32;
/// IDs in a block: enough to make allocations rare, but not many, because each ID in use keeps its whole block alive.
const BLOCK_IDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_are_unique_hexadecimal() {
        let ids = RequestIds::default();
        let generated: HashSet<_> = (0..3 * BLOCK_IDS).map(|_| ids.next()).collect();
        assert_eq!(generated.len(), 3 * BLOCK_IDS);
        assert!(generated.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }
}
