//! Header conditions of a match, and what they share with conditions on query parameters.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::request::RoutingRequest;
use super::request_fields::{Candidate, ConditionField};
use crate::snapshot::regex::Regex;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// A condition on a header.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch<HeaderValue>,
}

impl HeaderMatch {
    /// Whether the condition of this rule applies to the request.
    pub(super) fn applies(&self, request: &RoutingRequest<'_>, candidate: Candidate<'_>) -> bool {
        match request.field(&self.name, candidate) {
            ConditionField::Absent => false,
            ConditionField::Line(line) => self.matches_lines(|| std::iter::once(line), &request.regex_steps),
            ConditionField::Among(headers) => self.matches(headers, &request.regex_steps),
        }
    }

    /// Whether the request has the header with a matching value. Values are compared byte by byte.
    ///
    /// Several lines of a header are one value, joined with a comma and a space, as RFC 9110 §5.3 recommends. Lines of
    /// `Cookie` are joined with a semicolon and a space (RFC 9113 §8.2.3).
    pub(super) fn matches(&self, headers: &HeaderMap, steps: &RegexSteps) -> bool {
        self.matches_lines(|| headers.get_all(&self.name).iter().map(HeaderValue::as_bytes), steps)
    }

    fn matches_lines<'h, L: Iterator<Item = &'h [u8]>>(&self, all_lines: impl Fn() -> L, steps: &RegexSteps) -> bool {
        let separator: &[u8] = if self.name == COOKIE { b"; " } else { b", " };
        let mut lines = all_lines();
        let Some(first) = lines.next() else { return false };
        match &self.value {
            ValueMatch::Exact(value) => {
                let after_first = value.as_bytes().strip_prefix(first);
                let after_all = after_first.and_then(|rest| {
                    lines.try_fold(rest, |rest, line| rest.strip_prefix(separator)?.strip_prefix(line))
                });
                after_all.is_some_and(<[u8]>::is_empty)
            }
            ValueMatch::Regex(regex) => match lines.next() {
                None => steps.admit(regex.states(), first.len(), RegexInput::Header) && regex.is_match(first),
                Some(_) => {
                    let length = all_lines().map(|line| line.len() + separator.len()).sum();
                    if !steps.admit(regex.states(), length, RegexInput::Header) {
                        return false;
                    }
                    let all_lines: Vec<&[u8]> = all_lines().collect();
                    regex.is_match(&all_lines.join(separator))
                }
            },
        }
    }
}

/// A condition on the value of a header or query parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch<T> {
    Exact(T),
    /// Must match the whole value.
    Regex(Regex),
}

/// Keeps only the first item of each name.
pub(super) fn keep_first_of_each<T, N: PartialEq>(items: &mut Vec<T>, name: impl Fn(&T) -> &N) {
    let mut kept = 0;
    for index in 0..items.len() {
        if !items[..kept].iter().any(|earlier| name(earlier) == name(&items[index])) {
            items.swap(kept, index);
            kept += 1;
        }
    }
    items.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::router::compile_regex;

    #[test]
    fn header_value_matching() {
        // (name, value or /pattern/, header lines, whether they match)
        let cases: [(&str, &str, &[&str], bool); 16] = [
            ("x", "a", &["x:a"], true),
            ("x", "a", &["X:a"], true),
            ("x", "a", &["x:A"], false),
            ("x", "a", &["x:ab"], false),
            ("x", "ab", &["x:a"], false),
            ("x", "a", &["y:a"], false),
            ("x", "a", &[], false),
            ("x", "", &["x:"], true),
            ("x", "a, b", &["x:a", "x:b"], true),
            ("x", "a, b", &["x:a, b"], true),
            ("x", "a", &["x:a", "x:b"], false),
            ("x", "a,b", &["x:a", "x:b"], false),
            ("cookie", "a=1; b=2", &["cookie:a=1", "cookie:b=2"], true),
            ("x", "/[a-c]/", &["x:b"], true),
            ("x", "/[a-c]/", &["x:bb"], false),
            ("x", "/[a-c, ]+/", &["x:a", "x:b", "x:c"], true),
        ];
        for (name, value, lines, matches) in cases {
            let value = match value.strip_prefix('/').and_then(|value| value.strip_suffix('/')) {
                Some(pattern) => ValueMatch::Regex(compile_regex(pattern).unwrap()),
                None => ValueMatch::Exact(HeaderValue::from_str(value).unwrap()),
            };
            let header = HeaderMatch { name: name.parse().unwrap(), value };
            let mut headers = HeaderMap::new();
            for line in lines {
                let (name, line) = line.split_once(':').unwrap();
                headers.append(name.parse::<HeaderName>().unwrap(), line.parse().unwrap());
            }
            assert_eq!(header.matches(&headers, &RegexSteps::default()), matches, "{header:?} on {lines:?}");
        }
    }

    #[test]
    fn first_item_of_each_name_is_kept() {
        let mut names = vec!["b", "a", "b", "c", "a", "b"];
        keep_first_of_each(&mut names, |name| name);
        assert_eq!(names, ["b", "a", "c"]);
    }
}
