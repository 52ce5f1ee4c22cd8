//! Rules that select the requests and connections that are traced: those of the access log, as far as they can be
//! decided before a request has ended. `keep 50% route=HTTPRoute/shop/pay`, `drop path=/healthz`.

use std::str::FromStr;

use super::rules::{LineFacts, LineRule};
use crate::quantity::PartsPerMillion;

/// The rules in their order. The first one decides whose conditions are all true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplingRules(pub Box<[SamplingRule]>);

/// The part of the requests that is recorded of those for which all conditions are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplingRule(LineRule);

/// The part of all requests that is recorded, such as `5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingRate(PartsPerMillion);

impl SamplingRules {
    /// From 0 to 1: the part that is recorded of requests with these facts. `None` if no rule applies to them.
    pub fn rate(&self, facts: &LineFacts<'_>) -> Option<f64> {
        self.0.iter().find(|rule| rule.0.applies_to(facts)).map(|rule| rule.0.rate())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for SamplingRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule: LineRule = text.parse()?;
        match rule.late_condition() {
            None => Ok(SamplingRule(rule)),
            Some(name) => Err(format!(
                "`{name}` is known when a request ends, and the decision is made before; use gateway, host, listener, \
                 method, path, protocol or route"
            )),
        }
    }
}

impl SamplingRate {
    /// From 0 to 1.
    pub fn value(self) -> f64 {
        f64::from(self.0.0) / f64::from(PartsPerMillion::WHOLE.0)
    }
}

impl FromStr for SamplingRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.parse().ok().filter(|_| text.ends_with('%'));
        let error = || format!("`{text}` is no rate; write one from 0% to 100%, with at most four decimals");
        rate.map(SamplingRate).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rule_that_applies_has_the_rate() {
        let texts = ["keep route=HTTPRoute/shop/pay", "drop path=/healthz", "keep 2.5% gateway=shop/*"];
        let rules = SamplingRules(texts.iter().map(|text| text.parse().unwrap()).collect());
        let facts = LineFacts { gateway: "shop/web", path: "/", ..LineFacts::default() };
        for (facts, expected) in [
            (facts, Some(0.025)),
            (LineFacts { route: "HTTPRoute/shop/pay", path: "/healthz", ..facts }, Some(1.0)),
            (LineFacts { path: "/healthz", ..facts }, Some(0.0)),
            (LineFacts { gateway: "blog/web", ..facts }, None),
        ] {
            let rate = rules.rate(&facts);
            let is_equal = match (rate, expected) {
                (Some(rate), Some(expected)) => f64::abs(rate - expected) < 1e-9,
                (rate, expected) => rate.is_none() && expected.is_none(),
            };
            assert!(is_equal, "{facts:?}: {rate:?}");
        }
    }

    #[test]
    fn conditions_of_the_end_are_rejected() {
        for (text, name) in [
            ("keep status=5xx", "status"),
            ("keep duration>=1s", "duration"),
            ("keep 1% error=*", "error"),
            ("drop upstream=shop/*", "upstream"),
        ] {
            let error = text.parse::<SamplingRule>().expect_err(text);
            assert!(error.starts_with(&format!("`{name}` is known when a request ends")), "{text}: {error}");
        }
        assert!("keep 101%".parse::<SamplingRule>().is_err());
    }

    #[test]
    fn rates_need_the_percent_sign() {
        assert_eq!("12.5%".parse::<SamplingRate>().map(SamplingRate::value), Ok(0.125));
        for text in ["0.1", "", "%", "101%", "0.00001%", "-1%"] {
            assert!(text.parse::<SamplingRate>().is_err(), "{text}");
        }
    }
}
