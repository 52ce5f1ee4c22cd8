//! What consistent hashing hashes of a request.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;
use regex::bytes::Regex;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::json_form;
use super::set_cookie::SetCookie;

/// The parts of a request whose hash chooses its endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestHash {
    pub combine: CombineKeys,
    /// Empty if each rule says what is hashed of its requests.
    pub keys: Box<[HashKey]>,
    /// How many requests in progress an endpoint may have, as a percentage of its share; 100 or more. `None`: no limit.
    pub bounded_load_percent: Option<u32>,
    /// How many endpoints a hash selects, of which each request gets one at random. `None`: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset_size: Option<NonZeroU32>,
}

/// How several keys are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum CombineKeys {
    /// The first key that the request has.
    #[default]
    First,
    /// All keys that the request has, together.
    All,
    /// The values one after the other, as one text, in which absent ones are empty. Every request has it.
    Text,
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

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (source, name) = match &self.source {
            HashSource::Header(name) => ("Header", Some(name.as_str())),
            HashSource::Cookie(cookie) => ("Cookie", Some(&*cookie.name)),
            HashSource::CookieValue(name) => ("CookieValue", Some(&**name)),
            HashSource::ClientIp { .. } => ("ClientIP", None),
            HashSource::Query(name) | HashSource::QueryValues(name) => ("Query", Some(&**name)),
            HashSource::Path => ("Path", None),
            HashSource::UriCapture(name) => ("UriCapture", Some(&**name)),
            HashSource::Consumer => ("Consumer", None),
            HashSource::Host => ("Host", None),
            HashSource::Target => ("Target", None),
            HashSource::QueryText => ("QueryText", None),
            HashSource::Literal(text) => ("Literal", Some(&**text)),
        };
        let mut key = serializer.serialize_struct("HashKey", 4)?;
        key.serialize_field("source", source)?;
        key.serialize_field("name", &name)?;
        key.serialize_field("regex", &self.regex.as_ref().map(Regex::as_str))?;
        match &self.source {
            HashSource::Cookie(cookie) => {
                let ttl = cookie.max_age.unwrap_or_default();
                key.serialize_field("cookie", &HashCookieFields { ttl, cookie })?;
            }
            HashSource::ClientIp { ipv6_prefix } => key.serialize_field("ipv6Prefix", ipv6_prefix)?,
            _ => {}
        }
        key.end()
    }
}

/// A cookie as a policy describes it.
#[derive(Serialize)]
struct HashCookieFields<'a> {
    #[serde(serialize_with = "json_form::duration")]
    ttl: Duration,
    #[serde(flatten)]
    cookie: &'a SetCookie,
}

/// Where a key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    Header(HeaderName),
    /// A cookie, which is generated for a request that does not have it.
    Cookie(SetCookie),
    /// A cookie that only the application sets.
    CookieValue(Box<str>),
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
    /// Path and query as the client has sent them.
    Target,
    /// The query without the question mark.
    QueryText,
    /// The same text for all requests.
    Literal(Box<str>),
}
