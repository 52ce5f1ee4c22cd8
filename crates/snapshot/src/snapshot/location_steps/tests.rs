//! Tests of the steps of locations.

use bytes::Bytes;
use http::Request;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, VARY};

use super::*;
use crate::address_ranges::parse_network;
use crate::plugin_api::Scheme;
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, names};
use crate::snapshot::location_path::GroupTemplate;
use crate::snapshot::regex::RegexLimit;

fn chain(steps: LocationSteps) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let (ExecutionPlace { kind, priority }, instance) = Arc::new(steps).into_instance("a".into(), "a".into());
    builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    builder.build(names()).unwrap()
}

fn cross_origin() -> CrossOrigin {
    let value = HeaderValue::from_static;
    CrossOrigin {
        origins: Some([AllowedOrigin::parse("https://a.example").unwrap()].into()),
        allow_methods: value("GET"),
        allow_headers: value("DNT"),
        expose_headers: None,
        allows_credentials: true,
        max_age: value("60"),
    }
}

fn https(keeps_trailing_slash: bool) -> Option<HttpsRedirectOfLocation> {
    Some(HttpsRedirectOfLocation { status: StatusCode::PERMANENT_REDIRECT, keeps_trailing_slash })
}

fn location(outcome: &TestOutcome) -> Option<&str> {
    outcome.response.headers.get(LOCATION).and_then(|value| value.to_str().ok())
}

#[tokio::test]
async fn plain_text_is_redirected_without_a_slash_at_the_end() {
    for (target, keeps, expected) in [
        ("/", false, "https://test.example"),
        ("/a/", false, "https://test.example/a"),
        ("/a/", true, "https://test.example/a/"),
        ("/a?b=/", false, "https://test.example/a?b="),
        ("/a%2Fb//c?d", false, "https://test.example/a%2Fb//c?d"),
    ] {
        let steps = || LocationSteps { https_redirect: https(keeps), ..LocationSteps::default() };
        let outcome = TestRequest::get(target).run(&chain(steps())).await;
        let found = (outcome.response.status.as_u16(), location(&outcome));
        assert_eq!(found, (308, Some(expected)), "{target}");
        let mut request = TestRequest::get(target);
        request.scheme = Scheme::Https;
        assert!(request.run(&chain(steps())).await.reply.is_none(), "{target}");
    }
}

#[tokio::test]
async fn steps_run_in_their_order() {
    let everything = || LocationSteps {
        cross_origin: Some(Arc::new(cross_origin())),
        response: Some(FixedResponse { status: StatusCode::FOUND, target: HeaderValue::from_static("/other") }),
        https_redirect: https(false),
        denied: Arc::new([parse_network("192.0.2.0/24").unwrap()].into_iter().collect()),
        max_body_bytes: Some(3),
        ..LocationSteps::default()
    };
    let post = |origin: &'static str| {
        let request = Request::post("/a").header("content-length", "4").header("origin", origin);
        TestRequest::new(request.body(Bytes::from_static(b"body")).unwrap())
    };
    let preflight = || {
        let request = Request::options("/a").header("origin", "https://a.example");
        TestRequest::new(request.body(Bytes::new()).unwrap())
    };
    let mut steps: Vec<LocationSteps> = (0..5).map(|_| everything()).collect();
    steps[2].response = None;
    (steps[3].response, steps[3].https_redirect) = (None, None);
    (steps[4].response, steps[4].https_redirect, steps[4].denied) = (None, None, Arc::default());
    let chains: Vec<Arc<Chain>> = steps.into_iter().map(chain).collect();
    for (index, request, status) in [
        (0, preflight(), 204),
        (1, post("https://a.example"), 302),
        (2, post("https://a.example"), 308),
        (3, post("https://a.example"), 403),
        (4, post("https://b.example"), 413),
    ] {
        let outcome = request.run(&chains[index]).await;
        assert_eq!(outcome.response.status.as_u16(), status, "{index}");
        // Also on redirects and rejections.
        let is_allowed = outcome.response.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some();
        assert_eq!((is_allowed, outcome.response.headers.get(VARY).is_some()), (index != 4, index != 4), "{index}");
    }
}

#[tokio::test]
async fn redirects_of_a_location_are_absolute() {
    for (status, target, expected) in [
        (301, "https://b.example/", Some("https://b.example/")),
        (308, "/login", Some("http://test.example/login")),
        (302, "relative", Some("relative")),
        (300, "/login", None),
        (304, "/login", None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let response = Some(FixedResponse { status, target: HeaderValue::from_static(target) });
        let outcome = TestRequest::get("/a").run(&chain(LocationSteps { response, ..LocationSteps::default() })).await;
        assert_eq!((outcome.response.status, location(&outcome)), (status, expected), "{target}");
    }
}

#[tokio::test]
async fn addresses_are_denied_before_they_are_allowed() {
    let ranges = |text: &str| text.split(' ').filter_map(parse_network).collect::<AddressRanges>();
    for (denied, allowed, address, is_admitted) in [
        ("", None, "192.0.2.1", true),
        ("192.0.2.1", None, "192.0.2.1", false),
        ("192.0.2.1", None, "::ffff:192.0.2.1", false),
        ("", Some("10.0.0.0/8 2001:db8::/32"), "2001:db8::1", true),
        ("", Some("10.0.0.0/8"), "192.0.2.1", false),
        ("10.1.0.0/16", Some("10.0.0.0/8"), "10.1.0.1", false),
        // A list that allows no client.
        ("", Some(""), "192.0.2.1", false),
        // The address is unknown.
        ("192.0.2.1", None, "0.0.0.0", false),
    ] {
        let steps = LocationSteps {
            denied: Arc::new(ranges(denied)),
            allowed: allowed.map(ranges).map(Arc::new),
            ..LocationSteps::default()
        };
        let mut request = TestRequest::get("/");
        request.address = address.parse().unwrap();
        let outcome = request.run(&chain(steps)).await;
        assert_eq!(outcome.reply.is_none(), is_admitted, "{denied} {allowed:?} {address}");
    }
}

#[tokio::test]
async fn transport_security_is_for_tls_only() {
    let value = Some(HeaderValue::from_static("max-age=1"));
    let steps = || LocationSteps { transport_security: value.clone(), ..LocationSteps::default() };
    for scheme in [Scheme::Http, Scheme::Https] {
        let mut request = TestRequest::get("/");
        request.scheme = scheme;
        let headers = request.run(&chain(steps())).await.response.headers;
        assert_eq!(headers.contains_key(STRICT_TRANSPORT_SECURITY), scheme == Scheme::Https);
    }
}

#[tokio::test]
async fn replaced_path_may_be_the_target_of_a_redirect() {
    let target = GroupTemplate::parse("https://b.example/$1").unwrap();
    let replacement = PathReplacement::new("/a/(.*)", target, None, RegexLimit::MEMORY_ONLY).unwrap();
    let steps = || LocationSteps { replacement: Some(Arc::new(replacement.clone())), ..LocationSteps::default() };
    for (target, expected) in [
        ("/a/b?c=d", Some("https://b.example/b?c=d")),
        ("/a/b?", Some("https://b.example/b")),
        ("/a/b%20c", Some("https://b.example/b%20c")),
        ("/b", None),
    ] {
        let outcome = TestRequest::get(target).run(&chain(steps())).await;
        assert_eq!(location(&outcome), expected, "{target}");
    }
}
