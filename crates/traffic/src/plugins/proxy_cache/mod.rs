//! `proxy-cache`: stores responses, and sends them again without a request to the backend.
//!
//! ```yaml
//! plugin: proxy-cache
//! config: {strategy: memory, content_type: ["application/json"], cache_ttl: 60}
//! ```
//!
//! ```text
//!   before_forward ─▶ key ─▶ store ─┬▶ found: the stored response, which filters and plugins change like a fresh one
//!     (after authorization)        └▶ not found, or too old: forwarded, while others wait
//!   after_forward  ─▶ may it be stored? ─▶ Collector copies the body while it is forwarded ─▶ store
//! ```
//!
//! Clients that a plugin has authenticated have responses of their own: what is stored for one is sent again only to
//! requests with the same consumer, the same groups and the same subjects of all credentials, such as the user of a
//! token. Requests whose credential does not say whose it is are forwarded.

pub(super) mod cache;
#[cfg(test)]
mod client_tests;
mod collector;
pub(super) mod config;
mod key;
mod kong;
mod media_types;
mod outcome;
mod remote;
mod rfc9111;
mod semantics;
pub mod store;
mod stored_reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cache::{ResponseCache, SharedCache};
use config::{BodyTest, CacheSettings, Config, ContentCacheConfig};
use remote::RemoteStore;
use store::CacheStore;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, Phases, PluginKind};
use crate::plugin_kit::default_limits::DEFAULT_CACHE_BYTES;

pub(crate) struct ProxyCache;

impl PluginKind for ProxyCache {
    const NAME: &'static str = "proxy-cache";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 100;
    const PHASES: Phases = Phases::BEFORE_FORWARD;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = SharedCache;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<SharedCache, Vec<Diagnostic>> {
        build(Self::NAME, config, cx)
    }
}

/// Builds the plugin of this name.
pub(super) fn build(name: &'static str, config: Config, cx: &BuildCx<'_>) -> Result<SharedCache, Vec<Diagnostic>> {
    build_with(name, config, None, cx)
}

/// Builds a cache for requests of which the content selects the response.
pub(super) fn build_for_content(
    name: &'static str,
    config: ContentCacheConfig,
    cx: &BuildCx<'_>,
) -> Result<SharedCache, Vec<Diagnostic>> {
    let (config, accepts_body) = config.into_config();
    build_with(name, config, Some(accepts_body), cx)
}

fn build_with(
    name: &'static str,
    mut config: Config,
    accepts_body: Option<BodyTest>,
    cx: &BuildCx<'_>,
) -> Result<SharedCache, Vec<Diagnostic>> {
    let (server, bypasses_errors) = config.server(cx)?;
    let settings = CacheSettings { accepts_body, ..config.resolve(cx)? };
    let remote = server.map(|server| RemoteStore::connect(name, &server, bypasses_errors, settings.max_body, cx));
    let store = CacheStore::of(cx.state, DEFAULT_CACHE_BYTES);
    let namespace = cx.namespace().unwrap_or_default();
    let partition = store.partition(namespace);
    if let Some(remote) = &remote {
        store.add_remote(namespace, remote);
    }
    Ok(SharedCache::new(ResponseCache { name, settings: Arc::new(settings), store, partition, remote }))
}
