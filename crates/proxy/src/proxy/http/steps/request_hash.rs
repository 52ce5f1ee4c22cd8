//! The hash of a request, by which consistent hashing chooses its endpoint.
//!
//! The client's request is hashed: its normalized path, its host, and its headers before the filters of the rule edit
//! them. The hash is xxHash64 with the seed 0, so all workers, replicas and versions compute the same.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HOST;
use percent_encoding::percent_decode_str;
use regex::bytes::Regex;
use smallvec::SmallVec;
use xxhash_rust::xxh64::{Xxh64, xxh64};

use super::affinity::cookies;
use super::hash_cookies::{CookieValues, GeneratedCookies, hexadecimal};
use super::request_context::{RequestContext, RoutedRequest};
use super::route_captures::RouteCaptures;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::plugin_api::{Identity, Scheme, UriCaptures};
use crate::request_target::RequestHost;
use crate::upstream::Upstream;
use crate::upstream::settings::{CombineKeys, HashKey, HashSource, RequestHash};

/// The hash of a request for its backend. Generates the cookies that it lacks, which the response then sets. `None` if
/// the upstream does not hash, or the request has nothing of what it hashes.
#[inline]
pub(in crate::proxy) fn of_request(
    cx: &mut RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    headers: &HeaderMap,
    upstream: &Arc<Upstream>,
) -> Option<u64> {
    let settings = settings_of(routed, upstream)?;
    let mut generated = CookieValues::new();
    let hash = inputs(cx, routed, headers).hash(&settings, Some(&mut generated));
    if !generated.is_empty() {
        let is_secure = cx.record.client.scheme == Scheme::Https;
        cx.hash_cookies = Some(Box::new(GeneratedCookies::new(Arc::clone(upstream), settings, generated, is_secure)));
    }
    hash
}

/// The hash of a request that is sent to another upstream in addition: to a mirror or an authorization server. No
/// cookies are generated for it.
#[inline]
pub(in crate::proxy) fn of_side_request(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    headers: &HeaderMap,
    upstream: &Upstream,
) -> Option<u64> {
    let settings = settings_of(routed, upstream)?;
    inputs(cx, routed, headers).hash(&settings, None)
}

/// What is hashed: what the settings of the upstream say, or the rule if they leave it to rules.
fn settings_of(routed: &RoutedRequest<'_>, upstream: &Upstream) -> Option<Arc<RequestHash>> {
    let settings = upstream.request_hash()?;
    match settings.keys.is_empty() {
        false => Some(settings),
        true => routed.rule.options().request_hash.as_ref().map(Arc::clone),
    }
}

fn inputs<'r>(
    cx: &'r RequestContext<'_>,
    routed: &'r RoutedRequest<'_>,
    headers: &'r HeaderMap,
) -> HashInputs<'r, RouteCaptures<'r>> {
    HashInputs {
        headers,
        client: cx.record.client.address,
        host: &routed.host,
        path: routed.path.path(),
        query: routed.path.query(),
        target: routed.path.raw(),
        captures: RouteCaptures::new(routed.matched, routed.path.path()),
        identity: cx.record.plugin_run.as_ref().map(|run| &run.state.identity),
    }
}

/// What can be hashed of a request. Whatever takes time is computed only if it is hashed.
struct HashInputs<'r, C> {
    headers: &'r HeaderMap,
    client: IpAddr,
    host: &'r RequestHost,
    path: &'r str,
    query: Option<&'r str>,
    /// As the client has sent it.
    target: &'r str,
    captures: C,
    identity: Option<&'r Identity>,
}

impl<C: UriCaptures> HashInputs<'_, C> {
    /// Adds the cookies that are generated to `generated`; generates none if that is `None`.
    fn hash(&self, settings: &RequestHash, mut generated: Option<&mut CookieValues>) -> Option<u64> {
        let mut values = settings.keys.iter().enumerate().map(|(index, key)| {
            self.value(key).or_else(|| {
                // A cookie of the application, of which an expression selects a part, is not replaced.
                let is_generated = key.regex.is_none() && matches!(key.source, HashSource::Cookie(_));
                let generated = generated.as_mut().filter(|_| is_generated)?;
                let value = fastrand::u128(..);
                generated.push((index, value));
                Some(KeyValue::Computed(hexadecimal(value)))
            })
        });
        match settings.combine {
            CombineKeys::First => values.find_map(|value| Some(xxh64(value?.bytes(), SEED))),
            CombineKeys::All => {
                let mut hasher = Xxh64::new(SEED);
                let mut has_any = false;
                for value in values {
                    has_any |= value.is_some();
                    // The lengths distinguish `a` and `bc` from `ab` and `c`, and absent keys from all values.
                    let length = value.as_ref().map_or(u64::MAX, |value| value.bytes().len() as u64);
                    hasher.update(&length.to_le_bytes());
                    hasher.update(value.as_ref().map_or(&[], KeyValue::bytes));
                }
                has_any.then(|| hasher.digest())
            }
            CombineKeys::Text => {
                let mut hasher = Xxh64::new(SEED);
                values.flatten().for_each(|value| hasher.update(value.bytes()));
                Some(hasher.digest())
            }
        }
    }

    /// The value of a key. `None` if the request does not have it, or if it is empty: clients without a value would
    /// all get one endpoint.
    fn value<'v>(&'v self, key: &'v HashKey) -> Option<KeyValue<'v>> {
        let value = self.source_value(&key.source)?;
        let value = match &key.regex {
            None => value,
            Some(regex) => value.captured(regex)?,
        };
        (!value.bytes().is_empty()).then_some(value)
    }

    fn source_value<'v>(&'v self, source: &'v HashSource) -> Option<KeyValue<'v>> {
        let text = match source {
            // What the client has sent, and not the host for the endpoint.
            HashSource::Header(name) if *name == HOST => self.host.raw.as_bytes(),
            HashSource::Header(name) => self.headers.get(name)?.as_bytes(),
            HashSource::Cookie(cookie) => cookies(self.headers, &cookie.name).find(|value| !value.is_empty())?,
            HashSource::CookieValue(name) => cookies(self.headers, name).find(|value| !value.is_empty())?,
            HashSource::ClientIp { ipv6_prefix } => return address_value(self.client, *ipv6_prefix),
            HashSource::Query(name) => query_parameter(self.query?, name)?.as_bytes(),
            HashSource::QueryValues(name) => return query_values(self.query?, name),
            HashSource::Path => self.path.as_bytes(),
            HashSource::Target => self.target.as_bytes(),
            HashSource::QueryText => self.query?.as_bytes(),
            HashSource::Literal(text) => text.as_bytes(),
            HashSource::UriCapture(name) => self.captures.named_group(name)?.as_bytes(),
            HashSource::Consumer => {
                let identity = self.identity?;
                let id = identity.consumer.as_ref().map(|consumer| &consumer.id).or(identity.credential())?;
                id.header().as_bytes()
            }
            HashSource::Host => {
                return Some(match self.host.name() {
                    Cow::Borrowed(name) => KeyValue::Borrowed(name.as_bytes()),
                    Cow::Owned(name) => KeyValue::Computed(SmallVec::from_slice(name.as_bytes())),
                });
            }
        };
        Some(KeyValue::Borrowed(text))
    }
}

/// The value of one key.
enum KeyValue<'r> {
    /// A part of the request.
    Borrowed(&'r [u8]),
    Computed(SmallVec<[u8; 32]>),
}

impl<'r> KeyValue<'r> {
    fn bytes(&self) -> &[u8] {
        match self {
            KeyValue::Borrowed(bytes) => bytes,
            KeyValue::Computed(bytes) => bytes,
        }
    }

    /// The first capture group, or the match of an expression without groups. `None` if it does not match.
    fn captured(self, regex: &Regex) -> Option<Self> {
        let range = {
            let bytes = self.bytes();
            if bytes.len() > MAX_REGEX_INPUT {
                return None;
            }
            // The match alone is found without memory for groups.
            let found = if regex.captures_len() > 1 { regex.captures(bytes)?.get(1) } else { regex.find(bytes) };
            found?.range()
        };
        Some(match self {
            KeyValue::Borrowed(bytes) => KeyValue::Borrowed(&bytes[range]),
            KeyValue::Computed(bytes) => KeyValue::Computed(SmallVec::from_slice(&bytes[range])),
        })
    }
}

/// The first bytes of an address, without those beyond an IPv6 prefix. `None` for an unknown client.
fn address_value(address: IpAddr, ipv6_prefix: u8) -> Option<KeyValue<'static>> {
    let octets = match address {
        UNKNOWN_CLIENT => return None,
        IpAddr::V4(address) => SmallVec::from_slice(&address.octets()),
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(u32::from(ipv6_prefix));
            let prefix = address.to_bits().checked_shr(host_bits).and_then(|bits| bits.checked_shl(host_bits));
            SmallVec::from_slice(&prefix.unwrap_or_default().to_be_bytes())
        }
    };
    Some(KeyValue::Computed(octets))
}

/// The first value of a parameter, as it is encoded in the request.
fn query_parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    parameters(query, name).next().map(|value| value.unwrap_or_default())
}

/// All values of a parameter, decoded, sorted and separated by commas, as Kong hashes them. `true` stands for one
/// without an equals sign.
fn query_values(query: &str, name: &str) -> Option<KeyValue<'static>> {
    let decoded = |value: Option<&str>| percent_decode_str(value.unwrap_or("true")).collect();
    let mut values: SmallVec<[SmallVec<[u8; 32]>; 1]> =
        parameters(query, name).take(MAX_QUERY_VALUES).map(decoded).collect();
    values.sort_unstable();
    let mut joined = values.first()?.clone();
    for value in &values[1..] {
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(KeyValue::Computed(joined))
}

/// The values of the parameters with this name, as they are encoded in the request. `None` without an equals sign.
fn parameters<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Option<&'q str>> {
    let split = |parameter: &'q str| match parameter.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (parameter, None),
    };
    let of_name = query.split('&').map(split).filter(move |(key, _)| percent_decode_str(key).eq(name.bytes()));
    of_name.map(|(_, value)| value)
}

/// The seed of Envoy and other proxies.
const SEED: u64 = 0;
/// Further values do not change the hash, because sorting them takes a time that the client chooses.
const MAX_QUERY_VALUES: usize = 100;
/// Expressions are not matched with longer values, because that takes a time which grows with the value.
const MAX_REGEX_INPUT: usize = 8 * 1024;

#[cfg(test)]
mod tests;
