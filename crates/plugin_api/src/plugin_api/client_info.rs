//! The client that a request came from, also as a trusted peer reports it, and the request as it has arrived.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;

use super::scheme::Scheme;

/// The client and connection that a request came from.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'r> {
    /// The client address, taken from forwarding headers if the peer is trusted. [`UNKNOWN_CLIENT`] if that peer does
    /// not name an address.
    pub address: IpAddr,
    /// The scheme that the client used, taken from forwarding headers if the peer is trusted.
    pub scheme: Scheme,
    /// The host that the client used, with its port if it has one, taken from forwarding headers if the peer is
    /// trusted.
    pub host: &'r str,
    /// The port that the client used, taken from forwarding headers if the peer is trusted, otherwise that of the
    /// listener.
    pub port: u16,
    /// The port that URLs of the client have after `host`, if a trusted peer reports it apart from the host.
    pub separate_port: Option<u16>,
    /// The request as it has reached Portico.
    pub received: ArrivedRequest<'r>,
    /// Whether the peer is one of those that may report other clients (`--trusted-ips`).
    pub is_peer_trusted: bool,
    pub certificate: ClientCertificate<'r>,
}

impl ClientInfo<'_> {
    /// The scheme and the host of the URLs that the client uses, with the port if it is not that of the scheme.
    pub fn origin(&self) -> String {
        match self.separate_port {
            Some(port) => format!("{}://{}:{port}", self.scheme, self.host),
            None => format!("{}://{}", self.scheme, self.host),
        }
    }
}

/// A request as it has reached Portico, whatever a trusted peer reports about the client: what a client has signed, by
/// what responses are stored, and what is echoed.
#[derive(Clone, Copy, Debug)]
pub struct ArrivedRequest<'r> {
    /// The other end of the connection, or the one that a PROXY header names.
    pub peer: SocketAddr,
    pub scheme: Scheme,
    /// The host of the request, with its port if it has one.
    pub host: &'r str,
    /// The port of the listener, as clients see it.
    pub port: u16,
}

/// The certificate of the client's TLS connection. The client has proved that it has the private key, and nothing else
/// is verified.
#[derive(Clone, Copy, Debug, Default)]
pub enum ClientCertificate<'r> {
    /// The client was not asked for one: the connection does not use TLS, or no plugin that reads certificates ran for
    /// the listener when the connection was opened.
    #[default]
    NotRequested,
    /// The client has sent none.
    Missing,
    /// The client's own certificate, then those that it sent with it, the SHA-256 digest of all of them, and what was
    /// found out about them.
    Chain(&'r [CertificateDer<'static>], &'r [u8; 32], &'r CertificateFindings),
}

/// What the plugins that verify the certificates of a connection have found out about them. It is kept as long as the
/// connection, so that they need not be verified for each of its requests.
#[derive(Default)]
pub struct CertificateFindings([OnceLock<Arc<dyn Any + Send + Sync>>; MAX_FINDINGS]);

/// How many findings a connection keeps: each of its hosts may require something else, which edits may change.
const MAX_FINDINGS: usize = 4;

impl CertificateFindings {
    /// What is kept and fits, or else, as an error, what `find` has made. It is kept while there is space.
    pub fn find_or_add<T: Any + Send + Sync>(
        &self,
        fits: impl Fn(&T) -> bool,
        find: impl FnOnce() -> T,
    ) -> Result<&T, Arc<T>> {
        let kept = self.0.iter().filter_map(OnceLock::get).filter_map(|kept| kept.downcast_ref::<T>());
        kept.into_iter().find(|kept| fits(kept)).map_or_else(
            || {
                let found = Arc::new(find());
                if let Some(place) = self.0.iter().find(|place| place.get().is_none()) {
                    // Another request may have taken the place, and keeps something itself.
                    place.set(Arc::clone(&found) as Arc<dyn Any + Send + Sync>).ok();
                }
                Err(found)
            },
            Ok,
        )
    }
}

impl fmt::Debug for CertificateFindings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CertificateFindings")
    }
}

/// Stands for a client whose address a trusted peer reports in an unreadable way. Plugins that restrict access by
/// address must reject it.
pub const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
