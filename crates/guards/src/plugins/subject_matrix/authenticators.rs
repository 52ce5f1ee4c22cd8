//! All plugins that authenticate clients, each with requests of several subjects.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::super::REGISTRY;
use super::super::ldap_auth::tests::scripted::{ScriptedDirectory, result, user};
use crate::client_certificate::test_authority::{TestAuthority, at_day};
use crate::plugin_api::consumers::{
    BasicCredential, EntityId, HmacCredential, JwtCredential, KeyCredential, OAuthClient, StoredPassword, sha256,
};
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::token::signature::{Algorithm, HmacSecret, VerificationKey};
use crate::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginServices, PluginState, ReplyBody, Scheme};
use crate::plugin_chain::chain::Chain;
use crate::plugin_chain::testing::{TestRequest, chain_with, consumer, noon};
use crate::plugin_kit::form_body::{FORM_MEDIA_TYPE, form_body};

/// Adds to a request what a client authenticates with.
pub(super) type ClientLogin = Box<dyn Fn(TestRequest) -> TestRequest>;

/// A route whose clients one plugin authenticates, maybe with others.
pub(super) struct Authenticator {
    pub(super) plugins: Vec<(&'static str, Value)>,
    pub(super) services: Arc<dyn PluginServices>,
    pub(super) state: PluginState,
    /// Those of each subject, in all forms that it can choose.
    pub(super) subjects: Vec<Vec<ClientLogin>>,
    /// Those of clients that the plugin accepts without knowing whose they are.
    pub(super) unknown: Vec<ClientLogin>,
    /// Whether subjects are the users of one credential of a consumer, whose owner could name any user.
    pub(super) shares_counter: bool,
    /// Keeps what was issued to clients.
    issuer: Option<Arc<Chain>>,
}

impl Authenticator {
    /// The plugin that authenticates.
    pub(super) fn name(&self) -> &'static str {
        self.plugins[0].0
    }

    fn new(
        kind: &'static str,
        config: Value,
        services: Arc<dyn PluginServices>,
        subjects: Vec<Vec<ClientLogin>>,
    ) -> Self {
        let (state, unknown, plugins) = (PluginState::default(), Vec::new(), vec![(kind, config)]);
        Authenticator { plugins, services, state, subjects, unknown, shares_counter: false, issuer: None }
    }

    fn offline(kind: &'static str, config: Value, subjects: Vec<Vec<ClientLogin>>) -> Self {
        Authenticator::new(kind, config, Arc::new(OfflineServices), subjects)
    }

    /// A chain of these plugins and others.
    pub(super) fn chain(&self, others: &[(&'static str, Value)]) -> Arc<Chain> {
        let plugins: Vec<(&dyn AnyPluginKind, Value)> = self
            .plugins
            .iter()
            .chain(others)
            .map(|(kind, config)| (REGISTRY.find(kind).unwrap(), config.clone()))
            .collect();
        chain_with(&plugins, &self.state, &self.services)
    }
}

/// Each with at least two subjects.
pub(super) async fn all() -> Vec<Authenticator> {
    vec![
        basic_auth(),
        forward_auth(),
        header_cert_auth(),
        hmac_auth(),
        jwt_of_consumers(),
        jwt_of_an_issuer(),
        jwt_signer(),
        key_auth(),
        ldap_auth("ldap-auth"),
        ldap_auth("ldap-auth-advanced"),
        mtls_auth(),
        oauth2().await,
        oauth2_introspection(),
        openid_connect(),
        session().await,
    ]
}

/// Two consumers with credentials, and one of an application whose users are others.
pub(super) fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    let application = consumer("app", &[]);
    directory.add(&application);
    for name in ["alice", "bob"] {
        let consumer = consumer(name, &[]);
        directory.add(&consumer);
        let id = |kind: &str| EntityId::from_text(&format!("{kind}-{name}"));
        let key = KeyCredential::new(id("key"), name.as_bytes(), None, Arc::clone(&consumer));
        directory.keys.insert(Arc::new(key));
        let password = BasicCredential::new(id("password"), name, b"secret", Arc::clone(&consumer));
        directory.passwords.insert(Arc::new(password));
        directory.signers.insert(Arc::new(HmacCredential::new(id("hmac"), name, b"secret", consumer)));
    }
    let secret = VerificationKey::Secret(HmacSecret::new(Algorithm::Hs256, &b"secret"[..]).unwrap());
    let token = JwtCredential::new(EntityId::from_text("jwt"), "app", secret, Arc::clone(&application));
    directory.tokens.insert(Arc::new(token));
    directory.oauth_clients.insert(Arc::new(OAuthClient {
        id: EntityId::from_text("oauth"),
        client_id: "app".into(),
        secret: Some(StoredPassword::Digest(sha256(b"secret"))),
        redirect_uris: vec!["https://app.example/".into()].into(),
        consumer: application,
    }));
    directory
}

fn header(name: &'static str, value: impl Into<String>) -> ClientLogin {
    let value = value.into();
    Box::new(move |request| request.header(name, &value))
}

fn bearer(token: impl std::fmt::Display) -> ClientLogin {
    header("authorization", format!("Bearer {token}"))
}

fn basic_auth() -> Authenticator {
    let login = |name: &str| STANDARD.encode(format!("{name}:secret"));
    let of = |name: &str| {
        let header_names = ["authorization", "proxy-authorization"];
        header_names.map(|header_name| header(header_name, format!("Basic {}", login(name)))).into()
    };
    Authenticator::offline("basic-auth", json!({"hide_credentials": true}), vec![of("alice"), of("bob")])
}

fn key_auth() -> Authenticator {
    let config = json!({"key_names": ["api_key"], "hide_credentials": true});
    let of = |name: &str| vec![header("api_key", name), header("api-key", name)];
    Authenticator::offline("key-auth", config, vec![of("alice"), of("bob")])
}

fn hmac_auth() -> Authenticator {
    let of = |name: &'static str| {
        let signed = |algorithm: &'static str, of_algorithm| {
            let key = hmac::Key::new(of_algorithm, b"secret");
            let date = httpdate::fmt_http_date(noon());
            let signature = STANDARD.encode(hmac::sign(&key, format!("date: {date}").as_bytes()));
            let value = format!(
                "hmac username=\"{name}\", algorithm=\"{algorithm}\", headers=\"date\", signature=\"{signature}\""
            );
            let login: ClientLogin =
                Box::new(move |request| request.header("date", &date).header("authorization", &value));
            login
        };
        vec![signed("hmac-sha256", hmac::HMAC_SHA256), signed("hmac-sha512", hmac::HMAC_SHA512)]
    };
    let config = json!({"hide_credentials": true});
    Authenticator::offline("hmac-auth", config, vec![of("alice"), of("bob")])
}

/// The users of one credential, whose tokens are in a cookie.
fn jwt_of_consumers() -> Authenticator {
    let signer = Signer::secret(b"secret");
    let of = |name: &str| {
        let token = |time| {
            let claims = json!({"iss": "app", "sub": name, "iat": time});
            header("cookie", format!("tok={}", signer.token(Algorithm::Hs256, &json!({}), &claims)))
        };
        [1, 2].map(token).into()
    };
    let config = json!({"cookie_names": ["tok"]});
    let authenticator = Authenticator::offline("jwt", config, vec![of("alice"), of("bob")]);
    Authenticator { shares_counter: true, ..authenticator }
}

/// A server with the keys of an issuer, and one that introspects its tokens: opaque ones name their members.
struct Issuer {
    signer: Signer,
    server: Arc<ScriptedServer>,
}

impl Issuer {
    fn new() -> Issuer {
        let signer = Signer::for_algorithm(Algorithm::Es256);
        let keys = json!({"keys": [signer.jwk(Some("k"))]}).to_string();
        let server = ScriptedServer::new(move |request| {
            let body = match request.target.path() {
                "/keys" => keys.clone(),
                "/introspect" => {
                    let form = UrlEncodedForm(&request.body);
                    let FieldValue::Single(token) = form.find(b"token") else { panic!("no token") };
                    let mut members = json!({"active": true});
                    for member in std::str::from_utf8(&token).unwrap().split('.') {
                        let (name, value) = member.split_once('-').unwrap();
                        members[name] = value.into();
                    }
                    members.to_string()
                }
                _ => json!({
                    "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"),
                    "introspection_endpoint": format!("{ISSUER}/introspect"),
                })
                .to_string(),
            };
            Ok(response(200, "", &body))
        });
        Issuer { signer, server }
    }

    /// A token that was issued at this time.
    fn token(&self, subject: Option<&str>, time: u64) -> String {
        let mut claims = json!({"iss": ISSUER, "iat": time, "jti": time.to_string(), "exp": 4_000_000_000_u64});
        if let Some(subject) = subject {
            claims["sub"] = subject.into();
        }
        self.signer.token(Algorithm::Es256, &json!({"kid": "k"}), &claims)
    }

    fn logins(&self, subject: Option<&str>) -> Vec<ClientLogin> {
        [1, 2].map(|time| bearer(self.token(subject, time))).into()
    }

    fn authenticator(&self, kind: &'static str, config: Value) -> Authenticator {
        let subjects = vec![self.logins(Some("alice")), self.logins(Some("bob"))];
        let authenticator = Authenticator::new(kind, config, self.server.services(), subjects);
        Authenticator { unknown: self.logins(None), ..authenticator }
    }
}

const ISSUER: &str = "https://issuer.example";

fn jwt_of_an_issuer() -> Authenticator {
    let issuer = json!({"issuer": ISSUER, "uri": format!("{ISSUER}/keys"), "consumer": "app"});
    Issuer::new().authenticator("jwt", json!({"jwks": [issuer]}))
}

fn jwt_signer() -> Authenticator {
    let config = json!({
        "access_token_jwks_uri": format!("{ISSUER}/keys"), "access_token_upstream_header": "X-Token",
        "access_token_signing_keys": [Signer::for_algorithm(Algorithm::Es256).private_pem()],
    });
    Issuer::new().authenticator("jwt-signer", config)
}

fn opaque(members: &[&str]) -> Vec<ClientLogin> {
    members.iter().map(bearer).collect()
}

fn oauth2_introspection() -> Authenticator {
    let config = json!({"introspection_url": format!("{ISSUER}/introspect"), "authorization_value": "Basic c2VjcmV0"});
    let subjects = vec![
        opaque(&["sub-1.jti-1", "sub-1.jti-2.username-alice", "sub-1.client_id-app"]),
        opaque(&["sub-2.username-bob"]),
        opaque(&["username-alice.jti-1", "username-alice.jti-2"]),
    ];
    let authenticator = Authenticator::new("oauth2-introspection", config, Issuer::new().server.services(), subjects);
    Authenticator { unknown: opaque(&["jti-1", "scope-read"]), ..authenticator }
}

/// Tokens of one user, with different scopes that the endpoint gets in a header.
pub(super) fn with_scopes() -> Authenticator {
    Authenticator { subjects: vec![opaque(&["sub-1.scope-read", "sub-1.scope-write"])], ..oauth2_introspection() }
}

fn openid_connect() -> Authenticator {
    let config = json!({
        "issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["introspection"],
        "consumer_claim": ["tenant"], "upstream_access_token_header": "",
    });
    let subjects = vec![
        opaque(&["sub-1.tenant-app.jti-1", "sub-1.tenant-app.jti-2"]),
        opaque(&["sub-2.tenant-app.jti-1", "sub-2.tenant-app.jti-2"]),
    ];
    let authenticator = Authenticator::new("openid-connect", config, Issuer::new().server.services(), subjects);
    Authenticator { unknown: opaque(&["tenant-app.jti-1", "tenant-app.jti-2"]), ..authenticator }
}

fn ldap_auth(kind: &'static str) -> Authenticator {
    let directory = ScriptedDirectory::responding(|_, request| match request.starts_with("search") {
        true => {
            let name = if request.to_lowercase().contains("alice") { "alice" } else { "bob" };
            vec![user(&format!("UID={name}, ou=Users,dc=x"), &[name]), result(0)]
        }
        false => vec![result(0)],
    });
    let mut config = json!({
        "ldap_host": "ldap.example", "base_dn": "ou=users,dc=x", "attribute": "uid", "hide_credentials": true,
    });
    if kind == "ldap-auth-advanced" {
        config["bind_dn"] = "cn=portico,dc=x".into();
        config["ldap_password"] = "pw".into();
    }
    let of = |spellings: &[&str]| -> Vec<ClientLogin> {
        let login = |name: &&str| header("authorization", format!("ldap {}", STANDARD.encode(format!("{name}:pw"))));
        spellings.iter().map(login).collect()
    };
    let subjects = vec![of(&["alice", " alice", "ALICE  ", "\u{a0}Alice"]), of(&["bob", "BOB "])];
    let services: Arc<dyn PluginServices> = directory;
    Authenticator::new(kind, config, services, subjects)
}

/// Clients with certificates, alone and with others that they send with their own.
fn certificates(authority: &TestAuthority) -> Vec<Vec<Vec<CertificateDer<'static>>>> {
    let unrelated = TestAuthority::new("other").issue_for("unrelated");
    let of = |name: &str| {
        let own = authority.issue_for(name);
        vec![vec![own.clone()], vec![own, unrelated.clone()]]
    };
    // Two clients may have the same name.
    vec![of("alice"), of("bob"), of("alice")]
}

fn mtls_auth() -> Authenticator {
    let authority = TestAuthority::new("ca");
    let login = |chain: Vec<CertificateDer<'static>>| -> ClientLogin {
        Box::new(move |request| TestRequest {
            certificates: Some(chain.clone()),
            scheme: Scheme::Https,
            now: at_day(5),
            ..request
        })
    };
    let subjects = certificates(&authority).into_iter().map(|chains| chains.into_iter().map(login).collect());
    let config = json!({"ca_certificates": [authority.pem()], "default_consumer": "app"});
    Authenticator::offline("mtls-auth", config, subjects.collect())
}

fn header_cert_auth() -> Authenticator {
    let authority = TestAuthority::new("ca");
    let login = |chain: Vec<CertificateDer<'static>>| -> ClientLogin {
        let block = |der: &CertificateDer<'_>| {
            let text = STANDARD.encode(der.as_ref());
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let pem: String = chain.iter().map(block).collect();
        let value = percent_encoding::percent_encode(pem.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
        Box::new(move |request| TestRequest {
            is_peer_trusted: true,
            now: at_day(5),
            ..request.header("x-client-cert", &value)
        })
    };
    let subjects = certificates(&authority).into_iter().map(|chains| chains.into_iter().map(login).collect());
    let config = json!({
        "certificate_header_name": "X-Client-Cert", "certificate_header_format": "url_encoded",
        "ca_certificates": [authority.pem()], "skip_consumer_lookup": true,
    });
    Authenticator::offline("header-cert-auth", config, subjects.collect())
}

/// The users of one application, each with two tokens.
async fn oauth2() -> Authenticator {
    let config = json!({
        "enable_password_grant": true, "provision_key": "provision", "hide_credentials": true,
        "accept_http_if_already_terminated": true,
    });
    let mut authenticator = Authenticator::offline("oauth2", config, Vec::new());
    let chain = authenticator.chain(&[]);
    for user in ["alice", "bob"] {
        let mut logins = Vec::new();
        for _ in 0..2 {
            let fields = [
                ("grant_type", "password"),
                ("client_id", "app"),
                ("client_secret", "secret"),
                ("provision_key", "provision"),
                ("authenticated_userid", user),
            ];
            let request = TestRequest::post("/oauth2/token", FORM_MEDIA_TYPE, form_body(fields));
            let request = TestRequest { scheme: Scheme::Https, ..request };
            let reply = request.with_consumers(&consumers()).run(&chain).await.reply.unwrap();
            let ReplyBody::Raw(body) = reply.body else { panic!("{:?}", reply.body) };
            let tokens: Value = serde_json::from_slice(&body).unwrap();
            logins.push(bearer(tokens["access_token"].as_str().unwrap_or_else(|| panic!("{tokens}"))));
        }
        authenticator.subjects.push(logins);
    }
    authenticator.issuer = Some(chain);
    authenticator
}

/// A session is one more form of the subject that has begun it. It comes first, because the response to one that begins
/// sets a cookie, so it is not stored.
async fn session() -> Authenticator {
    let config = json!({"secret": "0123456789abcdef0123456789abcdef"});
    let mut authenticator = Authenticator::offline("session", config, Vec::new());
    authenticator.plugins.push(("key-auth", json!({"anonymous": "app", "hide_credentials": true})));
    let chain = authenticator.chain(&[]);
    for name in ["alice", "bob"] {
        let request = TestRequest::get("/").header("apikey", name).with_consumers(&consumers());
        let outcome = request.run(&chain).await;
        let cookie = outcome.response_header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        authenticator.subjects.push(vec![header("cookie", cookie), header("apikey", name)]);
    }
    authenticator
}

fn forward_auth() -> Authenticator {
    let server = ScriptedServer::new(|request| {
        let user = request.headers.get("cookie").unwrap().to_str().unwrap().split('-').next().unwrap();
        let field = if user == "unnamed" { String::new() } else { format!("x-user: {user}") };
        Ok(response(200, &field, ""))
    });
    let config = json!({"address": "http://auth.example/", "user_header": "X-User"});
    let of = |name: &str| ["1", "2"].map(|session| header("cookie", format!("{name}-{session}")));
    let subjects = ["alice", "carol", "dave"].map(|name| of(name).into()).into();
    let authenticator = Authenticator::new("forward-auth", config, server.services(), subjects);
    Authenticator { unknown: of("unnamed").into(), ..authenticator }
}
