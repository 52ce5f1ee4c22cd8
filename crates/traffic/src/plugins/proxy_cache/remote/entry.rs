//! A stored response as Redis keeps it: a line of JSON, and the body.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::plugins::proxy_cache::semantics::cache_control::{CacheControl, MAX_DELTA};
use crate::plugins::proxy_cache::semantics::storing::{Freshness, is_stored_field};
use crate::plugins::proxy_cache::semantics::vary::Vary;

/// What is at the key of a target.
#[derive(Debug, PartialEq)]
pub(super) enum RemoteEntry {
    /// The names of the fields that select one of several responses, each of which has a key of its own.
    Varies(Vec<HeaderName>),
    Response(Box<EntryResponse>),
}

/// A response as it is stored.
#[derive(Debug, PartialEq)]
pub(super) struct EntryResponse {
    pub(super) epoch: Epoch,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) vary: Vary,
    pub(super) directives: CacheControl,
    pub(super) freshness: Freshness,
    pub(super) received: SystemTime,
    pub(super) keep_until: SystemTime,
    pub(super) body: Bytes,
}

/// The values that the server had when a response was requested. The response ends when one of them is gone, which a
/// purge does. The default is no value of a server, and what has it is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Of its target.
    pub(super) target: String,
    /// Of the namespace.
    pub(super) namespace: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Head {
    Varies(Vec<String>),
    Response(Box<ResponseHead>),
}

#[derive(Serialize, Deserialize)]
struct ResponseHead {
    epoch: Epoch,
    status: u16,
    /// Bytes of values as characters of the same number.
    headers: Vec<(String, String)>,
    vary: Vec<(String, Option<String>)>,
    directives: CacheControl,
    freshness: Freshness,
    /// In milliseconds since 1970, as `keep_until`.
    received: u64,
    keep_until: u64,
}

impl RemoteEntry {
    /// `None` for what this version does not write.
    pub(super) fn decode(entry: &Bytes) -> Option<RemoteEntry> {
        let end = memchr::memchr(b'\n', entry)?;
        match serde_json::from_slice(&entry[..end]).ok()? {
            Head::Varies(names) => {
                let names: Option<Vec<_>> = names.iter().map(|name| name.parse().ok()).collect();
                Some(RemoteEntry::Varies(names?))
            }
            Head::Response(head) => {
                // What another program has written, or a version with other limits.
                let is_plausible = head.headers.len() <= MAX_FIELDS
                    && (200..=999).contains(&head.status)
                    && head.freshness.lifetime <= MAX_DELTA
                    && head.freshness.initial_age <= MAX_DELTA;
                if !is_plausible {
                    return None;
                }
                let mut headers = HeaderMap::with_capacity(head.headers.len());
                for (name, value) in &head.headers {
                    let value = HeaderValue::from_maybe_shared(Bytes::from(to_bytes(value)?)).ok()?;
                    let name = name.parse::<HeaderName>().ok().filter(is_stored_field)?;
                    headers.append(name, value);
                }
                let vary = head.vary.into_iter().map(|(name, value)| {
                    let value = match value {
                        Some(value) => Some(to_bytes(&value)?.into()),
                        None => None,
                    };
                    Some((name.parse().ok()?, value))
                });
                Some(RemoteEntry::Response(Box::new(EntryResponse {
                    epoch: head.epoch,
                    status: StatusCode::from_u16(head.status).ok()?,
                    headers,
                    vary: Vary::from_fields(vary.collect::<Option<Vec<_>>>()?),
                    directives: head.directives,
                    freshness: head.freshness,
                    received: from_milliseconds(head.received)?,
                    keep_until: from_milliseconds(head.keep_until)?,
                    body: entry.slice(end + 1..),
                })))
            }
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (head, body) = match self {
            RemoteEntry::Varies(names) => {
                (Head::Varies(names.iter().map(|name| name.as_str().to_owned()).collect()), &Bytes::new())
            }
            RemoteEntry::Response(response) => {
                let headers = response.headers.iter();
                let vary = response.vary.fields().iter();
                let head = ResponseHead {
                    epoch: response.epoch.clone(),
                    status: response.status.as_u16(),
                    headers: headers
                        .map(|(name, value)| (name.as_str().to_owned(), to_text(value.as_bytes())))
                        .collect(),
                    vary: vary
                        .map(|(name, value)| (name.as_str().to_owned(), value.as_ref().map(|value| to_text(value))))
                        .collect(),
                    directives: response.directives,
                    freshness: response.freshness,
                    received: to_milliseconds(response.received),
                    keep_until: to_milliseconds(response.keep_until),
                };
                (Head::Response(Box::new(head)), &response.body)
            }
        };
        let mut entry = serde_json::to_vec(&head).expect("text and numbers always serialize");
        entry.push(b'\n');
        entry.extend_from_slice(body);
        entry
    }
}

fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn to_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn to_milliseconds(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn from_milliseconds(milliseconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

/// More header fields than any response has that Portico stores.
const MAX_FIELDS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> EntryResponse {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a"));
        headers.append("set-cookie", HeaderValue::from_bytes(b"b\xe9").unwrap());
        let vary = vec![
            (HeaderName::from_static("accept"), Some(b"text/\xe9,".as_slice().into())),
            (HeaderName::from_static("x-b"), None),
        ];
        EntryResponse {
            epoch: Epoch { target: "1".to_owned(), namespace: "2".to_owned() },
            status: StatusCode::NOT_FOUND,
            headers,
            vary: Vary::from_fields(vary),
            directives: CacheControl { max_age: Some(Duration::from_secs(60)), ..CacheControl::default() },
            freshness: Freshness { lifetime: Duration::from_secs(60), initial_age: Duration::from_millis(1500) },
            received: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            keep_until: SystemTime::UNIX_EPOCH + Duration::from_secs(200),
            body: Bytes::from_static(b"line\nline\n\xff"),
        }
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for entry in [
            RemoteEntry::Response(Box::new(response())),
            RemoteEntry::Response(Box::new(EntryResponse { body: Bytes::new(), ..response() })),
            RemoteEntry::Varies(vec![HeaderName::from_static("accept"), HeaderName::from_static("x-b")]),
        ] {
            assert_eq!(RemoteEntry::decode(&entry.encode().into()), Some(entry));
        }
    }

    #[test]
    fn what_this_version_does_not_write_is_ignored() {
        let valid = RemoteEntry::Response(Box::new(response())).encode();
        let head = String::from_utf8(valid[..valid.iter().position(|byte| *byte == b'\n').unwrap()].to_vec()).unwrap();
        for (from, to) in [
            ("404", "7"),
            ("set-cookie", "set cookie"),
            ("\"a\"", "\"\\u0000\""),
            ("\"a\"", "\"\\u0100\""),
            ("received", "reserved"),
            ("\"target\":\"1\"", "\"target\":null"),
            ("{", "["),
        ] {
            let changed = head.replacen(from, to, 1);
            assert_ne!(changed, head, "{from}");
            assert_eq!(RemoteEntry::decode(&Bytes::from(changed + "\nbody")), None, "{from} {to}");
        }
        for entry in ["", "\n", "{}", "{}\n", "null\n", &head] {
            assert_eq!(RemoteEntry::decode(&Bytes::from(entry.to_owned())), None, "{entry}");
        }
    }
}
