//! Tests of the tokens, and of what remains of the client's request.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::token::UnverifiedToken;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_api::token::published_keys::key_set_of_process;
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::{
    AnyPluginKind, Identity, Phases as AccessPhases, PluginServices, PluginState, RegisteredKind, VerifiedSubject,
};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{
    TestOutcome, TestRequest, build, chain_with, consumer, consumer_with_given_id, noon,
};
use crate::plugins::REGISTRY;

const KIND: RegisteredKind<InternalIdentity> = RegisteredKind::NEW;

/// Authenticates each request as the header `as` says, without hiding it.
struct Authenticate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

impl PluginKind for Authenticate {
    const NAME: &'static str = "authenticate";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1000;
    const PHASES: AccessPhases = AccessPhases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = NoConfig;
    type Plugin = Self;

    fn build(_: NoConfig, _: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(Authenticate)
    }
}

impl Plugin for Authenticate {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let name = cx.head.headers.get("as").and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
        let credential = EntityId::from_text(&format!("credential-{name}"));
        let subjects = || vec![Some(VerifiedSubject::of_credential(&credential))].into();
        *cx.identity = match &*name {
            "" => Identity::default(),
            "guest" => Identity { consumer: Some(consumer("guest", &[])), ..Identity::default() },
            "given" => {
                Identity { consumer: Some(consumer_with_given_id("internal", "given-id")), ..Identity::default() }
            }
            "without a subject" => {
                Identity { subjects: vec![None].into(), groups: vec!["ops".into()], ..Identity::default() }
            }
            "external" => {
                Identity { subjects: subjects(), groups: vec!["ops".into(), "staff".into()], ..Identity::default() }
            }
            name => {
                let groups = vec!["night".into(), "staff".into()];
                Identity {
                    consumer: Some(consumer(name, &["staff"])),
                    subjects: subjects(),
                    groups,
                    ..Identity::default()
                }
            }
        };
        AccessOutcome::Continue
    }
}

struct Setup {
    chain: Arc<Chain>,
    state: PluginState,
}

impl Setup {
    fn new(fields: Value, keys: &[&Signer]) -> Self {
        let keys: Vec<_> = keys.iter().map(|key| key.private_pem()).collect();
        let mut config = json!({"issuer": "https://gateway.example", "keys": keys});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
        let authenticate: RegisteredKind<Authenticate> = RegisteredKind::NEW;
        let chain = chain_with(&[(&authenticate, json!({})), (&KIND, config)], &state, &services);
        Setup { chain, state }
    }

    async fn run(&self, request: TestRequest) -> TestOutcome {
        request.run(&self.chain).await
    }

    /// The claims of a token, verified with the keys that the process publishes.
    fn verify(&self, text: &str) -> Value {
        let set = key_set_of_process(&self.state, Some("default"));
        let keys = PublishedKey::parse_set(set.as_bytes()).unwrap();
        let token = UnverifiedToken::parse(text.as_bytes()).unwrap();
        let key = keys.iter().find(|key| key.id.as_deref() == token.key_id()).unwrap();
        assert!(key.for_algorithm(token.algorithm).unwrap().verifies(token.signed, &token.signature));
        Value::Object(token.claims)
    }
}

fn request(name: &'static str) -> TestRequest {
    TestRequest::get("/").header("as", name)
}

fn bearer(outcome: &TestOutcome) -> &str {
    outcome.upstream_header("authorization").unwrap().strip_prefix("Bearer ").unwrap()
}

const ISSUED: u64 = 1_767_355_200;

#[tokio::test]
async fn backends_get_a_token_about_the_client() {
    let key = Signer::for_algorithm(Algorithm::Es256);
    let consumer_fields = json!({"id": "id-anna", "username": "anna", "custom_id": "custom-anna"});
    let cases = [
        (json!({}), "anna", json!({"sub": "anna", "groups": ["staff", "night"], "consumer": consumer_fields})),
        (json!({"subject": "id"}), "anna", json!({"sub": "id-anna"})),
        (json!({"subject": "identifier"}), "anna", json!({"sub": "credential-anna"})),
        (json!({"audience": ["shop"]}), "anna", json!({"aud": "shop"})),
        (json!({"audience": ["shop", "cart"]}), "anna", json!({"aud": ["shop", "cart"]})),
        (json!({"claims": {"env": "test"}}), "anna", json!({"env": "test"})),
        (json!({"ttl": 60}), "anna", json!({"iat": ISSUED, "exp": ISSUED + 60})),
        (json!({}), "external", json!({"sub": "credential-external", "groups": ["ops", "staff"]})),
        (json!({}), "guest", json!({"sub": "guest", "groups": []})),
        (json!({}), "given", json!({"sub": "given-id", "consumer": {"id": "given-id"}})),
        (json!({"subject": "id"}), "given", json!({"sub": "given-id"})),
        (json!({"subject": "identifier"}), "given", json!({"sub": "given-id"})),
    ];
    for (fields, name, expected) in cases {
        let setup = Setup::new(fields.clone(), &[&key]);
        let outcome = setup.run(request(name).header("authorization", "Bearer of-the-client")).await;
        assert_eq!(outcome.reply_status(), None, "{fields}");
        assert_eq!(outcome.request.headers.get_all("authorization").iter().count(), 1, "{fields}");
        assert!(outcome.request.headers["authorization"].is_sensitive());
        let claims = setup.verify(bearer(&outcome));
        assert_eq!(claims["iss"], "https://gateway.example", "{fields}");
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(claims[name], *value, "{fields}: {name}");
        }
    }
}

#[tokio::test]
async fn a_token_is_signed_once_for_half_of_its_lifetime() {
    let setup = Setup::new(json!({"ttl": 60}), &[&Signer::for_algorithm(Algorithm::Es256)]);
    let token_at = async |name: &'static str, seconds| {
        let mut request = request(name);
        request.now = noon() + Duration::from_secs(seconds);
        bearer(&setup.run(request).await).to_owned()
    };
    // ECDSA signatures of the same text differ.
    let first = token_at("anna", 0).await;
    assert_eq!(token_at("anna", 29).await, first);
    let other = token_at("bert", 29).await;
    assert_ne!(other, first);
    let second = token_at("anna", 30).await;
    assert_ne!(second, first);
    assert_eq!(setup.verify(&second)["exp"], ISSUED + 90);
    assert_eq!(token_at("anna", 59).await, second);
}

#[tokio::test]
async fn no_header_of_the_client_can_pass_for_one_of_the_plugin() {
    let fields = json!({
        "header": "x-identity", "scheme": "", "user_header": "x-user", "groups_header": "x-roles",
        "remove_headers": ["authorization", "apikey"], "remove_cookies": ["session"], "remove_parameters": ["key"],
        "allow_unauthenticated": true,
    });
    let setup = Setup::new(fields, &[&Signer::for_algorithm(Algorithm::EdDsa)]);
    for (name, user, roles) in [
        ("anna", Some("anna"), Some("staff,night")),
        ("guest", Some("guest"), None),
        ("without a subject", None, None),
        ("", None, None),
    ] {
        let request = TestRequest::get("/a?key=secret&b=c")
            .header("as", name)
            .header("authorization", "Bearer secret")
            .header("apikey", "secret")
            .header("cookie", "session=secret; theme=dark")
            .header("x-identity", "forged")
            .header("x_identity", "forged")
            .header("x-user", "forged")
            .header("x_user", "forged")
            .header("x-roles", "forged")
            .header("x-other", "kept");
        let outcome = setup.run(request).await;
        assert_eq!(outcome.reply_status(), None, "{name}");
        assert_eq!(outcome.upstream_header("x-user"), user, "{name}");
        assert_eq!(outcome.upstream_header("x-roles"), roles, "{name}");
        match outcome.upstream_header("x-identity") {
            Some(token) => assert_eq!(setup.verify(token)["sub"], name, "{name}"),
            None => assert!(["", "without a subject"].contains(&name), "{name}"),
        }
        let text = format!("{:?} {:?}", outcome.request.headers, outcome.request.uri);
        assert!(!text.contains("forged") && !text.contains("secret"), "{name}: {text}");
        assert_eq!(outcome.upstream_header("cookie"), Some("theme=dark"));
        assert_eq!(outcome.upstream_header("x-other"), Some("kept"));
        assert_eq!(outcome.request.uri.query(), Some("b=c"));
    }
}

#[tokio::test]
async fn unauthenticated_requests_are_rejected() {
    let setup = Setup::new(json!({}), &[&Signer::for_algorithm(Algorithm::Es256)]);
    for name in ["", "without a subject"] {
        let outcome = setup.run(request(name).header("x-consumer-username", "forged")).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
        assert_eq!(outcome.reply.unwrap().reason, "no_identity", "{name}");
    }
}

/// An endpoint may respond differently to tokens of another issuer or for another audience.
#[tokio::test]
async fn stored_responses_are_for_the_claims_of_the_token() {
    let key = Signer::for_algorithm(Algorithm::Es256).private_pem();
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let authenticate: RegisteredKind<Authenticate> = RegisteredKind::NEW;
    let cache = REGISTRY.find("proxy-cache").unwrap();
    let chain = |fields: &Value| {
        let mut config = json!({"issuer": "https://gateway.example", "audience": ["shop"], "keys": [key]});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let plugins: [(&dyn AnyPluginKind, Value); 3] = [
            (&authenticate, json!({})),
            (&KIND, config),
            (cache, json!({"strategy": "memory", "content_type": ["application/json"]})),
        ];
        chain_with(&plugins, &state, &services)
    };
    let is_stored = async |chain: &Chain| {
        let mut request = request("anna");
        request.upstream_response = Response::builder().header("content-type", "application/json").body(()).unwrap();
        request.upstream_body = "{}".into();
        request.run(chain).await.reply_status().is_some()
    };
    // Keeps what is stored.
    let mut chains = Vec::new();
    for fields in [
        json!({}),
        json!({"issuer": "https://other.example"}),
        json!({"audience": ["cart"]}),
        json!({"audience": []}),
        json!({"claims": {"env": "test"}}),
        json!({"subject": "id"}),
    ] {
        let (first, rebuilt) = (chain(&fields), chain(&fields));
        assert!(!is_stored(&first).await, "{fields}");
        assert!(is_stored(&rebuilt).await, "{fields}");
        chains.push(first);
    }
    assert!(is_stored(&chain(&json!({"ttl": 60}))).await, "the claims about the client are the same");
}

#[tokio::test]
async fn both_keys_are_published_while_one_replaces_the_other() {
    let (old, new) = (Signer::for_algorithm(Algorithm::Es256), Signer::for_algorithm(Algorithm::Rs256));
    let setup = Setup::new(json!({}), &[&old, &new]);
    let first = bearer(&setup.run(request("anna")).await).to_owned();
    assert_eq!(UnverifiedToken::parse(first.as_bytes()).unwrap().algorithm, Algorithm::Es256);
    let swapped = Setup::new(json!({}), &[&new, &old]);
    let second = bearer(&swapped.run(request("anna")).await).to_owned();
    assert_eq!(UnverifiedToken::parse(second.as_bytes()).unwrap().algorithm, Algorithm::Rs256);
    for setup in [&setup, &swapped] {
        for token in [&first, &second] {
            assert_eq!(setup.verify(token)["sub"], "anna");
        }
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    let key = Signer::for_algorithm(Algorithm::Es256).private_pem();
    let valid = json!({"issuer": "a", "keys": [key]});
    assert!(build(&KIND, &valid).is_ok());
    for (fields, field) in [
        (json!({"issuer": ""}), "config.issuer"),
        (json!({"keys": []}), "config.keys"),
        (json!({"keys": [key, key]}), "config.keys[1]"),
        (json!({"keys": ["not a secret key"]}), "config.keys[0]"),
        (json!({"algorithm": "RS256"}), "config.keys[0]"),
        (json!({"algorithm": "HS256"}), "config.algorithm"),
        (json!({"ttl": 9}), "config.ttl"),
        (json!({"ttl": 86401}), "config.ttl"),
        (json!({"audience": [""]}), "config.audience[0]"),
        (json!({"claims": {"sub": "root"}}), "config.claims[sub]"),
        (json!({"header": "a b"}), "config.header"),
        (json!({"scheme": "Bearer "}), "config.scheme"),
        (json!({"remove_cookies": [""]}), "config.remove_cookies[0]"),
        (json!({"user_header": "a b"}), "config.user_header"),
    ] {
        let mut config = valid.clone();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        assert!(invalid.iter().all(|invalid| !invalid.to_string().contains("PRIVATE KEY-----\\nMI")), "{invalid:?}");
    }
}
