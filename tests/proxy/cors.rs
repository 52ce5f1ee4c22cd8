//! CORS on the wire: who answers, and what the endpoint still gets to see.

use http::{HeaderValue, StatusCode};
use portico::snapshot::cors::{Cors, List, Origin, Origins};
use portico::snapshot::redirect::Redirect;
use portico::snapshot::rule::{Action, Backend, Failure, Filters, Split, Target};

use crate::harness::{Endpoint, Gate, Route, route, upstream};

fn cors(origin: &str) -> Filters {
    let cors = Cors {
        origins: Origins::These([Origin::parse(origin).unwrap()].into()),
        credentials: true,
        methods: List::of(["PUT"]).unwrap(),
        headers: List::Any,
        expose: List::of(["x-id"]).unwrap(),
        max_age: HeaderValue::from(5),
    };
    Filters { cors: Some(Box::new(cors)), ..Filters::default() }
}

struct Case {
    name: &'static str,
    request: &'static str,
    status: u16,
    /// How many requests the endpoint sees.
    sees: usize,
    allows: Option<&'static str>,
    /// Another field that has to be there.
    and: Option<(&'static str, &'static str)>,
}

#[tokio::test]
async fn preflights_are_answered_and_everything_else_goes_through() {
    let preflight = "origin: https://app.example\r\naccess-control-request-method: PUT\r\n\
                     access-control-request-headers: x-a";
    let cases = [
        Case {
            name: "a preflight is answered here",
            request: "OPTIONS /rule",
            status: 200,
            sees: 0,
            allows: Some("https://app.example"),
            and: Some(("access-control-allow-headers", "x-a")),
        },
        Case {
            name: "at the level of a backend, too",
            request: "OPTIONS /backend",
            status: 200,
            sees: 0,
            allows: Some("https://app.example"),
            and: Some(("access-control-expose-headers", "x-id")),
        },
        Case {
            name: "of filters of both levels the backend's counts",
            request: "OPTIONS /both",
            status: 200,
            sees: 0,
            allows: Some("https://app.example"),
            and: Some(("access-control-max-age", "5")),
        },
        Case {
            name: "one that is not allowed goes no further either",
            request: "OPTIONS /other",
            status: 200,
            sees: 0,
            allows: None,
            and: Some(("vary", "Origin")),
        },
        Case {
            name: "an actual request goes through",
            request: "PUT /rule",
            status: 200,
            sees: 1,
            allows: Some("https://app.example"),
            and: Some(("access-control-allow-credentials", "true")),
        },
        Case {
            name: "also if its origin is not allowed, whatever the endpoint says",
            request: "GET /other",
            status: 200,
            sees: 1,
            allows: None,
            and: None,
        },
        Case {
            name: "a method of a rule that CORS does not list goes through",
            request: "DELETE /rule",
            status: 200,
            sees: 1,
            allows: Some("https://app.example"),
            and: None,
        },
        Case {
            name: "pages may read our errors",
            request: "GET /failing",
            status: 500,
            sees: 0,
            allows: Some("https://app.example"),
            and: None,
        },
        Case {
            name: "and where a redirect leads",
            request: "GET /redirect",
            status: 302,
            sees: 0,
            allows: Some("https://app.example"),
            and: None,
        },
        Case {
            name: "whose preflight is none",
            request: "OPTIONS /redirect",
            status: 200,
            sees: 0,
            allows: Some("https://app.example"),
            and: None,
        },
        Case {
            name: "without a filter the endpoint answers",
            request: "OPTIONS /plain",
            status: 200,
            sees: 1,
            allows: Some("*"),
            and: None,
        },
    ];
    let endpoint =
        Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\naccess-control-allow-origin: *\r\n\r\n").await;
    let backend = |filters, target| Backend { weight: 1, filters, target };
    let web = || Target::Upstream(upstream("web", &[endpoint.address]));
    let forward = |backend| Action::Forward(Split::new(vec![backend]).unwrap());
    let plain = || backend(Filters::default(), web());
    let app = || cors("https://app.example");
    let other = || cors("https://other.example");
    let redirect = Redirect { scheme: None, host: None, path: None, port: None, status: StatusCode::FOUND };
    let routes = vec![
        Route { path: "/rule", filters: app(), ..route(forward(plain())) },
        Route { path: "/backend", ..route(forward(backend(app(), web()))) },
        Route { path: "/both", filters: other(), ..route(forward(backend(app(), web()))) },
        Route { path: "/other", filters: other(), ..route(forward(plain())) },
        Route {
            path: "/failing",
            filters: app(),
            ..route(forward(backend(Filters::default(), Target::Fail(Failure::InvalidBackend))))
        },
        Route { path: "/redirect", filters: app(), ..route(Action::Redirect(redirect)) },
        Route { path: "/plain", ..route(forward(plain())) },
    ];
    let gate = Gate::open(routes).await;
    for case in cases {
        let before = endpoint.log.requests().len();
        let answer = gate.ask(&format!("{} HTTP/1.1\r\nhost: a.example\r\n{preflight}\r\n\r\n", case.request)).await;
        let name = case.name;
        assert_eq!(answer.status, case.status, "{name}");
        assert_eq!(answer.header("access-control-allow-origin"), case.allows, "{name}");
        if let Some((field, value)) = case.and {
            assert_eq!(answer.header(field), Some(value), "{name}");
        }
        assert_eq!(endpoint.log.requests().len() - before, case.sees, "{name}");
    }
    // What is no preflight is none.
    let answer = gate.ask("OPTIONS /rule HTTP/1.1\r\nhost: a.example\r\norigin: https://app.example\r\n\r\n").await;
    assert_eq!(answer.header("access-control-allow-methods"), None);
    assert!(endpoint.log.requests().last().unwrap().starts_with("OPTIONS /rule "));
}
