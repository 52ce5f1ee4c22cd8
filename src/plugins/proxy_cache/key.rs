//! The key of a request: everything that selects its response, so that no client can store a response for others.
//!
//! ```text
//!   first half:  route, plugin, scheme, host, target                     one resource: unsafe methods invalidate it
//!   second half: the first half, method, identity, fields, content, version, chosen Service      one response
//! ```
//!
//! Each part is written with its length, so that no two requests have the same parts in other places.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};

use super::config::CacheSettings;
use super::store::CacheKey;
use crate::plugin_api::changed_fields::FieldNames;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::{BackendName, ClientInfo, Identity, Scheme};

/// What the key of a request depends on.
pub(super) struct KeyParts<'r> {
    pub(super) plugin: &'static str,
    pub(super) route: &'r str,
    pub(super) client: &'r ClientInfo<'r>,
    pub(super) method: &'r Method,
    /// The target that is forwarded.
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    pub(super) identity: &'r Identity,
    /// The fields that a server has decided about, so that its decision for one client is not that for others.
    pub(super) decided_fields: Option<&'r FieldNames>,
    /// Whether responses to requests with different `Authorization` differ.
    pub(super) by_authorization: bool,
    /// The path and the query of a request whose content the key does not contain, as the client sent them: a plugin
    /// may have made them content.
    pub(super) sent_target: Option<(&'r str, Option<&'r str>)>,
    /// The version of the API that a plugin has found, such as in a header.
    pub(super) api_version: Option<&'r str>,
    /// The Service that a plugin has chosen for the request.
    pub(super) chosen_backend: Option<&'r BackendName>,
    /// The digest of the content, if that selects the response.
    pub(super) content: Option<&'r Sha256Digest>,
}

impl KeyParts<'_> {
    pub(super) fn key(&self, settings: &CacheSettings) -> CacheKey {
        let resource =
            TargetLocation { route: self.route, scheme: self.client.scheme, host: self.client.received.host };
        let mut text = resource.text(self.plugin, self.uri, settings);
        let resource = sha256(&text.0);
        text.push(self.method.as_str().as_bytes());
        self.push_identity(&mut text);
        let authorization = self.by_authorization.then_some(&AUTHORIZATION);
        for name in settings.fields.iter().chain(authorization) {
            text.push(name.as_str().as_bytes());
            for value in self.headers.get_all(name) {
                text.push(value.as_bytes());
            }
            text.end_list();
        }
        self.push_decided_fields(&mut text);
        if let Some(content) = self.content {
            text.push(content);
        }
        if let Some((path, query)) = self.sent_target {
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

    /// The fields that servers have decided about, in all spellings that an endpoint may read as one of them.
    fn push_decided_fields(&self, text: &mut Parts) {
        let Some(names) = self.decided_fields else { return };
        let mut fields: Vec<_> = self.headers.iter().filter(|(name, _)| names.contains(name)).collect();
        // Stable: values of one name keep their order.
        fields.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        for (name, value) in fields {
            text.push(name.as_str().as_bytes());
            text.push(value.as_bytes());
        }
        text.end_list();
    }

    /// The consumer; without one, the credential and the groups, which other sources of identities have.
    fn push_identity(&self, text: &mut Parts) {
        let Identity { consumer, credential, groups, found_consumer_groups } = self.identity;
        match (consumer, credential) {
            (Some(consumer), _) => {
                text.push(b"consumer");
                text.push(consumer.id.header().as_bytes());
            }
            (None, Some(credential)) => {
                text.push(b"credential");
                text.push(credential.header().as_bytes());
            }
            (None, None) => text.push(b"none"),
        }
        for group in groups {
            text.push(group.as_bytes());
        }
        text.end_list();
        for group in found_consumer_groups {
            text.push(group.as_bytes());
        }
        text.end_list();
    }
}

/// Where the target of a request is.
pub(super) struct TargetLocation<T> {
    pub(super) route: T,
    pub(super) scheme: Scheme,
    pub(super) host: T,
}

impl<T: AsRef<str>> TargetLocation<T> {
    /// The key of a target there, of which only the first half counts.
    pub(super) fn key(&self, plugin: &'static str, uri: &Uri, settings: &CacheSettings) -> CacheKey {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&sha256(&self.text(plugin, uri, settings).0)[..16]);
        CacheKey(key)
    }

    fn text(&self, plugin: &'static str, uri: &Uri, settings: &CacheSettings) -> Parts {
        let mut text = Parts(Vec::with_capacity(256));
        text.push(plugin.as_bytes());
        text.push(self.route.as_ref().as_bytes());
        text.push(self.scheme.as_str().as_bytes());
        text.push(self.host.as_ref().to_ascii_lowercase().as_bytes());
        let path_start = text.0.len();
        text.push(uri.path().as_bytes());
        if settings.ignores_case {
            text.0[path_start..].make_ascii_lowercase();
        }
        push_query(&mut text, uri.query().unwrap_or_default(), &settings.parameters);
        text
    }
}

/// All parameters, or those that the backend may read as listed ones, sorted by name. Values of one name keep their
/// order, and nothing is decoded: what the backend may distinguish has different keys.
fn push_query(text: &mut Parts, query: &str, listed: &[String]) {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let parameters = parameters.map(|parameter| (parameter.split('=').next().unwrap_or_default(), parameter));
    let mut parameters: Vec<_> =
        parameters.filter(|(name, parameter)| listed.is_empty() || may_be_listed(name, parameter, listed)).collect();
    // Stable.
    parameters.sort_by_key(|(name, _)| *name);
    for (_, parameter) in parameters {
        text.push(parameter.as_bytes());
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

impl Parts {
    fn push(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    /// No part has this length.
    fn end_list(&mut self) {
        self.0.extend_from_slice(&u64::MAX.to_be_bytes());
    }
}
