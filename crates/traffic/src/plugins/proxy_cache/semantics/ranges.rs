//! Ranges of a stored response (RFC 9110, section 14).

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

/// What a request gets of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestedRange {
    /// All of it: there is no range, or one that a server may ignore.
    Whole,
    Part(Range<usize>),
    /// No byte of the body is in the range.
    Unsatisfiable,
}

/// The range that a request asks for. Several ranges are ignored, since their response would be larger than they.
pub(crate) fn requested_range(request: &HeaderMap, length: usize) -> RequestedRange {
    let mut values = request.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return RequestedRange::Whole };
    let Some(spec) = value.to_str().ok().and_then(|value| strip_unit(value.trim())) else {
        return RequestedRange::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return RequestedRange::Whole };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(length) {
            0 => RequestedRange::Unsatisfiable,
            suffix => RequestedRange::Part(length - suffix..length),
        },
        (Some(first), None) if last.is_empty() => part(first, usize::MAX, length),
        (Some(first), Some(last)) if first <= last => part(first, last, length),
        _ => RequestedRange::Whole,
    }
}

fn strip_unit(value: &str) -> Option<&str> {
    let (unit, ranges) = value.split_once('=')?;
    unit.eq_ignore_ascii_case("bytes").then_some(ranges)
}

fn part(first: usize, last: usize, length: usize) -> RequestedRange {
    if first >= length {
        return RequestedRange::Unsatisfiable;
    }
    RequestedRange::Part(first..last.saturating_add(1).min(length))
}

/// A number of any length.
fn number(text: &str) -> Option<usize> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_range_of_bytes_is_a_part() {
        for (value, expected) in [
            ("bytes=0-4", RequestedRange::Part(0..5)),
            ("Bytes=8-", RequestedRange::Part(8..10)),
            ("bytes=-3", RequestedRange::Part(7..10)),
            ("bytes=-30", RequestedRange::Part(0..10)),
            ("bytes=9-99999999999999999999999", RequestedRange::Part(9..10)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=4-3", RequestedRange::Whole),
            ("bytes=0-1,3-4", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("lines=0-1", RequestedRange::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(value).unwrap());
            assert_eq!(requested_range(&headers, 10), expected, "{value}");
        }
        assert_eq!(requested_range(&HeaderMap::new(), 10), RequestedRange::Whole);
    }
}
