//! Tests of tokens of consumers: locations, rejections and the cache.

use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::token::signature::{Algorithm, HmacSecret, PublicKey};
use crate::plugin_api::{BuildNotes, ConsumerDirectory, PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, consumer, noon};

mod issuers;
mod published;

const KIND: RegisteredKind<Jwt> = RegisteredKind::NEW;
const SECRET: &[u8] = b"c2VjcmV0";

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    for name in ["anna", "guest"] {
        directory.add(&consumer(name, &[]));
    }
    add_credential(
        &mut directory,
        "key-1",
        VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, SECRET).unwrap()),
    );
    directory
}

fn add_credential(directory: &mut ConsumerDirectory, claim: &str, key: VerificationKey) {
    let anna = Arc::clone(directory.by_id_or_username("anna").unwrap());
    directory.tokens.insert(Arc::new(JwtCredential::new(
        EntityId::from_text(&format!("id-{claim}")),
        claim,
        key,
        anna,
    )));
}

fn signed(claims: &Value) -> String {
    Signer::secret(SECRET).token(Algorithm::Hs256, &json!({}), claims)
}

fn request_with_token(token: &str) -> TestRequest {
    TestRequest::get("/").header("authorization", &format!("Bearer {token}"))
}

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    request.with_consumers(&consumers()).run(&chain(&[(&KIND, config.clone())])).await
}

fn assert_accepted(name: &str, outcome: &TestOutcome) {
    assert_eq!(outcome.message(), None, "{name}");
    assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("key-1"), false), "{name}");
    assert_eq!(outcome.state.identity.credential().map(|id| &**id), Some("id-key-1"), "{name}");
}

fn assert_rejected(name: &str, outcome: &TestOutcome, message: &str) {
    assert_eq!(outcome.message(), Some(message), "{name}");
    assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{name}");
    let challenge = if message == "Unauthorized" { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    assert_eq!(outcome.response_header("www-authenticate"), Some(challenge), "{name}");
}

// docs/kong-compatibility.md, 4.16
#[tokio::test]
async fn tokens_are_found_in_all_locations() {
    let token = &signed(&json!({"iss": "key-1"}));
    let other = &signed(&json!({"iss": "key-1", "a": 1}));
    let get = |uri: &str| TestRequest::get(uri);
    let cookies = json!({"cookie_names": ["session"], "uri_param_names": ["jwt", "token"]});
    let headers = json!({"header_names": ["x-token", "authorization"]});
    let accepted = [
        ("Authorization", json!({}), request_with_token(token)),
        ("any letter case", json!({}), get("/").header("authorization", &format!("  bEARER \t {token}"))),
        ("query", json!({}), get(&format!("/?a=b&jwt={token}"))),
        ("second name", cookies.clone(), get(&format!("/?token={token}"))),
        ("cookie", cookies.clone(), get("/").header("cookie", &format!("a=b; Session={token}; session="))),
        (
            "second line of cookies",
            cookies.clone(),
            get("/").header("cookie", "a").header("cookie", &format!("session={token}")),
        ),
        ("another header", headers.clone(), get("/").header("x-token", &format!("Bearer {token}"))),
        ("copies of one token", cookies.clone(), {
            let request = get(&format!("/?jwt={token}&token={token}&jwt={token}"));
            request.header("cookie", &format!("session={token}")).header("authorization", &format!("Bearer {token}"))
        }),
        (
            "empty values are ignored",
            cookies.clone(),
            get(&format!("/?jwt=&token={token}")).header("cookie", "session="),
        ),
        ("other schemes are ignored", headers, request_with_token(token).header("x-token", other)),
    ];
    for (name, config, request) in accepted {
        assert_accepted(name, &run(&config, request).await);
    }
    let rejected = [
        ("none", json!({}), get("/"), "Unauthorized"),
        ("another scheme", json!({}), get("/").header("authorization", &format!("Basic {token}")), "Unauthorized"),
        ("no scheme", json!({}), get("/").header("authorization", token), "Unauthorized"),
        ("no token", json!({}), get("/").header("authorization", "Bearer "), "Unauthorized"),
        ("empty", json!({}), get("/?jwt="), "Unauthorized"),
        ("cookies are not searched", json!({}), get("/").header("cookie", &format!("session={token}")), "Unauthorized"),
        ("the query is not searched", json!({"uri_param_names": []}), get(&format!("/?jwt={token}")), "Unauthorized"),
        (
            "nothing is searched",
            json!({"uri_param_names": [], "header_names": []}),
            get(&format!("/?jwt={token}")).header("authorization", &format!("Bearer {token}")),
            "Unauthorized",
        ),
        ("two", json!({}), get(&format!("/?jwt={token}&jwt={other}")), "Multiple tokens provided"),
        (
            "two places",
            json!({}),
            get(&format!("/?jwt={token}")).header("authorization", &format!("Bearer {other}")),
            "Multiple tokens provided",
        ),
        (
            "a second cookie with another token",
            cookies.clone(),
            get("/").header("cookie", &format!("session={token}; session={other}")),
            "Multiple tokens provided",
        ),
        (
            "a second cookie in another letter case and field",
            cookies.clone(),
            get("/").header("cookie", &format!("session={token}")).header("cookie", "SESSION=x"),
            "Multiple tokens provided",
        ),
        (
            "cookie and query",
            cookies,
            get(&format!("/?jwt={token}")).header("cookie", &format!("session={other}")),
            "Multiple tokens provided",
        ),
        (
            "two headers",
            json!({}),
            request_with_token(token).header("authorization", &format!("Bearer {other}")),
            "Multiple tokens provided",
        ),
        (
            "copies of one header",
            json!({}),
            request_with_token(token).header("authorization", &format!("Bearer {token}")),
            "Multiple tokens provided",
        ),
        ("no value", json!({}), get("/?jwt"), "Unrecognizable token"),
        ("OPTIONS", json!({}), options("/"), "Unauthorized"),
    ];
    for (name, config, request, message) in rejected {
        assert_rejected(name, &run(&config, request).await, message);
    }
}

fn options(uri: &str) -> TestRequest {
    let mut request = TestRequest::get(uri);
    *request.request.method_mut() = http::Method::OPTIONS;
    request
}

// docs/kong-compatibility.md, 4.16
#[tokio::test]
async fn rejections_report_the_error() {
    let valid = signed(&json!({"iss": "key-1"}));
    let hs512 = Signer::secret(SECRET).token(Algorithm::Hs512, &json!({}), &json!({"iss": "key-1"}));
    let forged = Signer::secret(b"guessed").token(Algorithm::Hs256, &json!({}), &json!({"iss": "key-1"}));
    let in_header = Signer::secret(SECRET).token(Algorithm::Hs256, &json!({"iss": "key-1"}), &json!({}));
    let with_claims = |claims: Value| signed(&claims);
    let kid = json!({"key_claim_name": "kid"});
    let cases = [
        (json!({}), "abc".to_owned(), "Bad token; invalid JSON"),
        (json!({}), valid.replace('.', ".!"), "Bad token; invalid JSON"),
        (json!({}), valid.clone() + "!", "Bad token; invalid signature"),
        (json!({}), with_claims(json!({})), "No mandatory 'iss' in claims"),
        (kid.clone(), valid.clone(), "No mandatory 'kid' in claims"),
        (json!({}), with_claims(json!({"iss": ""})), "Invalid 'iss' in claims"),
        (json!({}), with_claims(json!({"iss": 7})), "Invalid 'iss' in claims"),
        (json!({}), with_claims(json!({"iss": "key-2"})), "No credentials found for given 'iss'"),
        (json!({}), hs512, "Invalid algorithm"),
        (json!({}), forged, "Invalid signature"),
        // Without the 43 characters of the signature.
        (json!({}), valid[..valid.len() - 43].to_owned(), "Invalid signature"),
        (json!({"secret_is_base64": true}), valid, "Invalid signature"),
    ];
    for (config, token, message) in cases {
        assert_rejected(&format!("{config} {token}"), &run(&config, request_with_token(&token)).await, message);
    }
    assert_accepted("in the header of the token", &run(&json!({}), request_with_token(&in_header)).await);
    let kid_claim = run(&kid, request_with_token(&with_claims(json!({"kid": "key-1"})))).await;
    assert_accepted("another claim", &kid_claim);
}

// docs/kong-compatibility.md, 4.16
#[tokio::test]
async fn base64_secrets_are_decoded() {
    let token = Signer::secret(b"secret").token(Algorithm::Hs256, &json!({}), &json!({"iss": "key-1"}));
    assert_accepted("decoded", &run(&json!({"secret_is_base64": true}), request_with_token(&token)).await);
    assert_rejected("as written", &run(&json!({}), request_with_token(&token)).await, "Invalid signature");
    let mut directory = consumers();
    add_credential(
        &mut directory,
        "bad",
        VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, &b"no base64!"[..]).unwrap()),
    );
    let chain = chain(&[(&KIND, json!({"secret_is_base64": true}))]);
    let outcome = request_with_token(&signed(&json!({"iss": "bad"}))).with_consumers(&directory).run(&chain).await;
    assert_rejected("invalid base64", &outcome, "Invalid key/secret");
}

// docs/kong-compatibility.md, 4.16
#[tokio::test]
async fn keys_are_bound_to_their_algorithm() {
    let chain = chain(&[(&KIND, json!({"secret_is_base64": true}))]);
    for algorithm in Algorithm::ALL {
        let signer = Signer::for_algorithm(algorithm);
        let mut directory = consumers();
        let key = match algorithm.is_symmetric() {
            true => VerificationKey::Secret(HmacSecret::new(algorithm, &b"YSBzZWNyZXQ="[..]).unwrap()),
            false => VerificationKey::Public(PublicKey::from_pem(algorithm, signer.public_pem().as_bytes()).unwrap()),
        };
        add_credential(&mut directory, "key-1", key);
        let token = |algorithm| signer.token(algorithm, &json!({}), &json!({"iss": "key-1"}));
        assert_accepted(
            algorithm.name(),
            &request_with_token(&token(algorithm)).with_consumers(&directory).run(&chain).await,
        );
        if !algorithm.is_symmetric() {
            // Algorithm confusion attack: the public key used as an HMAC secret.
            let outcome = request_with_token(&token(Algorithm::Hs256)).with_consumers(&directory).run(&chain).await;
            assert_rejected(algorithm.name(), &outcome, "Invalid algorithm");
        }
    }
}

// docs/kong-compatibility.md, 4.16
// docs/kong-compatibility.md, 7.18
#[tokio::test]
async fn invalid_claims_are_the_whole_body() {
    let noon = noon().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let verify = |claims: &[&str]| json!({"claims_to_verify": claims});
    let all = verify(&["exp", "nbf", "iat"]);
    let cases = [
        (json!({}), json!({"exp": 1, "nbf": noon + 9}), None),
        (all.clone(), json!({"exp": noon + 1, "nbf": noon, "iat": noon}), None),
        (verify(&["exp"]), json!({"exp": noon}), Some(r#"{"exp":"token expired"}"#)),
        (verify(&["nbf"]), json!({"nbf": noon + 1}), Some(r#"{"nbf":"token not valid yet"}"#)),
        (verify(&["iat"]), json!({"iat": noon + 1}), Some(r#"{"iat":"token issued in the future"}"#)),
        (verify(&["exp"]), json!({"exp": "soon"}), Some(r#"{"exp":"must be a number"}"#)),
        (all, json!({"exp": 1}), Some(r#"{"exp":"token expired","nbf":"must be a number","iat":"must be a number"}"#)),
        (
            json!({"claims_to_verify": ["exp"], "maximum_expiration": 60}),
            json!({"exp": noon + 61}),
            Some(r#"{"exp":"exceeds maximum allowed expiration"}"#),
        ),
        (json!({"claims_to_verify": ["exp"], "maximum_expiration": 60}), json!({"exp": noon + 60}), None),
    ];
    for (config, mut claims, expected) in cases {
        claims["iss"] = "key-1".into();
        let outcome = run(&config, request_with_token(&signed(&claims))).await;
        match expected {
            None => assert_accepted(&claims.to_string(), &outcome),
            Some(body) => {
                assert_rejected(&claims.to_string(), &outcome, body);
                assert_eq!(outcome.response_header("content-type"), Some("application/json; charset=utf-8"));
            }
        }
    }
}

// docs/kong-compatibility.md, 4.16
#[tokio::test]
async fn the_challenge_has_the_realm_and_tokens_are_forwarded() {
    let config = json!({"realm": "shop"});
    let without_token = run(&config, TestRequest::get("/")).await;
    assert_eq!(without_token.response_header("www-authenticate"), Some(r#"Bearer realm="shop""#));
    let invalid_token = run(&config, request_with_token("x")).await;
    assert_eq!(
        invalid_token.response_header("www-authenticate"),
        Some(r#"Bearer realm="shop", error="invalid_token""#)
    );
    let token = signed(&json!({"iss": "key-1"}));
    let valid_token = run(&config, request_with_token(&token)).await;
    assert_eq!(valid_token.upstream_header("authorization"), Some(&*format!("Bearer {token}")));
}

#[tokio::test]
async fn verified_tokens_are_cached_until_the_credential_changes() {
    let (state, services) = (PluginState::default(), no_services());
    let jwt = build_jwt(&json!({"claims_to_verify": ["exp"]}), &state, &services);
    let noon_seconds = noon().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = signed(&json!({"iss": "key-1", "exp": noon_seconds + 5}));
    let is_cached = |jwt: &Jwt| jwt.cache.find(&jwt.digest(token.as_bytes())).is_some();
    let chain = published::chain_of(&jwt);
    let before = consumers();
    assert!(!is_cached(&jwt));
    assert_accepted("verified", &request_with_token(&token).with_consumers(&before).run(&chain).await);
    assert!(is_cached(&jwt));
    assert_accepted("known", &request_with_token(&token).with_consumers(&before).run(&chain).await);
    let rebuilt = build_jwt(&json!({"claims_to_verify": ["exp"]}), &state, &services);
    assert!(is_cached(&rebuilt), "a rebuilt plugin with the same configuration uses the cache");
    let other = build_jwt(&json!({"claims_to_verify": []}), &state, &services);
    assert!(!is_cached(&other), "a plugin with another configuration does not use the entry");

    let mut changed = before.clone();
    add_credential(
        &mut changed,
        "key-1",
        VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, &b"a new secret"[..]).unwrap()),
    );
    assert_rejected(
        "changed",
        &request_with_token(&token).with_consumers(&changed).run(&chain).await,
        "Invalid signature",
    );
    let mut removed = before.clone();
    removed.tokens.remove("key-1");
    let outcome = request_with_token(&token).with_consumers(&removed).run(&chain).await;
    assert_rejected("removed", &outcome, "No credentials found for given 'iss'");
    let mut request = request_with_token(&token).with_consumers(&before);
    request.now += std::time::Duration::from_secs(5);
    assert_rejected("expired", &request.run(&chain).await, r#"{"exp":"token expired"}"#);
    let forged = format!("{}x", &token[..token.len() - 1]);
    let outcome = request_with_token(&forged).with_consumers(&before).run(&chain).await;
    assert!(outcome.reply_status().is_some(), "a token with another signature is not cached");
}

// docs/kong-compatibility.md, 7.17
#[test]
fn accepting_expired_tokens_gets_a_note() {
    let plugin_factory = crate::plugin_chain::factory::PluginFactory::offline(crate::plugins::REGISTRY);
    let jwks = json!([{"issuer": "i", "uri": "https://i.example/keys"}]);
    for (config, expected) in [
        (json!({}), &["config.claims_to_verify"][..]),
        (json!({"claims_to_verify": ["nbf"]}), &["config.claims_to_verify"]),
        (json!({"claims_to_verify": ["iat", "exp"]}), &[]),
        (json!({"jwks": jwks}), &[]),
    ] {
        let (_, notes) = plugin_factory.build(&KIND, "KongPlugin/default/test", &config).unwrap();
        assert_eq!(notes.iter().map(|note| &*note.field).collect::<Vec<_>>(), expected, "{config}");
    }
}

fn no_services() -> Arc<dyn crate::plugin_api::PluginServices> {
    Arc::new(crate::plugin_api::services::OfflineServices)
}

fn build_jwt(config: &Value, state: &PluginState, services: &Arc<dyn crate::plugin_api::PluginServices>) -> Arc<Jwt> {
    let config = serde_json::from_value(config.clone()).unwrap();
    Arc::new(
        Jwt::build(
            config,
            &BuildCx {
                object: "KongPlugin/default/test",
                state,
                services,
                node: "test",
                notes: &BuildNotes::default(),
            },
        )
        .unwrap(),
    )
}

// docs/kong-compatibility.md, 4.16
#[test]
fn invalid_configurations_are_rejected() {
    let issuer = |field: &str, value: Value| {
        let mut issuer = json!({"issuer": "i", "uri": "https://i.example/keys"});
        issuer[field] = value;
        json!({"jwks": [issuer]})
    };
    let twice = json!({"jwks": [{"issuer": "i", "uri": "http://a/"}, {"issuer": "i", "uri": "http://b/"}]});
    let cases = [
        (json!({"claims_to_verify": ["sub"]}), "config.claims_to_verify[0]"),
        (json!({"maximum_expiration": 60}), "config.maximum_expiration"),
        (json!({"maximum_expiration": 31_536_001, "claims_to_verify": ["exp"]}), "config.maximum_expiration"),
        (json!({"maximum_expiration": -1}), "config.maximum_expiration"),
        (json!({"key_claim_name": ""}), "config.key_claim_name"),
        (json!({"header_names": ["a b"]}), "config.header_names[0]"),
        (json!({"uri_param_names": [""]}), "config.uri_param_names[0]"),
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"secret": "s"}), "config.secret"),
        (json!({"jwks": [{"issuer": "i"}]}), "config.jwks[0]"),
        (issuer("issuer", "".into()), "config.jwks[0].issuer"),
        (issuer("uri", "i.example/keys".into()), "config.jwks[0].uri"),
        (issuer("uri", "ftp://i.example/keys".into()), "config.jwks[0].uri"),
        (issuer("uri", "http://169.254.169.254/keys".into()), "config.jwks[0].uri"),
        (issuer("uri", "https://[fd00:ec2::254]:8443/keys".into()), "config.jwks[0].uri"),
        (issuer("uri", "https://a:b@i.example/keys".into()), "config.jwks[0].uri"),
        (issuer("algorithms", json!(["RS256", "HS256"])), "config.jwks[0].algorithms[1]"),
        (issuer("consumer_claim", "".into()), "config.jwks[0].consumer_claim"),
        (
            json!({"jwks": [{"issuer": "i", "uri": "http://a/", "consumer": "a", "consumer_claim": "b"}]}),
            "config.jwks[0].consumer_claim",
        ),
        (twice, "config.jwks[1].issuer"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_requests_never_panics(text in "[ -~]{0,60}", bytes in proptest::collection::vec(0x80_u8.., 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut request = TestRequest::get("/?jwt=%ff%00").header("cookie", &text);
        let value = [b"Bearer ", text.as_bytes(), &bytes].concat();
        request.request.headers_mut().insert("authorization", http::HeaderValue::from_bytes(&value).unwrap());
        static CHAIN: std::sync::OnceLock<Arc<crate::plugin_chain::Chain>> = std::sync::OnceLock::new();
        let config = json!({"cookie_names": ["a"], "uri_param_names": []});
        let chain = CHAIN.get_or_init(|| chain(&[(&KIND, config)]));
        let outcome = runtime.block_on(request.with_consumers(&consumers()).run(chain));
        proptest::prop_assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED));
    }
}
