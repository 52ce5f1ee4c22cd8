//! Tests of the shares, the groups, the path and the configuration of `canary`.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::{ChosenBackend, Identity, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, build, chain, consumer, noon, notes};

const KIND: RegisteredKind<Canary> = RegisteredKind::NEW;

/// Sets the identity of requests, before the canary runs.
struct SetIdentity(Identity);

impl Plugin for SetIdentity {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        *cx.identity = self.0.clone();
        AccessOutcome::Continue
    }
}

fn config(fields: Value) -> Value {
    let mut config = json!({"upstream_host": "next.a.80.svc"});
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

async fn is_selected(fields: &Value, request: TestRequest) -> bool {
    let outcome = request.run(&chain(&[(&KIND, config(fields.clone()))])).await;
    assert!(outcome.reply.is_none());
    outcome.state.chosen_backend.is_some()
}

async fn is_identity_selected(fields: &Value, identity: Identity) -> bool {
    use crate::plugin_api::AnyPluginKind;
    use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
    use crate::plugin_chain::testing::{global_instance, instance, names};
    let mut builder = ChainBuilder::default();
    let plugin = build(&KIND, &config(fields.clone())).unwrap();
    builder.add("canary", KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
    let identity = global_instance(std::sync::Arc::new(SetIdentity(identity)));
    builder.add("identity", 1000, AttachmentPoint::Base(BaseScope::Route), identity);
    let outcome = TestRequest::get("/").run(&builder.build(names()).unwrap()).await;
    outcome.state.chosen_backend.is_some()
}

#[tokio::test]
async fn fixed_share_selects_its_share_of_clients_and_keeps_them() {
    for (percentage, expected) in [(0.0, 0..=0), (10.0, 60..=140), (50.0, 430..=570), (100.0, 1000..=1000)] {
        let chain = chain(&[(&KIND, config(json!({"percentage": percentage, "hash": "ip"})))]);
        let mut selected = Vec::new();
        for client in 0..1000_u32 {
            let mut request = TestRequest::get("/");
            request.address = std::net::Ipv4Addr::from(0x0a00_0001 + client).into();
            if request.run(&chain).await.state.chosen_backend.is_some() {
                selected.push(client);
            }
        }
        assert!(expected.contains(&selected.len()), "{percentage}: {}", selected.len());
        for client in selected {
            let mut request = TestRequest::get("/other");
            request.address = std::net::Ipv4Addr::from(0x0a00_0001 + client).into();
            assert!(request.run(&chain).await.state.chosen_backend.is_some(), "{percentage}: {client}");
        }
    }
}

#[tokio::test]
async fn share_grows_in_steps_and_loses_no_client() {
    let start = noon().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let fields = json!({"start": start, "duration": 100, "steps": 4, "hash": "header", "hash_header": "x-user"});
    let mut before: Vec<u32> = Vec::new();
    for (seconds, expected) in
        [(-1, 0..=0), (0, 0..=0), (24, 0..=0), (25, 30..=70), (49, 30..=70), (50, 70..=130), (100, 200..=200)]
    {
        let mut selected = Vec::new();
        for user in 0..200 {
            let mut request = TestRequest::get("/").header("x-user", &format!("user-{user}"));
            let offset = Duration::from_secs(i32::unsigned_abs(seconds).into());
            request.now = if seconds < 0 { noon() - offset } else { noon() + offset };
            if is_selected(&fields, request).await {
                selected.push(user);
            }
        }
        assert!(expected.contains(&selected.len()), "{seconds}: {}", selected.len());
        assert!(before.iter().all(|user| selected.contains(user)), "{seconds} s: a client was lost");
        before = selected;
    }
}

#[tokio::test]
async fn header_of_the_client_decides_first() {
    for (percentage, value, expected) in
        [(0, "always", true), (100, "never", false), (0, "ALWAYS", false), (100, "other", true), (0, "", false)]
    {
        let fields = json!({"percentage": percentage, "canary_by_header_name": "X-Canary"});
        let request = TestRequest::get("/").header("x-canary", value);
        assert_eq!(is_selected(&fields, request).await, expected, "{percentage} {value}");
    }
}

#[tokio::test]
async fn groups_decide_with_allow_and_deny() {
    let member = || Identity { consumer: Some(consumer("ann", &["testers"])), ..Identity::default() };
    let other = || Identity { consumer: Some(consumer("bob", &["staff"])), ..Identity::default() };
    let reported = || Identity { groups: vec!["testers".into()], ..Identity::default() };
    for (hash, identity, expected) in [
        ("allow", member(), true),
        ("allow", other(), false),
        ("allow", reported(), true),
        ("allow", Identity::default(), false),
        ("deny", member(), false),
        ("deny", other(), true),
        ("deny", reported(), false),
        ("deny", Identity::default(), true),
    ] {
        let fields = json!({"hash": hash, "groups": ["testers", "beta"]});
        let description = format!("{hash} {identity:?}");
        assert_eq!(is_identity_selected(&fields, identity).await, expected, "{description}");
    }
}

#[tokio::test]
async fn consumers_stay_together_whatever_their_addresses() {
    let fields = json!({"percentage": 50});
    let mut selected = 0;
    for number in 0..100 {
        let identity = Identity { consumer: Some(consumer(&format!("c{number}"), &[])), ..Identity::default() };
        let first = is_identity_selected(&fields, identity.clone()).await;
        assert_eq!(is_identity_selected(&fields, identity).await, first);
        selected += u32::from(first);
    }
    assert!((25..=75).contains(&selected), "{selected}");
}

#[tokio::test]
async fn path_changes_and_the_query_stays() {
    let only_path = json!({"percentage": 100, "upstream_uri": "/v2/cart"});
    let outcome = TestRequest::get("/cart?a=b%20c").run(&chain(&[(&KIND, only_path)])).await;
    assert_eq!(outcome.request.uri, "/v2/cart?a=b%20c");
    assert_eq!(outcome.state.chosen_backend, None);
    let both = config(json!({"percentage": 100, "upstream_uri": "/v2"}));
    let outcome = TestRequest::get("/cart").run(&chain(&[(&KIND, both)])).await;
    assert_eq!(outcome.request.uri, "/v2");
    assert_eq!(outcome.state.chosen_backend, Some(ChosenBackend { index: 0, has_fallback: false }));
}

#[test]
fn service_is_named_with_its_port() {
    for (fields, expected) in [
        (json!({"percentage": 1}), "a/next:80"),
        (json!({"percentage": 1, "upstream_host": "next", "upstream_port": 8080}), "next:8080"),
    ] {
        let plugin = build(&KIND, &config(fields)).unwrap();
        let names: Vec<_> = plugin.chosen_backends().iter().map(ToString::to_string).collect();
        assert_eq!(names, [expected]);
    }
}

#[test]
fn invalid_configurations_are_refused() {
    for (fields, field) in [
        (json!({}), "config.percentage"),
        (json!({"percentage": 101}), "config.percentage"),
        (json!({"percentage": -1}), "config.percentage"),
        (json!({"start": -5}), "config.start"),
        (json!({"start": 1e300}), "config.start"),
        (json!({"start": 1, "duration": -1}), "config.duration"),
        (json!({"start": 1, "duration": 1e12}), "config.duration"),
        (json!({"start": 1, "steps": 0}), "config.steps"),
        (json!({"start": 1, "steps": 2_000_000}), "config.steps"),
        (json!({"percentage": 1, "hash": "header"}), "config.hash_header"),
        (json!({"percentage": 1, "hash": "header", "hash_header": "a b"}), "config.hash_header"),
        (json!({"percentage": 1, "hash_header": "x-user"}), "config.hash_header"),
        (json!({"percentage": 1, "hash": "cookie"}), "config.hash"),
        (json!({"hash": "allow"}), "config.groups"),
        (json!({"percentage": 1, "groups": ["a"]}), "config.groups"),
        (json!({"hash": "deny", "groups": [""]}), "config.groups"),
        (json!({"percentage": 1, "upstream_host": null}), "config.upstream_host"),
        (
            json!({"percentage": 1, "upstream_host": null, "upstream_uri": "/", "upstream_port": 80}),
            "config.upstream_port",
        ),
        (
            json!({"percentage": 1, "upstream_host": null, "upstream_uri": "/", "upstream_fallback": true}),
            "config.upstream_fallback",
        ),
        (json!({"percentage": 1, "upstream_port": 0}), "config.upstream_port"),
        (json!({"percentage": 1, "upstream_port": 81}), "config.upstream_host"),
        (json!({"percentage": 1, "upstream_host": "www.example.com", "upstream_port": 80}), "config.upstream_host"),
        (json!({"percentage": 1, "upstream_uri": "v2"}), "config.upstream_uri"),
        (json!({"percentage": 1, "upstream_uri": "/v2?a"}), "config.upstream_uri"),
        (json!({"percentage": 1, "upstream_uri": "/v 2"}), "config.upstream_uri"),
        (json!({"percentage": 1, "upstream_uri": "/v2#a"}), "config.upstream_uri"),
        (json!({"percentage": 1, "canary_by_header_name": ""}), "config.canary_by_header_name"),
        (json!({"percentage": 1, "weight": 1}), "config.weight"),
    ] {
        let invalid = build(&KIND, &config(fields.clone())).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
    }
}

#[test]
fn fields_without_effect_have_notes() {
    for (fields, expected) in [
        (json!({"percentage": 1}), 0),
        (json!({"percentage": 1, "start": 5}), 1),
        (json!({"hash": "allow", "groups": ["a"], "percentage": 1, "start": 5}), 2),
    ] {
        assert_eq!(notes(&KIND, &config(fields.clone())).len(), expected, "{fields}");
    }
}
