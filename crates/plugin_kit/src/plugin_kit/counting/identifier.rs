//! The property of a request by which it is counted, and its value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::table::CounterKey;
use crate::plugin_api::consumers;
use crate::plugin_api::context::RequestCx;
use crate::plugin_api::header_spoofing::is_alike;

/// A property of requests. Requests with the same value share a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// The consumer; or the credential, if no consumer belongs to it.
    Consumer,
    Credential,
    Ip,
    Service,
    Header(HeaderName),
    /// The path, for requests with exactly this one.
    Path(String),
    Route,
    /// The first group of the consumer in alphabetical order.
    ConsumerGroup,
}

/// The value by which requests are counted, such as the client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitIdentifier {
    /// One of the constants below, with the flag [`DIGEST`] if the value is a digest.
    kind: u8,
    bytes: SmallVec<[u8; 40]>,
}

impl LimitIdentifier {
    /// The value of `limit_by`, or the client address if the request does not have it.
    pub fn from_request(limit_by: &LimitBy, cx: &RequestCx<'_>) -> Self {
        let identifier = match limit_by {
            LimitBy::Consumer => {
                let consumer =
                    cx.identity.consumer.as_ref().map(|consumer| Self::from_bytes(CONSUMER, consumer.id.as_bytes()));
                consumer.or_else(|| Self::credential(cx))
            }
            LimitBy::Credential => Self::credential(cx),
            LimitBy::Service => Some(&cx.route.service)
                .filter(|service| !service.is_empty())
                .map(|service| Self::from_bytes(SERVICE, service.as_bytes())),
            LimitBy::Header(name) => counted_value(&cx.head.headers, name).map(|value| Self::from_bytes(HEADER, value)),
            LimitBy::Path(path) => (cx.path == path).then(|| Self::from_bytes(PATH, path.as_bytes())),
            LimitBy::Route => Some(Self::from_bytes(ROUTE, cx.route.route.as_bytes())),
            LimitBy::ConsumerGroup => {
                cx.identity.consumer_groups().first().map(|group| Self::from_bytes(GROUP, group.as_bytes()))
            }
            LimitBy::Ip => None,
        };
        identifier.unwrap_or_else(|| Self::address(cx.client.address.to_canonical()))
    }

    /// The values of several properties together.
    pub fn compound(properties: &[LimitBy], cx: &RequestCx<'_>) -> Self {
        let mut bytes: SmallVec<[u8; 128]> = SmallVec::new();
        for property in properties {
            let LimitIdentifier { kind, bytes: value } = Self::from_request(property, cx);
            // The kind and the length in front, so that no two lists of values have the same bytes.
            bytes.push(kind);
            bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(&value);
        }
        Self::from_bytes(COMPOUND, &bytes)
    }

    /// The whole of what a plugin counts, without a property of the request.
    pub fn whole() -> Self {
        LimitIdentifier { kind: WHOLE, bytes: SmallVec::new() }
    }

    /// A text that the plugin has chosen.
    pub fn text(text: &str) -> Self {
        Self::from_bytes(TEXT, text.as_bytes())
    }

    fn credential(cx: &RequestCx<'_>) -> Option<Self> {
        cx.identity.credential().map(|credential| Self::from_bytes(CREDENTIAL, credential.as_bytes()))
    }

    /// Long values are replaced by their digest, so that clients cannot exhaust the memory with long headers.
    fn from_bytes(kind: u8, value: &[u8]) -> Self {
        if value.len() <= MAX_IDENTIFIER_BYTES {
            return LimitIdentifier { kind, bytes: SmallVec::from_slice(value) };
        }
        LimitIdentifier { kind: kind | DIGEST, bytes: SmallVec::from_slice(&consumers::sha256(value)) }
    }

    /// An IPv4 address, or the first 64 bits of an IPv6 address: a client usually has all addresses of such a network,
    /// and could otherwise use a new one for each request.
    fn address(address: IpAddr) -> Self {
        let bytes = match address {
            IpAddr::V4(address) => SmallVec::from_slice(&address.octets()),
            IpAddr::V6(address) => SmallVec::from_slice(&address.octets()[..IPV6_NETWORK_BYTES]),
        };
        LimitIdentifier { kind: ADDRESS, bytes }
    }

    pub fn table_key<'a>(&'a self, scope: &'a str) -> CounterKey<'a> {
        CounterKey { scope, kind: self.kind, identifier: &self.bytes }
    }

    /// The identifier as part of a key at the server.
    pub fn for_server(&self) -> String {
        let is_unescaped = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./@".contains(byte);
        match (self.kind, &*self.bytes) {
            (ADDRESS, &[a, b, c, d]) => IpAddr::from([a, b, c, d]).to_string(),
            (ADDRESS, network) => {
                let mut octets = [0; 16];
                octets[..IPV6_NETWORK_BYTES].copy_from_slice(network);
                format!("{}/64", Ipv6Addr::from(octets))
            }
            (kind, bytes) if kind & DIGEST == 0 && bytes.iter().all(is_unescaped) && !is_address(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            // The leading colon prevents collisions: the other forms do not begin with one.
            (_, bytes) => format!(":{}", consumers::hex(bytes)),
        }
    }
}

/// The value of a field by which requests are counted. `None` for a field that occurs several times, or also with
/// underscores in place of hyphens: the backend may read another value than the one that is counted.
pub fn counted_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let has_other_spelling = headers.keys().any(|other| other != name && is_alike(other, name));
    (!has_other_spelling).then(|| value.as_bytes())
}

/// Whether a value would have the key of a client address at the server. Those of IPv6 have colons.
fn is_address(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

const IPV6_NETWORK_BYTES: usize = 8;
const ADDRESS: u8 = 0;
const CONSUMER: u8 = 1;
const CREDENTIAL: u8 = 2;
const SERVICE: u8 = 3;
const HEADER: u8 = 4;
const PATH: u8 = 5;
const ROUTE: u8 = 6;
const GROUP: u8 = 7;
const COMPOUND: u8 = 8;
const WHOLE: u8 = 9;
const TEXT: u8 = 10;
/// A flag for identifiers that are replaced by their digest.
const DIGEST: u8 = 0x80;
/// Identifiers longer than this number of bytes are replaced by their digest.
const MAX_IDENTIFIER_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A client must not use up what another one may send.
    #[test]
    fn values_of_clients_have_keys_of_their_own_at_the_server() {
        let identifiers = [
            LimitIdentifier::address([192, 0, 2, 1].into()),
            LimitIdentifier::from_bytes(HEADER, b"192.0.2.1"),
            LimitIdentifier::from_bytes(HEADER, &[192, 0, 2, 1]),
            LimitIdentifier::address("2001:db8::1".parse().unwrap()),
            LimitIdentifier::from_bytes(HEADER, b"2001:db8::/64"),
            LimitIdentifier::from_bytes(HEADER, b":c0000201"),
            LimitIdentifier::from_bytes(HEADER, b"c0000201"),
            LimitIdentifier::from_bytes(HEADER, b""),
            LimitIdentifier::from_bytes(HEADER, b"a:b"),
            LimitIdentifier::from_bytes(HEADER, &[b'x'; 65]),
        ];
        let keys: BTreeSet<_> = identifiers.iter().map(LimitIdentifier::for_server).collect();
        assert_eq!(keys.len(), identifiers.len(), "{keys:?}");
    }
}
