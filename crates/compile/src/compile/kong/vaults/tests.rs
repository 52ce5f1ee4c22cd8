//! Tests of references to vaults: where their values come from, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::compile::testing::TestInputs;
use crate::plugin_api::PluginRegistry;
use crate::plugin_api::vault::{AppRoleSecret, GoogleAccount, VaultApi, VaultLogin, VaultResponses, VaultToken};
use crate::store::{AnyObject, Batch, UnparseableObject};

/// The result of resolving `reference`, with these vaults by name, and their conditions.
struct Resolved {
    value: Result<String, String>,
    /// The messages of the conditions, by the name of the vault.
    conditions: Vec<(String, String)>,
    queries: usize,
}

fn vault(name: &str, created: &str, spec: Value) -> Value {
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}, "spec": spec})
}

fn resolve_with(
    vaults: &[Value],
    reference: &str,
    responses: impl Fn(&VaultQuery) -> Option<VaultResponse>,
) -> Resolved {
    let mut store = Store::default();
    let secret = json!({
        "metadata": {"namespace": "secrets", "name": "listed"},
        "stringData": {"text": "from the Secret", "token": "s.token", "encoded": "aGVsbG8="},
    });
    let vaults = vaults.iter().map(|vault| AnyObject::parse(Kind::KongVault, vault.clone()).unwrap());
    let upserts = vaults.chain([AnyObject::parse(Kind::Secret, secret).unwrap()]).collect();
    store.apply(Batch { upserts, removes: vec![] });
    let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
    let values = VaultValues::of(&inputs.plugin_factory.state);
    let variables = [
        ("PORTICO_VAULT_REDIS_PASSWORD", "of redis"),
        ("PORTICO_VAULT_OBJECT", r#"{"user": "anna", "port": 5, "list": []}"#),
        ("SHOP_KEY", "of the shop"),
        ("HOME", "/root"),
    ];
    values.set_environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let compile_inputs = inputs.as_inputs();
    let cx = CompileContext::new(&store, &compile_inputs);
    let reference = VaultReference::parse(reference).unwrap();
    let (_, query) = resolve(cx, &reference);
    let received: VaultResponses =
        query.iter().filter_map(|query| Some((Arc::clone(query), responses(query)?))).collect();
    values.set_responses(received);
    let (value, query) = resolve(cx, &reference);
    let conditions = store.kong_vaults.keys().map(|key| {
        let verdict = verdict(cx, key).unwrap();
        (key.name.to_string(), verdict.conditions.iter().map(Condition::message).collect::<Vec<_>>().join("; "))
    });
    Resolved {
        value: match value {
            ResolvedValue::Known(text) => Ok(text),
            ResolvedValue::Missing(message, _) => Err(message),
            ResolvedValue::Unknown => Err("unknown".to_owned()),
        },
        conditions: conditions.collect(),
        queries: query.iter().count(),
    }
}

fn resolved(vaults: &[Value], reference: &str) -> Result<String, String> {
    resolve_with(vaults, reference, |_| None).value
}

// docs/kong-compatibility.md, 1.9
#[test]
fn values_come_from_the_backend_of_the_prefix() {
    let shop = vault(
        "shop",
        "2026-01-01T00:00:00Z",
        json!({"backend": "env", "prefix": "shop", "config": {"prefix": "shop_"}}),
    );
    let config = json!({"namespace": "secrets", "secrets": ["listed"]});
    let cluster =
        vault("cluster", "2026-01-01T00:00:00Z", json!({"backend": "kubernetes", "prefix": "k", "config": config}));
    let config = json!({"namespace": "secrets", "secrets": ["listed"], "base64_decode": true});
    let encoded =
        vault("encoded", "2026-01-01T00:00:00Z", json!({"backend": "kubernetes", "prefix": "b", "config": config}));
    let vaults = [shop, cluster, encoded];
    for (reference, expected) in [
        ("{vault://env/redis-password}", Ok("of redis")),
        ("{vault://env/object/user}", Ok("anna")),
        ("{vault://env/object/port}", Ok("5")),
        ("{vault://shop/key}", Ok("of the shop")),
        ("{vault://k/listed/text}", Ok("from the Secret")),
        ("{vault://b/listed/encoded}", Ok("hello")),
        ("{vault://b/listed/text}", Err("base64")),
        ("{vault://env/home}", Err("variable PORTICO_VAULT_HOME is not set")),
        ("{vault://env/object/list}", Err("not a JSON object with text at the key list")),
        ("{vault://env/redis-password/x}", Err("not a JSON object")),
        ("{vault://env/redis-password#1}", Err("no numbered versions")),
        ("{vault://k/other/text}", Err("does not list Secret other")),
        ("{vault://k/listed/none}", Err("has no key none")),
        ("{vault://k/listed}", Err("no key of the Secret")),
        ("{vault://none/a}", Err("no KongVault has the prefix \"none\"")),
    ] {
        match (resolved(&vaults, reference), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{reference}"),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{reference}: {message}"),
            (value, _) => panic!("{reference}: {value:?}"),
        }
    }
}

#[test]
fn rejected_vaults_are_mentioned() {
    let rejected = UnparseableObject::read(Kind::KongVault, &json!({"metadata": {"name": "v"}, "spec": 5})).unwrap();
    let mut store = Store::default();
    store.apply(Batch { upserts: vec![AnyObject::Unparseable(rejected.into())], removes: vec![] });
    let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
    let compile_inputs = inputs.as_inputs();
    let cx = CompileContext::new(&store, &compile_inputs);
    let (value, _) = resolve(cx, &VaultReference::parse("{vault://p/key}").unwrap());
    let ResolvedValue::Missing(message, remedy) = value else { panic!("{value:?}") };
    assert_eq!(message, "no KongVault has the prefix \"p\", and KongVault v was rejected");
    assert_eq!(remedy, "fix the error reported for it, or correct the prefix");
}

#[test]
fn oldest_vault_of_a_prefix_is_used() {
    let spec = |prefix: &str| json!({"backend": "env", "prefix": "p", "config": {"prefix": prefix}});
    let vaults = [
        vault("a-younger", "2026-02-01T00:00:00Z", spec("PORTICO_VAULT_REDIS_")),
        vault("b-older", "2026-01-01T00:00:00Z", spec("SHOP_")),
    ];
    let resolved = resolve_with(&vaults, "{vault://p/key}", |_| None);
    assert_eq!(resolved.value, Ok("of the shop".to_owned()));
    let [(_, younger), (_, older)] = &resolved.conditions[..] else { panic!("{:?}", resolved.conditions) };
    assert!(younger.contains("KongVault b-older is older and has the same prefix"), "{younger}");
    assert!(!older.contains("prefix"), "{older}");
}

#[test]
fn server_gets_requests_with_the_token_of_a_secret() {
    let token = json!({"secretKeyRef": {"namespace": "secrets", "name": "listed", "key": "token"}});
    let config = json!({"host": "vault.vault.svc", "kv": "v2", "token": token, "ttl": 30});
    let vaults = [vault("v", "2026-01-01T00:00:00Z", json!({"backend": "hcv", "prefix": "v", "config": config}))];
    let pending = resolve_with(&vaults, "{vault://v/a/b/key#2}", |query| {
        let VaultApi::Hashicorp(server) = &query.server.api else { panic!("{query:?}") };
        assert_eq!((&*query.path, query.version, server.port), ("a/b", Some(2), 8200));
        assert_eq!(server.login, VaultLogin::Token(VaultToken::new("s.token")));
        None
    });
    assert!(pending.value.unwrap_err().contains("not read yet"));
    assert_eq!(pending.queries, 1);
    let found =
        |_: &VaultQuery| Some(VaultResponse::Found(Arc::new([("key".to_owned(), "of the server".to_owned())].into())));
    assert_eq!(resolve_with(&vaults, "{vault://v/a/b/key#2}", found).value, Ok("of the server".to_owned()));
    let other = resolve_with(&vaults, "{vault://v/a/b/other}", found);
    assert_eq!((other.value, other.queries), (Err("secret a/b has no key other".to_owned()), 1));
}

#[test]
fn server_gets_requests_after_a_login_with_an_approle() {
    let secret = json!({"secretKeyRef": {"namespace": "secrets", "name": "listed", "key": "token"}});
    let config = json!({"auth_method": "approle", "approle_role_id": "role", "approle_auth_path": "team/approle"});
    for (name, value, expected) in [
        ("approle_secret_id", secret, AppRoleSecret::Text(VaultToken::new("s.token"))),
        (
            "approle_secret_id_file",
            json!("/var/run/secrets/vault/id"),
            AppRoleSecret::File("/var/run/secrets/vault/id".into()),
        ),
    ] {
        let mut config = config.clone();
        config[name] = value;
        let spec = json!({"backend": "hcv", "prefix": "v", "config": config});
        let pending = resolve_with(&[vault("v", "2026-01-01T00:00:00Z", spec)], "{vault://v/a/key}", |query| {
            let VaultApi::Hashicorp(server) = &query.server.api else { panic!("{query:?}") };
            let (id, auth_path) = (VaultToken::new("role"), "team/approle".to_owned());
            assert_eq!(server.login, VaultLogin::AppRole { id, secret: expected.clone(), auth_path });
            None
        });
        assert_eq!(pending.queries, 1);
    }
}

#[test]
fn secrets_of_clouds_have_keys_or_are_texts() {
    let config = json!({"region": "eu-west-1", "assume_role_arn": "arn:aws:iam::1:role/a", "ttl": 60});
    let aws = vault("a", "2026-01-01T00:00:00Z", json!({"backend": "aws", "prefix": "a", "config": config}));
    let config = json!({"project_id": "shop"});
    let google = vault("g", "2026-01-01T00:00:00Z", json!({"backend": "gcp", "prefix": "g", "config": config}));
    let vaults = [aws, google];
    let found = |query: &VaultQuery| {
        match &query.server.api {
            VaultApi::AwsSecretsManager(server) => {
                let role = Some(("arn:aws:iam::1:role/a".to_owned(), "KongVault".to_owned()));
                assert_eq!((&*server.region, &server.role), ("eu-west-1", &role));
            }
            VaultApi::GoogleSecretManager(server) => assert_eq!(server.account, GoogleAccount::Machine),
            VaultApi::Hashicorp(_) => panic!("{query:?}"),
        }
        let keys = [("", "whole"), ("k", "of the key")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(VaultResponse::Found(Arc::new(keys.into())))
    };
    for (reference, expected) in [
        ("{vault://a/db}", Ok("whole")),
        ("{vault://a/prod/db/k}", Ok("of the key")),
        ("{vault://g/db/k#2}", Ok("of the key")),
        ("{vault://g/db/x}", Err("secret db has no key x")),
        ("{vault://a/db/k#2}", Err("secrets of this vault have no numbered versions")),
    ] {
        let value = resolve_with(&vaults, reference, found).value;
        assert_eq!(value, expected.map(str::to_owned).map_err(str::to_owned), "{reference}");
    }
}

#[test]
fn invalid_settings_are_refused_without_their_values() {
    for (backend, config, expected) in [
        ("env", json!({}), "spec.config.prefix"),
        ("env", json!({"prefix": ""}), "every variable would be readable"),
        ("env", json!({"prefix": "A_", "token": "hidden"}), "unknown field `token`"),
        ("kubernetes", json!({"namespace": "a", "secrets": []}), "spec.config.secrets"),
        ("kubernetes", json!({"secrets": ["a"]}), "missing field `namespace`"),
        ("hcv", json!({}), "spec.config.token"),
        ("hcv", json!({"token": "hidden\nvalue"}), "spec.config.token"),
        ("hcv", json!({"token": "hidden", "port": "hidden"}), "spec.config.port"),
        ("hcv", json!({"token": "hidden", "protocol": "hidden"}), "neither http nor https"),
        ("hcv", json!({"token": "hidden", "mount": "../sys"}), "spec.config.mount"),
        ("hcv", json!({"token": "hidden", "host": "a/hidden"}), "spec.config.host"),
        ("hcv", json!({"token": "hidden", "ttl": -1}), "spec.config.ttl"),
        ("hcv", json!({"auth_method": "jwt"}), "use token, kubernetes or approle"),
        ("hcv", json!({"auth_method": "approle"}), "spec.config.approle_role_id"),
        ("hcv", json!({"auth_method": "approle", "approle_role_id": "hidden"}), "spec.config.approle_secret_id"),
        (
            "hcv",
            json!({"auth_method": "approle", "approle_role_id": "a", "approle_secret_id_file": "/etc/passwd"}),
            "spec.config.approle_secret_id_file",
        ),
        (
            "hcv",
            json!({"auth_method": "approle", "approle_response_wrapping": true}),
            "unknown field `approle_response_wrapping`",
        ),
        ("hcv", json!({"auth_method": "kubernetes"}), "spec.config.kube_role"),
        (
            "hcv",
            json!({"auth_method": "kubernetes", "kube_role": "a", "kube_api_token_file": "/run/secrets/../environ"}),
            "spec.config.kube_api_token_file",
        ),
        ("hcv", json!({"token": {"secretKeyRef": {"name": "listed", "key": "token"}}}), "no namespace"),
        ("azure", json!({}), "the backend azure is not supported"),
        ("aws", json!({}), "spec.config.region"),
        ("aws", json!({"region": "a.hidden"}), "spec.config.region"),
        ("aws", json!({"region": "eu-west-1", "endpoint_url": "http://hidden"}), "spec.config.endpoint_url"),
        ("aws", json!({"region": "eu-west-1", "access_key": "hidden"}), "unknown field `access_key`"),
        ("gcp", json!({}), "spec.config.project_id"),
        ("gcp", json!({"project_id": "a/hidden"}), "spec.config.project_id"),
        ("gcp", json!({"project_id": "a", "service_account": "hidden"}), "not the JSON of a key"),
    ] {
        let vaults = [vault("v", "2026-01-01T00:00:00Z", json!({"backend": backend, "prefix": "p", "config": config}))];
        let resolved = resolve_with(&vaults, "{vault://p/a/b}", |_| None);
        let condition = &resolved.conditions[0].1;
        assert!(condition.contains(expected) && !condition.contains("hidden"), "{config}: {condition}");
        assert!(resolved.value.unwrap_err().contains("KongVault v of this reference cannot be used"), "{config}");
        assert_eq!(resolved.queries, 0);
    }
}
