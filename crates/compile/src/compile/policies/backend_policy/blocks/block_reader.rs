//! Reads the fields of a block of a BackendPolicy. Objects from an API server may violate the schema, if the installed
//! definition is that of another release.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::gateway::Header;
use crate::compile::objects::duration::parse_duration;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::{WrittenValue, refusal};

/// Reads fields, and collects the problems with them. The default of a field takes the place of an invalid value; a
/// block with problems is not used.
pub(super) struct BlockReader<'p> {
    /// The path of the block.
    path: String,
    problems: &'p mut Vec<Diagnostic>,
}

impl<'p> BlockReader<'p> {
    pub(super) fn new(path: impl Into<String>, problems: &'p mut Vec<Diagnostic>) -> Self {
        BlockReader { path: path.into(), problems }
    }

    /// Reads the fields of an object in the block.
    pub(super) fn object(&mut self, field: impl std::fmt::Display) -> BlockReader<'_> {
        BlockReader { path: format!("{}.{field}", self.path), problems: self.problems }
    }

    /// Adds a problem. `field` is relative to the block; empty for the block itself.
    pub(super) fn problem(&mut self, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let dot = if field.is_empty() { "" } else { "." };
        self.problems.push(Diagnostic::error(format!("{}{dot}{field}", self.path), message, remedy));
    }

    pub(super) fn number(&mut self, field: &str, value: Option<i32>, bounds: RangeInclusive<u32>) -> Option<u32> {
        let value = value?;
        let number = u32::try_from(value).ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let (least, greatest) = bounds.into_inner();
            self.problem(
                field,
                format!("{value} is out of range"),
                format!("write a number from {least} to {greatest}"),
            );
        }
        number
    }

    /// A percentage that may be zero.
    pub(super) fn percent(&mut self, field: &str, value: Option<i32>, least: u8) -> Option<u8> {
        self.number(field, value, u32::from(least)..=100).and_then(|percent| u8::try_from(percent).ok())
    }

    /// `bounds`: as in the definition, such as `1s` and `1h`.
    pub(super) fn duration(&mut self, field: &str, text: Option<&String>, bounds: [&str; 2]) -> Option<Duration> {
        let text = text?;
        let [least, greatest] = bounds.map(|bound| parse_duration(bound).expect("the bounds are durations"));
        let duration = parse_duration(text).filter(|duration| (least..=greatest).contains(duration));
        if duration.is_none() {
            let [least, greatest] = bounds;
            let message = format!("{text:?} is not a duration from {least} to {greatest}");
            self.problem(field, message, "write it like 500ms, 10s or 1m30s");
        }
        duration
    }

    /// A decimal number above zero, in thousandths.
    pub(super) fn thousandths(&mut self, field: &str, text: Option<&String>, greatest: u32) -> Option<u32> {
        let text = text?;
        let number = parse_thousandths(text).filter(|number| (1..=greatest * 1000).contains(number));
        if number.is_none() {
            let message = format!("{text:?} is not a number above 0 and at most {greatest}");
            self.problem(field, message, "write it like \"1.5\", with at most three decimal places");
        }
        number
    }

    /// One of several names.
    pub(super) fn choice<T: Copy, const N: usize>(
        &mut self,
        field: &str,
        text: Option<&String>,
        choices: [(&str, T); N],
    ) -> Option<T> {
        let text = text?;
        let choice = choices.iter().find(|(name, _)| name == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let names = choices.map(|(name, _)| name).join(", ");
            self.problem(field, format!("{text:?} is not supported"), format!("use one of {names}"));
        }
        choice
    }

    /// Statuses, sorted and without duplicates.
    pub(super) fn statuses(&mut self, field: &str, statuses: &[i32], bounds: RangeInclusive<u16>) -> Box<[u16]> {
        let mut known: Vec<u16> = Vec::with_capacity(statuses.len());
        for (index, status) in statuses.iter().enumerate() {
            match u16::try_from(*status).ok().filter(|status| bounds.contains(status)) {
                Some(status) => known.push(status),
                None => {
                    let message = format!("{status} is not a status that can be named here");
                    let remedy = format!("write numbers from {} to {}", bounds.start(), bounds.end());
                    self.problem(&format!("{field}[{index}]"), message, remedy);
                }
            }
        }
        known.sort_unstable();
        known.dedup();
        known.into()
    }

    /// The name of a header field that is read.
    pub(super) fn header_name(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let parsed = HeaderName::try_from(name).ok();
        if parsed.is_none() {
            let message = format!("{name:?} is not the name of a header field");
            self.problem(field, message, "use letters, digits and hyphens");
        }
        parsed
    }

    /// The name of a header field that gets a value which Portico generates.
    pub(super) fn generated_header_name(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let name = self.header_name(field, name)?;
        if let Some(reason) = refusal(&name, WrittenValue::Generated) {
            let message = format!("{name} {reason}, so it cannot have another value");
            self.problem(field, message, "use a name of your own, such as x-attempt");
            return None;
        }
        Some(name)
    }

    /// Header fields with configured values.
    pub(super) fn headers(&mut self, field: &str, headers: &[Header]) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(headers.len());
        for (index, Header { name, value }) in headers.iter().enumerate() {
            let field = |subfield: &str| format!("{field}[{index}].{subfield}");
            let Some(name) = self.header_name(&field("name"), name) else { continue };
            if let Some(reason) = refusal(&name, WrittenValue::Configured) {
                let message = format!("{name} {reason}, so it cannot be set");
                self.problem(&field("name"), message, "remove the entry");
                continue;
            }
            match HeaderValue::try_from(&**value) {
                Ok(value) => drop(map.append(name, value)),
                Err(_) => {
                    let message = format!("the value of {name} has control characters");
                    self.problem(&field("value"), message, "remove them");
                }
            }
        }
        map
    }
}

/// Parses a decimal number with at most three decimal places.
fn parse_thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() > 4 || fraction.len() > 3 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    Some(whole * 1000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_are_read_exactly() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.0", Some(1000)),
            ("1.9", Some(1900)),
            ("0.001", Some(1)),
            ("10.25", Some(10_250)),
            ("0", Some(0)),
            ("", None),
            (".5", None),
            ("1.", None),
            ("-1", None),
            ("1e3", None),
            ("1.0001", None),
            ("99999", None),
        ] {
            assert_eq!(parse_thousandths(text), expected, "{text:?}");
        }
    }

    #[test]
    fn problems_name_the_field_and_what_is_allowed() {
        let mut problems = Vec::new();
        let mut block = BlockReader::new("spec.limits", &mut problems);
        assert_eq!(block.number("maxRequests", Some(5), 1..=10), Some(5));
        assert_eq!(block.number("maxRequests", Some(-1), 1..=10), None);
        assert_eq!(block.duration("queueTimeout", Some(&"1s".to_owned()), ["0s", "1h"]), Some(Duration::from_secs(1)));
        assert_eq!(block.duration("queueTimeout", Some(&"2h".to_owned()), ["0s", "1h"]), None);
        assert_eq!(block.object("admission").thousandths("aggression", Some(&"11".to_owned()), 10), None);
        assert_eq!(block.choice("mode", Some(&"c".to_owned()), [("a", 1), ("b", 2)]), None);
        assert_eq!(*block.statuses("statuses", &[503, 200, 500, 503], 400..=599), [500, 503]);
        block.problem("", "it has no effect", "remove it");
        let texts: Vec<String> = problems.iter().map(Diagnostic::to_string).collect();
        let expected = [
            "spec.limits.maxRequests: -1 is out of range; write a number from 1 to 10",
            "spec.limits.queueTimeout: \"2h\" is not a duration from 0s to 1h; write it like 500ms, 10s or 1m30s",
            "spec.limits.admission.aggression: \"11\" is not a number above 0 and at most 10; write it like \"1.5\", \
             with at most three decimal places",
            "spec.limits.mode: \"c\" is not supported; use one of a, b",
            "spec.limits.statuses[1]: 200 is not a status that can be named here; write numbers from 400 to 599",
            "spec.limits: it has no effect; remove it",
        ];
        assert_eq!(texts, expected);
    }
}
