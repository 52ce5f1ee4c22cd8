//! `proxy-cache-advanced`: proxy-cache under the name of Kong's enterprise plugin.
//!
//! ```yaml
//! plugin: proxy-cache-advanced
//! config: {strategy: memory, content_type: ["application/json"], cache_ttl: 60}
//! ```
//!
//! With `strategy: redis`, replicas share responses. The plugin does what `proxy-cache` does, with the same fields.
//! Both have responses of their own if they are attached to the same route.

use super::proxy_cache::cache::SharedCache;
use super::proxy_cache::config::Config;
use super::proxy_cache::{ProxyCache, build};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::{
    AccessOutcome, AfterForwardCx, BeforeForwardCx, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply,
};
use crate::plugin_kit::redis::dumped_fields::{NO_CLOUD_LOGIN, UNSET_SERVER};

pub(crate) struct ProxyCacheAdvanced(SharedCache);

impl PluginKind for ProxyCacheAdvanced {
    const NAME: &'static str = "proxy-cache-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = ProxyCache::PRIORITY;
    const PHASES: Phases = ProxyCache::PHASES;
    const FAIL_CLOSED: bool = false;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13"),
        DumpedFields::new(&["redis"], UNSET_SERVER, "3.7").unless("strategy", "redis"),
    ];
    type Config = Config;
    type Plugin = ProxyCacheAdvanced;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        build(Self::NAME, config, cx).map(ProxyCacheAdvanced)
    }
}

impl Plugin for ProxyCacheAdvanced {
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        self.0.before_forward(cx)
    }

    fn after_forward(&self, cx: &mut AfterForwardCx<'_>) -> Option<Box<Reply>> {
        self.0.after_forward(cx)
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.0.declare_fields(fields);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, chain};

    #[tokio::test]
    async fn responses_are_stored_as_by_proxy_cache() {
        let config = json!({"strategy": "memory", "content_type": ["text/plain"]});
        let chain = chain(&[(&RegisteredKind::<ProxyCacheAdvanced>::NEW, config)]);
        for (expected, is_stored) in [("Miss", false), ("Hit", true)] {
            let mut request = TestRequest::get("/a");
            request.upstream_response =
                http::Response::builder().header("content-type", "text/plain").body(()).unwrap();
            let outcome = request.run(&chain).await;
            assert_eq!(
                (outcome.response_header("x-cache-status"), outcome.reply.is_some()),
                (Some(expected), is_stored)
            );
        }
    }
}
