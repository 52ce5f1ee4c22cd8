//! Who knows addresses of names, and what they may answer.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::net::NetError;
use thiserror::Error;

/// Somebody who knows addresses.
pub(super) trait Source: Send + Sync {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>>;
}

/// At least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
    /// The family that could not be asked for, which is not the same as there being none.
    pub(super) missing: Option<Family>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn has(self, address: &IpAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

#[derive(Debug, Error)]
pub(super) enum Unresolved {
    #[error("it is not a DNS name; write labels of letters, digits and hyphens with dots between them")]
    NotAName,
    #[error("there is no such name, or it has no addresses; is it spelled right?")]
    Absent,
    #[error("DNS did not answer: {0}; can the servers in /etc/resolv.conf be reached?")]
    Failed(NetError),
    #[error("DNS did not answer within {after:?}; can the servers in /etc/resolv.conf be reached?")]
    TimedOut { after: Duration },
    #[error("the C library's resolver did not answer: {0}")]
    Library(io::Error),
}
