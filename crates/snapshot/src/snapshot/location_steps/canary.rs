//! Which requests of a location go to its canary: by a header, by a cookie, or by chance.

use http::{HeaderMap, HeaderName};

use super::cookie_value::cookie_value;
use crate::plugin_api::RemainingRegexSteps;
use crate::snapshot::regex::Regex;

/// The requests that the canary gets. What comes first decides.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryRequests {
    pub header: Option<(HeaderName, HeaderCondition)>,
    /// A cookie that says `always` or `never`.
    pub cookie: Option<Box<str>>,
    /// Of `total` requests that neither of both decides about.
    pub weight: u32,
    pub total: u32,
}

/// Which values of the header are for the canary. Others leave the decision open, unless the condition excludes them.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderCondition {
    /// `always`; with `never`, the canary does not get the request.
    AlwaysOrNever,
    Value(Box<str>),
    Pattern(Regex),
    /// No value is, because the pattern cannot be used: requests with the header are not for the canary.
    Nothing,
}

impl CanaryRequests {
    pub(super) fn contains(&self, headers: &HeaderMap, steps: &mut RemainingRegexSteps) -> bool {
        let by_header = self.header.as_ref().and_then(|(name, condition)| {
            let value = headers.get(name)?.as_bytes();
            match condition {
                HeaderCondition::AlwaysOrNever => always_or_never(value),
                HeaderCondition::Value(expected) => (value == expected.as_bytes()).then_some(true),
                HeaderCondition::Pattern(regex) => {
                    let states = usize::try_from(regex.states()).unwrap_or(usize::MAX);
                    match steps.take(states, value.len()) {
                        true => regex.is_match(value).then_some(true),
                        // Whether it matches is not known.
                        false => Some(false),
                    }
                }
                HeaderCondition::Nothing => Some(false),
            }
        });
        let by_cookie = || always_or_never(cookie_value(headers, self.cookie.as_deref()?)?);
        by_header.or_else(by_cookie).unwrap_or_else(|| self.weight > 0 && fastrand::u32(..self.total) < self.weight)
    }
}

fn always_or_never(value: &[u8]) -> Option<bool> {
    match value {
        b"always" => Some(true),
        b"never" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;
    use crate::snapshot::regex::compile_regex;

    fn requests(condition: HeaderCondition, weight: u32) -> CanaryRequests {
        let header = Some((HeaderName::from_static("x-canary"), condition));
        CanaryRequests { header, cookie: Some("canary".into()), weight, total: 100 }
    }

    fn contains(requests: &CanaryRequests, header: Option<&'static str>, cookie: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static(cookie));
        headers.extend(header.map(|value| (HeaderName::from_static("x-canary"), HeaderValue::from_static(value))));
        requests.contains(&headers, &mut RemainingRegexSteps::default())
    }

    #[test]
    fn the_header_decides_before_the_cookie_and_that_before_chance() {
        let (none, all) = (requests(HeaderCondition::AlwaysOrNever, 0), requests(HeaderCondition::AlwaysOrNever, 100));
        for (header, cookie, expected) in [
            (Some("always"), "canary=never", [true, true]),
            (Some("never"), "canary=always", [false, false]),
            (Some("Always"), "a=1; Canary=always", [true, true]),
            (None, "canary=never", [false, false]),
            (None, "canary=sometimes", [false, true]),
            (None, "xcanary=always", [false, true]),
            (None, "", [false, true]),
        ] {
            let found = [&none, &all].map(|requests| contains(requests, header, cookie));
            assert_eq!(found, expected, "{header:?} {cookie}");
        }
    }

    #[test]
    fn with_a_value_or_a_pattern_the_words_have_no_meaning() {
        let value = requests(HeaderCondition::Value("beta".into()), 0);
        let pattern = requests(HeaderCondition::Pattern(compile_regex("(?s:.*)(?:DE|at$)(?s:.*)").unwrap()), 0);
        for (header, cookie, expected) in [
            ("beta", "", [true, false]),
            ("always", "", [false, false]),
            ("Beta", "", [false, false]),
            ("xDEx", "", [false, true]),
            ("at", "", [false, true]),
            ("ata", "", [false, false]),
            ("de", "canary=always", [true, true]),
        ] {
            let found = [&value, &pattern].map(|requests| contains(requests, Some(header), cookie));
            assert_eq!(found, expected, "{header} {cookie}");
        }
    }

    #[test]
    fn without_a_result_the_canary_gets_no_requests() {
        let nothing = requests(HeaderCondition::Nothing, 100);
        assert!(!contains(&nothing, Some("a"), "canary=always"));
        assert!(contains(&nothing, None, "canary=always"));
        let pattern = requests(HeaderCondition::Pattern(compile_regex(".*a.*").unwrap()), 100);
        let mut headers = HeaderMap::new();
        headers.insert("x-canary", HeaderValue::from_static("aaaa"));
        assert!(!pattern.contains(&headers, &mut RemainingRegexSteps::new(3)));
    }

    #[test]
    fn a_share_of_the_requests_is_chosen_by_chance() {
        let quarter = CanaryRequests { header: None, cookie: None, weight: 50, total: 200 };
        let chosen = (0..4000).filter(|_| contains(&quarter, None, "")).count();
        assert!((800..1200).contains(&chosen), "{chosen}");
    }
}
