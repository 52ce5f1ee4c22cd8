//! The endpoints of an upstream as pins name them: by hashes, with the keys that verify pins.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::hmac;

use super::settings::AffinitySettings;
use super::token::{AffinityToken, Pin, TAG_SIZE};
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::{ResolvedEndpoint, UpstreamKey, UpstreamSource};

/// What distinguishes endpoints in addition to their addresses. A Pod has its UID as long as it exists, and another
/// Pod that gets its address has another one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EndpointIdentities {
    /// The UID of the Service or XBackend, the identity of endpoints that are not Pods together with their address.
    pub service: Option<Arc<str>>,
    /// The UIDs of Pods by address, sorted.
    pub pods: Box<[(SocketAddr, Arc<str>)]>,
}

/// Without the UIDs, from which keys are derived.
impl fmt::Debug for EndpointIdentities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} Pods", self.pods.len())
    }
}

/// The endpoints of an upstream, found by hash and by address.
pub(in crate::upstream) struct AffinityEndpoints {
    /// A hash of the name of the upstream.
    upstream: u64,
    /// Sorted by `hash` and `address`. A Pod with addresses of both families has one hash.
    by_hash: Box<[PinnableEndpoint]>,
    /// Positions in `by_hash`, sorted by address.
    by_address: Box<[(SocketAddr, usize)]>,
}

struct PinnableEndpoint {
    hash: u64,
    address: SocketAddr,
    state: Arc<EndpointState>,
    /// Derived from the identity of the endpoint.
    key: hmac::Key,
}

impl AffinityEndpoints {
    pub(in crate::upstream) fn new(
        key: &UpstreamKey,
        endpoints: &[ResolvedEndpoint],
        identities: &EndpointIdentities,
    ) -> Self {
        let kind = match key.source {
            UpstreamSource::Service => "upstream",
            UpstreamSource::XBackend => "XBackend",
        };
        let upstream = digest([kind, &key.namespace, &key.service, &key.port.to_string()]);
        let pinnable = |endpoint: &ResolvedEndpoint| {
            let ResolvedEndpoint { address, state, .. } = endpoint;
            let pod = identities.pods.binary_search_by_key(address, |(address, _)| *address).ok();
            let key = match pod {
                Some(index) => digest(["pod", &identities.pods[index].1]),
                None => {
                    let uid = identities.service.as_deref().unwrap_or_default();
                    digest(["address", uid, &key.namespace, &key.service, &address.to_string()])
                }
            };
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let name = hmac::sign(&key, b"name");
            PinnableEndpoint { hash: first_number(name.as_ref()), address: *address, state: Arc::clone(state), key }
        };
        let mut by_hash: Box<[_]> = endpoints.iter().map(pinnable).collect();
        by_hash.sort_by_key(|endpoint| (endpoint.hash, endpoint.address));
        let mut by_address: Box<[_]> =
            by_hash.iter().enumerate().map(|(index, endpoint)| (endpoint.address, index)).collect();
        by_address.sort();
        AffinityEndpoints { upstream: first_number(&upstream), by_hash, by_address }
    }

    /// The endpoint that a token names, and its pin, if that is valid. An ejected endpoint counts only if all are
    /// ejected, so that a short interruption of the network does not end all sessions.
    pub(super) fn pinned<'t>(
        &self,
        settings: &AffinitySettings,
        token: &'t AffinityToken,
        now: u32,
    ) -> Option<(SocketAddr, &'t Pin)> {
        let pin = token.pin(self.scope(settings))?;
        let has_passed = |timeout: Option<Duration>, since: u32| {
            // A clock of another replica may be ahead of this one.
            timeout.is_some_and(|timeout| u64::from(now.saturating_sub(since)) >= timeout.as_secs())
        };
        if has_passed(settings.absolute_timeout, pin.created) || has_passed(settings.idle_timeout, pin.renewed) {
            return None;
        }
        let start = self.by_hash.partition_point(|endpoint| endpoint.hash < pin.endpoint);
        let named = || self.by_hash[start..].iter().take_while(|endpoint| endpoint.hash == pin.endpoint);
        let is_healthy = |endpoint: &&PinnableEndpoint| endpoint.state.health.is_healthy();
        let ejected = || if self.by_hash.iter().any(|endpoint| is_healthy(&endpoint)) { None } else { named().next() };
        let endpoint = named().find(is_healthy).or_else(ejected)?;
        let expected = self.tag(settings, endpoint, pin.created, pin.renewed);
        verify_slices_are_equal(&expected, &pin.tag).is_ok().then_some((endpoint.address, pin))
    }

    /// A pin to an endpoint, of a session that was created at the time `created`. `None` if there is no endpoint with
    /// this address.
    pub(super) fn pin(&self, settings: &AffinitySettings, address: SocketAddr, created: u32, now: u32) -> Option<Pin> {
        let index = self.by_address.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        let endpoint = &self.by_hash[self.by_address[index].1];
        let tag = self.tag(settings, endpoint, created, now);
        Some(Pin { scope: self.scope(settings), created, renewed: now, endpoint: endpoint.hash, tag })
    }

    /// Distinguishes the pins of a token. A collision costs a session, but nothing else: the tag covers both hashes.
    fn scope(&self, settings: &AffinitySettings) -> u32 {
        ((settings.scope ^ self.upstream.rotate_left(1)) >> 32) as u32
    }

    fn tag(
        &self,
        settings: &AffinitySettings,
        endpoint: &PinnableEndpoint,
        created: u32,
        renewed: u32,
    ) -> [u8; TAG_SIZE] {
        let mut context = hmac::Context::with_key(&endpoint.key);
        context.update(b"pin");
        context.update(&settings.scope.to_be_bytes());
        context.update(&self.upstream.to_be_bytes());
        context.update(&created.to_be_bytes());
        // A pin that was not renewed is the same in both versions of tokens.
        if renewed != created {
            context.update(&renewed.to_be_bytes());
        }
        let mut tag = [0; TAG_SIZE];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_SIZE]);
        tag
    }
}

/// Without the keys.
impl fmt::Debug for AffinityEndpoints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.by_address.iter().map(|(address, _)| address)).finish()
    }
}

/// Hashes each part after its length, so that no two lists of parts are alike.
fn digest<const PARTS: usize>(parts: [&str; PARTS]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(b"portico session 1");
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn first_number(hash: &[u8]) -> u64 {
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
