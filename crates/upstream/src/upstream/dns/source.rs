//! The interface of resolvers, their results and their errors.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::net::NetError;
use thiserror::Error;

/// A resolver of names to addresses.
pub(super) trait ResolveName: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>>;
}

/// A successful result with at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedName {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// The family whose query failed; None if both families have a result, which may be that there is no address.
    pub(super) failed_family: Option<DnsFamily>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnsFamily {
    V4,
    V6,
}

impl DnsFamily {
    pub(super) fn contains(self, address: &IpAddr) -> bool {
        match self {
            DnsFamily::V4 => address.is_ipv4(),
            DnsFamily::V6 => address.is_ipv6(),
        }
    }
}

#[derive(Debug, Error)]
pub(super) enum ResolveError {
    #[error("not a DNS name; use labels of letters, digits and hyphens separated by dots")]
    InvalidName,
    #[error("the name does not exist or has no addresses; check its spelling")]
    NotFound,
    #[error("the DNS query failed: {0}; check that the servers in /etc/resolv.conf are reachable")]
    Failed(NetError),
    #[error("the DNS query timed out after {after:?}; check that the servers in /etc/resolv.conf are reachable")]
    TimedOut { after: Duration },
    #[error("the C library's resolver failed: {0}")]
    Library(io::Error),
}

/// A resolver for tests.
pub(super) struct FakeNames<F>(pub(super) F);

impl<F: Fn(&str) -> Option<IpAddr> + Send + Sync> ResolveName for FakeNames<F> {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        let address = (self.0)(name).ok_or(ResolveError::NotFound);
        let resolved = address.map(|address| ResolvedName {
            addresses: vec![address],
            ttl: Duration::from_secs(1),
            failed_family: None,
        });
        Box::pin(std::future::ready(resolved))
    }
}
