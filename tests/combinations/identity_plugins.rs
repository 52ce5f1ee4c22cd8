//! The plugins that identify the client toward endpoints: the configuration in which each asserts the most, and a
//! credential that it accepts. All of them are in one process, with a server that decides at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use portico::plugin_api::consumers::{BasicCredential, EntityId, KeyCredential};
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginServices, RemoteRequest, RemoteResponse};
use portico::plugin_chain::testing::{consumer, noon};
use portico::ssrf_guard::AddressPolicy;
use serde_json::{Value, json};

use crate::plugins::contract::minimal_config;

/// Fields with a credential.
pub(super) type Login = Vec<(&'static str, String)>;

/// What a test knows about a plugin.
pub(super) struct Row {
    /// Of the configuration, in addition to the fields without which the plugin cannot be built.
    pub(super) config: Value,
    /// What the plugin accepts. `None` if requests need no credential, or if none can be made here.
    pub(super) login: Option<Login>,
}

/// The row of a plugin that asserts something. Requests without a valid credential are forwarded where that is
/// possible.
pub(super) fn row(kind: &dyn AnyPluginKind) -> Row {
    let field = |name, value: &str| Some(vec![(name, value.to_owned())]);
    let (changes, login) = match kind.name() {
        "acl" => (json!({}), None),
        "basic-auth" => {
            let login = BASE64_STANDARD.encode("anna:password");
            (json!({"anonymous": "guest"}), field("authorization", &format!("Basic {login}")))
        }
        "forward-auth" => {
            let names = ["x-auth-email", "authorization", "x-consumer-custom-id"];
            (json!({"response_headers": names, "user_header": "x-user", "groups_header": "x-groups"}), None)
        }
        "header-cert-auth" | "mtls-auth" => (json!({"anonymous": "guest", "skip_consumer_lookup": true}), None),
        "hmac-auth" | "ldap-auth" | "ldap-auth-advanced" | "jwt" => (json!({"anonymous": "guest"}), None),
        "internal-identity" => {
            (json!({"allow_unauthenticated": true, "user_header": "x-user", "groups_header": "x-groups"}), None)
        }
        "jwt-signer" => {
            let changes = json!({
                "access_token_jwks_uri": null,
                "access_token_introspection_endpoint": "https://issuer.example/introspect",
                "access_token_optional": true, "access_token_request_header": "x-token",
                "access_token_consumer_claim": ["username"], "access_token_upstream_header": "authorization:bearer",
            });
            (changes, field("x-token", "opaque"))
        }
        "key-auth" => (json!({"anonymous": "guest", "run_on_preflight": false}), field("apikey", "key")),
        "oauth2" => (json!({"anonymous": "guest"}), None),
        "oauth2-introspection" => {
            let changes = json!({"anonymous": "guest", "custom_claims_forward": ["email"], "run_on_preflight": false});
            (changes, field("authorization", "Bearer opaque"))
        }
        "opa" => (json!({}), None),
        "openid-connect" => {
            let changes = json!({
                "anonymous": "guest", "run_on_preflight": false, "auth_methods": ["introspection", "session"],
                "upstream_headers_claims": ["email"], "upstream_headers_names": ["x-user-email"],
                "upstream_id_token_header": "x-id-token", "upstream_introspection_header": "x-introspection",
            });
            (changes, field("authorization", "Bearer opaque"))
        }
        "session" => {
            let names = ["id", "audience", "subject", "timeout"];
            (json!({"secret": "a secret of thirty-two characters", "request_headers": names}), None)
        }
        "standard-webhooks" => (json!({}), Some(webhook())),
        other => panic!("{other} identifies the client, and has no row here"),
    };
    let mut config = minimal_config(kind);
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Row { config, login }
}

/// The body of all requests, because a webhook needs one.
pub(super) const BODY: &str = "body";

/// The fields of a signed webhook.
fn webhook() -> Login {
    let timestamp = noon().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let signature = BASE64_STANDARD.encode(hmac::sign(&key, format!("id.{timestamp}.{BODY}").as_bytes()));
    vec![
        ("webhook-id", "id".to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", format!("v1,{signature}")),
    ]
}

/// anna with a key and a password, and guest. Both are members of what acl allows.
pub(super) fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let [anna, guest] = ["anna", "guest"].map(|name| consumer(name, &["staff"]));
    directory.add(&anna);
    directory.add(&guest);
    let id = EntityId::from_text;
    directory.keys.insert(Arc::new(KeyCredential::new(id("id-key"), b"key", None, Arc::clone(&anna))));
    directory.passwords.insert(Arc::new(BasicCredential::new(id("id-password"), "anna", b"password", anna)));
    directory
}

/// The servers of all plugins. They allow all requests, and know the token `opaque`.
#[derive(Default)]
pub(super) struct Servers {
    /// Whether the servers of forward-auth and opa identify the client.
    pub(super) name_clients: AtomicBool,
}

impl PluginServices for Servers {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let names_client = self.name_clients.load(Ordering::Relaxed);
        let (mut headers, mut body) = (HeaderMap::new(), json!({}));
        let target = request.target.as_str();
        match target {
            "/check" if names_client => {
                for (name, value) in [("x-user", "anna"), ("x-groups", "staff"), ("x-auth-email", "anna@example.com")] {
                    headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
                }
            }
            "/check" => {}
            "/v1/data/shop/allow" if names_client => {
                body = json!({"result": {"allow": true, "headers": {"x-subject": "anna"}}});
            }
            "/v1/data/shop/allow" => body = json!({"result": true}),
            "/introspect" => {
                let of_token = String::from_utf8_lossy(&request.body).contains("token=opaque");
                body = json!({"active": of_token, "sub": "anna", "username": "anna", "email": "anna@example.com"});
            }
            "/.well-known/openid-configuration" => {
                body = json!({
                    "issuer": "https://login.example", "authorization_endpoint": "https://login.example/authorize",
                    "token_endpoint": "https://login.example/token", "jwks_uri": "https://login.example/keys",
                    "introspection_endpoint": "https://login.example/introspect",
                });
            }
            _ => body = json!({"keys": []}),
        }
        let response = RemoteResponse { status: StatusCode::OK, headers, body: body.to_string().into() };
        Box::pin(async move { Ok(response) })
    }
}
