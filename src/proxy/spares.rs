//! Header maps that nobody needs anymore, for the copies of requests that may have to be sent twice: nearly every request is
//! copied and nearly no copy is used, so the memory for it goes round.
//!
//! The names stay in it, since the next request of a client, or of its neighbor, mostly has the same in the same order. To put
//! values beside them costs a third of what it costs to build a map.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue};

#[derive(Debug, Default)]
pub(crate) struct Spares(RefCell<Vec<HeaderMap>>);

impl Spares {
    pub(crate) fn copy(&self, headers: &HeaderMap) -> HeaderMap {
        let mut copy = self.0.borrow_mut().pop().unwrap_or_default();
        if has_same_names(&copy, headers) {
            for (place, value) in copy.values_mut().zip(headers.values()) {
                *place = value.clone();
            }
            return copy;
        }
        copy.clear();
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
            // Values may be secrets, and parts of a buffer that is as large as the connection's.
            let mut length = 0;
            for (name, value) in &mut headers {
                *value = EMPTY;
                length += name.as_str().len();
            }
            if length > LONGEST {
                headers.clear();
            }
            spares.push(headers);
        }
    }
}

/// In the same order and as often: then the maps differ in their values only.
fn has_same_names(copy: &HeaderMap, headers: &HeaderMap) -> bool {
    copy.len() == headers.len() && copy.iter().zip(headers).all(|((name, _), (other, _))| name == other)
}

const EMPTY: HeaderValue = HeaderValue::from_static("");
/// Requests of one worker that are on their way at once, mostly.
const MOST: usize = 256;
const LARGEST: usize = 64;
/// Of all names together, in bytes: clients choose them.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_copy_is_equal_and_its_memory_is_used_again() {
        let mut headers = map(&[("a", "1"), ("b", "2"), ("a", "3"), ("host", "x")]);
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
    fn whatever_names_a_spare_has_a_copy_is_a_copy() {
        let maps = [
            map(&[("a", "1"), ("b", "2"), ("a", "3"), ("host", "x")]),
            map(&[("a", "4"), ("b", "5"), ("a", "6"), ("host", "y")]),
            // As many, and others, or in another order.
            map(&[("a", "1"), ("a", "3"), ("b", "2"), ("host", "x")]),
            map(&[("a", "1"), ("b", "2"), ("b", "3"), ("host", "x")]),
            map(&[("b", "1"), ("a", "2"), ("host", "3"), ("a", "x")]),
            map(&[("a", "1"), ("b", "2"), ("c", "3"), ("host", "x")]),
            map(&[("a", "1")]),
            map(&[]),
        ];
        let spares = Spares::default();
        for (first, second) in maps.iter().flat_map(|first| maps.iter().map(move |second| (first, second))) {
            let copy = spares.copy(first);
            assert_eq!(&copy, first);
            spares.give_back(copy);
            let copy = spares.copy(second);
            assert_eq!(&copy, second, "after {first:?}");
            assert!(copy.iter().eq(second), "{first:?}, then {second:?}");
            spares.give_back(copy);
        }
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

    #[test]
    fn no_value_and_no_long_name_is_kept() {
        let spares = Spares::default();
        spares.give_back(map(&[("authorization", "secret"), ("a", "1")]));
        let kept = spares.0.borrow()[0].clone();
        assert!(kept.len() == 2 && kept.values().all(|value| value.is_empty()), "{kept:?}");
        let mut long = HeaderMap::new();
        long.insert(HeaderName::try_from("x".repeat(LONGEST + 1)).unwrap(), HeaderValue::from_static("1"));
        spares.give_back(long);
        assert!(spares.0.borrow()[1].is_empty());
    }
}
