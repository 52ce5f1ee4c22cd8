//! The directive `proxy_next_upstream` of nginx: after which outcomes a request is sent to another endpoint.

use std::time::Duration;

use super::timeouts_and_retries::{RetryPolicy, RetryScope};

/// What the list of the directive says. The default value is that of nginx: `error timeout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextUpstream {
    /// `off`, which disables all others.
    is_off: bool,
    /// The statuses, sorted.
    codes: Vec<u16>,
    scope: RetryScope,
}

impl NextUpstream {
    /// `None` if one of the words is no condition, or if there are none.
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Option<Self> {
        let scope = RetryScope { errors: false, timeouts: false, ..RetryScope::default() };
        let mut parsed = NextUpstream { is_off: false, codes: Vec::new(), scope };
        let mut is_empty = true;
        for word in words {
            is_empty = false;
            match word {
                "error" => parsed.scope.errors = true,
                "timeout" => parsed.scope.timeouts = true,
                "invalid_header" => parsed.scope.invalid_responses = true,
                "non_idempotent" => parsed.scope.non_idempotent = true,
                "off" => parsed.is_off = true,
                _ => {
                    let status = word.strip_prefix("http_").and_then(|status| status.parse().ok());
                    parsed.codes.push(status.filter(|status| STATUSES.contains(status))?);
                }
            }
        }
        parsed.codes.sort_unstable();
        parsed.codes.dedup();
        (!is_empty).then_some(parsed)
    }

    /// Also for requests whose method is not idempotent.
    pub fn with_non_idempotent(mut self) -> Self {
        self.scope.non_idempotent = true;
        self
    }

    /// The retries of a rule: at most `max_retries`, which begin within `window`, without a delay.
    pub fn policy(&self, max_retries: u32, window: Option<Duration>) -> RetryPolicy {
        RetryPolicy {
            max_retries: if self.is_off { 0 } else { max_retries },
            codes: self.codes.as_slice().into(),
            backoff: Duration::ZERO,
            scope: RetryScope { window, ..self.scope },
        }
    }
}

/// The statuses that nginx can retry, sorted.
const STATUSES: [u16; 7] = [403, 404, 429, 500, 502, 503, 504];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_policy() {
        let none = RetryScope { errors: false, timeouts: false, ..RetryScope::default() };
        for (words, retries, codes, scope) in [
            ("error timeout", 2, &[][..], RetryScope::default()),
            ("error", 2, &[], RetryScope { errors: true, ..none }),
            ("timeout http_503 http_404 http_503", 2, &[404, 503], RetryScope { timeouts: true, ..none }),
            (
                "invalid_header non_idempotent",
                2,
                &[],
                RetryScope { invalid_responses: true, non_idempotent: true, ..none },
            ),
            ("error off", 0, &[], RetryScope { errors: true, ..none }),
        ] {
            let policy = NextUpstream::parse(words.split(' ')).unwrap().policy(2, None);
            assert_eq!((policy.max_retries, &*policy.codes, policy.scope), (retries, codes, scope), "{words}");
        }
        let window = Some(Duration::from_secs(5));
        assert_eq!(NextUpstream::default().policy(1, window).scope, RetryScope { window, ..RetryScope::default() });
    }

    #[test]
    fn other_words_are_no_conditions() {
        for words in ["http_501", "http_", "503", "Error", "updating"] {
            assert_eq!(NextUpstream::parse(words.split(' ')), None, "{words}");
        }
        assert_eq!(NextUpstream::parse([]), None);
    }
}
