//! CORS on the wire: which requests the proxy responds to, and which the endpoint receives.

use http::{HeaderValue, StatusCode};
use portico::snapshot::cors::{AllowedOrigins, CorsFilter, CorsList, OriginPattern};
use portico::snapshot::redirect::RedirectAction;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteFailure, WeightedBackends};

use crate::harness::{Endpoint, Route, TestServer, route, upstream};

fn cors(origin: &str) -> Filters {
    let cors = CorsFilter {
        origins: AllowedOrigins::Listed([OriginPattern::parse(origin).unwrap()].into()),
        credentials: true,
        methods: CorsList::from_names(["PUT"]).unwrap(),
        headers: CorsList::Any,
        expose: CorsList::from_names(["x-id"]).unwrap(),
        max_age: HeaderValue::from(5),
    };
    Filters { cors: Some(Box::new(cors)), ..Filters::default() }
}

struct Case {
    name: &'static str,
    request: &'static str,
    status: u16,
    /// How many requests the endpoint receives.
    received: usize,
    allowed_origin: Option<&'static str>,
    /// Another header that must be present.
    other_header: Option<(&'static str, &'static str)>,
}

#[tokio::test]
async fn proxy_responds_to_preflights_and_forwards_requests() {
    let preflight = "origin: https://app.example\r\naccess-control-request-method: PUT\r\n\
                     access-control-request-headers: x-a";
    let cases = [
        Case {
            name: "the proxy responds to a preflight",
            request: "OPTIONS /rule",
            status: 200,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: Some(("access-control-allow-headers", "x-a")),
        },
        Case {
            name: "the proxy responds to a preflight if only the backend has a filter",
            request: "OPTIONS /backend",
            status: 200,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: Some(("access-control-expose-headers", "x-id")),
        },
        Case {
            name: "the backend's filter takes precedence over the rule's",
            request: "OPTIONS /both",
            status: 200,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: Some(("access-control-max-age", "5")),
        },
        Case {
            name: "a preflight that is not allowed is not forwarded either",
            request: "OPTIONS /other",
            status: 200,
            received: 0,
            allowed_origin: None,
            other_header: Some(("vary", "Origin")),
        },
        Case {
            name: "an actual request is forwarded",
            request: "PUT /rule",
            status: 200,
            received: 1,
            allowed_origin: Some("https://app.example"),
            other_header: Some(("access-control-allow-credentials", "true")),
        },
        Case {
            name: "an actual request from another origin is forwarded without CORS headers",
            request: "GET /other",
            status: 200,
            received: 1,
            allowed_origin: None,
            other_header: None,
        },
        Case {
            name: "a method that CORS does not list is forwarded",
            request: "DELETE /rule",
            status: 200,
            received: 1,
            allowed_origin: Some("https://app.example"),
            other_header: None,
        },
        Case {
            name: "generated errors have CORS headers",
            request: "GET /failing",
            status: 500,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: None,
        },
        Case {
            name: "redirects have CORS headers",
            request: "GET /redirect",
            status: 302,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: None,
        },
        Case {
            name: "the preflight of a redirected path is not redirected",
            request: "OPTIONS /redirect",
            status: 200,
            received: 0,
            allowed_origin: Some("https://app.example"),
            other_header: None,
        },
        Case {
            name: "without a filter, the endpoint responds to a preflight",
            request: "OPTIONS /plain",
            status: 200,
            received: 1,
            allowed_origin: Some("*"),
            other_header: None,
        },
    ];
    let endpoint =
        Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 0\r\naccess-control-allow-origin: *\r\n\r\n")
            .await;
    let backend = |filters, target| Backend { weight: 1, filters, target };
    let web = || BackendTarget::Upstream(upstream("web", &[endpoint.address]));
    let forward_to = |backend| Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
    let plain_backend = || backend(Filters::default(), web());
    let app_cors = || cors("https://app.example");
    let other_cors = || cors("https://other.example");
    let redirect = RedirectAction::new(StatusCode::FOUND);
    let routes = vec![
        Route { path: "/rule", filters: app_cors(), ..route(forward_to(plain_backend())) },
        Route { path: "/backend", ..route(forward_to(backend(app_cors(), web()))) },
        Route { path: "/both", filters: other_cors(), ..route(forward_to(backend(app_cors(), web()))) },
        Route { path: "/other", filters: other_cors(), ..route(forward_to(plain_backend())) },
        Route {
            path: "/failing",
            filters: app_cors(),
            ..route(forward_to(backend(Filters::default(), BackendTarget::Fail(RouteFailure::InvalidBackend))))
        },
        Route { path: "/redirect", filters: app_cors(), ..route(Action::Redirect(redirect)) },
        Route { path: "/plain", ..route(forward_to(plain_backend())) },
    ];
    let server = TestServer::with_routes(routes).await;
    for case in cases {
        let received_before = endpoint.log.requests().len();
        let response =
            server.request(&format!("{} HTTP/1.1\r\nhost: a.example\r\n{preflight}\r\n\r\n", case.request)).await;
        let name = case.name;
        assert_eq!(response.status, case.status, "{name}");
        assert_eq!(response.header("access-control-allow-origin"), case.allowed_origin, "{name}");
        if let Some((field, value)) = case.other_header {
            assert_eq!(response.header(field), Some(value), "{name}");
        }
        assert_eq!(endpoint.log.requests().len() - received_before, case.received, "{name}");
    }
    // An OPTIONS request without `Access-Control-Request-Method` is not a preflight.
    let response =
        server.request("OPTIONS /rule HTTP/1.1\r\nhost: a.example\r\norigin: https://app.example\r\n\r\n").await;
    assert_eq!(response.header("access-control-allow-methods"), None);
    assert!(endpoint.log.requests().last().unwrap().starts_with("OPTIONS /rule "));
}
