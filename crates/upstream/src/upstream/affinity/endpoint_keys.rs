//! Sessions by keys of endpoints, as ingress-nginx has them, in place of pins: the clients of a cluster keep their
//! endpoints when Portico takes the cluster over, and when it is removed again.
//!
//! ```text
//!   <key>|<digits of the upstream>        MD5 in hexadecimal digits; nothing is signed
//! ```
//!
//! Either each endpoint has one key, or any text is the key of one endpoint on a ring of hashes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::key_ring::{Crc32, KeyRing};
use crate::hex_digits::hex_digits;
use crate::md5;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::{ResolvedEndpoint, UpstreamKey};

/// How sessions name endpoints by keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointKeys {
    pub assignment: KeyAssignment,
    /// The names of upstreams, from which their keys are derived. Others have that of `default_name`.
    pub names: Box<[(UpstreamKey, Arc<str>)]>,
}

/// Which keys an endpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAssignment {
    /// One, as long as it exists.
    Fixed,
    /// Those of its share of a ring. Endpoints that are added take over keys of all others.
    Ring,
}

impl EndpointKeys {
    fn name(&self, upstream: &UpstreamKey) -> Option<&Arc<str>> {
        self.names.iter().find(|(key, _)| key == upstream).map(|(_, name)| name)
    }
}

impl fmt::Display for KeyAssignment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            KeyAssignment::Fixed => "with the key of an endpoint",
            KeyAssignment::Ring => "with a key on a ring",
        })
    }
}

/// The endpoints of an upstream, found by key.
pub(in crate::upstream) struct KeyedEndpoints {
    /// `None` for the default.
    name: Option<Arc<str>>,
    assignment: KeyAssignment,
    /// The upstream as values name it.
    digits: [u8; 32],
    /// Sorted by address.
    endpoints: Box<[(SocketAddr, Arc<EndpointState>)]>,
    keys: Keys,
}

#[derive(PartialEq, Eq)]
enum Keys {
    Fixed {
        /// Of each endpoint.
        of_endpoints: Box<[[u8; 16]]>,
        /// The keys, sorted, with the positions of their endpoints.
        sorted: Box<[([u8; 16], u32)]>,
    },
    Ring(KeyRing),
}

impl KeyedEndpoints {
    /// `upstream`: that of the endpoints, which are sorted by address.
    pub(in crate::upstream) fn new(
        upstream: &UpstreamKey,
        keys: &EndpointKeys,
        endpoints: &[ResolvedEndpoint],
    ) -> Self {
        KeyedEndpoints::with_name(upstream, keys.name(upstream).cloned(), keys.assignment, endpoints)
    }

    fn with_name(
        upstream: &UpstreamKey,
        name: Option<Arc<str>>,
        assignment: KeyAssignment,
        endpoints: &[ResolvedEndpoint],
    ) -> Self {
        let text = name.clone().unwrap_or_else(|| default_name(upstream));
        let digits = md5::md5_digits(&[&md5::md5_digits(&[text.as_bytes()]), text.as_bytes()]);
        let keys = match assignment {
            KeyAssignment::Fixed => {
                let key =
                    |endpoint: &ResolvedEndpoint| md5::md5(&[text.as_bytes(), endpoint.address.to_string().as_bytes()]);
                let of_endpoints: Box<[[u8; 16]]> = endpoints.iter().map(key).collect();
                let mut sorted: Box<[_]> =
                    of_endpoints.iter().enumerate().map(|(position, key)| (*key, position as u32)).collect();
                sorted.sort_unstable();
                Keys::Fixed { of_endpoints, sorted }
            }
            KeyAssignment::Ring => {
                Keys::Ring(KeyRing::new(endpoints.iter().map(|endpoint| endpoint.address.to_string())))
            }
        };
        let endpoints = endpoints.iter().map(|endpoint| (endpoint.address, Arc::clone(&endpoint.state))).collect();
        KeyedEndpoints { name, assignment, digits, endpoints, keys }
    }

    /// The same keys for other endpoints.
    pub(in crate::upstream) fn renewed(&self, upstream: &UpstreamKey, endpoints: &[ResolvedEndpoint]) -> Self {
        KeyedEndpoints::with_name(upstream, self.name.clone(), self.assignment, endpoints)
    }

    /// Whether sessions with these settings have these keys. `upstream`: that of the endpoints.
    pub(in crate::upstream) fn is_of(&self, keys: &EndpointKeys, upstream: &UpstreamKey) -> bool {
        self.assignment == keys.assignment && self.name.as_ref() == keys.name(upstream)
    }

    /// What others that get the requests of this upstream need for its sessions.
    pub(in crate::upstream) fn of_alternatives(&self) -> EndpointKeys {
        EndpointKeys { assignment: self.assignment, names: Box::default() }
    }

    /// The endpoint of the value that a client has sent. An ejected endpoint counts only if all are ejected.
    pub(super) fn endpoint(&self, value: &[u8]) -> Option<SocketAddr> {
        let (key, _) = parts(value)?;
        let position = match &self.keys {
            Keys::Fixed { sorted, .. } => {
                let key = md5::parse_digits(key)?;
                let index = sorted.binary_search_by_key(&key, |(known, _)| *known).ok()?;
                let position = sorted[index].1 as usize;
                (self.is_healthy(position) || !self.has_healthy()).then_some(position)?
            }
            Keys::Ring(ring) => {
                let hash = Crc32::default().with(key).sum();
                let first = ring.walk(hash).next()?;
                match self.is_healthy(first) || !self.has_healthy() {
                    true => first,
                    false => ring.walk(hash).find(|position| self.is_healthy(*position))?,
                }
            }
        };
        Some(self.endpoints[position].0)
    }

    /// Whether the value that a client has sent says that its session is with this upstream.
    pub(super) fn is_named_in(&self, value: &[u8]) -> bool {
        parts(value).is_some_and(|(_, upstream)| upstream == Some(&self.digits))
    }

    /// An endpoint for a client without a session, and its new value, if sessions decide about it.
    pub(super) fn new_session(&self, now: u32) -> Option<(SocketAddr, String)> {
        let Keys::Ring(ring) = &self.keys else { return None };
        let (key, position) = new_key(ring, now, NEW_SESSION_KEYS, |position| self.is_healthy(position))?;
        Some((self.endpoints[position].0, self.value(&key)))
    }

    /// A value that leads to an endpoint. `None` if there is no endpoint with this address, or no such value was found.
    pub(super) fn value_for(&self, address: SocketAddr, now: u32) -> Option<String> {
        let wanted = self.endpoints.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        let key = match &self.keys {
            Keys::Fixed { of_endpoints, .. } => text(&md5::digits(of_endpoints[wanted])).to_owned(),
            Keys::Ring(ring) => {
                let count = self.endpoints.len().saturating_mul(KEYS_PER_ENDPOINT).min(MAX_KEYS);
                new_key(ring, now, count, |position| position == wanted)?.0
            }
        };
        Some(self.value(&key))
    }

    fn value(&self, key: &str) -> String {
        format!("{key}|{}", text(&self.digits))
    }

    fn is_healthy(&self, position: usize) -> bool {
        self.endpoints[position].1.health.is_healthy()
    }

    fn has_healthy(&self) -> bool {
        (0..self.endpoints.len()).any(|position| self.is_healthy(position))
    }
}

impl fmt::Debug for KeyedEndpoints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} endpoints {}", self.endpoints.len(), self.assignment)
    }
}

/// A random key of the endpoint at a wanted position, and this position. `count`: how many keys may be drawn.
fn new_key(ring: &KeyRing, now: u32, count: usize, is_wanted: impl Fn(usize) -> bool) -> Option<(String, usize)> {
    // As in ingress-nginx, two clients rarely get the same one.
    let start = format!("{now}.{}.", fastrand::u32(..));
    let sum = Crc32::default().with(start.as_bytes());
    let draw = || {
        let digits = hex_digits(fastrand::u64(..));
        let position = ring.walk(sum.with(&digits).sum()).next().filter(|position| is_wanted(*position))?;
        Some((format!("{start}{}", text(&digits)), position))
    };
    (0..count).find_map(|_| draw())
}

/// The key and the upstream of a value, if it has one. Older versions of ingress-nginx set the key only.
fn parts(value: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if value.len() > MAX_VALUE {
        return None;
    }
    let mut parts = value.split(|byte| *byte == b'|').filter(|part| !part.is_empty());
    Some((parts.next()?, parts.next()))
}

/// Digits as text.
fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

/// The name of a port of a Service in ingress-nginx, where an Ingress has the number of the port.
fn default_name(UpstreamKey { namespace, service, port, .. }: &UpstreamKey) -> Arc<str> {
    format!("{namespace}-{service}-{port}").into()
}

/// Longer values are no sessions.
const MAX_VALUE: usize = 256;
/// How many keys are drawn until one leads to an endpoint that is not ejected.
const NEW_SESSION_KEYS: usize = 20;
/// How many keys are drawn for one endpoint among several.
const KEYS_PER_ENDPOINT: usize = 64;
/// How many are drawn at most. Among more than a thousand endpoints, some clients get a value with a later response.
const MAX_KEYS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{
        AffinityCarrier, AffinitySettings, EndpointAddress, Endpoints, Outcome, OutcomeClass, RequestAffinity, Upstream,
    };

    const NOW: u32 = 1_764_542_000;
    /// The MD5 digest of that of `shop-web-80` with that name, then those of the name with the addresses 1 to 3.
    const UPSTREAM: &str = "ad0f3520c2b4ae4ad7cae6da8d3345ed";
    const KEYS: [&str; 3] =
        ["5457cae2138363c52d79a67236401a8c", "0b3007d6c1784730449adec29fc82896", "3a4bf25d4657be0d7a8b3e92ad31ba1d"];

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn settings(assignment: KeyAssignment, names: &[(&UpstreamKey, &str)]) -> Arc<AffinitySettings> {
        let names = names.iter().map(|(key, name)| ((*key).clone(), (*name).into())).collect();
        Arc::new(AffinitySettings {
            scope: 0,
            carrier: AffinityCarrier::Header(http::HeaderName::from_static("x-session")),
            absolute_timeout: None,
            idle_timeout: None,
            strip: false,
            keys: Some(EndpointKeys { assignment, names }),
        })
    }

    fn set_endpoints(upstream: &Upstream, numbers: &[u8]) {
        let addresses = numbers.iter().map(|number| EndpointAddress::Ip(address(*number))).collect();
        upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
    }

    fn upstream(port: u16, settings: &AffinitySettings, numbers: &[u8]) -> Upstream {
        let key = UpstreamKey { namespace: "shop".into(), service: "web".into(), port, ..UpstreamKey::default() };
        let upstream = Upstream::new(key);
        upstream.keep_keyed_sessions(settings.keys.as_ref().unwrap());
        set_endpoints(&upstream, numbers);
        upstream
    }

    fn read(settings: &Arc<AffinitySettings>, upstream: &Upstream, value: &str) -> RequestAffinity {
        RequestAffinity::read(Arc::clone(settings), upstream, [value.as_bytes()].into_iter(), NOW)
    }

    fn endpoint(settings: &Arc<AffinitySettings>, upstream: &Upstream, value: &str) -> Option<SocketAddr> {
        read(settings, upstream, value).endpoint()
    }

    #[test]
    fn fixed_keys_are_those_of_ingress_nginx() {
        let settings = settings(KeyAssignment::Fixed, &[]);
        let upstream = upstream(80, &settings, &[1, 2, 3]);
        for (number, key) in (1..).zip(KEYS) {
            for value in [format!("{key}|{UPSTREAM}"), key.to_owned(), format!("{key}|another")] {
                let session = read(&settings, &upstream, &value);
                assert_eq!(session.endpoint(), Some(address(number)), "{value}");
                assert_eq!(session.new_value(&upstream, address(number), NOW), None, "{value}");
            }
            let new = read(&settings, &upstream, "").new_value(&upstream, address(number), NOW).unwrap();
            assert_eq!((new.value, new.max_age), (format!("{key}|{UPSTREAM}"), None));
        }
        for value in ["", "|", "x|y", UPSTREAM, &KEYS[0].to_uppercase(), &format!("{}{}", KEYS[0], "|a".repeat(113))] {
            assert_eq!(endpoint(&settings, &upstream, value), None, "{value}");
        }
    }

    #[test]
    fn keys_follow_the_endpoints_and_the_name() {
        let settings = settings(KeyAssignment::Fixed, &[]);
        let upstream = upstream(80, &settings, &[1]);
        assert_eq!(endpoint(&settings, &upstream, KEYS[2]), None);
        set_endpoints(&upstream, &[1, 3]);
        assert_eq!(endpoint(&settings, &upstream, KEYS[2]), Some(address(3)));
        // A rule has the port by its name, and another one by its number.
        let named = self::settings(KeyAssignment::Fixed, &[(&upstream.key, "shop-web-http")]);
        upstream.keep_keyed_sessions(named.keys.as_ref().unwrap());
        assert_eq!(endpoint(&named, &upstream, KEYS[2]), None);
        let value = read(&named, &upstream, "").new_value(&upstream, address(3), NOW).unwrap().value;
        assert_eq!(endpoint(&named, &upstream, &value), Some(address(3)));
        assert_eq!(endpoint(&settings, &upstream, &value), None);
        assert_eq!(endpoint(&settings, &upstream, KEYS[2]), Some(address(3)));
    }

    /// The endpoints are those of `resty.chash` for the same keys.
    #[test]
    fn any_text_is_a_key_on_the_ring_of_ingress_nginx() {
        let settings = settings(KeyAssignment::Ring, &[]);
        let upstream = upstream(80, &settings, &[1, 2, 3]);
        for (key, number) in [
            ("1764542000.123.29.480291", 2),
            ("1764542001.5.30.77", 1),
            ("1764542001.5.30.78", 2),
            ("x", 2),
            ("1764542009.5.31.1", 1),
        ] {
            for value in [format!("{key}|{UPSTREAM}"), key.to_owned(), format!("|{key}|another")] {
                let session = read(&settings, &upstream, &value);
                assert_eq!(session.endpoint(), Some(address(number)), "{value}");
                assert_eq!(session.new_value(&upstream, address(number), NOW), None, "{value}");
            }
        }
        let long = "x".repeat(257);
        assert_ne!(read(&settings, &upstream, &long).new_value(&upstream, address(1), NOW), None);
    }

    #[test]
    fn new_clients_get_keys_of_the_endpoints_that_respond() {
        let settings = settings(KeyAssignment::Ring, &[]);
        let upstream = upstream(80, &settings, &[1, 2, 3]);
        let mut drawn = [false; 3];
        for _ in 0..200 {
            let session = read(&settings, &upstream, "");
            let first = session.endpoint().unwrap();
            drawn[usize::from(first.to_string().as_bytes()[7] - b'1')] = true;
            for number in 1..=3 {
                let value = session.new_value(&upstream, address(number), NOW).unwrap().value;
                assert!(value.len() <= 256 && value.ends_with(&format!("|{UPSTREAM}")), "{value}");
                assert_eq!(endpoint(&settings, &upstream, &value), Some(address(number)), "{value}");
            }
        }
        assert_eq!(drawn, [true; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_leave_ejected_endpoints() {
        for assignment in [KeyAssignment::Fixed, KeyAssignment::Ring] {
            let settings = settings(assignment, &[]);
            let upstream = upstream(80, &settings, &[1, 2]);
            let value = read(&settings, &upstream, "").new_value(&upstream, address(2), NOW).unwrap().value;
            upstream.report(address(2), &Outcome::of(OutcomeClass::ConnectFailed));
            let session = read(&settings, &upstream, &value);
            // The ring has another endpoint for each key, as if the ejected one were gone.
            let expected = (assignment == KeyAssignment::Ring).then_some(address(1));
            assert_eq!(session.endpoint(), expected, "{assignment}");
            let is_new = session.new_value(&upstream, address(1), NOW).is_some();
            assert_eq!(is_new, assignment == KeyAssignment::Fixed, "{assignment}");
            assert_ne!(endpoint(&settings, &upstream, ""), Some(address(2)), "{assignment}");
            upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
            assert_eq!(endpoint(&settings, &upstream, &value), Some(address(2)), "{assignment}: all are ejected");
        }
    }

    #[test]
    fn values_say_with_which_upstream_the_session_is() {
        for assignment in [KeyAssignment::Fixed, KeyAssignment::Ring] {
            let settings = settings(assignment, &[]);
            let [main, canary] = [80, 81].map(|port| upstream(port, &settings, &[1]));
            let of_main = format!("gone|{UPSTREAM}");
            let of_canary = read(&settings, &canary, "").new_value(&canary, address(1), NOW).unwrap().value;
            let cases =
                [(&*of_main, [true, false]), (&of_canary, [false, true]), ("gone", [false; 2]), (UPSTREAM, [false; 2])];
            for (value, expected) in cases {
                let found = [&main, &canary].map(|upstream| settings.is_session_with(upstream, value.as_bytes()));
                assert_eq!(found, expected, "{assignment}: {value}");
            }
        }
    }

    #[test]
    fn last_valid_value_counts() {
        let settings = settings(KeyAssignment::Fixed, &[]);
        let upstream = upstream(80, &settings, &[1, 2, 3]);
        let values = [KEYS[2], KEYS[0], "gone"].into_iter().map(str::as_bytes);
        let session = RequestAffinity::read(Arc::clone(&settings), &upstream, values, NOW);
        assert_eq!(session.endpoint(), Some(address(1)));
    }
}
