//! Identities of requests: 32 hexadecimal digits, made in blocks so that a request costs no allocation.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The identities one worker still has in store. Not secret: they name requests, they open nothing.
#[derive(Debug, Default)]
pub(crate) struct RequestIds {
    block: RefCell<Bytes>,
}

impl RequestIds {
    pub(crate) fn next(&self) -> HeaderValue {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            let mut digits = String::with_capacity(LENGTH * BLOCK);
            for _ in 0..BLOCK {
                use std::fmt::Write;
                write!(digits, "{:032x}", fastrand::u128(..)).expect("a String takes everything");
            }
            *block = Bytes::from(digits);
        }
        HeaderValue::from_maybe_shared(block.split_to(LENGTH)).expect("hexadecimal digits are a header value")
    }
}

const LENGTH: usize = 32;
/// Enough to make the allocation rare; an identity keeps its block alive, so not more.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn identities_are_distinct_and_hexadecimal() {
        let ids = RequestIds::default();
        let made: HashSet<_> = (0..3 * BLOCK).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 3 * BLOCK);
        assert!(made.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }
}
