//! Which requests are sent: for each match, on each listener that serves its route, for each hostname.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Method;

use super::expectation::{Expectation, RequestShape};
use super::hosts::host_for;
use super::judgment::Judgment;
use super::served_routes::{ServedListener, ServedRoutes};
use super::test_client::RouteRequest;
use super::verification_report::{VerificationResult, VerifiedRequest};
use super::{ConnectTo, Settings};

/// One line of the report, before its request is sent.
pub(super) struct PlannedRequest<'a> {
    pub expectation: &'a Expectation,
    pub plan: Plan<'a>,
}

pub(super) enum Plan<'a> {
    /// The first candidate that is served as expected decides.
    Send {
        listener: &'a ServedListener,
        candidates: Vec<RouteRequest>,
    },
    NotDerived {
        reason: String,
    },
    /// The route is not served where the manifests say.
    NotAttached {
        problem: String,
    },
}

impl PlannedRequest<'_> {
    pub(super) fn result(&self, judgment: Judgment) -> VerifiedRequest {
        let mut result = VerifiedRequest {
            object: self.expectation.object.to_string(),
            rule: self.expectation.rule.clone(),
            field: self.expectation.field.clone(),
            listener: match &self.plan {
                Plan::Send { listener, .. } => Some(listener.listener.clone()),
                Plan::NotDerived { .. } | Plan::NotAttached { .. } => None,
            },
            request: None,
            dry_run: false,
            served_by: None,
            result: VerificationResult::Agrees,
            message: None,
        };
        result.set_judgment(judgment);
        result
    }
}

/// Plans the requests for all expectations, in their order.
pub(super) fn plan<'a>(
    expectations: &'a [Expectation],
    served: &'a ServedRoutes,
    settings: &Settings,
) -> Vec<PlannedRequest<'a>> {
    let routes = served.by_route();
    let mut planned = Vec::new();
    for (index, expectation) in expectations.iter().enumerate() {
        let listeners = routes.get(&*expectation.served_route()).map_or(&[][..], |listeners| listeners);
        let is_first_of_route = index == 0 || expectations[index - 1].object != expectation.object;
        let plans = match listeners {
            // One line for the whole route.
            [] if is_first_of_route => {
                vec![Plan::NotAttached { problem: "the gateway serves no rule of the route".to_owned() }]
            }
            [] => Vec::new(),
            listeners => {
                let missing = if is_first_of_route { missing_parents(expectation, listeners) } else { Vec::new() };
                missing.into_iter().chain(plans_on(expectation, listeners, settings)).collect()
            }
        };
        planned.extend(plans.into_iter().map(|plan| PlannedRequest { expectation, plan }));
    }
    planned
}

/// The parents of the route to none of whose listeners it is attached.
fn missing_parents<'a>(expectation: &Expectation, listeners: &[(SocketAddr, &ServedListener)]) -> Vec<Plan<'a>> {
    let is_attached = |parent: &&super::expectation::Parent| {
        listeners.iter().any(|(_, listener)| parent.selects(&listener.listener, listener.port))
    };
    let missing = expectation.parents.iter().filter(|parent| !is_attached(parent));
    let problem = |parent: &super::expectation::Parent| {
        let section = parent.section.as_ref().map(|section| format!(", listener {section}")).unwrap_or_default();
        format!("the route is not attached to {}{section}", parent.object)
    };
    missing.map(|parent| Plan::NotAttached { problem: problem(parent) }).collect()
}

fn plans_on<'a>(
    expectation: &Expectation,
    listeners: &[(SocketAddr, &'a ServedListener)],
    settings: &Settings,
) -> Vec<Plan<'a>> {
    let shape = match &expectation.requests {
        Ok(shape) => shape,
        Err(reason) => return vec![Plan::NotDerived { reason: reason.clone() }],
    };
    let mut plans = Vec::new();
    for (address, listener) in listeners {
        let hosts = expectation.hosts.iter().filter_map(|host| host_for(host, &listener.hostname));
        for host in hosts {
            plans.push(if listener.requires_client_certificate() {
                let name = &listener.listener;
                Plan::NotDerived {
                    reason: format!("listener {name} requires a client certificate, and portico verify has none"),
                }
            } else {
                let address = connect_address(*address, &settings.connect_to);
                Plan::Send { listener, candidates: candidates(shape, address, listener.is_tls(), &host) }
            });
        }
    }
    if plans.is_empty() {
        let reason = "no hostname of the route intersects with the hostname of a listener that has the route";
        plans.push(Plan::NotDerived { reason: reason.to_owned() });
    }
    plans
}

/// The safe methods first, so that a request is sent if that is possible.
fn candidates(shape: &RequestShape, address: SocketAddr, is_tls: bool, host: &str) -> Vec<RouteRequest> {
    let mut methods: Vec<&Method> = shape.methods.iter().collect();
    methods.sort_by_key(|method| !method.is_safe());
    let request = |method: &Method, path: &String| RouteRequest {
        address,
        is_tls,
        method: method.clone(),
        host: host.to_owned(),
        target: if shape.query.is_empty() { path.clone() } else { format!("{path}?{}", shape.query) },
        headers: shape.headers.clone(),
        is_grpc: shape.is_grpc,
    };
    methods.into_iter().flat_map(|method| shape.paths.iter().map(move |path| request(method, path))).collect()
}

/// Where to connect to reach a listening address. A wildcard address is reached on loopback.
fn connect_address(listen: SocketAddr, connect_to: &[ConnectTo]) -> SocketAddr {
    let by_port = connect_to.iter().find(|entry| entry.port == Some(listen.port()));
    let for_all = || connect_to.iter().find(|entry| entry.port.is_none());
    match by_port.or_else(for_all) {
        Some(ConnectTo { address, .. }) => *address,
        None if listen.ip().is_unspecified() => {
            let loopback = match listen {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(loopback, listen.port())
        }
        None => listen,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::SendMode;
    use super::super::expectation::{ExpectedAction, Parent};
    use super::*;
    use crate::api::{Kind, ObjectId, ObjectKey};

    fn expectation(name: &str) -> Expectation {
        Expectation {
            object: ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name)),
            rule: Some("0".to_owned()),
            field: "spec.rules[0].matches[0]".to_owned(),
            served_path: None,
            hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
            parents: Vec::new(),
            requires_https: false,
            requests: Ok(RequestShape {
                paths: vec!["/a".to_owned()],
                methods: vec![Method::POST, Method::GET],
                query: "q=1".to_owned(),
                ..RequestShape::default()
            }),
            action: ExpectedAction::NotCompared,
        }
    }

    fn served(listeners: Vec<Value>) -> ServedRoutes {
        serde_json::from_value(json!({ "binds": [{ "address": "0.0.0.0:8080", "listeners": listeners }] })).unwrap()
    }

    fn listener(name: &str, hostname: &str) -> Value {
        let matches = json!([{ "path": "PathPrefix /a", "route": "HTTPRoute/default/shop", "rule": "0" }]);
        let hosts = json!([{ "host": "*", "matches": matches }]);
        json!({ "listener": name, "hostname": hostname, "port": 80, "hosts": hosts })
    }

    /// A line for each planned request.
    fn lines(expectations: &[Expectation], served: &ServedRoutes) -> Vec<String> {
        let settings = Settings {
            admin: ([127, 0, 0, 1], 1).into(),
            connect_to: Vec::new(),
            mode: SendMode::Safe,
            timeout: Duration::from_secs(1),
        };
        let line = |planned: PlannedRequest<'_>| match planned.plan {
            Plan::Send { listener, candidates } => {
                let requests = candidates.iter().map(RouteRequest::description);
                format!("{}: {}", listener.listener, requests.collect::<Vec<_>>().join(", "))
            }
            Plan::NotDerived { reason } => reason,
            Plan::NotAttached { problem } => problem,
        };
        plan(expectations, served, &settings).into_iter().map(line).collect()
    }

    #[test]
    fn each_hostname_is_planned_on_each_listener() {
        let served = served(vec![listener("default/web/all", "*"), listener("default/web/b", "b.example")]);
        assert_eq!(
            lines(&[expectation("shop")], &served),
            [
                "default/web/all: GET http://a.example/a?q=1, POST http://a.example/a?q=1",
                "default/web/all: GET http://b.example/a?q=1, POST http://b.example/a?q=1",
                "default/web/b: GET http://b.example/a?q=1, POST http://b.example/a?q=1",
            ]
        );
    }

    #[test]
    fn route_that_is_not_attached_has_one_line() {
        let missing = [expectation("cart"), expectation("cart")];
        assert_eq!(lines(&missing, &served(vec![])), ["the gateway serves no rule of the route"]);
        let parent = |section: &str| Parent {
            object: ObjectId::new(Kind::Gateway, ObjectKey::new("default", "web")),
            section: Some(section.to_owned()),
            port: None,
        };
        let partly = Expectation {
            hosts: vec!["*".to_owned()],
            parents: vec![parent("http"), parent("https")],
            requests: Err("a reason".to_owned()),
            ..expectation("shop")
        };
        assert_eq!(
            lines(&[partly], &served(vec![listener("default/web/http", "*")])),
            ["the route is not attached to Gateway default/web, listener https", "a reason"]
        );
    }

    #[test]
    fn requests_that_cannot_be_sent_have_reasons() {
        let mut strict = listener("default/web/http", "*");
        strict["client_certificates"] = json!("required");
        let reasons = lines(&[expectation("shop")], &served(vec![strict]));
        assert!(reasons.len() == 2 && reasons[0].contains("requires a client certificate"), "{reasons:?}");
        let other = lines(&[expectation("shop")], &served(vec![listener("default/web/c", "c.example")]));
        assert!(other.len() == 1 && other[0].starts_with("no hostname of the route intersects"), "{other:?}");
    }

    #[test]
    fn addresses_are_mapped_by_port() {
        let connect_to = [
            ConnectTo { port: None, address: "10.0.0.1:1".parse().unwrap() },
            ConnectTo { port: Some(80), address: "10.0.0.2:8080".parse().unwrap() },
        ];
        let address =
            |listen: &str, entries: &[ConnectTo]| connect_address(listen.parse().unwrap(), entries).to_string();
        assert_eq!(address("0.0.0.0:80", &connect_to), "10.0.0.2:8080");
        assert_eq!(address("0.0.0.0:81", &connect_to), "10.0.0.1:1");
        assert_eq!(address("[::]:80", &[]), "[::1]:80");
        assert_eq!(address("10.0.0.9:80", &[]), "10.0.0.9:80");
    }
}
