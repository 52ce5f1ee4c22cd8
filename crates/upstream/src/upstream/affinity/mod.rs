//! Affinity to an endpoint (session persistence, GEP-1619): the requests of a session go to one endpoint of the
//! selected backend.
//!
//! ```text
//!   cookie or header of the request ─▶ token.rs ─ pins ─▶ upstream.rs: the endpoint of the pin ─▶ first attempt
//!   cookie or header of the response ◀─ token.rs ◀─ pin ── upstream.rs ◀─ another endpoint responded
//! ```
//!
//! A pin names an endpoint by a hash, so it can lead only to an endpoint of the backend that the rule has selected, and
//! contains no address. Its key is derived from the UIDs of the Pod and the Service, which the replicas of a cluster
//! share and clients do not know: pins stay valid in all replicas and after a restart, and clients cannot create one.
//!
//! Rules that take sessions of ingress-nginx over have its [keys](endpoint_keys) in place of pins.

mod cookies;
mod endpoint_keys;
mod endpoints;
mod key_ring;
mod settings;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use super::Upstream;
pub use cookies::{cookie_value, cookies};
pub(super) use endpoint_keys::KeyedEndpoints;
pub use endpoint_keys::{EndpointKeys, KeyAssignment};
pub(super) use endpoints::AffinityEndpoints;
pub use endpoints::EndpointIdentities;
pub use settings::{AffinityCarrier, AffinitySettings};
use token::AffinityToken;

/// The session of one request.
#[derive(Debug)]
pub struct RequestAffinity {
    settings: Arc<AffinitySettings>,
    /// What the client has sent; empty if that was not a token.
    token: AffinityToken,
    /// The session, if it is valid and its endpoint can be used.
    session: Option<ValidPin>,
    /// In place of both, the session by a key.
    keyed: Option<KeyedSession>,
}

/// A session by the key of an endpoint.
#[derive(Debug, Default)]
struct KeyedSession {
    endpoint: Option<SocketAddr>,
    /// The value that a client without a session gets if this endpoint responds.
    new_value: Option<String>,
}

/// A session for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionValue {
    /// What the cookie or header contains.
    pub value: String,
    /// The `Max-Age` of a permanent cookie, in seconds.
    pub max_age: Option<u64>,
}

/// What the pin of a valid session says.
#[derive(Clone, Copy, Debug)]
struct ValidPin {
    endpoint: SocketAddr,
    /// In seconds since 1970, as in the pin.
    created: u32,
    renewed: u32,
}

impl RequestAffinity {
    /// Reads the session from values that a client has sent. The first value that names a usable endpoint counts;
    /// if there is none, the first token. `now`: seconds since 1970.
    pub fn read<'v>(
        settings: Arc<AffinitySettings>,
        upstream: &Upstream,
        values: impl Iterator<Item = &'v [u8]>,
        now: u32,
    ) -> Self {
        if let Some(keys) = &settings.keys {
            let keyed = Some(KeyedSession::read(keys, upstream, values, now));
            return RequestAffinity { settings, token: AffinityToken::default(), session: None, keyed };
        }
        let endpoints = upstream.affinity_endpoints();
        let mut first = None;
        for token in values.take(MAX_VALUES).filter_map(AffinityToken::parse) {
            let pinned = endpoints.as_ref().and_then(|endpoints| endpoints.pinned(&settings, &token, now));
            let session =
                pinned.map(|(endpoint, pin)| ValidPin { endpoint, created: pin.created, renewed: pin.renewed });
            if session.is_some() {
                return RequestAffinity { settings, token, session, keyed: None };
            }
            first.get_or_insert(token);
        }
        RequestAffinity { settings, token: first.unwrap_or_default(), session: None, keyed: None }
    }

    /// The endpoint for the first attempt.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match &self.keyed {
            Some(keyed) => keyed.endpoint,
            None => self.session.map(|session| session.endpoint),
        }
    }

    /// Whether the endpoint gets the request without the value.
    pub fn is_stripped(&self) -> bool {
        self.settings.strip
    }

    pub fn carrier(&self) -> &AffinityCarrier {
        &self.settings.carrier
    }

    /// The value for the client after this endpoint has responded. `None` if the client has it already and need not
    /// get it again, or if the endpoint was removed meanwhile.
    pub fn new_value(&self, upstream: &Upstream, endpoint: SocketAddr, now: u32) -> Option<SessionValue> {
        if let (Some(keyed), Some(keys)) = (&self.keyed, &self.settings.keys) {
            let value = keyed.new_value(keys, upstream, endpoint, now)?;
            return Some(SessionValue { value, max_age: None });
        }
        let created = match self.session {
            Some(session) if session.endpoint == endpoint => {
                // Not with each response, which costs a signature and keeps caches from storing it.
                let interval = self.settings.idle_timeout?.as_secs() / RENEWALS;
                if u64::from(now.saturating_sub(session.renewed)) < interval.max(1) {
                    return None;
                }
                session.created
            }
            _ => now,
        };
        let endpoints = upstream.affinity_endpoints();
        let pin = endpoints.as_ref()?.pin(&self.settings, endpoint, created, now)?;
        let token = self.token.with_pin(pin);
        Some(SessionValue { max_age: self.max_age(&token, now), value: token.encode() })
    }

    /// How long the client keeps a permanent cookie: until the last session in it has ended.
    fn max_age(&self, token: &AffinityToken, now: u32) -> Option<u64> {
        let AffinityCarrier::Cookie { is_permanent: true, .. } = self.settings.carrier else { return None };
        let age = u64::from(now.saturating_sub(token.last_created()));
        // Zero would remove the cookie.
        Some(self.settings.absolute_timeout?.as_secs().saturating_sub(age).max(1))
    }
}

impl KeyedSession {
    /// The last value that has the key of an endpoint counts, as in ingress-nginx.
    fn read<'v>(keys: &EndpointKeys, upstream: &Upstream, values: impl Iterator<Item = &'v [u8]>, now: u32) -> Self {
        let Some(endpoints) = upstream.keyed_endpoints(keys) else { return KeyedSession::default() };
        if let Some(endpoint) = values.take(MAX_VALUES).filter_map(|value| endpoints.endpoint(value)).last() {
            return KeyedSession { endpoint: Some(endpoint), new_value: None };
        }
        let (endpoint, new_value) = endpoints.new_session(now).unzip();
        KeyedSession { endpoint, new_value }
    }

    fn new_value(&self, keys: &EndpointKeys, upstream: &Upstream, endpoint: SocketAddr, now: u32) -> Option<String> {
        if self.endpoint == Some(endpoint) {
            return self.new_value.clone();
        }
        upstream.keyed_endpoints(keys)?.value_for(endpoint, now)
    }
}

impl AffinitySettings {
    /// Whether a value that a client has sent says that its session is with this upstream, also if its endpoint is
    /// gone. Only those with keys say it.
    pub fn is_session_with(&self, upstream: &Upstream, value: &[u8]) -> bool {
        let endpoints = self.keys.as_ref().and_then(|keys| upstream.keyed_endpoints(keys));
        endpoints.is_some_and(|endpoints| endpoints.is_named_in(value))
    }
}

/// How often the value of a session in use is renewed in the time after which it would end if it were idle.
const RENEWALS: u64 = 10;
/// How many values of one name are read. Browsers send several cookies of one name if their paths differ.
const MAX_VALUES: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::super::{EndpointAddress, Endpoints, Outcome, OutcomeClass, UpstreamKey};
    use super::*;
    use crate::upstream::settings::{SameSite, SetCookie};

    const NOW: u32 = 1_000_000;

    /// Like a hash, `scope` differs in the half by which pins are distinguished.
    fn settings(scope: u64) -> Arc<AffinitySettings> {
        let carrier = AffinityCarrier::Header(HeaderName::from_static("x-session"));
        let absolute_timeout = Some(Duration::from_secs(60));
        Arc::new(AffinitySettings {
            scope: scope << 32,
            carrier,
            absolute_timeout,
            idle_timeout: None,
            strip: false,
            keys: None,
        })
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    /// An upstream whose endpoints are Pods named after the number of their address.
    fn upstream(service: &str, numbers: &[u8]) -> Upstream {
        let key = UpstreamKey { namespace: "ns".into(), service: service.into(), port: 80, ..UpstreamKey::default() };
        let upstream = Upstream::new(key);
        upstream.keep_affinity();
        set_pods(&upstream, numbers.iter().map(|number| (*number, format!("pod-{number}"))));
        upstream
    }

    fn set_pods(upstream: &Upstream, pods: impl Iterator<Item = (u8, String)>) {
        let pods: Vec<(SocketAddr, Arc<str>)> = pods.map(|(number, uid)| (address(number), uid.into())).collect();
        let addresses = pods.iter().map(|(address, _)| EndpointAddress::Ip(*address)).collect();
        let identities = EndpointIdentities { service: Some("service".into()), pods: pods.into() };
        upstream.set_endpoints(Endpoints { addresses, identities, ..Endpoints::default() });
    }

    fn read(scope: u64, upstream: &Upstream, value: &str, now: u32) -> RequestAffinity {
        RequestAffinity::read(settings(scope), upstream, [value.as_bytes()].into_iter(), now)
    }

    fn value(scope: u64, upstream: &Upstream, number: u8) -> String {
        read(scope, upstream, "", NOW).new_value(upstream, address(number), NOW).unwrap().value
    }

    fn endpoint(scope: u64, upstream: &Upstream, value: &str, now: u32) -> Option<SocketAddr> {
        read(scope, upstream, value, now).endpoint()
    }

    #[test]
    fn sessions_are_equal_in_all_processes_and_end_after_their_timeout() {
        let value = value(1, &upstream("a", &[1, 2]), 2);
        let other_process = upstream("a", &[1, 2, 3]);
        for (now, expected) in [(NOW, Some(2)), (NOW + 59, Some(2)), (NOW + 60, None), (NOW - 5, Some(2))] {
            assert_eq!(endpoint(1, &other_process, &value, now), expected.map(address), "{now}");
        }
        assert_eq!(read(1, &other_process, &value, NOW).new_value(&other_process, address(2), NOW), None);
    }

    #[test]
    fn sessions_end_if_they_are_idle() {
        let upstream = upstream("a", &[1, 2]);
        let idle = Arc::new(AffinitySettings { idle_timeout: Some(Duration::from_secs(20)), ..(*settings(1)).clone() });
        let read =
            |value: &str, now| RequestAffinity::read(Arc::clone(&idle), &upstream, [value.as_bytes()].into_iter(), now);
        let first = read("", NOW).new_value(&upstream, address(2), NOW).unwrap().value;
        assert_eq!(read(&first, NOW + 19).endpoint(), Some(address(2)));
        assert_eq!(read(&first, NOW + 20).endpoint(), None);
        // The value is renewed after a tenth of the time.
        assert_eq!(read(&first, NOW + 1).new_value(&upstream, address(2), NOW + 1), None);
        let mut value = first.clone();
        for now in (NOW..NOW + 60).step_by(2).skip(1) {
            let session = read(&value, now);
            assert_eq!(session.endpoint(), Some(address(2)), "{now}");
            value = session.new_value(&upstream, address(2), now).unwrap().value;
        }
        assert_eq!(read(&value, NOW + 59).endpoint(), Some(address(2)));
        assert_eq!(read(&value, NOW + 60).endpoint(), None, "a session in use ends after its absolute timeout");
        // A rule whose idle timeout was removed knows the renewed value.
        assert_eq!(endpoint(1, &upstream, &value, NOW + 59), Some(address(2)));
        assert_ne!(value.len(), first.len());
    }

    /// Clients would otherwise keep a cookie longer than its session, or forget other sessions in it.
    #[test]
    fn permanent_cookies_are_kept_until_their_last_session_ends() {
        let cookie = SetCookie::new("s", "/", None, SameSite::Lax);
        let carrier = AffinityCarrier::Cookie { cookie, is_permanent: true };
        let permanent = Arc::new(AffinitySettings {
            carrier,
            idle_timeout: Some(Duration::from_secs(30)),
            ..(*settings(1)).clone()
        });
        let (a, b) = (upstream("a", &[1, 2]), upstream("b", &[3]));
        let next = |value: &str, upstream: &Upstream, number, now| {
            let values = [value.as_bytes()].into_iter();
            let session = RequestAffinity::read(Arc::clone(&permanent), upstream, values, now);
            session.new_value(upstream, address(number), now).unwrap()
        };
        let first = next("", &a, 1, NOW);
        assert_eq!(first.max_age, Some(60));
        let renewed = next(&first.value, &a, 1, NOW + 25);
        assert_eq!(renewed.max_age, Some(35));
        assert_eq!(next(&renewed.value, &a, 2, NOW + 25).max_age, Some(60), "another session");
        let both = next(&renewed.value, &b, 3, NOW + 40);
        assert_eq!(both.max_age, Some(60));
        assert_eq!(next(&both.value, &a, 1, NOW + 45).max_age, Some(55), "the other session lasts longer");
        let session = read(1, &a, "", NOW).new_value(&a, address(1), NOW).unwrap();
        assert_eq!(session.max_age, None, "a header has none");
    }

    #[test]
    fn changed_values_are_no_session() {
        for idle_timeout in [None, Some(Duration::from_secs(10))] {
            check_changed_values(idle_timeout);
        }
    }

    fn check_changed_values(idle_timeout: Option<Duration>) {
        let upstream = upstream("a", &[1, 2]);
        let mut value = value(1, &upstream, 2);
        if idle_timeout.is_some() {
            let settings = Arc::new(AffinitySettings { idle_timeout, ..(*settings(1)).clone() });
            let session = RequestAffinity::read(settings, &upstream, [value.as_bytes()].into_iter(), NOW + 5);
            value = session.new_value(&upstream, address(2), NOW + 5).unwrap().value;
        }
        for index in 0..value.len() {
            for replacement in ["A", "B", "-", "=", "é"] {
                let mut changed = value.clone();
                changed.replace_range(index..=index, replacement);
                if changed != value {
                    assert_eq!(endpoint(1, &upstream, &changed, NOW), None, "{changed}");
                }
            }
            assert_eq!(endpoint(1, &upstream, &value[..index], NOW), None);
        }
    }

    #[test]
    fn value_of_another_rule_service_or_pod_is_no_session() {
        let value = value(1, &upstream("a", &[1, 2]), 2);
        assert_eq!(endpoint(2, &upstream("a", &[1, 2]), &value, NOW), None, "another rule");
        assert_eq!(endpoint(1, &upstream("b", &[1, 2]), &value, NOW), None, "another Service with the same Pods");
        let reused = upstream("a", &[]);
        set_pods(&reused, [(2, "another".to_owned())].into_iter());
        assert_eq!(endpoint(1, &reused, &value, NOW), None, "another Pod with the address");
        set_pods(&reused, [(7, "pod-2".to_owned())].into_iter());
        assert_eq!(endpoint(1, &reused, &value, NOW), Some(address(7)), "the Pod at another address");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_leave_ejected_endpoints() {
        let upstream = upstream("a", &[1, 2]);
        let value = value(1, &upstream, 2);
        upstream.report(address(2), &Outcome::of(OutcomeClass::ConnectFailed));
        let session = read(1, &upstream, &value, NOW);
        assert_eq!(session.endpoint(), None);
        let moved = session.new_value(&upstream, address(1), NOW).unwrap().value;
        assert_eq!(moved.len(), value.len(), "the new pin replaces the old one");
        upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
        assert_eq!(endpoint(1, &upstream, &value, NOW), Some(address(2)), "all are ejected");
        upstream.report(address(2), &Outcome::of(OutcomeClass::Connected));
        upstream.report(address(1), &Outcome::of(OutcomeClass::Connected));
        assert_eq!(endpoint(1, &upstream, &moved, NOW), Some(address(1)));
    }

    /// Without it, each request to one backend of a rule would end the session with the other.
    #[test]
    fn one_value_has_pins_for_several_backends() {
        let (a, b) = (upstream("a", &[1, 2]), upstream("b", &[3, 4]));
        let first = value(1, &a, 2);
        let both = read(1, &b, &first, NOW).new_value(&b, address(3), NOW).unwrap().value;
        assert_eq!(endpoint(1, &a, &both, NOW), Some(address(2)));
        assert_eq!(endpoint(1, &b, &both, NOW), Some(address(3)));
    }

    #[test]
    fn oldest_pin_is_dropped_beyond_the_limit() {
        let a = upstream("a", &[1]);
        let mut token = value(0, &a, 1);
        for scope in 1..=20 {
            token = read(scope, &a, &token, NOW).new_value(&a, address(1), NOW).unwrap().value;
        }
        let kept: Vec<u64> = (0..=20).filter(|scope| endpoint(*scope, &a, &token, NOW).is_some()).collect();
        assert_eq!(kept, (5..=20).collect::<Vec<_>>());
    }

    #[test]
    fn first_valid_one_of_several_values_counts() {
        let a = upstream("a", &[1, 2]);
        let (other_rule, valid) = (value(2, &a, 1), value(1, &a, 2));
        let values = ["", "no token", &other_rule, &valid].into_iter().map(str::as_bytes);
        assert_eq!(RequestAffinity::read(settings(1), &a, values, NOW).endpoint(), Some(address(2)));
        let values = ["", "", "", "", &valid].into_iter().map(str::as_bytes);
        assert_eq!(RequestAffinity::read(settings(1), &a, values, NOW).endpoint(), None, "the number is limited");
    }

    #[test]
    fn endpoints_without_pods_have_sessions() {
        let upstream = upstream("a", &[]);
        let addresses: Vec<_> = [1, 2].map(|number| EndpointAddress::Ip(address(number))).into();
        let set = |service: Option<&str>| {
            let identities = EndpointIdentities { service: service.map(Into::into), ..EndpointIdentities::default() };
            upstream.set_endpoints(Endpoints { addresses: addresses.clone(), identities, ..Endpoints::default() });
        };
        set(Some("uid"));
        let value = value(1, &upstream, 2);
        assert_eq!(endpoint(1, &upstream, &value, NOW), Some(address(2)));
        set(Some("another uid"));
        assert_eq!(endpoint(1, &upstream, &value, NOW), None, "the UID of the Service is part of the key");
        set(None);
        assert_eq!(endpoint(1, &upstream, &value, NOW), None);
    }
}
