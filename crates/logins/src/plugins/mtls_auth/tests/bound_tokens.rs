//! Tests of tokens that are bound to certificates, on connections that were not asked for one.

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::super::MtlsAuth;
use crate::client_certificate::test_authority::TestAuthority;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginState, RegisteredKind, Scheme};
use crate::plugin_chain::testing::{TestRequest, chain_with, consumer};
use crate::plugins::jwt::Jwt;
use crate::plugins::jwt_signer::JwtSigner;
use crate::plugins::oauth2_introspection::OAuth2Introspection;
use crate::plugins::openid_connect::OpenIdConnect;
use crate::token_binding::bound_to;

const CERTIFICATES: RegisteredKind<MtlsAuth> = RegisteredKind::NEW;
const ISSUER: &str = "https://login.example";
/// A second after the time of the requests, in seconds since 1970.
const LATER: u64 = 1_767_355_201;

// RFC 9110, section 15.5.20
#[tokio::test(start_paused = true)]
async fn clients_that_were_not_asked_for_the_certificate_of_their_token_open_another_connection() {
    let own = CertificateDer::from(vec![1]);
    let signer = Signer::for_algorithm(Algorithm::Es256);
    let (keys, bound) = (json!({"keys": [signer.jwk(None)]}), bound_to(&own));
    let server = ScriptedServer::new(move |request| {
        let body = match request.target.path() {
            "/keys" => keys.clone(),
            "/introspect" => json!({"active": true, "username": "anna", "cnf": bound}),
            _ => json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")}),
        };
        Ok(response(200, "", &body.to_string()))
    });
    let claims = json!({"iss": ISSUER, "sub": "anna", "exp": LATER, "cnf": bound_to(&own)});
    let token = format!("Bearer {}", signer.token(Algorithm::Es256, &json!({}), &claims));
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("guest", &[]));
    let url = |path: &str| format!("{ISSUER}/{path}");
    let openid = json!({"issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["bearer"]});
    let jwt = json!({"jwks": [{"issuer": ISSUER, "uri": url("keys"), "allow_without_consumer": true}]});
    let introspection = json!({"introspection_url": url("introspect"), "authorization_value": "Basic YTpi"});
    let signing_key = Signer::for_algorithm(Algorithm::Es256).private_pem();
    let jwt_signer = json!({"access_token_jwks_uri": url("keys"), "access_token_signing_keys": [signing_key]});
    let plugins: [(&dyn AnyPluginKind, Value, bool); 4] = [
        (&RegisteredKind::<OpenIdConnect>::NEW, openid, true),
        (&RegisteredKind::<Jwt>::NEW, jwt, true),
        (&RegisteredKind::<OAuth2Introspection>::NEW, introspection, true),
        (&RegisteredKind::<JwtSigner>::NEW, jwt_signer, false),
    ];
    let asking = json!({"ca_certificates": [TestAuthority::new("ca").pem()], "anonymous": "guest"});
    let used = vec![own];
    for (kind, config, has_anonymous) in plugins {
        let mut with_anonymous = config.clone();
        with_anonymous["anonymous"] = json!("guest");
        for (name, config, is_asking, scheme, is_peer_trusted, certificates, expected) in [
            ("not asked", &config, true, Scheme::Https, false, None, Some(421)),
            ("without a certificate", &config, true, Scheme::Https, false, Some(vec![]), Some(401)),
            ("own", &config, true, Scheme::Https, false, Some(used.clone()), None),
            ("of a proxy", &config, true, Scheme::Https, true, None, Some(401)),
            ("without TLS", &config, true, Scheme::Http, false, None, Some(401)),
            ("no plugin asks", &config, false, Scheme::Https, false, None, Some(401)),
            ("not asked, anonymous", &with_anonymous, true, Scheme::Https, false, None, Some(421)),
        ] {
            if !has_anonymous && config.get("anonymous").is_some() {
                continue;
            }
            let mut plugins: Vec<(&dyn AnyPluginKind, Value)> = vec![(kind, config.clone())];
            if is_asking {
                plugins.push((&CERTIFICATES, asking.clone()));
            }
            let chain = chain_with(&plugins, &PluginState::default(), &server.services());
            let mut request = TestRequest::get("/").header("authorization", &token).with_consumers(&consumers);
            (request.scheme, request.is_peer_trusted, request.certificates) = (scheme, is_peer_trusted, certificates);
            let outcome = request.run(&chain).await;
            let status = outcome.reply_status().map(|status| status.as_u16());
            assert_eq!(status, expected, "{} {name}", kind.name());
        }
    }
}
