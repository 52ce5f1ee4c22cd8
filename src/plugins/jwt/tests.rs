//! Tokens of consumers: where they stand, what is refused, and what is remembered.

use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::plugin::consumers::Id;
use crate::plugin::signature::signing::Signer;
use crate::plugin::signature::{Algorithm, PublicKey, Secret};
use crate::plugin::testing::{Outcome as Seen, Visit, build, chain, consumer, noon};
use crate::plugin::{Directory, Entry as Registered, Notes, State};

mod published;

const KIND: Registered<Jwt> = Registered::NEW;
const SECRET: &[u8] = b"c2VjcmV0";

fn consumers() -> Directory {
    let mut directory = Directory::default();
    for name in ["anna", "guest"] {
        directory.add(&consumer(name, &[]));
    }
    add(&mut directory, "key-1", Key::Secret(Secret::new(Algorithm::Hs256, SECRET).unwrap()));
    directory
}

fn add(directory: &mut Directory, claim: &str, key: Key) {
    let anna = Arc::clone(directory.named("anna").unwrap());
    directory.tokens.insert(Arc::new(JwtCredential::new(Id::of(&format!("id-{claim}")), claim, key, anna)));
}

fn signed(claims: &Value) -> String {
    Signer::secret(SECRET).token(Algorithm::Hs256, &json!({}), claims)
}

fn bearing(token: &str) -> Visit {
    Visit::get("/").header("authorization", &format!("Bearer {token}"))
}

async fn run(config: &Value, visit: Visit) -> Seen {
    visit.of(&consumers()).run(&chain(&[(&KIND, config.clone())])).await
}

fn assert_in(name: &str, outcome: &Seen) {
    assert_eq!(outcome.message(), None, "{name}");
    assert_eq!(outcome.known_as(), (Some("anna"), Some("key-1"), false), "{name}");
    assert_eq!(outcome.passage.identity.credential.as_deref(), Some("id-key-1"), "{name}");
}

fn assert_out(name: &str, outcome: &Seen, message: &str) {
    assert_eq!(outcome.message(), Some(message), "{name}");
    assert_eq!(outcome.replied(), Some(StatusCode::UNAUTHORIZED), "{name}");
    let challenge = if message == "Unauthorized" { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    assert_eq!(outcome.header("www-authenticate"), Some(challenge), "{name}");
}

// kong-compat §4.16
#[tokio::test]
async fn tokens_are_looked_for_in_all_places() {
    let token = &signed(&json!({"iss": "key-1"}));
    let other = &signed(&json!({"iss": "key-1", "a": 1}));
    let get = |uri: &str| Visit::get(uri);
    let cookies = json!({"cookie_names": ["session"], "uri_param_names": ["jwt", "token"]});
    let headers = json!({"header_names": ["x-token", "authorization"]});
    let found = [
        ("Authorization", json!({}), bearing(token)),
        ("any case", json!({}), get("/").header("authorization", &format!("  bEARER \t {token}"))),
        ("query", json!({}), get(&format!("/?a=b&jwt={token}"))),
        ("second name", cookies.clone(), get(&format!("/?token={token}"))),
        ("cookie", cookies.clone(), get("/").header("cookie", &format!("a=b; Session={token}; session=x"))),
        (
            "second line of cookies",
            cookies.clone(),
            get("/").header("cookie", "a").header("cookie", &format!("session={token}")),
        ),
        ("another header", headers.clone(), get("/").header("x-token", &format!("Bearer {token}"))),
        ("copies", cookies.clone(), {
            let visit = get(&format!("/?jwt={token}&token={token}&jwt={token}"));
            visit.header("cookie", &format!("session={token}")).header("authorization", &format!("Bearer {token}"))
        }),
        (
            "empty ones do not count",
            cookies.clone(),
            get(&format!("/?jwt=&token={token}")).header("cookie", "session="),
        ),
        ("nor other schemes", headers, bearing(token).header("x-token", other)),
        ("the first of two lines", json!({}), bearing(token).header("authorization", &format!("Bearer {other}"))),
    ];
    for (name, config, visit) in found {
        assert_in(name, &run(&config, visit).await);
    }
    let refused = [
        ("none", json!({}), get("/"), "Unauthorized"),
        ("another scheme", json!({}), get("/").header("authorization", &format!("Basic {token}")), "Unauthorized"),
        ("no scheme", json!({}), get("/").header("authorization", token), "Unauthorized"),
        ("no token", json!({}), get("/").header("authorization", "Bearer "), "Unauthorized"),
        ("empty", json!({}), get("/?jwt="), "Unauthorized"),
        ("cookies are not searched", json!({}), get("/").header("cookie", &format!("session={token}")), "Unauthorized"),
        ("nowhere else", json!({"uri_param_names": []}), get(&format!("/?jwt={token}")), "Unauthorized"),
        ("two", json!({}), get(&format!("/?jwt={token}&jwt={other}")), "Multiple tokens provided"),
        (
            "two places",
            json!({}),
            get(&format!("/?jwt={token}")).header("authorization", &format!("Bearer {other}")),
            "Multiple tokens provided",
        ),
        (
            "cookie and query",
            cookies,
            get(&format!("/?jwt={token}")).header("cookie", &format!("session={other}")),
            "Multiple tokens provided",
        ),
        ("no value", json!({}), get("/?jwt"), "Unrecognizable token"),
        ("OPTIONS", json!({}), options("/"), "Unauthorized"),
    ];
    for (name, config, visit, message) in refused {
        assert_out(name, &run(&config, visit).await, message);
    }
}

fn options(uri: &str) -> Visit {
    let mut visit = Visit::get(uri);
    *visit.request.method_mut() = http::Method::OPTIONS;
    visit
}

// kong-compat §4.16
#[tokio::test]
async fn every_refusal_says_why() {
    let good = signed(&json!({"iss": "key-1"}));
    let hs512 = Signer::secret(SECRET).token(Algorithm::Hs512, &json!({}), &json!({"iss": "key-1"}));
    let forged = Signer::secret(b"guessed").token(Algorithm::Hs256, &json!({}), &json!({"iss": "key-1"}));
    let in_header = Signer::secret(SECRET).token(Algorithm::Hs256, &json!({"iss": "key-1"}), &json!({}));
    let with = |claims: Value| signed(&claims);
    let kid = json!({"key_claim_name": "kid"});
    let cases = [
        (json!({}), "abc".to_owned(), "Bad token; invalid JSON"),
        (json!({}), good.replace('.', ".!"), "Bad token; invalid JSON"),
        (json!({}), good.clone() + "!", "Bad token; invalid signature"),
        (json!({}), with(json!({})), "No mandatory 'iss' in claims"),
        (kid.clone(), good.clone(), "No mandatory 'kid' in claims"),
        (json!({}), with(json!({"iss": ""})), "Invalid 'iss' in claims"),
        (json!({}), with(json!({"iss": 7})), "Invalid 'iss' in claims"),
        (json!({}), with(json!({"iss": "key-2"})), "No credentials found for given 'iss'"),
        (json!({}), hs512, "Invalid algorithm"),
        (json!({}), forged, "Invalid signature"),
        (json!({}), good[..good.len() - 43].to_owned(), "Invalid signature"),
        (json!({"secret_is_base64": true}), good, "Invalid signature"),
    ];
    for (config, token, message) in cases {
        assert_out(&format!("{config} {token}"), &run(&config, bearing(&token)).await, message);
    }
    assert_in("in the header of the token", &run(&json!({}), bearing(&in_header)).await);
    let kid_claim = run(&kid, bearing(&with(json!({"kid": "key-1"})))).await;
    assert_in("another claim", &kid_claim);
}

// kong-compat §4.16
#[tokio::test]
async fn secrets_may_be_in_base64() {
    let token = Signer::secret(b"secret").token(Algorithm::Hs256, &json!({}), &json!({"iss": "key-1"}));
    assert_in("decoded", &run(&json!({"secret_is_base64": true}), bearing(&token)).await);
    assert_out("as written", &run(&json!({}), bearing(&token)).await, "Invalid signature");
    let mut directory = consumers();
    add(&mut directory, "bad", Key::Secret(Secret::new(Algorithm::Hs256, &b"no base64!"[..]).unwrap()));
    let chain = chain(&[(&KIND, json!({"secret_is_base64": true}))]);
    let outcome = bearing(&signed(&json!({"iss": "bad"}))).of(&directory).run(&chain).await;
    assert_out("no base64", &outcome, "Invalid key/secret");
}

// kong-compat §4.16
#[tokio::test]
async fn every_algorithm_is_verified_with_its_own_key_only() {
    let chain = chain(&[(&KIND, json!({"secret_is_base64": true}))]);
    for algorithm in Algorithm::ALL {
        let signer = Signer::for_algorithm(algorithm);
        let mut directory = consumers();
        let key = match algorithm.is_symmetric() {
            true => Key::Secret(Secret::new(algorithm, &b"YSBzZWNyZXQ="[..]).unwrap()),
            false => Key::Public(PublicKey::from_pem(algorithm, signer.public_pem().as_bytes()).unwrap()),
        };
        add(&mut directory, "key-1", key);
        let token = |algorithm| signer.token(algorithm, &json!({}), &json!({"iss": "key-1"}));
        assert_in(algorithm.name(), &bearing(&token(algorithm)).of(&directory).run(&chain).await);
        if !algorithm.is_symmetric() {
            // Signed with the public key as if that were a secret.
            let outcome = bearing(&token(Algorithm::Hs256)).of(&directory).run(&chain).await;
            assert_out(algorithm.name(), &outcome, "Invalid algorithm");
        }
    }
}

// kong-compat §4.16
// kong-compat §7.18
#[tokio::test]
async fn claims_that_do_not_hold_are_the_whole_body() {
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
        let outcome = run(&config, bearing(&signed(&claims))).await;
        match expected {
            None => assert_in(&claims.to_string(), &outcome),
            Some(body) => {
                assert_out(&claims.to_string(), &outcome, body);
                assert_eq!(outcome.header("content-type"), Some("application/json; charset=utf-8"));
            }
        }
    }
}

// kong-compat §4.16
#[tokio::test]
async fn the_realm_is_named_and_the_token_goes_on() {
    let config = json!({"realm": "shop"});
    let none = run(&config, Visit::get("/")).await;
    assert_eq!(none.header("www-authenticate"), Some(r#"Bearer realm="shop""#));
    let wrong = run(&config, bearing("x")).await;
    assert_eq!(wrong.header("www-authenticate"), Some(r#"Bearer realm="shop", error="invalid_token""#));
    let token = signed(&json!({"iss": "key-1"}));
    let right = run(&config, bearing(&token)).await;
    assert_eq!(right.sent("authorization"), Some(&*format!("Bearer {token}")));
}

#[tokio::test]
async fn what_was_verified_is_known_until_its_credential_changes() {
    let (state, services) = (State::default(), no_services());
    let jwt = built(&json!({"claims_to_verify": ["exp"]}), &state, &services);
    let noon_seconds = noon().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = signed(&json!({"iss": "key-1", "exp": noon_seconds + 5}));
    let is_known = |jwt: &Jwt| jwt.verified.find(&jwt.digest(token.as_bytes())).is_some();
    let chain = published::chain_of(&jwt);
    let before = consumers();
    assert!(!is_known(&jwt));
    assert_in("verified", &bearing(&token).of(&before).run(&chain).await);
    assert!(is_known(&jwt));
    assert_in("known", &bearing(&token).of(&before).run(&chain).await);
    let again = built(&json!({"claims_to_verify": ["exp"]}), &state, &services);
    assert!(is_known(&again), "also to the same plugin built anew");
    let other = built(&json!({"claims_to_verify": []}), &state, &services);
    assert!(!is_known(&other), "but not to one that verifies otherwise");

    let mut changed = before.clone();
    add(&mut changed, "key-1", Key::Secret(Secret::new(Algorithm::Hs256, &b"a new secret"[..]).unwrap()));
    assert_out("changed", &bearing(&token).of(&changed).run(&chain).await, "Invalid signature");
    let mut removed = before.clone();
    removed.tokens.remove("key-1");
    let outcome = bearing(&token).of(&removed).run(&chain).await;
    assert_out("removed", &outcome, "No credentials found for given 'iss'");
    let mut late = bearing(&token).of(&before);
    late.now += std::time::Duration::from_secs(5);
    assert_out("expired", &late.run(&chain).await, r#"{"exp":"token expired"}"#);
    let forged = format!("{}x", &token[..token.len() - 1]);
    let outcome = bearing(&forged).of(&before).run(&chain).await;
    assert!(outcome.replied().is_some(), "another signature is another token");
}

// kong-compat §7.17
#[test]
fn accepting_expired_tokens_is_remarked_on() {
    let workshop = crate::plugin::workshop::Workshop::offline(crate::plugins::REGISTRY);
    let jwks = json!([{"issuer": "i", "uri": "https://i.example/keys"}]);
    for (config, remarks) in [
        (json!({}), &["config.claims_to_verify"][..]),
        (json!({"claims_to_verify": ["nbf"]}), &["config.claims_to_verify"]),
        (json!({"claims_to_verify": ["iat", "exp"]}), &[]),
        (json!({"jwks": jwks}), &[]),
    ] {
        let (_, notes) = workshop.build(&KIND, "KongPlugin/default/test", &config).unwrap();
        assert_eq!(notes.iter().map(|note| &*note.field).collect::<Vec<_>>(), remarks, "{config}");
    }
}

fn no_services() -> Arc<dyn crate::plugin::Services> {
    Arc::new(crate::plugin::services::NoServices)
}

fn built(config: &Value, state: &State, services: &Arc<dyn crate::plugin::Services>) -> Arc<Jwt> {
    let config = serde_json::from_value(config.clone()).unwrap();
    Arc::new(
        Jwt::build(
            config,
            &BuildCx { object: "KongPlugin/default/test", state, services, node: "test", notes: &Notes::default() },
        )
        .unwrap(),
    )
}

// kong-compat §4.16
#[test]
fn what_cannot_work_is_refused() {
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
        (json!({"uri_param_names": [], "header_names": []}), "config"),
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"secret": "s"}), "config.secret"),
        (json!({"jwks": [{"issuer": "i"}]}), "config.jwks[0]"),
        (issuer("issuer", "".into()), "config.jwks[0].issuer"),
        (issuer("uri", "i.example/keys".into()), "config.jwks[0].uri"),
        (issuer("uri", "ftp://i.example/keys".into()), "config.jwks[0].uri"),
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
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_header_panics(text in "[ -~]{0,60}", bytes in proptest::collection::vec(0x80_u8.., 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut visit = Visit::get("/?jwt=%ff%00").header("cookie", &text);
        let value = [b"Bearer ", text.as_bytes(), &bytes].concat();
        visit.request.headers_mut().insert("authorization", http::HeaderValue::from_bytes(&value).unwrap());
        static CHAIN: std::sync::OnceLock<Arc<crate::plugin::Chain>> = std::sync::OnceLock::new();
        let config = json!({"cookie_names": ["a"], "uri_param_names": []});
        let chain = CHAIN.get_or_init(|| chain(&[(&KIND, config)]));
        let outcome = runtime.block_on(visit.of(&consumers()).run(chain));
        proptest::prop_assert_eq!(outcome.replied(), Some(StatusCode::UNAUTHORIZED));
    }
}
