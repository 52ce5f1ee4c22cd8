//! Session persistence (GEP-1619): reads from cookies or a header to which endpoint a request belongs, and gives new
//! values to the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use tracing::warn;

use super::same_site::lacks_same_site_none;
use crate::plugin_api::Scheme;
use crate::snapshot::rule::WeightedBackends;
pub(in crate::proxy) use crate::upstream::cookies;
use crate::upstream::{AffinityCarrier, RequestAffinity, SessionValue, Upstream, cookie_value};

/// The session of a request with the backend that was selected for it, and with those that may take its place. The
/// sessions of the rule precede those of the Service.
pub(in crate::proxy) struct BackendAffinity<'r> {
    upstream: &'r Arc<Upstream>,
    session: Option<RequestAffinity>,
    /// The sessions with alternatives of the upstream.
    others: Vec<(Arc<Upstream>, RequestAffinity)>,
    /// The scheme that the client uses.
    scheme: Scheme,
    /// The client does not support `SameSite=None`, and a cookie depends on that.
    lacks_same_site_none: bool,
}

impl<'r> BackendAffinity<'r> {
    /// `None` if neither the rule nor the Service has sessions, nor a Service that may take its place.
    pub(in crate::proxy) fn read(
        split: &WeightedBackends,
        upstream: &'r Arc<Upstream>,
        headers: &HeaderMap,
        scheme: Scheme,
    ) -> Option<Box<Self>> {
        let session = session_with(split, upstream, headers);
        let others = upstream.alternatives().map_or_else(Vec::new, |alternatives| {
            let session =
                |other: &Arc<Upstream>| session_with(split, other, headers).map(|session| (Arc::clone(other), session));
            alternatives.all().filter_map(session).collect()
        });
        if session.is_none() && others.is_empty() {
            return None;
        }
        let sessions = session.iter().chain(others.iter().map(|(_, session)| session));
        let is_conditional = sessions.into_iter().any(has_conditional_same_site);
        let lacks_same_site_none = is_conditional && lacks_same_site_none(headers);
        Some(Box::new(BackendAffinity { upstream, session, others, scheme, lacks_same_site_none }))
    }

    /// The endpoint of the session with the backend.
    pub(in crate::proxy) fn pinned(&self) -> Option<SocketAddr> {
        self.session.as_ref()?.endpoint()
    }

    /// The endpoints of the sessions with upstreams that may take its place.
    pub(in crate::proxy) fn pinned_others(&self) -> Box<[(Arc<Upstream>, SocketAddr)]> {
        let pinned = |(upstream, session): &(Arc<Upstream>, RequestAffinity)| {
            session.endpoint().map(|endpoint| (Arc::clone(upstream), endpoint))
        };
        self.others.iter().filter_map(pinned).collect()
    }

    /// The session with the upstream that has responded.
    fn with_endpoint(&self, endpoint: SocketAddr) -> Option<(&Arc<Upstream>, &RequestAffinity)> {
        let own = self.session.as_ref().map(|session| (self.upstream, session));
        if self.others.is_empty() || has_endpoint(self.upstream, endpoint) {
            return own;
        }
        let others = self.others.iter().map(|(upstream, session)| (upstream, session));
        others.into_iter().find(|(upstream, _)| has_endpoint(upstream, endpoint)).or(own)
    }

    fn sessions(&self) -> impl Iterator<Item = &RequestAffinity> {
        self.session.iter().chain(self.others.iter().map(|(_, session)| session))
    }
}

fn has_conditional_same_site(session: &RequestAffinity) -> bool {
    match session.carrier() {
        AffinityCarrier::Cookie { cookie, .. } => cookie.has_conditional_same_site(),
        AffinityCarrier::Header(_) => false,
    }
}

fn has_endpoint(upstream: &Upstream, endpoint: SocketAddr) -> bool {
    upstream.reachable().binary_search_by_key(&endpoint, |known| known.address).is_ok()
}

/// The session of a request with one upstream. `None` if neither the rule nor the Service has sessions.
fn session_with(split: &WeightedBackends, upstream: &Upstream, headers: &HeaderMap) -> Option<RequestAffinity> {
    let settings = split.affinity_with(upstream).map(Arc::clone).or_else(|| upstream.affinity_settings())?;
    let now = unix_seconds();
    Some(match &Arc::clone(&settings).carrier {
        AffinityCarrier::Cookie { cookie, .. } => {
            RequestAffinity::read(settings, upstream, cookies(headers, &cookie.name), now)
        }
        AffinityCarrier::Header(name) => {
            let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            RequestAffinity::read(settings, upstream, values, now)
        }
    })
}

/// Removes the session from a request to an endpoint, if the settings say so.
pub(in crate::proxy) fn strip_from_request(affinity: Option<&BackendAffinity<'_>>, headers: &mut HeaderMap) {
    let sessions = affinity.into_iter().flat_map(BackendAffinity::sessions);
    for session in sessions.filter(|session| session.is_stripped()) {
        match session.carrier() {
            AffinityCarrier::Cookie { cookie, .. } => remove_cookie(headers, &cookie.name),
            AffinityCarrier::Header(name) => {
                headers.remove(name);
            }
        }
    }
}

/// Adds the session to a response, if the client does not have it: it has none, or another endpoint has responded.
pub(in crate::proxy) fn add_to_response(
    affinity: Option<&BackendAffinity<'_>>,
    endpoint: Option<SocketAddr>,
    headers: &mut HeaderMap,
) {
    let (Some(backend), Some(endpoint)) = (affinity, endpoint) else { return };
    let Some((upstream, session)) = backend.with_endpoint(endpoint) else { return };
    if let AffinityCarrier::Cookie { cookie, .. } = session.carrier() {
        warn_of_same_name(upstream, &cookie.name, headers);
    }
    let Some(SessionValue { value, max_age }) = session.new_value(upstream, endpoint, unix_seconds()) else {
        return;
    };
    match session.carrier() {
        AffinityCarrier::Cookie { cookie, .. } => {
            let is_secure = backend.scheme == Scheme::Https;
            let field = match backend.lacks_same_site_none && cookie.has_conditional_same_site() {
                true => cookie.without_same_site_none().with_value(value, max_age, is_secure),
                false => cookie.with_value(value, max_age, is_secure),
            };
            if let Ok(field) = HeaderValue::try_from(field) {
                headers.append(SET_COOKIE, field);
            }
        }
        AffinityCarrier::Header(name) => {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Reports that an endpoint sets a cookie with the name of one that Portico sets: the client keeps only one of both.
pub(super) fn warn_of_same_name(upstream: &Upstream, name: &str, headers: &HeaderMap) {
    if sets_cookie(headers, name) && upstream.should_warn() {
        warn!(
            upstream = %upstream.key,
            cookie = name,
            "The endpoint sets a cookie with the name of Portico's own, so clients lose one of both; use another name"
        );
    }
}

/// Whether a response sets a cookie with this name.
fn sets_cookie(headers: &HeaderMap, name: &str) -> bool {
    let mut names =
        headers.get_all(SET_COOKIE).iter().filter_map(|value| value.as_bytes().split(|b| *b == b'=').next());
    names.any(|found| found.trim_ascii() == name.as_bytes())
}

/// Removes all cookies with a name, and leaves the others.
fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    if cookies(headers, name).next().is_none() {
        return;
    }
    let others = |line: &HeaderValue| {
        let pairs = line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let others: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty() && cookie_value(pair, name).is_none()).collect();
        HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|line| !line.is_empty())
    };
    let lines: Vec<_> = headers.get_all(COOKIE).iter().filter_map(others).collect();
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
}

/// The time as tokens contain it.
fn unix_seconds() -> u32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_one_name_are_found_in_all_lines() {
        for (lines, expected) in [
            (&["s=1"][..], &["1"][..]),
            (&["a=0; s=1; s=2", "s=3"], &["1", "2", "3"]),
            (&["s = 1 ;s=\"2\"; s=a=b"], &["1", "2", "a=b"]),
            (&["S=1; ss=2; s; as=3; s="], &[""]),
            (&["", ";;=;s=1;"], &["1"]),
            (&[], &[]),
        ] {
            let headers: HeaderMap = lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect();
            let found: Vec<_> = cookies(&headers, "s").map(|value| std::str::from_utf8(value).unwrap()).collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn endpoints_with_a_cookie_of_the_same_name_are_found() {
        for (lines, expected) in [
            (&["JSESSIONID=1; Path=/"][..], true),
            (&["a=JSESSIONID=1", " JSESSIONID =2"], true),
            (&["JSESSIONID2=1; JSESSIONID=2", "jsessionid=1", "a=b"], false),
            (&[], false),
        ] {
            let fields = lines.iter().map(|line| (SET_COOKIE, HeaderValue::from_static(line)));
            assert_eq!(sets_cookie(&fields.collect(), "JSESSIONID"), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_the_cookie_of_the_session_is_removed() {
        for (lines, expected) in [
            (&["s=1"][..], &[][..]),
            (&["a=0; s=1; s = 2;b=3", "s=3", "c=\"4; 5\""], &["a=0; b=3", "c=\"4; 5\""]),
            (&["ss=1; S=2;c"], &["ss=1; S=2;c"]),
            (&["s=\u{ff}; \u{e9}=1"], &["\u{e9}=1"]),
            (&["x=1;; ;s=;"], &["x=1"]),
        ] {
            let bytes = |text: &&str| HeaderValue::from_bytes(&text.chars().map(|char| char as u8).collect::<Vec<_>>());
            let mut headers: HeaderMap = lines.iter().map(|line| (COOKIE, bytes(line).unwrap())).collect();
            remove_cookie(&mut headers, "s");
            let left: Vec<_> = headers.get_all(COOKIE).iter().cloned().collect();
            let expected: Vec<_> = expected.iter().map(|line| bytes(line).unwrap()).collect();
            assert_eq!(left, expected, "{lines:?}");
        }
    }
}
