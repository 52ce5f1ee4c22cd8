//! Tests of grants, of requests for resources, and of what both refuse.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::{EntityId, StoredPassword, sha256};
use crate::plugin_api::password::PasswordHash;
use crate::plugin_api::{RegisteredKind, ReplyBody, Scheme};
use crate::plugin_chain::chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, chain, consumer, noon, notes};
use crate::plugin_kit::form_body::{FORM_MEDIA_TYPE, form_body};

mod places;

const KIND: RegisteredKind<OAuth2> = RegisteredKind::NEW;
const CALLBACK: &str = "https://app.example/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn all_grants() -> Value {
    json!({
        "enable_authorization_code": true, "enable_implicit_grant": true, "enable_client_credentials": true,
        "enable_password_grant": true, "provision_key": "provision", "scopes": ["read", "write"],
    })
}

fn with(changes: Value) -> Value {
    let (mut config, Value::Object(changes)) = (all_grants(), changes) else { panic!("an object") };
    config.as_object_mut().unwrap().extend(changes);
    config
}

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let (anna, guest) = (consumer("anna", &[]), consumer("guest", &[]));
    directory.add(&anna);
    directory.add(&guest);
    // The hash of `secret` by crypt(3).
    let hash = PasswordHash::parse("$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW").unwrap();
    for (client_id, secret, uris) in [
        ("app", Some(StoredPassword::Digest(sha256(b"secret"))), &[CALLBACK, "https://app.example/two?a=b"][..]),
        ("other", Some(StoredPassword::Digest(sha256(b"secret"))), &[CALLBACK]),
        ("hashed", Some(StoredPassword::Hash(Arc::new(hash))), &[]),
        ("public", None, &[CALLBACK]),
    ] {
        let redirect_uris = uris.iter().map(|uri| Box::from(*uri)).collect();
        let (id, consumer) = (EntityId::from_text(&format!("id-{client_id}")), Arc::clone(&anna));
        let client = OAuthClient { id, client_id: client_id.into(), secret, redirect_uris, consumer };
        directory.oauth_clients.insert(Arc::new(client));
    }
    directory
}

/// What a request for a code or a token gets.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("{name} of {}", self.body))
    }

    fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["error_description"].as_str().unwrap_or_default())
    }

    /// A field of the redirect URI.
    fn redirect_field(&self, name: &str) -> Option<String> {
        let uri = self.text("redirect_uri");
        let fields = &uri[uri.find(['?', '#'])? + 1..];
        match UrlEncodedForm(fields.as_bytes()).find(name.as_bytes()) {
            FieldValue::Single(value) => Some(String::from_utf8(value.into_owned()).unwrap()),
            _ => None,
        }
    }
}

fn post(path: &str, fields: &[(&str, &str)]) -> TestRequest {
    let request = TestRequest::post(path, FORM_MEDIA_TYPE, form_body(fields.iter().copied()));
    TestRequest { scheme: Scheme::Https, ..request }
}

async fn ask(chain: &Chain, request: TestRequest) -> Answer {
    let outcome = request.with_consumers(&consumers()).run(chain).await;
    let reply = outcome.reply.unwrap();
    let ReplyBody::Raw(body) = reply.body else { panic!("{:?}", reply.body) };
    assert_eq!(reply.headers["cache-control"], "no-store");
    Answer { status: reply.status, body: serde_json::from_slice(&body).unwrap() }
}

async fn token(chain: &Chain, fields: &[(&str, &str)]) -> Answer {
    let client = [("client_id", "app"), ("client_secret", "secret")];
    let has_client = fields.iter().any(|(name, _)| *name == "client_id");
    let fields: Vec<_> = client.into_iter().filter(|_| !has_client).chain(fields.iter().copied()).collect();
    ask(chain, post("/api/oauth2/token", &fields)).await
}

async fn authorize(chain: &Chain, fields: &[(&str, &str)]) -> Answer {
    let mut all = vec![("client_id", "app"), ("provision_key", "provision"), ("authenticated_userid", "user-1")];
    all.retain(|(name, _)| !fields.iter().any(|(other, _)| name == other));
    all.extend(fields.iter().filter(|(_, value)| !value.is_empty()));
    ask(chain, post("/api/oauth2/authorize", &all)).await
}

async fn code(chain: &Chain, fields: &[(&str, &str)]) -> String {
    let fields = [&[("response_type", "code"), ("scope", "read write")][..], fields].concat();
    let answer = authorize(chain, &fields).await;
    answer.redirect_field("code").unwrap_or_else(|| panic!("{}", answer.body))
}

async fn get(chain: &Chain, token: &str) -> TestOutcome {
    let request = TestRequest::get("/api/cart").header("authorization", &format!("Bearer {token}"));
    request.with_consumers(&consumers()).run(chain).await
}

async fn is_accepted(chain: &Chain, token: &str) -> bool {
    get(chain, token).await.reply.is_none()
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()))
}

#[tokio::test]
async fn codes_become_tokens_which_identify_client_and_user() {
    let chain = chain(&[(&KIND, all_grants())]);
    let answer = authorize(&chain, &[("response_type", "code"), ("scope", "write"), ("state", "a&b\r\nc")]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text("redirect_uri").starts_with("https://app.example/callback?code=c"), "{}", answer.body);
    assert!(!answer.text("redirect_uri").contains(['\r', '\n']));
    assert_eq!(answer.redirect_field("state").as_deref(), Some("a&b\r\nc"));
    let code = answer.redirect_field("code").unwrap();
    let answer = token(&chain, &[("grant_type", "authorization_code"), ("code", &code), ("state", "s")]).await;
    assert_eq!((answer.status.as_u16(), answer.text("token_type"), answer.text("state")), (200, "bearer", "s"));
    assert_eq!(answer.body["expires_in"], 7200);
    let outcome = get(&chain, answer.text("access_token")).await;
    assert!(outcome.reply.is_none());
    assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("app"), false));
    assert_eq!(outcome.upstream_header("x-authenticated-scope"), Some("write"));
    assert_eq!(outcome.upstream_header("x-authenticated-userid"), Some("user-1"));
    // Neither a code nor a refresh token is an access token.
    assert!(!is_accepted(&chain, answer.text("refresh_token")).await && !is_accepted(&chain, &code).await);
}

#[tokio::test]
async fn a_second_use_of_a_code_ends_its_tokens() {
    let chain = chain(&[(&KIND, all_grants())]);
    let code = code(&chain, &[]).await;
    let fields = [("grant_type", "authorization_code"), ("code", &*code)];
    let tokens = token(&chain, &fields).await;
    assert!(is_accepted(&chain, tokens.text("access_token")).await);
    assert_eq!(token(&chain, &fields).await.error(), (400, "Invalid code"));
    assert!(!is_accepted(&chain, tokens.text("access_token")).await);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", tokens.text("refresh_token"))];
    assert_eq!(token(&chain, &refresh).await.error(), (400, "Invalid refresh_token"));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_second_use_ends_all_tokens() {
    let chain = chain(&[(&KIND, all_grants())]);
    let password = [
        ("grant_type", "password"),
        ("provision_key", "provision"),
        ("authenticated_userid", "user-1"),
        ("scope", "read"),
    ];
    let first = token(&chain, &password).await;
    let first_refresh = [("grant_type", "refresh_token"), ("refresh_token", first.text("refresh_token"))];
    let escalated = [&first_refresh[..], &[("scope", "read write")]].concat();
    assert_eq!(token(&chain, &escalated).await.error(), (400, "Scope mismatch"));
    let by_other = [&first_refresh[..], &[("client_id", "other"), ("client_secret", "secret")]].concat();
    assert_eq!(token(&chain, &by_other).await.error(), (400, "Invalid client authentication"));
    let second = token(&chain, &first_refresh).await;
    assert!(!is_accepted(&chain, first.text("access_token")).await);
    assert!(is_accepted(&chain, second.text("access_token")).await);
    // An access token in place of a refresh token ends nothing.
    let wrong_kind = [("grant_type", "refresh_token"), ("refresh_token", second.text("access_token"))];
    assert_eq!(token(&chain, &wrong_kind).await.error(), (400, "Invalid refresh_token"));
    assert!(is_accepted(&chain, second.text("access_token")).await);
    assert_eq!(token(&chain, &first_refresh).await.error(), (400, "Invalid refresh_token"));
    assert!(!is_accepted(&chain, second.text("access_token")).await);
}

#[tokio::test]
async fn reused_refresh_tokens_stay_valid() {
    let chain = chain(&[(&KIND, with(json!({"reuse_refresh_token": true})))]);
    let code = code(&chain, &[]).await;
    let first = token(&chain, &[("grant_type", "authorization_code"), ("code", &code)]).await;
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", first.text("refresh_token")), ("scope", "read")];
    let (second, third) = (token(&chain, &refresh).await, token(&chain, &refresh).await);
    assert_eq!(second.text("refresh_token"), first.text("refresh_token"));
    assert!(!is_accepted(&chain, second.text("access_token")).await);
    let outcome = get(&chain, third.text("access_token")).await;
    assert_eq!(outcome.upstream_header("x-authenticated-scope"), Some("read"));
}

#[tokio::test]
async fn times_of_codes_and_tokens() {
    let chain = chain(&[(&KIND, with(json!({"token_expiration": 60, "refresh_token_ttl": 600})))]);
    let at = |seconds| noon() + Duration::from_secs(seconds);
    for (seconds, expected) in [(299, 200), (300, 400)] {
        let code = code(&chain, &[]).await;
        let fields =
            [("grant_type", "authorization_code"), ("code", &*code), ("client_id", "app"), ("client_secret", "secret")];
        let request = TestRequest { now: at(seconds), ..post("/oauth2/token/", &fields) };
        assert_eq!(ask(&chain, request).await.status.as_u16(), expected, "{seconds}");
    }
    let tokens = token(&chain, &[("grant_type", "authorization_code"), ("code", &code(&chain, &[]).await)]).await;
    for (seconds, expected) in [(59, true), (60, false)] {
        let request = TestRequest::get(&format!("/?access_token={}", tokens.text("access_token")));
        let request = TestRequest { now: at(seconds), ..request };
        let outcome = request.with_consumers(&consumers()).run(&chain).await;
        assert_eq!(outcome.reply.is_none(), expected, "{seconds}");
    }
    for (seconds, expected) in [(600, 400), (599, 200)] {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.text("refresh_token")),
            ("client_id", "app"),
            ("client_secret", "secret"),
        ];
        let request = TestRequest { now: at(seconds), ..post("/oauth2/token", &fields) };
        assert_eq!(ask(&chain, request).await.status.as_u16(), expected, "{seconds}");
    }
    let forever = chain_of(with(json!({"token_expiration": 0})));
    let tokens = token(&forever, &[("grant_type", "authorization_code"), ("code", &code(&forever, &[]).await)]).await;
    assert_eq!((tokens.body.get("expires_in"), tokens.body.get("refresh_token")), (None, None));
    let later = TestRequest { now: at(1 << 32), ..TestRequest::get("/") };
    let later = later.header("authorization", &format!("token {}", tokens.text("access_token")));
    assert!(later.with_consumers(&consumers()).run(&forever).await.reply.is_none());
}

fn chain_of(config: Value) -> Arc<Chain> {
    chain(&[(&KIND, config)])
}

/// Parameters, the header `Authorization`, the expected status and the description of the error.
type AuthenticationCase = (&'static [(&'static str, &'static str)], Option<String>, u16, &'static str);

#[tokio::test]
async fn clients_authenticate_by_secret() {
    let chain = chain(&[(&KIND, all_grants())]);
    let grant = ("grant_type", "client_credentials");
    let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
    let cases: [AuthenticationCase; 13] = [
        (&[("client_id", "app"), ("client_secret", "secret")], None, 200, ""),
        (&[("client_id", "app"), ("client_secret", "Secret")], None, 400, "Invalid client authentication"),
        (&[("client_id", "app")], None, 400, "Invalid client authentication"),
        (&[("client_id", "none"), ("client_secret", "secret")], None, 400, "Invalid client authentication"),
        (&[], None, 400, "Invalid client authentication"),
        (&[], Some(basic("app:secret")), 200, ""),
        (&[("client_id", "app")], Some(basic("app:secret")), 200, ""),
        (&[("client_id", "other")], Some(basic("app:secret")), 401, "Invalid client authentication"),
        (&[], Some(basic("app:wrong")), 401, "Invalid client authentication"),
        (&[], Some("Basic !".to_owned()), 401, "Invalid client authentication"),
        (
            &[("client_id", "app"), ("client_secret", "secret")],
            Some(basic("app:secret")),
            400,
            "The client must authenticate in one way only",
        ),
        (&[("client_id", "hashed"), ("client_secret", "secret")], None, 200, ""),
        (&[("client_id", "hashed"), ("client_secret", "wrong")], None, 400, "Invalid client authentication"),
    ];
    for (fields, header, status, description) in cases {
        let mut request = post("/oauth2/token", &[&[grant], fields].concat());
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let answer = ask(&chain, request).await;
        assert_eq!(answer.error(), (status, description), "{fields:?} {header:?}");
        if status == 200 {
            assert!(answer.body.get("refresh_token").is_none(), "{}", answer.body);
            assert!(is_accepted(&chain, answer.text("access_token")).await);
        }
    }
    let public = [grant, ("client_id", "public")];
    assert_eq!(token(&chain, &public).await.error(), (400, "The grant requires a confidential client"));
    let with_secret = [grant, ("client_id", "public"), ("client_secret", "a")];
    assert_eq!(token(&chain, &with_secret).await.error(), (400, "client_secret is disallowed for public clients"));
    let for_user = [grant, ("authenticated_userid", "user-1")];
    assert_eq!(token(&chain, &for_user).await.error(), (400, "Invalid provision_key"));
}

#[tokio::test]
async fn pkce_binds_codes_to_the_client_that_requested_them() {
    let (strict, none) = (with(json!({"pkce": "strict"})), with(json!({"pkce": "none"})));
    for (config, client, expected) in [
        (all_grants(), "public", Some("code_challenge is required for public clients")),
        (all_grants(), "app", None),
        (strict, "app", Some("code_challenge is required for confidential clients")),
        (none, "public", None),
    ] {
        let answer = authorize(&chain_of(config), &[("response_type", "code"), ("client_id", client)]).await;
        assert_eq!(answer.redirect_field("error_description").as_deref(), expected, "{client}");
    }
    let chain = chain_of(all_grants());
    for (fields, expected) in [
        ([("code_challenge", ""), ("code_challenge_method", "S256")], "code_challenge is required when code_method is"),
        ([("code_challenge", VERIFIER), ("code_challenge_method", "plain")], "code_challenge_method is not supported"),
        ([("code_challenge", "abc"), ("code_challenge_method", "S256")], "code_challenge is not a SHA-256 digest"),
    ] {
        let answer = authorize(&chain, &[&[("response_type", "code")][..], &fields].concat()).await;
        let description = answer.redirect_field("error_description").unwrap();
        assert!(answer.status == 400 && description.starts_with(expected), "{description}");
    }
    let short = &VERIFIER[..42];
    let wrong = VERIFIER.replace('d', "e");
    let code = code(&chain, &[("client_id", "public"), ("code_challenge", &challenge())]).await;
    for (verifier, expected) in [
        ("", (400, "code_verifier is required for PKCE authorization requests")),
        (short, (400, "code_verifier must be between 43 and 128 characters")),
        (&*wrong, (400, "Invalid code")),
        (VERIFIER, (200, "")),
    ] {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", "public"),
            ("code", &*code),
            ("code_verifier", verifier),
        ];
        assert_eq!(token(&chain, &fields).await.error(), expected, "{verifier}");
    }
}

// RFC 9700, section 2.1.1
#[tokio::test]
async fn codes_without_a_challenge_are_not_for_clients_that_use_pkce() {
    for config in [all_grants(), with(json!({"pkce": "none"}))] {
        let chain = chain_of(config);
        let code = code(&chain, &[]).await;
        let exchange = [("grant_type", "authorization_code"), ("code", &*code)];
        let with_verifier = [&exchange[..], &[("code_verifier", VERIFIER)]].concat();
        assert_eq!(token(&chain, &with_verifier).await.error(), (400, "Invalid code"));
        assert_eq!(token(&chain, &exchange).await.error(), (200, ""));
    }
}

#[tokio::test]
async fn codes_are_bound_to_client_and_redirect_uri() {
    let chain = chain_of(all_grants());
    let second = ("redirect_uri", "https://app.example/two?a=b");
    let code = code(&chain, &[second]).await;
    let exchange = [("grant_type", "authorization_code"), ("code", &*code)];
    let by_other = [&exchange[..], &[("client_id", "other"), ("client_secret", "secret")]].concat();
    assert_eq!(token(&chain, &by_other).await.error(), (400, "Invalid code"));
    let mismatch = (400, "Invalid redirect_uri that does not match with any redirect_uri created with the application");
    assert_eq!(token(&chain, &exchange).await.error(), mismatch);
    for uri in [CALLBACK, "https://app.example/two", "https://evil.example/"] {
        assert_eq!(token(&chain, &[&exchange[..], &[("redirect_uri", uri)]].concat()).await.error(), mismatch, "{uri}");
    }
    assert_eq!(token(&chain, &[&exchange[..], &[second]].concat()).await.status, 200);
}

#[tokio::test]
async fn no_error_is_sent_to_an_unknown_uri() {
    let chain = chain_of(all_grants());
    for uri in ["https://evil.example/", "https://app.example/callback/", "https://app.example/callback?a", "//evil"] {
        let answer = authorize(&chain, &[("response_type", "code"), ("redirect_uri", uri), ("state", "s")]).await;
        assert_eq!(answer.status, 400);
        let redirect = answer.text("redirect_uri");
        assert!(redirect.starts_with("https://app.example/callback?error=invalid_request&"), "{uri} {redirect}");
        assert_eq!(answer.redirect_field("state").as_deref(), Some("s"));
    }
    let answer = authorize(&chain, &[("response_type", "code"), ("client_id", "none")]).await;
    assert_eq!(answer.body, json!({"error": "invalid_client", "error_description": "Invalid client authentication"}));
}

#[tokio::test]
async fn only_the_login_application_names_users() {
    let chain = chain_of(all_grants());
    let long = "a".repeat(257);
    for (fields, expected) in [
        (&[("provision_key", "wrong")][..], "Invalid provision_key"),
        (&[("provision_key", "")], "Invalid provision_key"),
        (&[("authenticated_userid", "")], "Missing authenticated_userid parameter"),
        (&[("authenticated_userid", " ")], "Missing authenticated_userid parameter"),
        (&[("authenticated_userid", "a\r\nx-admin: 1")], "Invalid authenticated_userid parameter"),
        (&[("authenticated_userid", &long)], "Invalid authenticated_userid parameter"),
    ] {
        let answer = authorize(&chain, &[&[("response_type", "code")][..], fields].concat()).await;
        assert_eq!(answer.error(), (400, expected));
        let mut password =
            vec![("grant_type", "password"), ("provision_key", "provision"), ("authenticated_userid", "user-1")];
        password.retain(|(name, _)| !fields.iter().any(|(other, _)| name == other));
        password.extend(fields.iter());
        assert_eq!(token(&chain, &password).await.error(), (400, expected), "{fields:?}");
    }
}

/// Requests that are valid but for the key, so that nothing else refuses them.
#[tokio::test]
async fn codes_and_tokens_of_users_need_the_provision_key() {
    let chain = chain_of(all_grants());
    for key in [None, Some(""), Some("wrong"), Some("provision "), Some("Provision"), Some("provisio")] {
        let requests = [
            ("authorize", ("response_type", "code")),
            ("authorize", ("response_type", "token")),
            ("token", ("grant_type", "password")),
            ("token", ("grant_type", "client_credentials")),
        ];
        let key: Vec<(&str, &str)> = key.map(|key| ("provision_key", key)).into_iter().collect();
        for (endpoint, kind) in requests {
            let send = async |key: &[(&str, &str)]| {
                let client = [("client_id", "app"), ("client_secret", "secret"), ("authenticated_userid", "user-1")];
                ask(&chain, post(&format!("/oauth2/{endpoint}"), &[&client[..], &[kind], key].concat())).await
            };
            let refused = send(&key).await;
            assert_eq!(refused.error(), (400, "Invalid provision_key"), "{kind:?} {key:?}");
            for name in ["access_token", "refresh_token", "redirect_uri"] {
                assert_eq!(refused.body.get(name), None, "{kind:?} {key:?}");
            }
            assert_eq!(send(&[("provision_key", "provision")]).await.status, 200, "{kind:?}");
        }
    }
    // Without a key in the configuration, no key is the right one, and neither is none.
    let keyless = chain_of(json!({"enable_client_credentials": true}));
    for key in ["", "provision"] {
        let fields = [("grant_type", "client_credentials"), ("authenticated_userid", "user-1"), ("provision_key", key)];
        assert_eq!(token(&keyless, &fields).await.error(), (400, "Invalid provision_key"), "{key:?}");
        let fields = [("response_type", "code"), ("provision_key", key)];
        assert_eq!(authorize(&keyless, &fields).await.error(), (400, "Invalid provision_key"), "{key:?}");
    }
}

#[tokio::test]
async fn scopes_are_those_of_the_plugin() {
    let mandatory = chain_of(with(json!({"mandatory_scope": true})));
    let credentials = ("grant_type", "client_credentials");
    for (scope, expected) in [
        ("", (400, "You must specify a scope")),
        (" ", (400, "You must specify a scope")),
        ("read admin\"", (400, "\"admin\"\" is an invalid scope")),
        ("write read write", (200, "")),
    ] {
        assert_eq!(token(&mandatory, &[credentials, ("scope", scope)]).await.error(), expected, "{scope}");
    }
    let disabled = chain_of(json!({"enable_client_credentials": true}));
    for grant in ["password", "implicit", "urn:a", ""] {
        assert_eq!(token(&disabled, &[("grant_type", grant)]).await.error(), (400, "Invalid grant_type"), "{grant}");
    }
    let implicit = authorize(&mandatory, &[("response_type", "token"), ("scope", "read"), ("state", "s")]).await;
    let redirect = implicit.text("redirect_uri");
    assert!(redirect.starts_with("https://app.example/callback#access_token=a"), "{redirect}");
    assert!(redirect.ends_with("&expires_in=7200&state=s&token_type=bearer"), "ordered by name: {redirect}");
    assert!(is_accepted(&mandatory, &implicit.redirect_field("access_token").unwrap()).await);
    assert_eq!(implicit.redirect_field("refresh_token"), None);
}

#[tokio::test]
async fn tokens_need_https() {
    let config = |accepts: bool| with(json!({"accept_http_if_already_terminated": accepts}));
    let fields = [("grant_type", "client_credentials"), ("client_id", "app"), ("client_secret", "secret")];
    for (accepts, scheme, is_peer_trusted, expected) in [
        (false, Scheme::Http, false, "You must use HTTPS"),
        (false, Scheme::Https, true, "You must use HTTPS"),
        (true, Scheme::Http, true, "You must use HTTPS"),
        (true, Scheme::Http, false, "You must use HTTPS"),
        (true, Scheme::Https, true, ""),
        (false, Scheme::Https, false, ""),
    ] {
        let request = TestRequest { scheme, is_peer_trusted, ..post("/oauth2/token", &fields) };
        let answer = ask(&chain_of(config(accepts)), request).await;
        assert_eq!(answer.error().1, expected, "{accepts} {scheme} {is_peer_trusted}");
    }
}

#[tokio::test]
async fn resources_need_one_token() {
    let chain = chain_of(with(json!({"hide_credentials": true})));
    let token = token(&chain, &[("grant_type", "client_credentials"), ("scope", "read")]).await;
    let token = token.text("access_token");
    let form = |body: String| TestRequest::post("/cart?x=1", FORM_MEDIA_TYPE, body);
    let accepted = [
        TestRequest::get(&format!("/cart?x=1&access_token={token}")),
        TestRequest::get("/cart?x=1").header("authorization", &format!("bearer  {token}")),
        form(format!("x=1&access_token={token}")),
    ];
    for request in accepted {
        let request = request.header("x-authenticated-userid", "forged").header("x_authenticated_scope", "forged");
        let outcome = request.with_consumers(&consumers()).run(&chain).await;
        assert!(outcome.reply.is_none());
        assert_eq!(outcome.request.uri.query(), Some("x=1"));
        assert!(!outcome.request.headers.contains_key("authorization"));
        assert!(!outcome.request.headers.contains_key("x-authenticated-userid"));
        assert!(!outcome.request.headers.contains_key("x_authenticated_scope"));
    }
    let (missing, invalid) = ("The access token is missing", "The access token is invalid or has expired");
    let bearer = |value: &str| TestRequest::get("/").header("authorization", value);
    let rejected = [
        (TestRequest::get("/"), missing),
        (TestRequest::get("/?access_token="), missing),
        (bearer("Bearer"), missing),
        (bearer("Basic YTpi"), invalid),
        (bearer(&format!("Bearer {token}a")), invalid),
        (bearer(&format!("Bearer {token}")).header("authorization", "Bearer a"), invalid),
        (TestRequest::get(&format!("/?access_token={token}&access_token={token}")), invalid),
        (form(format!("access_token={token}&access_token=a")), invalid),
        (TestRequest::get("/?access_token=a").header("authorization", &format!("Bearer {token}")), invalid),
        (TestRequest::post("/?access_token=a", FORM_MEDIA_TYPE, format!("access_token={token}")), invalid),
    ];
    for (request, expected) in rejected {
        let outcome = request.with_consumers(&consumers()).run(&chain).await;
        let reply = outcome.reply.unwrap();
        let ReplyBody::Raw(body) = &reply.body else { panic!("{:?}", reply.body) };
        assert!(std::str::from_utf8(body).unwrap().contains(expected), "{body:?}");
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert!(reply.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    // The client of the token is gone.
    let outcome = bearer(&format!("Bearer {token}")).run(&chain).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn no_token_in_several_fields_is_forwarded() {
    for (is_hidden, expected) in [(true, None), (false, Some("Basic x"))] {
        let chain = chain_of(with(json!({"hide_credentials": is_hidden, "anonymous": "guest"})));
        let request = TestRequest::get("/").header("authorization", "Basic x").header("authorization", "Bearer a");
        let outcome = request.with_consumers(&consumers()).run(&chain).await;
        assert_eq!(outcome.upstream_identity().0, Some("guest"));
        assert_eq!(outcome.upstream_header("authorization"), expected);
    }
}

#[tokio::test]
async fn anonymous_requests_are_forwarded_without_a_token() {
    let chain = chain_of(with(json!({"anonymous": "guest"})));
    let outcome = TestRequest::get("/").with_consumers(&consumers()).run(&chain).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
    let answer = TestRequest::get("/oauth2/token").with_consumers(&consumers()).run(&chain).await;
    assert_eq!(answer.reply_status(), Some(StatusCode::METHOD_NOT_ALLOWED));
}

#[tokio::test]
async fn endpoints_need_the_method_post() {
    let chain = chain_of(with(json!({"realm": "shop"})));
    for (path, endpoint) in [("/oauth2/token", "token"), ("/a/oauth2/authorize/", "authorization")] {
        for method in ["GET", "PUT", "OPTIONS"] {
            let mut request = TestRequest::get(path);
            *request.request.method_mut() = method.parse().unwrap();
            let reply = request.run(&chain).await.reply.unwrap();
            assert_eq!((reply.status.as_u16(), &reply.headers["allow"]), (405, &"POST".parse().unwrap()));
            let ReplyBody::Raw(body) = &reply.body else { panic!("{:?}", reply.body) };
            let body: Value = serde_json::from_slice(body).unwrap();
            let description = format!("The HTTP method {method} is invalid for the {endpoint} endpoint");
            assert_eq!(body, json!({"error": "invalid_method", "error_description": description}));
            let challenge =
                format!(r#"Bearer realm="shop", error="invalid_method", error_description="{description}""#);
            assert_eq!(reply.headers["www-authenticate"], *challenge);
        }
    }
    assert!(TestRequest::get("/oauth2/tokens").run(&chain).await.reply_status() == Some(StatusCode::UNAUTHORIZED));
}

#[test]
fn tokens_in_memory_are_noted() {
    assert_eq!(notes(&KIND, &all_grants())[0].field, "config.redis");
}
