//! What consistent hashing hashes of a request.

use http::HeaderName;
use regex::bytes::Regex;

use super::set_cookie::SetCookie;

/// The parts of a request whose hash chooses its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHash {
    /// Not empty.
    pub keys: Box<[HashKey]>,
    pub combine: CombineKeys,
    /// How many requests in progress an endpoint may have, as a percentage of its share; 100 or more. `None`: no limit.
    pub bounded_load_percent: Option<u32>,
}

/// How several keys are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CombineKeys {
    /// The first key that the request has.
    #[default]
    First,
    /// All keys that the request has, together.
    All,
}

/// One part of a request.
#[derive(Clone, Debug)]
pub struct HashKey {
    pub source: HashSource,
    /// Only the first capture group of this expression is hashed, or its match if there is none. The request does not
    /// have the key if the expression does not match.
    pub regex: Option<Regex>,
}

impl PartialEq for HashKey {
    fn eq(&self, other: &HashKey) -> bool {
        let text = |key: &HashKey| key.regex.as_ref().map(|regex| regex.as_str().to_owned());
        self.source == other.source && text(self) == text(other)
    }
}

impl Eq for HashKey {}

/// Where a key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    Header(HeaderName),
    /// A cookie, which is generated for a request that does not have it.
    Cookie(SetCookie),
    /// The address of the client, after trusted proxies. Of an IPv6 address, only the prefix of this length counts.
    ClientIp {
        ipv6_prefix: u8,
    },
    /// The first value of a parameter of the query.
    Query(Box<str>),
    /// All values of a parameter of the query, whatever their order is.
    QueryValues(Box<str>),
    /// The normalized path, without the query.
    Path,
    /// A named capture group of the path expression of the route.
    UriCapture(Box<str>),
    /// The authenticated consumer, or else its credential.
    Consumer,
    Host,
}
