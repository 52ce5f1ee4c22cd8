//! TLS sessions with endpoints: a new connection resumes one, which saves both sides a full handshake.
//!
//! A session belongs to one endpoint, server name and set of TLS settings, so that no other settings can resume it. The
//! endpoint sends no certificate when a session is resumed, so [`UpstreamTlsClient`](super::UpstreamTlsClient) verifies
//! the one of the session again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use super::{DigestBuilder, TlsDigest};

/// The sessions of all upstreams.
#[derive(Clone, Debug)]
pub(super) struct EndpointSessions(Arc<ClientSessionMemoryCache>);

impl Default for EndpointSessions {
    fn default() -> Self {
        EndpointSessions(Arc::new(ClientSessionMemoryCache::new(MAX_SESSIONS)))
    }
}

impl EndpointSessions {
    /// The sessions with one endpoint under these settings and this server name.
    pub(super) fn resumption(&self, settings: &TlsDigest, address: SocketAddr, name: &ServerName<'_>) -> Resumption {
        let sessions = Arc::clone(&self.0);
        Resumption::store(Arc::new(SessionsOfEndpoint { sessions, key: session_key(settings, address, name) }))
    }

    /// Drops these sessions.
    pub(super) fn forget(&self, settings: &TlsDigest, address: SocketAddr, name: &ServerName<'_>) {
        let key = session_key(settings, address, name);
        self.0.remove_tls12_session(&key);
        while self.0.take_tls13_ticket(&key).is_some() {}
    }
}

/// The cache of the library distinguishes sessions by server name only. An address that consists of a digest takes its
/// place.
fn session_key(settings: &TlsDigest, address: SocketAddr, name: &ServerName<'_>) -> ServerName<'static> {
    let mut digest = DigestBuilder::default();
    digest.add(settings);
    digest.add(address.to_string().as_bytes());
    digest.add(name.to_str().to_ascii_lowercase().as_bytes());
    let digest = digest.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    ServerName::from(IpAddr::V6(Ipv6Addr::from(bytes)))
}

#[derive(Debug)]
struct SessionsOfEndpoint {
    sessions: Arc<ClientSessionMemoryCache>,
    key: ServerName<'static>,
}

impl ClientSessionStore for SessionsOfEndpoint {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(self.key.clone(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(&self.key)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(self.key.clone(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.sessions.tls12_session(&self.key)
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.sessions.remove_tls12_session(&self.key);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(self.key.clone(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.sessions.take_tls13_ticket(&self.key)
    }
}

/// Up to 8 sessions for each of 1024 combinations of endpoint, settings and server name.
const MAX_SESSIONS: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_separated_by_endpoint_settings_and_name() {
        let name = |name: &'static str| ServerName::try_from(name).unwrap();
        let address = |address: &str| address.parse::<SocketAddr>().unwrap();
        let key = session_key(&[1; 32], address("192.0.2.1:443"), &name("a.example"));
        assert_eq!(key, session_key(&[1; 32], address("192.0.2.1:443"), &name("A.example")));
        let others = [
            session_key(&[2; 32], address("192.0.2.1:443"), &name("a.example")),
            session_key(&[1; 32], address("192.0.2.2:443"), &name("a.example")),
            session_key(&[1; 32], address("192.0.2.1:444"), &name("a.example")),
            session_key(&[1; 32], address("192.0.2.1:443"), &name("b.example")),
        ];
        assert!(others.iter().all(|other| *other != key));
    }
}
