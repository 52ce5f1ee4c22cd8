//! Cookies that contain sessions: whatever a client sends, its session leads to an endpoint of the backend, and the
//! value that it gets for another endpoint leads there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::proxy::http::steps::affinity::cookies;
use crate::upstream::settings::{SameSite, SetCookie};
use crate::upstream::{
    AffinityCarrier, AffinitySettings, EndpointAddress, EndpointIdentities, EndpointKeys, Endpoints, KeyAssignment,
    RequestAffinity, SessionValue, Upstream, UpstreamKey,
};

/// Each line is a field `Cookie`. The cookie `s` contains the session.
pub(crate) fn check(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(20) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(COOKIE, value);
    }
    let upstream = upstream();
    let cookie = SetCookie::new(NAME, "/", None, SameSite::Lax);
    let carrier = AffinityCarrier::Cookie { cookie, is_permanent: true };
    let (absolute_timeout, idle_timeout) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(30)));
    let settings =
        Arc::new(AffinitySettings { scope: 1, carrier, absolute_timeout, idle_timeout, strip: false, keys: None });
    for assignment in [KeyAssignment::Fixed, KeyAssignment::Ring] {
        let keys = EndpointKeys { assignment, names: Box::default() };
        upstream.keep_keyed_sessions(&keys);
        check_keys(&headers, &upstream, Arc::new(AffinitySettings { keys: Some(keys), ..(*settings).clone() }));
    }
    let read =
        |headers: &HeaderMap| RequestAffinity::read(Arc::clone(&settings), &upstream, cookies(headers, NAME), NOW);
    let session = read(&headers);
    assert!(session.endpoint().is_none_or(|endpoint| ENDPOINTS.contains(&endpoint)));
    for endpoint in ENDPOINTS {
        let Some(SessionValue { value, max_age }) = session.new_value(&upstream, endpoint, NOW) else {
            assert_eq!(session.endpoint(), Some(endpoint), "only a client with the session gets no value");
            continue;
        };
        assert!(max_age.is_some_and(|seconds| (1..=60).contains(&seconds)), "{max_age:?} of 60 s");
        assert!(value.len() <= MAX_LENGTH, "{} bytes", value.len());
        let cookie = HeaderValue::try_from(format!("{NAME}={value}")).expect("base64 is valid in a header");
        let next = read(&HeaderMap::from_iter([(COOKIE, cookie)]));
        assert_eq!(next.endpoint(), Some(endpoint));
        assert_eq!(next.new_value(&upstream, endpoint, NOW), None);
    }
}

/// Sessions by keys of endpoints.
fn check_keys(headers: &HeaderMap, upstream: &Upstream, settings: Arc<AffinitySettings>) {
    let read =
        |headers: &HeaderMap| RequestAffinity::read(Arc::clone(&settings), upstream, cookies(headers, NAME), NOW);
    let session = read(headers);
    assert!(session.endpoint().is_none_or(|endpoint| ENDPOINTS.contains(&endpoint)));
    for endpoint in ENDPOINTS {
        let Some(SessionValue { value, max_age }) = session.new_value(upstream, endpoint, NOW) else {
            assert_eq!(session.endpoint(), Some(endpoint), "only a client with the session gets no value");
            continue;
        };
        assert_eq!(max_age, None);
        assert!(settings.is_session_with(upstream, value.as_bytes()), "{value}");
        let cookie = HeaderValue::try_from(format!("{NAME}={value}")).expect("keys are valid in a header");
        let next = read(&HeaderMap::from_iter([(COOKIE, cookie)]));
        assert_eq!(next.endpoint(), Some(endpoint));
        assert_eq!(next.new_value(upstream, endpoint, NOW), None);
    }
}

fn upstream() -> Upstream {
    let key = UpstreamKey { namespace: "a".into(), service: "b".into(), port: 80, ..UpstreamKey::default() };
    let upstream = Upstream::new(key);
    upstream.keep_affinity();
    let identities = EndpointIdentities { service: Some("uid".into()), ..EndpointIdentities::default() };
    let addresses = ENDPOINTS.map(EndpointAddress::Ip).into();
    upstream.set_endpoints(Endpoints { addresses, identities, ..Endpoints::default() });
    upstream
}

const NAME: &str = "s";
const NOW: u32 = 1_000_000_000;
const ENDPOINTS: [SocketAddr; 2] = [address(1), address(2)];
/// The length of a value with as many pins as one may have.
const MAX_LENGTH: usize = 599;

const fn address(number: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, number)), 80)
}
