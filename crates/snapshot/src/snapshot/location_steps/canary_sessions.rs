//! The sessions of a location with a canary: a client stays at the version that its session is with.

use std::sync::Arc;

use http::HeaderMap;

use crate::upstream::{AffinityCarrier, AffinitySettings, Upstream, cookies};

/// What finds the version of a session.
#[derive(Debug, PartialEq)]
pub struct CanarySessions {
    pub settings: Arc<AffinitySettings>,
    pub main: Arc<Upstream>,
    /// `None` if the canary has no sessions.
    pub canary: Option<Arc<Upstream>>,
}

impl CanarySessions {
    /// Whether the session of a request is with the canary, as its last cookie says. `None` if it says neither. The
    /// endpoint of the session may be gone.
    pub(super) fn is_with_canary(&self, headers: &HeaderMap) -> Option<bool> {
        let AffinityCarrier::Cookie { cookie, .. } = &self.settings.carrier else { return None };
        let value = cookies(headers, &cookie.name).take(MAX_COOKIES).last()?;
        if self.settings.is_session_with(&self.main, value) {
            return Some(false);
        }
        let canary = self.canary.as_ref()?;
        self.settings.is_session_with(canary, value).then_some(true)
    }
}

/// As many as are read for the endpoint of the session.
const MAX_COOKIES: usize = 4;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;
    use crate::upstream::settings::{SameSite, SetCookie};
    use crate::upstream::{EndpointAddress, EndpointKeys, Endpoints, KeyAssignment, RequestAffinity, UpstreamKey};

    fn upstream(service: &str, address: &str) -> Arc<Upstream> {
        let upstream = Upstream::new(UpstreamKey { service: service.into(), ..UpstreamKey::default() });
        upstream.keep_keyed_sessions(&keys());
        let addresses = vec![EndpointAddress::Ip(address.parse().unwrap())];
        upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        Arc::new(upstream)
    }

    fn keys() -> EndpointKeys {
        EndpointKeys { assignment: KeyAssignment::Fixed, names: Box::default() }
    }

    #[test]
    fn sessions_keep_their_version() {
        let (main, canary) = (upstream("main", "10.0.0.1:80"), upstream("canary", "10.0.0.2:80"));
        let settings = Arc::new(AffinitySettings {
            scope: 1 << 32,
            carrier: AffinityCarrier::Cookie {
                cookie: SetCookie::new("s", "/", None, SameSite::Lax),
                is_permanent: false,
            },
            absolute_timeout: None,
            idle_timeout: None,
            strip: false,
            keys: Some(keys()),
        });
        let headers = |upstream: &Arc<Upstream>, address: &str| {
            let session = RequestAffinity::read(Arc::clone(&settings), upstream, [].into_iter(), 0);
            let value = session.new_value(upstream, address.parse().unwrap(), 0).unwrap().value;
            let cookie = HeaderValue::try_from(format!("a=1; s={value}")).unwrap();
            HeaderMap::from_iter([(COOKIE, cookie)])
        };
        let (of_main, of_canary) = (headers(&main, "10.0.0.1:80"), headers(&canary, "10.0.0.2:80"));
        let sessions = |canary| CanarySessions { settings: Arc::clone(&settings), main: Arc::clone(&main), canary };
        for (has_canary, headers, expected) in [
            (true, &of_main, Some(false)),
            (true, &of_canary, Some(true)),
            (true, &HeaderMap::new(), None),
            (false, &of_main, Some(false)),
            (false, &of_canary, None),
        ] {
            let sessions = sessions(has_canary.then(|| Arc::clone(&canary)));
            assert_eq!(sessions.is_with_canary(headers), expected, "{has_canary} {headers:?}");
        }
        // Its endpoint is gone.
        canary.set_endpoints(Endpoints::default());
        assert_eq!(sessions(Some(Arc::clone(&canary))).is_with_canary(&of_canary), Some(true));
    }
}
