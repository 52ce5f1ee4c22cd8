//! Tests of ldap-auth and ldap-auth-advanced with a real directory, OpenLDAP's `slapd`: binds, searches, groups,
//! consumers, TLS, and restarts.

pub(crate) mod slapd;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portico::plugin_api::{ConsumerDirectory, PluginServices, PluginState};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{TestOutcome, TestRequest, chain_with, consumer};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::redis::server::Authority;
use crate::redis::services::TestServices;
use slapd::SlapdProcess;

/// The chain of a route with the plugin. Logins are not cached, so that each request asks the directory.
fn chain_of(port: u16, fields: &Value, services: &Arc<TestServices>) -> Arc<Chain> {
    let mut config = json!({
        "ldap_host": "ldap.directory", "ldap_port": port, "base_dn": "ou=users,dc=example,dc=com", "attribute": "uid",
        "cache_ttl": 0, "timeout": 60_000,
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
    chain_with(&[(REGISTRY.find("ldap-auth").unwrap(), config)], &PluginState::default(), &services)
}

fn services() -> Arc<TestServices> {
    TestServices::resolving("ldap.directory")
}

async fn log_in(chain: &Chain, login: &str) -> TestOutcome {
    let value = format!("ldap {}", STANDARD.encode(login));
    TestRequest::get("/").header("authorization", &value).run(chain).await
}

async fn status(chain: &Chain, login: &str) -> Option<u16> {
    log_in(chain, login).await.reply_status().map(|status| status.as_u16())
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn users_of_the_directory_log_in() {
    let server = SlapdProcess::start().await;
    let searching = json!({
        "bind_dn": "cn=portico,dc=example,dc=com", "ldap_password": "only-for-tests",
        "base_dn": "dc=example,dc=com",
    });
    for fields in [json!({}), searching] {
        let services = services();
        let chain = chain_of(server.port, &fields, &services);
        for (login, expected) in [
            ("anna:annas-password", None),
            ("anna:wrong", Some(401)),
            ("anna:", Some(401)),
            ("bert:annas-password", Some(401)),
            ("nobody:annas-password", Some(401)),
            ("*:annas-password", Some(401)),
            ("anna)(uid=*:annas-password", Some(401)),
            ("a,b+c:comma", None),
            ("anna:annas-password", None),
        ] {
            let outcome = log_in(&chain, login).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{fields} {login}");
            let username = login.split(':').next().filter(|_| expected.is_none());
            assert_eq!(outcome.upstream_identity(), (None, username, false), "{fields} {login}");
        }
        assert_eq!(services.diagnostic("KongPlugin/default/test"), None);
    }
}

#[tokio::test]
async fn groups_of_the_directory_are_required() {
    let server = SlapdProcess::start().await;
    let searching = |groups: Value| {
        json!({
            "bind_dn": "cn=portico,dc=example,dc=com", "ldap_password": "only-for-tests", "groups_required": groups,
        })
    };
    for (groups, anna, bert) in [
        (json!(["staff"]), None, Some(403)),
        (json!(["staff night"]), None, Some(403)),
        (json!(["admins", "day"]), Some(403), Some(403)),
    ] {
        for fields in [json!({"groups_required": groups}), searching(groups.clone())] {
            let chain = chain_of(server.port, &fields, &services());
            assert_eq!(status(&chain, "anna:annas-password").await, anna, "{fields}");
            assert_eq!(status(&chain, "bert:berts-password").await, bert, "{fields}");
            assert_eq!(status(&chain, "anna:wrong").await, Some(401), "{fields}");
        }
    }
}

// docs/kong-compatibility.md, 5.24
#[tokio::test]
async fn users_of_the_directory_are_consumers() {
    let server = SlapdProcess::start().await;
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("anna", &["vip"]));
    let kind = REGISTRY.find("ldap-auth-advanced").unwrap();
    let run = async |fields: Value, login: &str| {
        let mut config = json!({
            "ldap_host": "ldap.directory", "ldap_port": server.port, "base_dn": "dc=example,dc=com",
            "attribute": "uid", "bind_dn": "cn=portico,dc=example,dc=com", "ldap_password": "only-for-tests",
            "cache_ttl": 0, "timeout": 60_000, "header_type": "basic", "log_search_results": true,
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let services: Arc<dyn PluginServices> = services();
        let chain = chain_with(&[(kind, config)], &PluginState::default(), &services);
        let value = format!("Basic {}", STANDARD.encode(login));
        let request = TestRequest::get("/").header("authorization", &value).with_consumers(&consumers);
        let outcome = request.run(&chain).await;
        (outcome.reply_status().map(|status| status.as_u16()), outcome.upstream_identity().0.map(str::to_owned))
    };
    let (anna, bert) = ("anna:annas-password", "bert:berts-password");
    let user = |name: &str| (None, Some(name.to_owned()));
    let optional = |fields: Value| {
        let mut fields = fields;
        fields["consumer_optional"] = json!(true);
        fields
    };
    assert_eq!(run(json!({}), anna).await, user("anna"));
    assert_eq!(run(json!({}), bert).await, (Some(401), None), "bert is no consumer");
    assert_eq!(run(optional(json!({})), bert).await, (None, None));
    assert_eq!(run(optional(json!({})), anna).await, (None, None), "no consumer is looked for");
    assert_eq!(run(json!({}), "anna:wrong").await, (Some(401), None));
    for (fields, expected) in [
        (json!({"group_name_attribute": "cn", "groups_required": ["staff"]}), None),
        (json!({"group_name_attribute": "cn", "groups_required": ["admins", "staff night"]}), None),
        (json!({"group_name_attribute": "cn", "groups_required": ["staff admins"]}), Some(403)),
        // The default is the attribute of users, which the names of these groups do not begin with.
        (json!({"groups_required": ["staff"]}), Some(403)),
        (
            json!({"group_name_attribute": "cn", "group_base_dn": "ou=g,dc=example,dc=com", "groups_required": ["staff"]}),
            Some(403),
        ),
    ] {
        assert_eq!(run(fields.clone(), anna).await.0, expected, "{fields}");
        assert_eq!(run(optional(fields.clone()), bert).await.0, Some(403), "{fields}");
    }
}

#[tokio::test]
async fn tls_starts_at_once_or_on_the_connection() {
    let authority = Authority::new();
    let server = SlapdProcess::start_with_tls(&authority, "ldap.directory").await;
    let other = SlapdProcess::start_with_tls(&authority, "other.directory").await;
    let trusting = TestServices::trusting("ldap.directory", &authority);
    let cases = [
        (json!({"ldaps": true, "verify_ldap_host": true}), server.tls_port, &trusting, None),
        (json!({"start_tls": true, "verify_ldap_host": true}), server.port, &trusting, None),
        (json!({"ldaps": true, "verify_ldap_host": true}), other.tls_port, &trusting, Some(500)),
        (json!({"start_tls": true, "verify_ldap_host": true}), other.port, &trusting, Some(500)),
        (json!({"ldaps": true, "verify_ldap_host": true}), server.tls_port, &services(), Some(500)),
        (json!({"ldaps": true}), other.tls_port, &services(), None),
        (json!({"start_tls": true}), other.port, &services(), None),
        (json!({"ldaps": true}), server.port, &services(), Some(500)),
    ];
    for (fields, port, services, expected) in cases {
        let chain = chain_of(port, &fields, services);
        assert_eq!(status(&chain, "anna:annas-password").await, expected, "{fields} {port}");
        let diagnostic = services.diagnostic("KongPlugin/default/test");
        assert_eq!(diagnostic.is_some(), expected.is_some(), "{fields}: {diagnostic:?}");
    }
    let without_tls = SlapdProcess::start().await;
    let services = services();
    let chain = chain_of(without_tls.port, &json!({"start_tls": true}), &services);
    assert_eq!(status(&chain, "anna:annas-password").await, Some(500), "the server does not start TLS");
    let message = services.diagnostic("KongPlugin/default/test").unwrap().message.to_string();
    assert!(message.contains("does not start TLS"), "{message}");
}

/// Forwards connections to a directory, and sends more after the first response of the directory. Returns its port.
async fn injecting_proxy(port: u16, injected: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 1024];
                let length = client.read(&mut request).await?;
                server.write_all(&request[..length]).await?;
                let mut response = vec![0; 1024];
                let length = server.read(&mut response).await?;
                client.write_all(&[&response[..length], injected].concat()).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    own_port
}

/// RFC 4513, section 3.1.2: a client discards what it has received before TLS, which an attacker may have sent.
#[tokio::test]
async fn a_response_from_before_tls_does_not_count_within_tls() {
    /// The response to a bind that is the second request of a connection: success.
    const SUCCESS: &[u8] = b"0\x0c\x02\x01\x02a\x07\x0a\x01\x00\x04\x00\x04\x00";
    let authority = Authority::new();
    let server = SlapdProcess::start_with_tls(&authority, "ldap.directory").await;
    let trusting = TestServices::trusting("ldap.directory", &authority);
    let fields = json!({"start_tls": true, "verify_ldap_host": true});
    for (injected, login, expected) in [
        (&[][..], "anna:annas-password", None),
        (&[], "anna:wrong", Some(401)),
        (SUCCESS, "anna:wrong", Some(500)),
        (SUCCESS, "anna:annas-password", Some(500)),
    ] {
        let chain = chain_of(injecting_proxy(server.port, injected).await, &fields, &trusting);
        assert_eq!(status(&chain, login).await, expected, "{login} {injected:?}");
    }
}

#[tokio::test]
async fn logins_continue_after_a_restart_of_the_directory() {
    let mut server = SlapdProcess::start().await;
    let services = services();
    let chain = chain_of(server.port, &json!({}), &services);
    let wrong_searcher = json!({"bind_dn": "cn=portico,dc=example,dc=com", "ldap_password": "wrong"});
    let rejected = chain_of(server.port, &wrong_searcher, &services);
    assert_eq!(status(&rejected, "anna:annas-password").await, Some(500));
    let message = services.diagnostic("KongPlugin/default/test").unwrap().message.to_string();
    assert!(message.contains("it rejects config.bind_dn: invalidCredentials (49)"), "{message}");
    drop(rejected);
    assert_eq!(status(&chain, "anna:annas-password").await, None);
    server.restart().await;
    assert_eq!(status(&chain, "anna:annas-password").await, None, "the closed connection is replaced");
    server.end();
    assert_eq!(status(&chain, "anna:annas-password").await, Some(500));
    assert!(services.diagnostic("KongPlugin/default/test").is_some());
    server.restart().await;
    assert_eq!(status(&chain, "anna:annas-password").await, None);
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None);
}
