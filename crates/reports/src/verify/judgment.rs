//! Whether what served a request is what the manifests say.

use super::admin_client::GatewayRecord;
use super::expectation::{Expectation, ExpectedAction};
use super::explanation::explain;
use super::served_routes::ServedListener;

/// The result for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgment {
    /// As the manifests say, with a remark that a reader may need.
    Agrees(Option<String>),
    Differs(String),
    /// No request was sent, for this reason.
    NotDerived(String),
}

/// Compares the recorded observation with the expectation.
pub(super) fn judge(expectation: &Expectation, listener: &ServedListener, observation: &GatewayRecord) -> Judgment {
    let is_route = observation.route.as_deref() == Some(&*expectation.served_route());
    let is_rule = expectation.rule.as_ref().is_none_or(|rule| observation.rule.as_ref() == Some(rule));
    if !is_route || !is_rule {
        return Judgment::Differs(explain(expectation, listener, observation));
    }
    let status = observation.status.unwrap_or_default();
    let reason = observation.reason.as_deref();
    if expectation.requires_https && !listener.is_tls() {
        return match &observation.backend {
            None => Judgment::Agrees(Some(format!("the rule accepts HTTPS only, so plain text gets status {status}"))),
            Some(backend) => {
                Judgment::Differs(format!("annotations require HTTPS, but plain text is forwarded to {backend}"))
            }
        };
    }
    if observation.source.as_deref() == Some("plugin") && observation.backend.is_none() {
        let reason = reason.unwrap_or("no reason");
        return Judgment::Agrees(Some(format!("a plugin replied with status {status} ({reason}) before a backend")));
    }
    if reason == Some(EXTERNAL_AUTH_DENIED) {
        return Judgment::Agrees(Some(format!("the authorization server denied the request with status {status}")));
    }
    if let Some(problem) = backend_problem(&expectation.action, observation) {
        return Judgment::Differs(problem);
    }
    let failure = reason.filter(|reason| match observation.source.as_deref() {
        Some("portico") => *reason != DISCONNECTED,
        // The client ends responses that are too long for it.
        Some(_) => false,
        // There was no response within the timeout of the client.
        None => true,
    });
    match (failure, &observation.backend) {
        (Some(reason), Some(backend)) => {
            Judgment::Differs(format!("backend {backend} was selected, but did not respond: status {status}, {reason}"))
        }
        (Some(reason), None) if expectation.action != ExpectedAction::NotCompared => {
            Judgment::Differs(format!("the rule responds with an error: status {status}, {reason}"))
        }
        (Some(reason), None) => Judgment::Agrees(Some(format!("the rule responds with status {status}, {reason}"))),
        (None, _) => Judgment::Agrees(other_listener(listener, observation)),
    }
}

/// A difference between the backend of the rule and the one that was selected.
fn backend_problem(action: &ExpectedAction, observation: &GatewayRecord) -> Option<String> {
    match (action, &observation.backend) {
        (ExpectedAction::Forward(backends), Some(selected)) => {
            let names = || backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let is_known = backends.iter().any(|backend| backend.is(selected));
            (!is_known).then(|| format!("backend {selected} was selected, which is not one of the rule: {}", names()))
        }
        (ExpectedAction::Redirect, Some(selected)) => {
            Some(format!("the rule redirects, but the request was forwarded to {selected}"))
        }
        // Without a reason, the rule of the gateway does something else on purpose.
        (ExpectedAction::Forward(_), None) if observation.reason.is_none() => {
            let status = observation.status.unwrap_or_default();
            Some(format!("the rule has backends, but the gateway responded itself, with status {status}"))
        }
        (ExpectedAction::Forward(_) | ExpectedAction::Redirect, None) | (ExpectedAction::NotCompared, _) => None,
    }
}

/// A remark if another listener with the same route served the request.
fn other_listener(listener: &ServedListener, observation: &GatewayRecord) -> Option<String> {
    let other = observation.listener.as_ref().filter(|name| **name != listener.listener)?;
    Some(format!("listener {other} gets the requests for this host, and has the same route"))
}

const DISCONNECTED: &str = "client_disconnected";
/// The rule works as written: it asks the server, which decides without the credentials of a client.
const EXTERNAL_AUTH_DENIED: &str = "external_auth_denied";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::expectation::{ExpectedBackend, RequestShape};
    use super::*;
    use crate::api::{Kind, ObjectId, ObjectKey};

    fn expectation(action: ExpectedAction) -> Expectation {
        Expectation {
            object: ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "shop")),
            rule: Some("0".to_owned()),
            field: String::new(),
            served_path: None,
            hosts: Vec::new(),
            parents: Vec::new(),
            requires_https: false,
            requests: Ok(RequestShape::default()),
            action,
        }
    }

    fn forward() -> ExpectedAction {
        ExpectedAction::Forward(vec![ExpectedBackend { service: "default/shop".to_owned(), port: Some(80) }])
    }

    fn listener() -> ServedListener {
        serde_json::from_value(json!({ "listener": "default/web/http", "hostname": "*", "port": 80 })).unwrap()
    }

    fn observed(backend: Option<&str>, source: &str, status: u16, reason: Option<&str>) -> GatewayRecord {
        GatewayRecord {
            listener: Some("default/web/http".to_owned()),
            route: Some("HTTPRoute/default/shop".to_owned()),
            rule: Some("0".to_owned()),
            backend: backend.map(str::to_owned),
            status: Some(status),
            source: Some(source.to_owned()),
            reason: reason.map(str::to_owned),
            ..GatewayRecord::default()
        }
    }

    #[test]
    fn route_backend_and_response_are_compared() {
        let shop = Some("default/shop:80");
        for (action, observation, expected) in [
            (forward(), observed(shop, "endpoint", 404, None), Ok(None)),
            (forward(), observed(shop, "endpoint", 200, Some("client_disconnected")), Ok(None)),
            (forward(), observed(shop, "portico", 204, None), Ok(None)),
            (
                forward(),
                observed(Some("default/old:80"), "endpoint", 200, None),
                Err("not one of the rule: default/shop:80"),
            ),
            (
                forward(),
                observed(shop, "portico", 502, Some("no_response")),
                Err("backend default/shop:80 was selected, but did not respond: status 502, no_response"),
            ),
            (
                forward(),
                GatewayRecord { source: None, ..observed(shop, "", 499, Some("client_disconnected")) },
                Err("backend default/shop:80 was selected, but did not respond: status 499, client_disconnected"),
            ),
            (
                forward(),
                observed(None, "portico", 500, Some("invalid_backend")),
                Err("the rule responds with an error: status 500, invalid_backend"),
            ),
            (forward(), observed(None, "portico", 302, None), Err("the gateway responded itself, with status 302")),
            (
                forward(),
                observed(None, "plugin", 401, Some("no_credentials")),
                Ok(Some("a plugin replied with status 401 (no_credentials) before a backend")),
            ),
            (
                forward(),
                observed(shop, "portico", 403, Some("external_auth_denied")),
                Ok(Some("the authorization server denied the request with status 403")),
            ),
            (
                forward(),
                observed(shop, "portico", 503, Some("external_auth_unavailable")),
                Err("backend default/shop:80 was selected, but did not respond: status 503, external_auth_unavailable"),
            ),
            (ExpectedAction::Redirect, observed(None, "portico", 302, None), Ok(None)),
            (ExpectedAction::Redirect, observed(shop, "endpoint", 200, None), Err("the rule redirects, but")),
            (ExpectedAction::NotCompared, observed(shop, "endpoint", 200, None), Ok(None)),
            (
                ExpectedAction::NotCompared,
                observed(None, "portico", 500, Some("no_backends")),
                Ok(Some("the rule responds with status 500, no_backends")),
            ),
        ] {
            match (judge(&expectation(action), &listener(), &observation), expected) {
                (Judgment::Agrees(remark), Ok(expected)) => assert_eq!(remark.as_deref(), expected),
                (Judgment::Differs(text), Err(expected)) => assert!(text.contains(expected), "{text}"),
                (judgment, _) => panic!("{judgment:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn plain_text_must_not_be_forwarded_if_https_is_required() {
        let expectation = Expectation { requires_https: true, ..expectation(forward()) };
        let agrees = judge(&expectation, &listener(), &observed(None, "portico", 426, Some("https_only")));
        assert!(matches!(&agrees, Judgment::Agrees(Some(remark)) if remark.ends_with("status 426")), "{agrees:?}");
        let differs = judge(&expectation, &listener(), &observed(Some("default/shop:80"), "endpoint", 200, None));
        assert!(matches!(&differs, Judgment::Differs(text) if text.contains("require HTTPS")), "{differs:?}");
    }

    #[test]
    fn another_rule_differs_and_another_listener_is_a_remark() {
        let other = GatewayRecord { rule: Some("1".to_owned()), ..observed(None, "portico", 404, None) };
        assert!(matches!(judge(&expectation(forward()), &listener(), &other), Judgment::Differs(_)));
        let backend = Some("default/shop:80");
        let elsewhere =
            GatewayRecord { listener: Some("default/web/b".to_owned()), ..observed(backend, "endpoint", 200, None) };
        let judgment = judge(&expectation(forward()), &listener(), &elsewhere);
        assert!(
            matches!(&judgment, Judgment::Agrees(Some(remark)) if remark.contains("default/web/b")),
            "{judgment:?}"
        );
    }
}
