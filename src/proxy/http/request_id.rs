//! Request IDs: 32 hexadecimal digits, generated in blocks so that a request needs no allocation.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub(in crate::proxy) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
            let mut digits = String::with_capacity(ID_LENGTH * BLOCK_IDS);
            for _ in 0..BLOCK_IDS {
                use std::fmt::Write;
                write!(digits, "{:032x}", fastrand::u128(..)).expect("writing to a String cannot fail");
            }
            *block = Bytes::from(digits);
        }
        HeaderValue::from_maybe_shared(block.split_to(ID_LENGTH)).expect("hexadecimal digits form a valid header value")
    }
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
