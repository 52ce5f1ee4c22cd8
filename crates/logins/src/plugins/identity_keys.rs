//! `identity-keys`: responds with the public keys of `internal-identity`, for backends that verify its tokens.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: keys
//! plugin: identity-keys
//! ```
//!
//! Attach it to a route for a path such as `/.well-known/jwks.json`. The route needs no backend. The response is a JSON
//! Web Key Set with the keys of all plugins `internal-identity` in the namespace of this one; a
//! KongClusterPlugin responds with those of KongClusterPlugins. It needs no authentication: the plugin responds before
//! plugins that would require it.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::token::published_keys::SigningKeys;
use crate::plugin_api::{AccessOutcome, Plugin, Reply, ReplyBody, RequestCx};

/// Responds with public keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// For how many seconds clients may keep the key set: 0 to 86400.
    #[schemars(range(max = 86400))]
    max_age: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { max_age: 300 }
    }
}

#[derive(Debug)]
pub(crate) struct IdentityKeys {
    keys: Arc<SigningKeys>,
    namespace: Box<str>,
    cache_control: HeaderValue,
}

impl PluginKind for IdentityKeys {
    const NAME: &'static str = "identity-keys";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1950;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        if config.max_age > 86400 {
            return Err(vec![Diagnostic::in_config("max_age", "is larger than 86400", "use at most one day")]);
        }
        let cache_control = HeaderValue::try_from(format!("public, max-age={}", config.max_age))
            .expect("a number is a valid header value");
        let namespace = cx.namespace().unwrap_or_default().into();
        Ok(IdentityKeys { keys: SigningKeys::of_process(cx.state), namespace, cache_control })
    }
}

impl Plugin for IdentityKeys {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if !matches!(cx.head.method, Method::GET | Method::HEAD) {
            let reply = Reply::negotiated(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "method_not_allowed");
            return AccessOutcome::Reply(reply.with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        let body = self.keys.key_set(Some(&self.namespace)).to_string();
        let reply = Reply::new(StatusCode::OK, ReplyBody::Raw(body.into()), "keys")
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"))
            .with_header(header::CACHE_CONTROL, self.cache_control.clone());
        AccessOutcome::Reply(reply)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::services::OfflineServices;
    use crate::plugin_api::token::signature::Algorithm;
    use crate::plugin_api::token::signature::signing::Signer;
    use crate::plugin_api::token::signing_key::SigningKey;
    use crate::plugin_api::{PluginServices, PluginState, RegisteredKind};
    use crate::plugin_chain::testing::{TestRequest, build, chain_with};

    const KIND: RegisteredKind<IdentityKeys> = RegisteredKind::NEW;

    #[tokio::test]
    async fn only_keys_of_the_namespace_are_in_the_response() {
        let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
        let chain = chain_with(&[(&KIND, json!({"max_age": 60}))], &state, &services);
        let keys = SigningKeys::of_process(&state);
        let key = || {
            let pem = Signer::for_algorithm(Algorithm::Es256).private_pem();
            SigningKey::from_pem(pem.as_bytes(), None).unwrap()
        };
        let (own, _other) = (keys.publish(Some("default"), key()), keys.publish(Some("other"), key()));
        let outcome = TestRequest::get("/").run(&chain).await;
        let set: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!(set, json!({"keys": [own.key.jwk()]}));
        assert_eq!(outcome.response_header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(outcome.response_header("cache-control"), Some("public, max-age=60"));
        let mut post = TestRequest::get("/");
        *post.request.method_mut() = Method::POST;
        let outcome = post.run(&chain).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(outcome.response_header("allow"), Some("GET, HEAD"));
        assert!(build(&KIND, &json!({"max_age": 86401})).is_err());
    }
}
