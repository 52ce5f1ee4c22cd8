//! Header maps that nobody needs anymore, for the copies of requests that may have to be sent twice: nearly every request is
//! copied and nearly no copy is used, so the memory for it goes round.

use std::cell::RefCell;

use http::HeaderMap;

#[derive(Debug, Default)]
pub(crate) struct Spares(RefCell<Vec<HeaderMap>>);

impl Spares {
    pub(crate) fn copy(&self, headers: &HeaderMap) -> HeaderMap {
        let mut copy = self.0.borrow_mut().pop().unwrap_or_default();
        copy.reserve(headers.len());
        for (name, value) in headers {
            copy.append(name, value.clone());
        }
        copy
    }

    /// Takes a map back, unless it is unusually large or there are plenty.
    pub(crate) fn give_back(&self, mut headers: HeaderMap) {
        let mut spares = self.0.borrow_mut();
        if spares.len() < MOST && headers.capacity() <= LARGEST {
            headers.clear();
            spares.push(headers);
        }
    }
}

/// Requests of one worker that are on their way at once, mostly.
const MOST: usize = 256;
const LARGEST: usize = 64;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_copy_is_equal_and_its_memory_is_used_again() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("host", "x")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let spares = Spares::default();
        let copy = spares.copy(&headers);
        assert_eq!(copy, headers);
        assert_eq!(copy.get_all("a").iter().collect::<Vec<_>>(), ["1", "3"]);
        spares.give_back(copy);
        headers.remove("b");
        assert_eq!(spares.copy(&headers), headers);
        assert!(spares.0.borrow().is_empty());
    }

    #[test]
    fn what_is_large_or_too_many_is_not_kept() {
        let spares = Spares::default();
        spares.give_back(HeaderMap::with_capacity(LARGEST * 4));
        assert!(spares.0.borrow().is_empty());
        for _ in 0..MOST * 2 {
            spares.give_back(HeaderMap::with_capacity(1));
        }
        assert_eq!(spares.0.borrow().len(), MOST);
    }
}
