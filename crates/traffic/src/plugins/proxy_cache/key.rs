//! The key of a request: everything that selects its response, so that no client can store a response for others.
//!
//! ```text
//!   first half:  scheme, host, target                 one resource: unsafe methods invalidate it, whatever their route
//!   second half: the resource, plugin, route and its content, host as sent, method, client, fields, content, version,
//!                chosen Service
//! ```
//!
//! Both are digests. Each part is written with its length, so that no two requests have the same parts in other places.

use std::num::NonZeroU64;
use std::sync::Arc;

use http::header::{AUTHORIZATION, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::config::CacheSettings;
use super::store::CacheKey;
use crate::plugin_api::changed_fields::FieldNames;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::header_spoofing::is_alike;
use crate::plugin_api::{BackendName, ClientInfo, EndpointToken, Identity, RouteNames, Scheme};

/// What the key of a request depends on.
pub(super) struct KeyParts<'r> {
    pub(super) plugin: &'static str,
    pub(super) route: &'r RouteNames,
    pub(super) client: &'r ClientInfo<'r>,
    pub(super) method: &'r Method,
    /// The path and the query as the client has sent them.
    pub(super) received_target: (&'r str, Option<&'r str>),
    /// The target that is forwarded.
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    pub(super) identity: &'r Identity,
    /// The tokens that plugins have made for the endpoint.
    pub(super) tokens: &'r [EndpointToken],
    /// The fields that a server has decided about, so that its decision for one client is not that for others.
    pub(super) decided_fields: Option<&'r FieldNames>,
    /// The authorization servers that have allowed the request. Another backend may have another one, or none.
    pub(super) allowed_by: &'r [Arc<str>],
    /// Whether responses to requests with different `Authorization` differ.
    pub(super) by_authorization: bool,
    /// Whether the key has the received target, too: a plugin may have made it content, which the key does not contain.
    pub(super) is_content_unkeyed: bool,
    /// The version of the API that a plugin has found, such as in a header.
    pub(super) api_version: Option<&'r str>,
    /// The Service that a plugin has chosen for the request.
    pub(super) chosen_backend: Option<&'r BackendName>,
    /// The digest of the content, if that selects the response.
    pub(super) content: Option<&'r Sha256Digest>,
}

impl KeyParts<'_> {
    pub(super) fn key(&self, settings: &CacheSettings) -> CacheKey {
        let resource = TargetLocation { scheme: self.client.scheme, host: self.client.received.host };
        let mut text = resource.text(self.uri, settings);
        let resource = sha256(&text.0);
        text.0.clear();
        text.push(&resource);
        text.push(self.plugin.as_bytes());
        text.push(self.route.route.as_bytes());
        text.push(&self.route.content.to_be_bytes());
        // A backend may write it into its response as the client has spelled it.
        text.push(self.client.received.host.as_bytes());
        self.push_reported_client(&mut text);
        text.push(self.method.as_str().as_bytes());
        self.push_client(&mut text);
        let authorization = self.by_authorization.then_some(&AUTHORIZATION);
        for name in settings.fields.iter().chain(authorization) {
            text.push(name.as_str().as_bytes());
            for value in self.headers.get_all(name) {
                self.push_value(&mut text, name, value);
            }
            text.end_list();
            // A backend may read a field with underscores as the one with hyphens.
            for (other, value) in self.headers.iter().filter(|(other, _)| *other != name && is_alike(other, name)) {
                text.push(other.as_str().as_bytes());
                text.push(value.as_bytes());
            }
            text.end_list();
        }
        self.push_decided_fields(&mut text);
        for server in self.allowed_by {
            text.push(server.as_bytes());
        }
        text.end_list();
        if let Some(content) = self.content {
            text.push(content);
        }
        if self.is_content_unkeyed {
            let (path, query) = self.received_target;
            text.push(path.as_bytes());
            text.push(query.unwrap_or_default().as_bytes());
        }
        if let Some(version) = self.api_version {
            text.push(b"version");
            text.push(version.as_bytes());
        }
        if let Some(backend) = self.chosen_backend {
            text.push(b"backend");
            text.push(backend.to_string().as_bytes());
        }
        let response = sha256(&text.0);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&resource[..16]);
        key[16..].copy_from_slice(&response[..16]);
        CacheKey(key)
    }

    /// What a trusted peer reports about the URL that the client has used: backends get it, and write it into links.
    fn push_reported_client(&self, text: &mut Parts) {
        let client = self.client;
        if client.is_peer_trusted {
            text.push(client.host.as_bytes());
            text.push(&client.port.to_be_bytes());
            text.push(&client.separate_port.unwrap_or_default().to_be_bytes());
            // As they are: a value that Portico cannot use reaches the backend, too.
            for name in &REPORTED_FIELDS {
                for value in self.headers.get_all(name) {
                    match *name == FORWARDED {
                        true => push_forwarded(text, value.as_bytes()),
                        // Portico adds the path of the request itself, which counts in the way that is configured.
                        false if self.is_own_path(value.as_bytes()) => {}
                        false => text.push(value.as_bytes()),
                    }
                }
                text.end_list();
            }
        }
        text.end_list();
    }

    /// Whether this is the path of the request, with or without its query, as the client has sent it.
    fn is_own_path(&self, value: &[u8]) -> bool {
        let (path, query) = self.received_target;
        value.strip_prefix(path.as_bytes()).is_some_and(|rest| match rest.split_first() {
            None => true,
            Some((b'?', rest)) => query.is_some_and(|query| query.as_bytes() == rest),
            Some(_) => false,
        })
    }

    /// The value of a field. A token that a plugin has made counts by what it stands for: its value changes when it
    /// expires.
    fn push_value(&self, text: &mut Parts, name: &HeaderName, value: &HeaderValue) {
        match self.tokens.iter().find(|token| token.is_sent_as(name, value)) {
            Some(token) => text.push(token.stands_for()),
            None => text.push(value.as_bytes()),
        }
    }

    /// The fields that servers have decided about, in all spellings that an endpoint may read as one of them.
    fn push_decided_fields(&self, text: &mut Parts) {
        let Some(names) = self.decided_fields else { return };
        let mut fields: Vec<_> = self.headers.iter().filter(|(name, _)| names.contains(name)).collect();
        // Stable: values of one name keep their order.
        fields.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        for (name, value) in fields {
            text.push(name.as_str().as_bytes());
            self.push_value(text, name, value);
        }
        text.end_list();
    }

    /// What is known of the client: the consumer, all subjects that plugins have verified, the groups, and the tokens
    /// with which the endpoint gets to know it.
    fn push_client(&self, text: &mut Parts) {
        let Identity { consumer, subjects, groups, found_consumer_groups } = self.identity;
        text.push(consumer.as_ref().map_or(&[][..], |consumer| consumer.id.header().as_bytes()));
        let object = consumer.as_ref().and_then(|consumer| consumer.object());
        text.push(&object.map_or(0, NonZeroU64::get).to_be_bytes());
        for subject in subjects.iter().flatten() {
            text.push(subject.credential().header().as_bytes());
            text.push(subject.user().unwrap_or_default().as_bytes());
        }
        text.end_list();
        for groups in [groups, found_consumer_groups] {
            for group in groups {
                text.push(group.as_bytes());
            }
            text.end_list();
        }
        for token in self.tokens {
            text.push(token.name().as_str().as_bytes());
            text.push(token.stands_for());
        }
        text.end_list();
    }
}

/// The fields in which a trusted peer reports the URL that the client has used.
static REPORTED_FIELDS: [HeaderName; 6] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// The value of `Forwarded` without the addresses of clients, which differ from client to client (RFC 7239, section 4).
fn push_forwarded(text: &mut Parts, value: &[u8]) {
    let parameters = value.split(|byte| b",;".contains(byte)).map(<[u8]>::trim_ascii);
    let is_of_client = |parameter: &[u8]| parameter.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"for="));
    parameters.filter(|parameter| !is_of_client(parameter)).for_each(|parameter| text.push(parameter));
    text.end_list();
}

/// Where the target of a request is.
pub(super) struct TargetLocation<T> {
    pub(super) scheme: Scheme,
    pub(super) host: T,
}

impl<T: AsRef<str>> TargetLocation<T> {
    /// The key of a target there, of which only the first half counts.
    pub(super) fn key(&self, uri: &Uri, settings: &CacheSettings) -> CacheKey {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&sha256(&self.text(uri, settings).0)[..16]);
        CacheKey(key)
    }

    /// Whether an absolute URI is there.
    pub(super) fn contains(&self, scheme: &str, authority: &str) -> bool {
        let [theirs, ours] = [authority, self.host.as_ref()].map(|host| without_default_port(self.scheme, host));
        scheme == self.scheme.as_str() && theirs.eq_ignore_ascii_case(ours)
    }

    fn text(&self, uri: &Uri, settings: &CacheSettings) -> Parts {
        let mut text = Parts(Vec::with_capacity(256));
        // What is stored for the content of requests is no representation of the target itself.
        text.push(if settings.accepts_body.is_some() { b"content" } else { b"target" });
        text.push(self.scheme.as_str().as_bytes());
        text.push_in_lower_case(without_default_port(self.scheme, self.host.as_ref()));
        if settings.ignores_case {
            text.push_in_lower_case(uri.path());
        } else {
            text.push(uri.path().as_bytes());
        }
        push_query(&mut text, uri.query().unwrap_or_default(), &settings.parameters);
        text
    }
}

/// The host in the form that all its spellings share but for their case (RFC 9110, section 4.2.3).
fn without_default_port(scheme: Scheme, host: &str) -> &str {
    let default_port = if scheme == Scheme::Https { ":443" } else { ":80" };
    host.strip_suffix(default_port).unwrap_or(host)
}

/// The query as it is, or the parameters that the backend may read as listed ones. They keep their order, and nothing
/// is decoded: what the backend may distinguish has different keys.
fn push_query(text: &mut Parts, query: &str, listed: &[String]) {
    if listed.is_empty() {
        return text.push(query.as_bytes());
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        if may_be_listed(name, parameter, listed) {
            text.push(parameter.as_bytes());
        }
    }
    text.end_list();
}

/// Whether a backend may read a parameter as a listed one. It may decode the name, or ignore its case, a part of it
/// such as `[]`, or what precedes a semicolon: a client must not change a response for others with a parameter that is
/// not part of the key.
fn may_be_listed(name: &str, parameter: &str, listed: &[String]) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !name.bytes().all(is_plain)
        || parameter.contains(';')
        || listed.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

struct Parts(Vec<u8>);

/// In place of the length of a long part, which follows in eight bytes. Digests of short texts take less time.
const LONG: u8 = 0xfe;
/// In place of the length of a part.
const END_OF_LIST: u8 = 0xff;

impl Parts {
    fn push(&mut self, part: &[u8]) {
        match u8::try_from(part.len()) {
            Ok(length) if length < LONG => self.0.push(length),
            _ => {
                self.0.push(LONG);
                self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
            }
        }
        self.0.extend_from_slice(part);
    }

    /// Its length stays as it is.
    fn push_in_lower_case(&mut self, part: &str) {
        self.push(part.as_bytes());
        let start = self.0.len() - part.len();
        self.0[start..].make_ascii_lowercase();
    }

    fn end_list(&mut self) {
        self.0.push(END_OF_LIST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts of a text, with `None` for the end of a list.
    fn read(mut text: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut parts = Vec::new();
        while let Some((&first, rest)) = text.split_first() {
            text = rest;
            let length = match first {
                END_OF_LIST => {
                    parts.push(None);
                    continue;
                }
                LONG => {
                    let (length, rest) = text.split_first_chunk().unwrap();
                    text = rest;
                    usize::try_from(u64::from_be_bytes(*length)).unwrap()
                }
                length => length.into(),
            };
            parts.push(Some(text[..length].to_vec()));
            text = &text[length..];
        }
        parts
    }

    proptest! {
        /// So no client can write what another one's request has in two parts into one.
        #[test]
        fn each_text_has_one_list_of_parts(parts: Vec<Option<Vec<u8>>>, long in 250_usize..260) {
            let mut parts = parts;
            parts.push(Some(vec![b'A'; long]));
            let mut text = Parts(Vec::new());
            for part in &parts {
                match part {
                    Some(part) => text.push(part),
                    None => text.end_list(),
                }
            }
            prop_assert_eq!(read(&text.0), parts);
        }
    }

    /// A host or path of 65 bytes is none of 97 bytes, though `A` is `a` in lower case.
    #[test]
    fn lengths_are_not_changed_to_lower_case() {
        let mut text = Parts(Vec::new());
        text.push_in_lower_case(&"A".repeat(65));
        assert_eq!(read(&text.0), [Some(vec![b'a'; 65])]);
    }
}
