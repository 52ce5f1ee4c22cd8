//! Pool of header maps for the copies of requests that may be sent twice over HTTP/2, whose library keeps the head.
//! Nearly every such request is copied and nearly no copy is used, so the memory is recycled.
//!
//! A recycled map keeps its names, since the next request of the same or a similar client mostly has the same names in
//! the same order. Replacing only the values costs a third of building a map.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue};

#[derive(Debug, Default)]
pub(in crate::proxy) struct HeaderMapPool(RefCell<Vec<HeaderMap>>);

impl HeaderMapPool {
    /// Copies the headers, into a recycled map if there is one.
    pub(in crate::proxy) fn copy(&self, headers: &HeaderMap) -> HeaderMap {
        let mut copy = self.0.borrow_mut().pop().unwrap_or_default();
        if replace_values(&mut copy, headers) {
            return copy;
        }
        copy.clear();
        copy.reserve(headers.len());
        for (name, value) in headers {
            copy.append(name, value.clone());
        }
        copy
    }

    /// Returns a map to the pool, unless it is unusually large or the pool is full.
    pub(in crate::proxy) fn put_back(&self, mut headers: HeaderMap) {
        let mut pool = self.0.borrow_mut();
        if pool.len() < MAX_MAPS && headers.capacity() <= MAX_CAPACITY {
            // Values are removed, since they may be secrets or keep the buffer of the connection alive.
            let mut name_bytes = 0;
            for (name, value) in &mut headers {
                *value = EMPTY;
                name_bytes += name.as_str().len();
            }
            if name_bytes > MAX_NAME_BYTES {
                headers.clear();
            }
            pool.push(headers);
        }
    }
}

/// Replaces the values of `copy`, if both maps have the same names in the same order and number. Returns whether they
/// have; if not, some values may be replaced.
fn replace_values(copy: &mut HeaderMap, headers: &HeaderMap) -> bool {
    copy.len() == headers.len()
        && copy.iter_mut().zip(headers).all(|((copied_name, copied), (name, value))| {
            *copied = value.clone();
            copied_name == name
        })
}

const EMPTY: HeaderValue = HeaderValue::from_static("");
/// About the usual number of concurrent requests of one worker.
const MAX_MAPS: usize = 256;
const MAX_CAPACITY: usize = 64;
/// The maximum of all names together, in bytes; clients choose the names.
const MAX_NAME_BYTES: usize = 1024;

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
    fn copies_are_equal_and_memory_is_reused() {
        let mut headers = map(&[("a", "1"), ("b", "2"), ("a", "3"), ("host", "x")]);
        let pool = HeaderMapPool::default();
        let copy = pool.copy(&headers);
        assert_eq!(copy, headers);
        assert_eq!(copy.get_all("a").iter().collect::<Vec<_>>(), ["1", "3"]);
        pool.put_back(copy);
        headers.remove("b");
        assert_eq!(pool.copy(&headers), headers);
        assert!(pool.0.borrow().is_empty());
    }

    #[test]
    fn recycled_names_do_not_affect_copies() {
        let maps = [
            map(&[("a", "1"), ("b", "2"), ("a", "3"), ("host", "x")]),
            map(&[("a", "4"), ("b", "5"), ("a", "6"), ("host", "y")]),
            // The same number of headers, with other names or in another order.
            map(&[("a", "1"), ("a", "3"), ("b", "2"), ("host", "x")]),
            map(&[("a", "1"), ("b", "2"), ("b", "3"), ("host", "x")]),
            map(&[("b", "1"), ("a", "2"), ("host", "3"), ("a", "x")]),
            map(&[("a", "1"), ("b", "2"), ("c", "3"), ("host", "x")]),
            map(&[("a", "1")]),
            map(&[]),
        ];
        let pool = HeaderMapPool::default();
        for (first, second) in maps.iter().flat_map(|first| maps.iter().map(move |second| (first, second))) {
            let copy = pool.copy(first);
            assert_eq!(&copy, first);
            pool.put_back(copy);
            let copy = pool.copy(second);
            assert_eq!(&copy, second, "after {first:?}");
            assert!(copy.iter().eq(second), "{first:?}, then {second:?}");
            pool.put_back(copy);
        }
    }

    #[test]
    fn pool_drops_large_and_surplus_maps() {
        let pool = HeaderMapPool::default();
        pool.put_back(HeaderMap::with_capacity(MAX_CAPACITY * 4));
        assert!(pool.0.borrow().is_empty());
        for _ in 0..MAX_MAPS * 2 {
            pool.put_back(HeaderMap::with_capacity(1));
        }
        assert_eq!(pool.0.borrow().len(), MAX_MAPS);
    }

    #[test]
    fn pool_keeps_no_values_and_no_long_names() {
        let pool = HeaderMapPool::default();
        pool.put_back(map(&[("authorization", "secret"), ("a", "1")]));
        let kept = pool.0.borrow()[0].clone();
        assert!(kept.len() == 2 && kept.values().all(|value| value.is_empty()), "{kept:?}");
        let mut long = HeaderMap::new();
        long.insert(HeaderName::try_from("x".repeat(MAX_NAME_BYTES + 1)).unwrap(), HeaderValue::from_static("1"));
        pool.put_back(long);
        assert!(pool.0.borrow()[1].is_empty());
    }
}
