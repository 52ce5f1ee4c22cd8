//! `route-by-header`: sends requests to another Service if their headers have certain values.
//!
//! ```yaml
//! plugin: route-by-header
//! config:
//!   rules:
//!     - condition: {X-Region: eu, X-Tier: gold}
//!       upstream_name: shop-gold.default.80.svc
//!     - condition: {X-Region: eu}
//!       upstream_name: shop-eu.default.80.svc
//! ```
//!
//! The first rule decides of which the request has all headers with exactly these values. A header with several lines
//! has the value if one of the lines is equal to it. Other requests go to the backends of the route.
//!
//! `upstream_name` is a Service with its port, as Kong's ingress controller names upstreams. It is resolved like a
//! backend of the route: its endpoints, policies and TLS settings apply, and a Service of another namespace needs a
//! ReferenceGrant from KongPlugin. If it cannot be resolved, its requests get 500, and the condition `PluginsResolved`
//! of the route says why. Filters of the route's backends do not apply to it, nor do plugins that are attached to it.
//! If one of these fails closed and is not attached to the route or its backends, too, or if a backend of the route has
//! an authorization server, requests for the Service get 503.
//!
//! The headers are those of the client, which may send any. They select a Service, and prove nothing.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AccessOutcome, BackendName, BuildCx, Phases, Plugin, PluginKind, RequestCx, Scopes};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The rules, of which the first one that applies decides; 1 to 100.
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// The names of headers, each with its value; 1 to 20.
    condition: BTreeMap<String, String>,
    /// The Service with its port, such as `shop-eu.default.80.svc`.
    upstream_name: String,
}

/// Header fields that a request must have.
type RequiredFields = Box<[(HeaderName, HeaderValue)]>;

pub(crate) struct RouteByHeader {
    conditions: Box<[RequiredFields]>,
    /// The Service of each rule.
    backends: Box<[BackendName]>,
}

impl PluginKind for RouteByHeader {
    const NAME: &'static str = "route-by-header";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 850;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = RouteByHeader;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.rules.is_empty() {
            invalid.push(Diagnostic::in_config("rules", "is empty", "add a rule"));
        }
        if config.rules.len() > MAX_RULES {
            let message = format!("{} rules are too many", config.rules.len());
            invalid.push(Diagnostic::in_config("rules", message, format!("keep {MAX_RULES} or fewer")));
        }
        let (mut conditions, mut backends) = (Vec::new(), Vec::new());
        for (index, rule) in config.rules.iter().take(MAX_RULES).enumerate() {
            conditions.push(parse_condition(index, &rule.condition, &mut invalid));
            match BackendName::parse(&format!("rules[{index}].upstream_name"), &rule.upstream_name, None) {
                Ok(backend) => backends.push(backend),
                Err(problem) => invalid.push(problem),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(RouteByHeader { conditions: conditions.into(), backends: backends.into() })
    }
}

/// The headers of the rule with this index, whose problems are added to `invalid`.
fn parse_condition(
    index: usize,
    condition: &BTreeMap<String, String>,
    invalid: &mut Vec<Diagnostic>,
) -> Box<[(HeaderName, HeaderValue)]> {
    let field = format!("rules[{index}].condition");
    if !(1..=MAX_HEADERS).contains(&condition.len()) {
        let message = format!("it has {} headers", condition.len());
        invalid.push(Diagnostic::in_config(&field, message, format!("name 1 to {MAX_HEADERS} headers")));
        return Box::default();
    }
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in condition {
        let field = format!("{field}.{name}");
        let Ok(name) = name.parse::<HeaderName>() else {
            let remedy = "write a name such as X-Region";
            invalid.push(Diagnostic::in_config(field, "is not the name of a header", remedy));
            continue;
        };
        let Some(value) = HeaderValue::from_str(value).ok().filter(|_| value.trim() == value) else {
            let remedy = "write a value without control characters, and without spaces around it";
            invalid.push(Diagnostic::in_config(field, "is not a value of a header", remedy));
            continue;
        };
        if headers.iter().any(|(other, _)| *other == name) {
            let remedy = "name each header once: upper and lower case make no difference";
            invalid.push(Diagnostic::in_config(field, "the condition has this header twice", remedy));
            continue;
        }
        headers.push((name, value));
    }
    headers.into()
}

impl Plugin for RouteByHeader {
    fn may_wait(&self) -> bool {
        false
    }

    fn chosen_backends(&self) -> &[BackendName] {
        &self.backends
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let index = self.conditions.iter().position(|condition| applies(condition, &cx.head.headers));
        if let Some(index) = index.and_then(|index| u16::try_from(index).ok()) {
            cx.choose_backend(index, false);
        }
        AccessOutcome::Continue
    }
}

fn applies(condition: &[(HeaderName, HeaderValue)], headers: &HeaderMap) -> bool {
    condition.iter().all(|(name, value)| headers.get_all(name).iter().any(|line| line == value))
}

const MAX_RULES: usize = 100;
const MAX_HEADERS: usize = 20;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<RouteByHeader> = RegisteredKind::NEW;

    fn rule(condition: Value) -> Value {
        json!({"condition": condition, "upstream_name": "next.a.80.svc"})
    }

    // docs/kong-compatibility.md, 5.11
    #[tokio::test]
    async fn first_rule_decides_whose_headers_are_all_equal() {
        let rules = [rule(json!({"X-Region": "eu", "x-tier": "gold"})), rule(json!({"x-region": "eu"}))];
        let chain = chain(&[(&KIND, json!({"rules": rules}))]);
        for (headers, expected) in [
            (&[("x-region", "eu"), ("x-tier", "gold")][..], Some(0)),
            (&[("x-region", "eu")], Some(1)),
            (&[("x-region", "eu"), ("x-tier", "silver")], Some(1)),
            (&[("x-region", "us"), ("x-region", "eu")], Some(1)),
            (&[("x-region", "EU")], None),
            (&[("x-region", "eu, us")], None),
            (&[("x-tier", "gold")], None),
            (&[], None),
        ] {
            let request = TestRequest::get("/");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            let chosen = request.run(&chain).await.state.chosen_backend;
            assert_eq!(chosen.map(|chosen| (chosen.index, chosen.has_fallback)), expected.map(|index| (index, false)));
        }
    }

    #[test]
    fn invalid_rules_are_refused() {
        let many: Vec<_> = (0..101).map(|_| rule(json!({"a": "b"}))).collect();
        let headers: serde_json::Map<String, Value> = (0..21).map(|index| (format!("h{index}"), json!("v"))).collect();
        for (config, field) in [
            (json!({}), "config.rules"),
            (json!({"rules": many}), "config.rules"),
            (json!({"rules": [rule(json!({}))]}), "config.rules[0].condition"),
            (json!({"rules": [rule(headers.into())]}), "config.rules[0].condition"),
            (json!({"rules": [rule(json!({"a b": "c"}))]}), "config.rules[0].condition.a b"),
            (json!({"rules": [rule(json!({"a": "b\n"}))]}), "config.rules[0].condition.a"),
            (json!({"rules": [rule(json!({"a": " b"}))]}), "config.rules[0].condition.a"),
            (json!({"rules": [rule(json!({"A": "b", "a": "c"}))]}), "config.rules[0].condition.a"),
            (json!({"rules": [{"condition": {"a": "b"}, "upstream_name": "x"}]}), "config.rules[0].upstream_name"),
            (json!({"rules": [{"condition": {"a": "b"}}]}), "config.rules[0]"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
