//! Rules that select the lines of the access log: `keep status=5xx`, `keep duration>=1s`, `drop path=/healthz`,
//! `keep 1%`. The first rule decides whose conditions are all true; a line for which none decides is written.

use std::str::FromStr;
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::quantity::{PartsPerMillion, WaitTime};

/// The rules in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineRules(pub Box<[LineRule]>);

/// What becomes of the lines for which all conditions are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRule {
    /// The hashes up to this one, exclusively, are written; all if it is `None`.
    below: Option<u64>,
    conditions: Box<[LineCondition]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LineCondition {
    /// Ranges of statuses, both ends included.
    Status(Box<[(u16, u16)]>),
    /// At least this long.
    Duration(Duration),
    Text(TextFact, Box<[TextPattern]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextFact {
    Error,
    Gateway,
    Host,
    Listener,
    Method,
    Path,
    Protocol,
    Route,
    Upstream,
}

/// A text, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TextPattern {
    text: Box<str>,
    is_prefix: bool,
}

/// What rules read of a line. A text that a line does not have is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineFacts<'r> {
    pub status: Option<u16>,
    pub duration: Duration,
    pub error: &'r str,
    pub gateway: &'r str,
    /// In lower case.
    pub host: &'r str,
    pub listener: &'r str,
    pub method: &'r str,
    pub path: &'r str,
    pub protocol: &'r str,
    pub route: &'r str,
    pub upstream: &'r str,
    /// Lines with the same key are either all written or none of them, in all replicas: the id of the request.
    pub sampling_key: &'r [u8],
}

impl LineRules {
    /// Whether the line is written.
    pub fn keeps(&self, facts: &LineFacts<'_>) -> bool {
        let decisive = self.0.iter().find(|rule| rule.applies_to(facts));
        decisive.is_none_or(|rule| rule.below.is_none_or(|below| xxh64(facts.sampling_key, 0) < below))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl LineRule {
    /// Whether all conditions are true.
    pub(super) fn applies_to(&self, facts: &LineFacts<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.is_true(facts))
    }

    /// From 0 to 1: the part of the lines that is written.
    pub(super) fn rate(&self) -> f64 {
        self.below.map_or(1.0, |below| below as f64 / u64::MAX as f64)
    }

    /// The first condition that is not known before the end of a request.
    pub(super) fn late_condition(&self) -> Option<&'static str> {
        self.conditions.iter().find_map(|condition| match condition {
            LineCondition::Status(_) => Some("status"),
            LineCondition::Duration(_) => Some("duration"),
            LineCondition::Text(TextFact::Error, _) => Some("error"),
            LineCondition::Text(TextFact::Upstream, _) => Some("upstream"),
            LineCondition::Text(_, _) => None,
        })
    }
}

impl LineCondition {
    fn is_true(&self, facts: &LineFacts<'_>) -> bool {
        match self {
            LineCondition::Status(ranges) => {
                facts.status.is_some_and(|status| ranges.iter().any(|(first, last)| (*first..=*last).contains(&status)))
            }
            LineCondition::Duration(least) => facts.duration >= *least,
            LineCondition::Text(fact, patterns) => {
                let text = fact.of(facts);
                patterns.iter().any(|pattern| pattern.matches(text))
            }
        }
    }
}

impl TextFact {
    const ALL: [(TextFact, &'static str); 9] = [
        (TextFact::Error, "error"),
        (TextFact::Gateway, "gateway"),
        (TextFact::Host, "host"),
        (TextFact::Listener, "listener"),
        (TextFact::Method, "method"),
        (TextFact::Path, "path"),
        (TextFact::Protocol, "protocol"),
        (TextFact::Route, "route"),
        (TextFact::Upstream, "upstream"),
    ];

    fn of<'r>(self, facts: &LineFacts<'r>) -> &'r str {
        match self {
            TextFact::Error => facts.error,
            TextFact::Gateway => facts.gateway,
            TextFact::Host => facts.host,
            TextFact::Listener => facts.listener,
            TextFact::Method => facts.method,
            TextFact::Path => facts.path,
            TextFact::Protocol => facts.protocol,
            TextFact::Route => facts.route,
            TextFact::Upstream => facts.upstream,
        }
    }
}

impl TextPattern {
    /// `*` alone matches every text except the empty one.
    fn matches(&self, text: &str) -> bool {
        if self.is_prefix { !text.is_empty() && text.starts_with(&*self.text) } else { text == &*self.text }
    }
}

impl FromStr for LineRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace().peekable();
        let keeps = match words.next() {
            Some("keep") => true,
            Some("drop") => false,
            _ => return Err(format!("a rule begins with `keep` or `drop`; write it like {EXAMPLES}")),
        };
        let share = words.next_if(|word| word.ends_with('%')).map(parse_share).transpose()?;
        let below = match (keeps, share) {
            (true, None | Some(PartsPerMillion::WHOLE)) => None,
            (true, Some(share)) => Some(u64::MAX / u64::from(PartsPerMillion::WHOLE.0) * u64::from(share.0)),
            (false, None) => Some(0),
            (false, Some(_)) => return Err("`drop` has no share; write `keep` with the other share".to_owned()),
        };
        let conditions: Box<[_]> = words.map(parse_condition).collect::<Result<_, _>>()?;
        if conditions.len() > MAX_CONDITIONS {
            return Err(format!("a rule has at most {MAX_CONDITIONS} conditions; write several rules"));
        }
        Ok(LineRule { below, conditions })
    }
}

fn parse_share(word: &str) -> Result<PartsPerMillion, String> {
    word.parse().map_err(|_| format!("`{word}` is no share; write one from 0% to 100%, with at most four decimals"))
}

fn parse_condition(word: &str) -> Result<LineCondition, String> {
    if let Some(duration) = word.strip_prefix("duration>=") {
        let duration: WaitTime = duration.parse().map_err(|error| format!("`{word}`: {error}"))?;
        return Ok(LineCondition::Duration(duration.0));
    }
    let Some((name, values)) = word.split_once('=').filter(|(_, values)| !values.is_empty()) else {
        return Err(format!("`{word}` is no condition; write it like {EXAMPLES}"));
    };
    if name == "status" {
        let ranges = values.split('|').map(parse_statuses).collect::<Result<_, _>>()?;
        return Ok(LineCondition::Status(ranges));
    }
    let Some((fact, _)) = TextFact::ALL.iter().find(|(_, known)| *known == name) else {
        let known: Vec<_> = TextFact::ALL.iter().map(|(_, known)| *known).collect();
        return Err(format!("there is no condition `{name}`; use duration>=, status or {}", known.join(", ")));
    };
    // Names of hosts have no case.
    let values = if *fact == TextFact::Host { values.to_ascii_lowercase() } else { values.to_owned() };
    let patterns = values.split('|').map(|value| match value.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => Ok(TextPattern { text: prefix.into(), is_prefix: true }),
        None if !value.is_empty() && !value.contains('*') => Ok(TextPattern { text: value.into(), is_prefix: false }),
        _ => Err(format!("`{value}` in `{word}` is no value; write a text, or the beginning of one before `*`")),
    });
    Ok(LineCondition::Text(*fact, patterns.collect::<Result<_, _>>()?))
}

/// `404`, `500-599` or `5xx`.
fn parse_statuses(text: &str) -> Result<(u16, u16), String> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| text.len() == 3 && (100..=599).contains(status));
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => status(&format!("{class}00")).map(|first| (first, first + 99)),
        (None, Some((first, last))) => status(first).zip(status(last)).filter(|(first, last)| first <= last),
        (None, None) => status(text).map(|status| (status, status)),
    };
    range.ok_or_else(|| format!("`{text}` is no status; write one like 404, 500-599 or 5xx"))
}

const MAX_CONDITIONS: usize = 16;
const EXAMPLES: &str = "`keep status=5xx`, `keep duration>=1s`, `drop path=/healthz` or `keep 1%`";

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> LineRules {
        LineRules(text.split(',').map(|rule| rule.parse().unwrap()).collect())
    }

    #[test]
    fn first_rule_whose_conditions_are_true_decides() {
        let all = rules(
            "keep status=5xx|429,keep duration>=1s,keep error=*,drop path=/healthz|/internal/* method=GET,\
             keep 0% route=HTTPRoute/shop/*",
        );
        let facts = LineFacts { status: Some(200), path: "/", method: "GET", ..LineFacts::default() };
        for (facts, expected) in [
            (facts, true),
            (LineFacts { path: "/healthz", ..facts }, false),
            (LineFacts { path: "/healthz", method: "POST", ..facts }, true),
            (LineFacts { path: "/internal/a", ..facts }, false),
            (LineFacts { path: "/healthz", status: Some(503), ..facts }, true),
            (LineFacts { path: "/healthz", status: Some(429), ..facts }, true),
            (LineFacts { path: "/healthz", duration: Duration::from_secs(1), ..facts }, true),
            (LineFacts { path: "/healthz", error: "no_route", ..facts }, true),
            (LineFacts { route: "HTTPRoute/shop/cart", ..facts }, false),
            (LineFacts { route: "HTTPRoute/shops/cart", ..facts }, true),
            (LineFacts { status: None, ..facts }, true),
        ] {
            assert_eq!(all.keeps(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn sampling_depends_on_the_key_only_and_has_the_rate() {
        for (text, expected) in [("keep 10%", 900..1100), ("keep 0.5%", 25..80), ("keep 100%", 10_000..10_001)] {
            let rules = rules(text);
            let keeps = |number: usize| {
                let key = format!("request-{number}");
                rules.keeps(&LineFacts { sampling_key: key.as_bytes(), ..LineFacts::default() })
            };
            let kept: Vec<usize> = (0..10_000).filter(|number| keeps(*number)).collect();
            assert!(expected.contains(&kept.len()), "{text}: {}", kept.len());
            assert_eq!(kept, (0..10_000).filter(|number| keeps(*number)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn invalid_rules_are_rejected_with_a_remedy() {
        for (text, expected) in [
            ("", "a rule begins with `keep` or `drop`"),
            ("status=5xx", "a rule begins with `keep` or `drop`"),
            ("drop 5%", "`drop` has no share"),
            ("keep 101%", "`101%` is no share"),
            ("keep 0.00001%", "`0.00001%` is no share"),
            ("keep %", "`%` is no share"),
            ("keep status=6xx", "`6xx` is no status"),
            ("keep status=599-500", "`599-500` is no status"),
            ("keep status=0200", "`0200` is no status"),
            ("keep duration>=soon", "`duration>=soon`:"),
            ("keep duration=1s", "there is no condition `duration`"),
            ("keep pth=/a", "there is no condition `pth`"),
            ("keep path=", "`path=` is no condition"),
            ("keep path=/a*b", "`/a*b` in `path=/a*b` is no value"),
            ("keep path=/a|", "`` in `path=/a|` is no value"),
        ] {
            let error = text.parse::<LineRule>().expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let many = format!("keep {}", "status=5xx ".repeat(17));
        assert!(many.parse::<LineRule>().is_err());
    }
}
