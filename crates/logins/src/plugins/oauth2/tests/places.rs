//! Tests of where tokens are valid: at their plugin, for their service, and while their client exists.

use super::*;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{AnyPluginKind, PluginServices, PluginState, RouteNames};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{build_with, chain_with, instance};

#[tokio::test]
async fn tokens_are_valid_for_their_plugin_unless_global() {
    let state = PluginState::default();
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let credentials = [("grant_type", "client_credentials")];
    let one = chain_with(&[(&KIND, all_grants())], &state, &services);
    let own = token(&one, &credentials).await;
    // The same object with another configuration.
    let edited = chain_with(&[(&KIND, with(json!({"scopes": ["a"]})))], &state, &services);
    drop(one);
    assert!(is_accepted(&edited, own.text("access_token")).await, "tokens outlive a change of the configuration");
    let global = chain_with(&[(&KIND, with(json!({"global_credentials": true})))], &state, &services);
    assert!(!is_accepted(&global, own.text("access_token")).await);
    let shared = token(&global, &credentials).await;
    assert!(is_accepted(&global, shared.text("access_token")).await);
    assert!(!is_accepted(&edited, shared.text("access_token")).await);
}

#[tokio::test]
async fn tokens_are_valid_for_their_service_and_while_their_client_exists() {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let of_service = |service: &str| {
        let plugin = build_with(&KIND, &all_grants(), &state, &services).unwrap();
        let mut builder = ChainBuilder::default();
        builder.add("oauth2", KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
        builder
            .build(Arc::new(RouteNames {
                namespace: "default".into(),
                route: "default.test".into(),
                service: service.into(),
                ..RouteNames::default()
            }))
            .unwrap()
    };
    let (own, other) = (of_service("default.web.80"), of_service("default.other.80"));
    let code = code(&own, &[]).await;
    let exchange = [("grant_type", "authorization_code"), ("code", &*code)];
    assert_eq!(token(&other, &exchange).await.error(), (400, "Invalid code"));
    let tokens = token(&own, &exchange).await;
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", tokens.text("refresh_token"))];
    assert_eq!(token(&other, &refresh).await.error(), (400, "Invalid refresh_token"));
    assert!(!is_accepted(&other, tokens.text("access_token")).await);
    // Another credential with the same name has taken the place of the client.
    let mut replaced = consumers();
    let client = replaced.oauth_clients.get("app").unwrap();
    let successor = OAuthClient { id: EntityId::from_text("id-of-successor"), ..OAuthClient::clone(client) };
    replaced.oauth_clients.insert(Arc::new(successor));
    let bearer = format!("Bearer {}", tokens.text("access_token"));
    let request = TestRequest::get("/api/cart").header("authorization", &bearer).with_consumers(&replaced);
    assert_eq!(request.run(&own).await.reply_status(), Some(StatusCode::UNAUTHORIZED));
    let fields = [&refresh[..], &[("client_id", "app"), ("client_secret", "secret")]].concat();
    let outcome = post("/oauth2/token", &fields).with_consumers(&replaced).run(&own).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_REQUEST));
    assert!(is_accepted(&own, tokens.text("access_token")).await);
}
