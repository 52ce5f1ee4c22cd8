//! Tests of several issuers in one plugin, and of tokens that are bound to keys of clients.

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::published::chain_of;
use super::*;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_chain::Chain;
use crate::token_binding::bound_to;

const A: &str = "https://a.example";
const B: &str = "https://b.example";

/// A plugin with the issuers [`A`] and [`B`].
struct TwoIssuers {
    /// What each of them publishes.
    keys: Arc<Mutex<[Vec<Value>; 2]>>,
    server: Arc<ScriptedServer>,
    chain: Arc<Chain>,
    _state: PluginState,
}

impl TwoIssuers {
    /// `extra`: further fields of both entries in `jwks`.
    fn new(keys: [Vec<Value>; 2], extra: &Value) -> Self {
        let keys = Arc::new(Mutex::new(keys));
        let published = Arc::clone(&keys);
        let server = ScriptedServer::new(move |request| {
            let index = usize::from(request.target.path() == "/b");
            Ok(response(200, "", &json!({"keys": published.lock()[index]}).to_string()))
        });
        let jwks = [(A, "a"), (B, "b")].map(|(issuer, path)| {
            let mut entry = json!({"issuer": issuer, "uri": format!("https://keys.example/{path}")});
            entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            entry
        });
        let state = PluginState::default();
        let jwt = build_jwt(&json!({"jwks": jwks}), &state, &server.services());
        TwoIssuers { keys, server, chain: chain_of(&jwt), _state: state }
    }

    async fn send(&self, token: &str, certificate: Option<&CertificateDer<'static>>) -> TestOutcome {
        let mut request = request_with_token(token).with_consumers(&consumers());
        request.certificates = certificate.map(|certificate| vec![certificate.clone()]);
        request.run(&self.chain).await
    }

    fn fetches(&self, path: &str) -> usize {
        self.server.requests.lock().iter().filter(|request| request.target.path() == path).count()
    }
}

fn token(signer: &Signer, kid: Option<&str>, claims: &Value) -> String {
    let header = kid.map_or(json!({}), |kid| json!({"kid": kid}));
    let mut all = json!({"sub": "anna"});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    signer.token(Algorithm::Es256, &header, &all)
}

fn signer() -> Signer {
    Signer::for_algorithm(Algorithm::Es256)
}

/// Both use the same key id, and `b` has another one that `a` does not have.
#[tokio::test(start_paused = true)]
async fn no_issuer_signs_tokens_of_another() {
    let (a, b, only_b) = (signer(), signer(), signer());
    let keys = [vec![a.jwk(Some("k"))], vec![b.jwk(Some("k")), only_b.jwk(Some("only-b"))]];
    let test = TwoIssuers::new(keys, &json!({}));
    let (of_a, of_b) = (json!({"iss": A}), json!({"iss": B}));
    for (name, text, expected) in [
        ("A", token(&a, Some("k"), &of_a), Ok(A)),
        ("A without a key id", token(&a, None, &of_a), Ok(A)),
        ("B", token(&b, Some("k"), &of_b), Ok(B)),
        ("B with its other key", token(&only_b, Some("only-b"), &of_b), Ok(B)),
        ("A with the key of B", token(&b, Some("k"), &of_a), Err("Invalid signature")),
        ("B with the key of A", token(&a, Some("k"), &of_b), Err("Invalid signature")),
        ("A with the key of B, without a key id", token(&b, None, &of_a), Err("Invalid signature")),
        ("A with a key id of B", token(&only_b, Some("only-b"), &of_a), Err("Invalid key/secret")),
        ("A with a key id of B and the own key", token(&a, Some("only-b"), &of_a), Err("Invalid key/secret")),
        ("no issuer", token(&a, Some("k"), &json!({})), Err("No mandatory 'iss' in claims")),
        ("two issuers", token(&a, Some("k"), &json!({"iss": [A, B]})), Err("Invalid 'iss' in claims")),
        (
            "almost A",
            token(&a, Some("k"), &json!({"iss": format!("{A}/")})),
            Err("No credentials found for given 'iss'"),
        ),
    ] {
        // The second time, the result may come from the cache.
        for _ in 0..2 {
            let outcome = test.send(&text, None).await;
            match expected {
                Ok(issuer) => {
                    assert_eq!(outcome.message(), None, "{name}");
                    let credential = outcome.state.identity.credential().map(ToString::to_string);
                    assert_eq!(credential, Some(format!("{issuer}#anna")), "{name}");
                }
                Err(message) => assert_rejected(name, &outcome, message),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn issuers_replace_their_keys_independently() {
    let (a, b, new) = (signer(), signer(), signer());
    let test = TwoIssuers::new([vec![a.jwk(Some("k"))], vec![b.jwk(Some("k"))]], &json!({}));
    let [old_of_a, of_b] = [(&a, A), (&b, B)].map(|(key, issuer)| token(key, Some("k"), &json!({"iss": issuer})));
    for text in [&old_of_a, &of_b] {
        assert_eq!(test.send(text, None).await.message(), None);
    }
    test.keys.lock()[0] = vec![new.jwk(Some("new"))];
    let new_of_a = token(&new, Some("new"), &json!({"iss": A}));
    assert_eq!(test.send(&new_of_a, None).await.message(), None);
    assert_rejected("the former key", &test.send(&old_of_a, None).await, "Invalid key/secret");
    let new_for_b = token(&new, Some("new"), &json!({"iss": B}));
    assert_eq!((test.send(&of_b, None).await.message(), test.fetches("/b")), (None, 1));
    assert_rejected("the new key, for B", &test.send(&new_for_b, None).await, "Invalid key/secret");
    assert_eq!(test.send(&of_b, None).await.message(), None);
}

// RFC 8705, section 3
// RFC 9449, section 7.2
#[tokio::test(start_paused = true)]
async fn bound_tokens_need_the_key_of_the_client() {
    let (own, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
    let a = signer();
    let keys = || [vec![a.jwk(None)], vec![]];
    let test = TwoIssuers::new(keys(), &json!({}));
    let lenient = TwoIssuers::new(keys(), &json!({"verify_token_binding": false}));
    let another = Some("Token is bound to a certificate that the client has not used");
    let not_asked = Some("Token is bound to a certificate, and this connection was not asked for one");
    let unsupported = Some("Token is bound to a key, which cannot be checked");
    for (cnf, certificate, expected) in [
        (Value::Null, None, None),
        (bound_to(&own), Some(&own), None),
        // Verified before, for another connection.
        (bound_to(&own), Some(&other), another),
        (bound_to(&own), None, not_asked),
        (json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}), Some(&own), unsupported),
    ] {
        let text = token(&a, None, &json!({"iss": A, "cnf": cnf}));
        for _ in 0..2 {
            let outcome = test.send(&text, certificate).await;
            match expected {
                None => assert_eq!(outcome.message(), None, "{cnf}"),
                Some(message) => assert_rejected(&cnf.to_string(), &outcome, message),
            }
        }
        assert_eq!(lenient.send(&text, certificate).await.message(), None, "{cnf}");
    }
}
