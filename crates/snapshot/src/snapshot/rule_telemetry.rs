//! How the requests of a rule are named in access logs and metrics, and how they are traced, where the dialect of the
//! rule decides about it.

use std::fmt;
use std::sync::Arc;

use super::location_steps::LocationNames;

/// What observers of a request learn from its rule, in addition to what the labels of all requests contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTelemetry {
    pub names: Arc<LocationNames>,
    /// What access logs call the upstream of the rule, such as `shop-cart-80`.
    pub upstream: Arc<str>,
    /// What gets a share of the requests in place of this upstream.
    pub alternative: Option<AlternativeUpstream>,
    pub tracing: RuleTracing,
}

/// An upstream with a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativeUpstream {
    /// What access logs and metrics call it.
    pub name: Arc<str>,
    /// The label `backend` of its requests.
    pub backend: Box<str>,
}

/// How the requests of a rule are traced, while the process traces requests. The default is like all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTracing {
    /// Whether nothing is recorded, and the fields of clients reach endpoints unchanged.
    pub is_off: bool,
    /// Whether a new trace begins although the client has sent one.
    pub ignores_parent: bool,
    /// The name of the span of the request. `None` for its method.
    pub operation: Option<Arc<str>>,
}

impl RuleTelemetry {
    /// The name of the alternative upstream, if it got a request with this label `backend`.
    pub fn alternative_of(&self, backend: &str) -> Option<&Arc<str>> {
        self.alternative.as_ref().filter(|alternative| *alternative.backend == *backend).map(|found| &found.name)
    }
}

/// Text for dumps; empty for the default.
impl fmt::Display for RuleTracing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleTracing { is_off, ignores_parent, operation } = self;
        if *is_off {
            return formatter.write_str("no traces");
        }
        if *ignores_parent {
            formatter.write_str("traces of clients end")?;
        }
        match operation {
            Some(operation) if *ignores_parent => write!(formatter, ", spans named {operation}"),
            Some(operation) => write!(formatter, "spans named {operation}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternative_is_named_only_for_its_requests() {
        let alternative = AlternativeUpstream { name: "shop-next-80".into(), backend: "shop/next:80".into() };
        let telemetry = RuleTelemetry { alternative: Some(alternative), ..RuleTelemetry::default() };
        for (backend, expected) in [("shop/next:80", Some("shop-next-80")), ("shop/cart:80", None), ("", None)] {
            assert_eq!(telemetry.alternative_of(backend).map(|name| &**name), expected, "{backend}");
        }
        assert_eq!(RuleTelemetry::default().alternative_of("shop/next:80"), None);
    }

    #[test]
    fn dumps_describe_tracing() {
        let operation = || Some(Arc::from("cart"));
        for (is_off, ignores_parent, operation, expected) in [
            (false, false, None, ""),
            (true, true, operation(), "no traces"),
            (false, true, None, "traces of clients end"),
            (false, false, operation(), "spans named cart"),
            (false, true, operation(), "traces of clients end, spans named cart"),
        ] {
            assert_eq!(RuleTracing { is_off, ignores_parent, operation }.to_string(), expected);
        }
    }
}
