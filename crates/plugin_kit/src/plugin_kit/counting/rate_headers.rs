//! The response headers of windows: what is left of each, and of the one of which the least is left.

use http::{HeaderName, HeaderValue};

use super::limit_rule::{ActiveLimit, LimitDecision, LimitRule};
use super::rate_windows::window_name;
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::context::ResponseHeaders;
use crate::plugin_api::decimal;

/// The headers of all windows of a plugin.
pub struct RateHeaders(Box<[WindowHeaders]>);

struct WindowHeaders {
    limit: HeaderName,
    remaining: HeaderName,
    limit_value: HeaderValue,
}

impl RateHeaders {
    pub fn new(rules: &[LimitRule]) -> Self {
        RateHeaders(rules.iter().map(WindowHeaders::new).collect())
    }

    pub fn declare(&self, fields: &mut ChangedFields) {
        fields.response.add_all(self.0.iter().flat_map(|headers| [&headers.limit, &headers.remaining]));
        fields.response.add_all(&[RATELIMIT_LIMIT, RATELIMIT_REMAINING, RATELIMIT_RESET]);
    }

    /// Adds the headers. `amount`: what the request takes if it is admitted.
    pub fn add_to(&self, fields: &mut ResponseHeaders, limits: &[ActiveLimit], decision: &LimitDecision, amount: u64) {
        let is_admitted = decision.is_admitted;
        // The limit of which the fewest requests remain, and the longest of several.
        let mut lowest: Option<(u64, u64, &WindowHeaders)> = None;
        for ((limit, counts), headers) in limits.iter().zip(&decision.uses).zip(&self.0) {
            let remaining = limit.remaining(*counts, if is_admitted { amount } else { 0 });
            fields.insert(headers.limit.clone(), headers.limit_value.clone());
            fields.insert(headers.remaining.clone(), decimal::header_value(remaining));
            if lowest.is_none_or(|(least, ..)| remaining <= least) {
                let wait = if is_admitted { 0 } else { limit.wait_ms_for(*counts, amount) };
                lowest = Some((remaining, limit.rest_ms.max(wait).div_ceil(1000).max(1), headers));
            }
        }
        if let Some((remaining, reset, headers)) = lowest {
            fields.insert(RATELIMIT_LIMIT, headers.limit_value.clone());
            fields.insert(RATELIMIT_REMAINING, decimal::header_value(remaining));
            fields.insert(RATELIMIT_RESET, decimal::header_value(reset));
        }
    }
}

/// After how many seconds a rejected request of this amount is admitted, if no other one comes before.
pub fn retry_seconds(limits: &[ActiveLimit], decision: &LimitDecision, amount: u64) -> u64 {
    let uses = limits.iter().zip(&decision.uses);
    let wait = uses.map(|(limit, counts)| limit.wait_ms_for(*counts, amount)).max().unwrap_or_default();
    wait.div_ceil(1000).max(1)
}

impl WindowHeaders {
    fn new(rule: &LimitRule) -> Self {
        let name = window_name(rule);
        let header = |kind: &str| {
            HeaderName::try_from(format!("x-ratelimit-{kind}-{name}")).expect("a number or a word is part of a name")
        };
        WindowHeaders {
            limit: header("limit"),
            remaining: header("remaining"),
            limit_value: decimal::header_value(rule.max),
        }
    }
}

const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
