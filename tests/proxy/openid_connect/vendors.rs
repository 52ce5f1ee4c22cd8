//! Providers that differ from the specifications, or use their freedom: Microsoft Entra ID with documents of several
//! tenants and two versions of tokens, and Auth0 with a slash at the end of its issuer, access tokens that are not
//! signed, and a logout of its own. Claims and endpoints are those of the public documentation of both.

use serde_json::{Value, json};

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, SigningKey, base_claims, form, with};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// The names of a tenant in tokens of version 2.0 and 1.0.
fn names(provider: &Provider, tenant: &str) -> [String; 2] {
    [format!("{}/{tenant}/v2.0", provider.issuer), format!("{}/sts/{tenant}/", provider.issuer)]
}

/// The document for all tenants has a template as its issuer.
fn of_entra(provider: &Provider, id_token: Value) -> Behavior {
    Behavior {
        document: json!({
            "issuer": format!("{}/{{tenantid}}/v2.0", provider.issuer), "introspection_endpoint": null,
            "revocation_endpoint": null, "authorization_response_iss_parameter_supported": null,
        }),
        // Clients cannot verify the access tokens for Microsoft's own API.
        foreign_access_tokens: true,
        id_token_claims: with(
            json!({"sid": null, "groups": null, "ver": "2.0", "oid": "00000000-0000-0000-66f3-3332eca7ea81"}),
            &id_token,
        ),
        ..Behavior::default()
    }
}

async fn entra_site(provider: &Provider, fields: &Value) -> Site {
    let [v2, v1] = names(provider, TENANT);
    let config = json!({"issuer": format!("{}/common/v2.0", provider.issuer), "issuers_allowed": [v2, v1]});
    Site::start(provider, with(config, fields)).await
}

#[tokio::test]
async fn users_of_listed_tenants_of_entra_log_in() {
    let provider = Provider::start().await;
    let headers = json!({"upstream_headers_claims": ["tid", "roles"], "upstream_headers_names": ["x-tid", "x-roles"]});
    provider.set(of_entra(&provider, json!({})));
    let site = entra_site(&provider, &headers).await;
    for (tenant, status) in [(TENANT, 200), (OTHER_TENANT, 302)] {
        let [v2, _] = names(&provider, tenant);
        provider.set(of_entra(&provider, json!({"iss": v2, "tid": tenant, "roles": ["Orders.Read"]})));
        let mut browser = Browser::default();
        let location = site.begin_login(&mut browser, "/").await;
        let response = site.get(&mut browser, &provider.log_in(&location)).await;
        assert_eq!(response.status, if status == 200 { 302 } else { 401 }, "{tenant}");
        assert_eq!(site.get(&mut browser, "/").await.status, status, "{tenant}");
    }
    let request = site.last_request();
    assert_eq!(super::header(&request, "x-tid"), Some(TENANT));
    assert_eq!(super::header(&request, "x-roles"), Some(r#"["Orders.Read"]"#), "not those of the other token");
}

#[tokio::test]
async fn both_versions_of_tokens_of_entra_are_accepted() {
    let provider = Provider::start().await;
    provider.set(of_entra(&provider, json!({})));
    let fields = json!({
        "auth_methods": ["bearer"], "scopes_claim": ["scp"], "scopes_required": ["Orders.Read"],
        "audience_required": ["11112222-bbbb-3333-cccc-4444dddd5555", "api://shop"],
        "authenticated_groups_claim": ["groups"],
    });
    let site = entra_site(&provider, &fields).await;
    let applications =
        entra_site(&provider, &with(fields, &json!({"scopes_required": null, "roles_required": ["Orders.Read.All"]})))
            .await;
    let ([v2, v1], [other, _]) = (names(&provider, TENANT), names(&provider, OTHER_TENANT));
    let common =
        json!({"tid": TENANT, "oid": "a", "sub": "b", "nbf": 1, "uti": "c", "scp": "Orders.Read Orders.Write"});
    let version_2 = with(
        common.clone(),
        &json!({"iss": v2, "aud": "11112222-bbbb-3333-cccc-4444dddd5555", "azp": "app", "azpacr": "1", "ver": "2.0"}),
    );
    let version_1 =
        with(common, &json!({"iss": v1, "aud": "api://shop", "appid": "app", "appidacr": "1", "ver": "1.0"}));
    let of_application = json!({"scp": null, "idtyp": "app", "roles": ["Orders.Read.All"]});
    let overage = json!({
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.example/users/a/getMemberObjects"}},
    });
    for (name, site, claims, changes, status) in [
        ("version 2.0", &site, &version_2, json!({}), 200),
        ("version 1.0", &site, &version_1, json!({}), 200),
        ("another tenant", &site, &version_2, json!({"iss": other, "tid": OTHER_TENANT}), 401),
        (
            "the template itself",
            &site,
            &version_2,
            json!({"iss": format!("{}/{{tenantid}}/v2.0", provider.issuer)}),
            401,
        ),
        ("without the slash", &site, &version_1, json!({"iss": v1.trim_end_matches('/')}), 401),
        ("Microsoft's own API", &site, &version_1, json!({"aud": "00000003-0000-0000-c000-000000000000"}), 403),
        ("another scope", &site, &version_2, json!({"scp": "Orders.ReadBasic"}), 403),
        ("an application", &site, &version_2, of_application.clone(), 403),
        ("an application for applications", &applications, &version_2, of_application, 200),
        ("a user for applications", &applications, &version_2, json!({}), 403),
        ("groups", &site, &version_2, json!({"groups": ["a"]}), 200),
        ("too many groups", &site, &version_2, overage, 403),
        ("too many groups, in the implicit flow", &site, &version_2, json!({"hasgroups": "true"}), 403),
    ] {
        let claims = with(with(base_claims(""), claims), &changes);
        // Both versions also have `x5t`. Without `kid`, all keys are tried.
        for header in [json!({"alg": "ES256", "kid": "first", "x5t": "first"}), json!({"alg": "ES256", "typ": "JWT"})] {
            let token = provider.key.sign_with(&header, claims.to_string());
            let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
            assert_eq!(response.status, status, "{name} {header}: {}", response.text());
        }
    }
}

/// The set of all tenants also has keys that sign the tokens of one tenant only.
#[tokio::test]
async fn keys_of_entra_sign_only_tokens_of_their_issuer() {
    let provider = Provider::start().await;
    let consumers = SigningKey::generate("consumers");
    let ([v2, v1], [other, _]) = (names(&provider, TENANT), names(&provider, OTHER_TENANT));
    let of_all = format!("{}/{{tenantid}}/v2.0", provider.issuer);
    let common: &SigningKey = &provider.key;
    let keys = [(common, of_all), (&consumers, other.clone())];
    let keys = keys.map(|(key, issuer)| with(key.jwk(), &json!({"issuer": issuer})));
    let bodies = vec![("/keys", json!({"keys": keys}).to_string())];
    provider.set(Behavior { bodies, ..of_entra(&provider, json!({})) });
    let fields = json!({"auth_methods": ["bearer"], "issuers_allowed": [v2, v1, other]});
    let site = entra_site(&provider, &fields).await;
    for (name, key, issuer, tenant, status) in [
        ("a key of all tenants", common, &v2, json!(TENANT), 200),
        ("a key of all tenants, version 1.0", common, &v1, json!(TENANT), 200),
        ("a key of all tenants for the other one", common, &other, json!(OTHER_TENANT), 200),
        ("a key of all tenants, without a tenant", common, &v2, Value::Null, 401),
        ("a key of all tenants, with another tenant", common, &v2, json!(OTHER_TENANT), 401),
        ("the key of a tenant", &consumers, &other, json!(OTHER_TENANT), 200),
        ("the key of a tenant for another one", &consumers, &v2, json!(TENANT), 401),
        ("the key of a tenant for the issuer of another one", &consumers, &v2, json!(OTHER_TENANT), 401),
        ("the same, version 1.0", &consumers, &v1, json!(OTHER_TENANT), 401),
        ("what all issuers contain in place of a tenant", &consumers, &v2, json!("v2.0"), 401),
    ] {
        let claims = with(base_claims(issuer), &json!({"tid": tenant, "sub": "a"})).to_string();
        let id = key.jwk()["kid"].clone();
        for header in [json!({"alg": "ES256", "kid": id}), json!({"alg": "ES256"})] {
            let token = key.sign_with(&header, &claims);
            let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
            assert_eq!(response.status, status, "{name} {header}");
        }
    }
}

/// The issuer has a slash at its end, and there is neither introspection nor a standard logout.
fn of_auth0(provider: &Provider) -> Behavior {
    let issuer = format!("{}/", provider.issuer);
    let roles = json!({"iss": issuer, "https://shop.example/roles": ["editor"], "groups": null});
    Behavior {
        document: json!({"issuer": issuer, "introspection_endpoint": null, "end_session_endpoint": null}),
        id_token_claims: roles.clone(),
        access_token_claims: with(roles, &json!({"roles": null, "azp": CLIENT, "scope": "openid", "gty": "password"})),
        opaque_without_audience: true,
        ..Behavior::default()
    }
}

#[tokio::test]
async fn users_of_auth0_log_in_with_and_without_an_audience() {
    let provider = Provider::start().await;
    provider.set(of_auth0(&provider));
    let slash = format!("{}/", provider.issuer);
    let with_audience = json!({
        "authorization_query_args_names": ["audience"], "authorization_query_args_values": ["https://api.example"],
        "audience_required": ["https://api.example"],
    });
    for (fields, is_signed) in [
        (json!({}), false),
        (json!({"issuer": slash}), false),
        (with_audience.clone(), true),
        (with(with_audience, &json!({"issuer": slash})), true),
    ] {
        let roles = json!({"roles_claim": ["https://shop.example/roles"], "roles_required": ["editor"]});
        let site = Site::start(&provider, with(roles, &fields)).await;
        let mut browser = site.logged_in(&provider).await;
        assert_eq!(site.get(&mut browser, "/").await.status, 200, "{fields}");
        let request = site.last_request();
        let token = super::header(&request, "authorization").unwrap();
        assert_eq!(token.starts_with("Bearer ey"), is_signed, "{fields}: {token}");
    }
}

#[tokio::test]
async fn tokens_of_auth0_are_verified_with_keys_or_by_userinfo() {
    let provider = Provider::start().await;
    provider.set(of_auth0(&provider));
    let slash = format!("{}/", provider.issuer);
    let site = Site::start(&provider, json!({"audience_required": ["https://api.example"]})).await;
    let userinfo = format!("{}/user", provider.issuer);
    for (issuer, audience, status) in [
        (&slash, json!(["https://api.example", userinfo]), 200),
        (&slash, json!("https://api.example"), 200),
        (&slash, json!(userinfo), 403),
        (&provider.issuer, json!("https://api.example"), 401),
    ] {
        let token = provider.token(&json!({"iss": issuer, "aud": audience, "sub": "robot@clients", "azp": "robot"}));
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{issuer} {audience}: {}", response.text());
    }
    let opaque = Site::start(&provider, json!({})).await;
    for (token, status) in [("opaque", 200), ("unknown", 401)] {
        assert_eq!(opaque.send(&format!("authorization: Bearer {token}\r\n")).await.status, status, "{token}");
    }
    assert_eq!(provider.requests("/introspect").len(), 0);
}

/// The endpoint `/v2/logout` does not know `post_logout_redirect_uri`.
#[tokio::test]
async fn logouts_at_auth0_return_to_the_page_in_the_endpoint() {
    let provider = Provider::start().await;
    provider.set(of_auth0(&provider));
    let endpoint = format!("{}/v2/logout?returnTo=http%3A%2F%2Fshop.example%2Fbye", provider.issuer);
    let site = Site::start(&provider, json!({"end_session_endpoint": endpoint})).await;
    let mut browser = site.logged_in(&provider).await;
    let response = browser.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
    assert_eq!((response.status, browser.names().len()), (303, 0));
    let (location, query) = response.header("location").unwrap().split_once('?').unwrap();
    assert_eq!(location, format!("{}/v2/logout", provider.issuer));
    let query = form(query);
    assert_eq!((&*query["client_id"], &*query["returnTo"]), (CLIENT, "http://shop.example/bye"));
    assert!(!query.contains_key("post_logout_redirect_uri"), "{query:?}");
}
