//! Whether a stored response may be sent for a request (RFC 9111, sections 4 and 5.2.1, and RFC 5861).

use std::time::Duration;

use super::cache_control::CacheControl;

/// What a stored response is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    Fresh,
    /// Stale, but the request accepts it.
    AcceptedStale,
    /// Stale, and it may be sent while it is validated.
    WhileRevalidating,
    /// It must be validated first.
    Validate,
}

/// A stored response at the time of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredState {
    pub(crate) directives: CacheControl,
    pub(crate) lifetime: Duration,
    pub(crate) age: Duration,
}

impl StoredState {
    fn staleness(&self) -> Duration {
        self.age.saturating_sub(self.lifetime)
    }

    /// What a request with these directives may do with the response.
    pub(crate) fn reuse(&self, request: &CacheControl) -> Reuse {
        if self.directives.no_cache || request.no_cache || request.max_age.is_some_and(|limit| self.age > limit) {
            return Reuse::Validate;
        }
        let remaining = self.lifetime.saturating_sub(self.age);
        if request.min_fresh.is_some_and(|needed| remaining < needed) {
            return Reuse::Validate;
        }
        if self.lifetime > self.age {
            return Reuse::Fresh;
        }
        if self.directives.forbids_stale() {
            return Reuse::Validate;
        }
        if request.max_stale.is_some_and(|limit| self.staleness() <= limit) {
            return Reuse::AcceptedStale;
        }
        if self.directives.stale_while_revalidate.is_some_and(|limit| self.staleness() < limit) {
            return Reuse::WhileRevalidating;
        }
        Reuse::Validate
    }

    /// Whether the response may be sent because the backend has failed (RFC 5861, section 4).
    pub(crate) fn serves_errors(&self, request: &CacheControl) -> bool {
        let limit = request.stale_if_error.or(self.directives.stale_if_error);
        // A response that must be validated for each request is no substitute for its validation.
        let is_permitted = !self.directives.must_revalidate && !self.directives.proxy_revalidate;
        is_permitted && !self.directives.no_cache && limit.is_some_and(|limit| self.staleness() < limit)
    }
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn directives(text: &str) -> CacheControl {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_str(text).unwrap());
        CacheControl::of_response(&headers)
    }

    fn state(response: &str, lifetime: u64, age: u64) -> StoredState {
        StoredState {
            directives: directives(response),
            lifetime: Duration::from_secs(lifetime),
            age: Duration::from_secs(age),
        }
    }

    #[test]
    fn request_and_response_decide() {
        for (response, lifetime, age, request, expected) in [
            ("", 60, 59, "", Reuse::Fresh),
            ("", 60, 60, "", Reuse::Validate),
            ("no-cache", 60, 0, "", Reuse::Validate),
            ("", 60, 0, "no-cache", Reuse::Validate),
            ("", 60, 10, "max-age=9", Reuse::Validate),
            ("", 60, 10, "max-age=10", Reuse::Fresh),
            ("", 60, 10, "min-fresh=50", Reuse::Fresh),
            ("", 60, 10, "min-fresh=51", Reuse::Validate),
            ("", 60, 70, "max-stale", Reuse::AcceptedStale),
            ("", 60, 70, "max-stale=10", Reuse::AcceptedStale),
            ("", 60, 70, "max-stale=9", Reuse::Validate),
            ("must-revalidate", 60, 70, "max-stale", Reuse::Validate),
            ("s-maxage=60", 60, 70, "max-stale", Reuse::Validate),
            ("stale-while-revalidate=11", 60, 70, "", Reuse::WhileRevalidating),
            ("stale-while-revalidate=10", 60, 70, "", Reuse::Validate),
        ] {
            let found = state(response, lifetime, age).reuse(&directives(request));
            assert_eq!(found, expected, "{response:?} {lifetime} {age} {request:?}");
        }
    }

    #[test]
    fn errors_are_hidden_only_if_the_response_permits_it() {
        assert!(state("stale-if-error=30", 60, 70).serves_errors(&directives("")));
        assert!(state("", 60, 70).serves_errors(&directives("stale-if-error=30")));
        assert!(!state("stale-if-error=10", 60, 70).serves_errors(&directives("")));
        assert!(!state("stale-if-error=30, must-revalidate", 60, 70).serves_errors(&directives("")));
        assert!(!state("", 60, 70).serves_errors(&directives("")));
    }
}
