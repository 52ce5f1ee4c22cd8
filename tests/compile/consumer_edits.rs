//! Edits of consumers. After each step of random sequences, in which several consumers claim the same name or key, the
//! result is compared with a compilation from scratch. Further tests check single edits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::plugin_api::consumers::sha256;
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;

/// Seeds of the sequences in every run, and in `make test-full`.
const SEEDS: Range<u64> = 0..12;
const MORE_SEEDS: Range<u64> = 12..30;
const EDITS: usize = 80;
const CONSUMERS: usize = 6;

// docs/kong-compatibility.md, 3.7
#[test]
fn random_consumer_edits_match_full_compile() {
    compare_after_consumer_edits(SEEDS);
}

#[test]
#[ignore = "only in make test-full: more seeds of the test before it, each as likely to find something"]
fn more_random_consumer_edits_match_full_compile() {
    compare_after_consumer_edits(MORE_SEEDS);
}

fn compare_after_consumer_edits(seeds: Range<u64>) {
    let mut conflicts = 0;
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut harness = new_harness();
        for step in 0..EDITS {
            let batch = edit(&mut random);
            let description = format!("seed {seed}, step {step}: {batch:?}");
            harness.apply(batch);
            let recompiled = harness.recompiled();
            assert_eq!(holders(&harness), holders(&recompiled), "{description}");
            let state = harness.describe_state();
            assert_eq!(state, recompiled.describe_state(), "{description}");
            conflicts += usize::from(state.contains("is older, or equally old and first by name"));
        }
    }
    assert!(conflicts > 200, "too few conflicts for a meaningful test: {conflicts}");
}

// docs/kong-compatibility.md, 1.5
#[test]
fn keys_of_a_consumer_without_its_name_are_refused() {
    let mut harness = new_harness();
    let upserts = vec![
        consumer("younger", 2, "ann", "key-2"),
        consumer("older", 1, "ann", "key-1"),
        key("key-1", "first"),
        key("key-2", "second"),
    ];
    harness.apply(Batch { upserts, removes: vec![] });
    let is_known = |harness: &CompilerHarness| {
        [&b"first"[..], b"second"].map(|secret| harness.snapshot.consumers.keys.get(sha256(secret)).is_some())
    };
    assert_eq!(is_known(&harness), [true, false]);
    let id = |name| ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", name));
    let problems = |harness: &CompilerHarness, name| {
        let condition = &harness.compiler.verdicts()[&id(name)].conditions[0];
        condition.diagnostics.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(problems(&harness, "older"), [""; 0]);
    assert_eq!(
        problems(&harness, "younger"),
        [
            "KongConsumer default/older keeps this username, because it is older, or equally old and first by name, so the \
          credentials of this one are rejected"
        ]
    );
    harness.apply(Batch { upserts: vec![], removes: vec![id("older")] });
    assert_eq!(is_known(&harness), [false, true]);
    assert_eq!(problems(&harness, "younger"), [""; 0]);
    harness.apply(Batch { upserts: vec![consumer("older", 1, "ann", "key-1")], removes: vec![] });
    assert_eq!(is_known(&harness), [true, false]);
}

#[test]
fn directory_tells_whether_credentials_are_missing() {
    let mut harness = new_harness();
    let secret = |name| ObjectId::new(Kind::Secret, ObjectKey::new("default", name));
    harness.apply(Batch { upserts: vec![consumer("ann", 1, "ann", "key-1")], removes: vec![] });
    for (unfetched, expected) in [(vec!["key-1"], true), (vec!["of-another-kind"], false), (vec![], false)] {
        let changes = harness.store.set_unfetched(unfetched.iter().copied().map(secret).collect(), BTreeSet::new());
        harness.compile(changes);
        assert_eq!(harness.snapshot.consumers.lacks_credentials, expected, "{unfetched:?}");
    }
    // Clients of other namespaces must not get 503 for as long as a consumer names a Secret that may not be read.
    let changes = harness.store.set_unfetched(BTreeSet::new(), BTreeSet::from([secret("key-1")]));
    harness.compile(changes);
    assert!(!harness.snapshot.consumers.lacks_credentials);
    let expected = "Secret default/key-1 exists, but Portico may not read its content; grant the verb get on secrets \
                    in namespace default to the ServiceAccount of Portico";
    let state = harness.describe_state();
    assert!(state.contains(expected), "{state}");
}

/// What belongs to a consumer ends with its object.
#[test]
fn consumers_that_are_created_again_are_other_ones() {
    let mut harness = new_harness();
    let mut object_with = |uid: Option<&str>| {
        let mut consumer = consumer_object("ann", 1, "ann", "key-1");
        consumer["metadata"]["uid"] = json!(uid);
        harness.apply(Batch { upserts: vec![parse(Kind::KongConsumer, consumer)], removes: vec![] });
        harness.snapshot.consumers.by_id_or_username("ann").unwrap().object()
    };
    let objects = [Some("first"), Some("second"), None].map(&mut object_with);
    assert!(objects[0].is_some() && objects[1].is_some() && objects[0] != objects[1], "{objects:?}");
    assert_eq!(objects[2], None, "of a file");
}

/// The verdict on a plugin that names a consumer of another namespace is the same as after a compilation from scratch.
#[test]
fn grants_update_the_verdicts_of_plugins_that_name_consumers() {
    let mut harness = new_harness();
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    let consumer = json!({
        "metadata": {"namespace": "partners", "name": "guest", "annotations": annotations}, "username": "guest",
    });
    let plugin = json!({
        "metadata": {"namespace": "default", "name": "auth"}, "plugin": "key-auth", "config": {"anonymous": "guest"},
    });
    let upserts = vec![parse(Kind::KongConsumer, consumer), parse(Kind::KongPlugin, plugin)];
    harness.apply(Batch { upserts, removes: vec![] });
    let warning = "routes of namespace default admit its own consumers only";
    assert!(harness.describe_state().contains(warning), "{}", harness.describe_state());
    let grant = |to: Value| {
        let from = json!([{"group": "configuration.konghq.com", "kind": "KongConsumer", "namespace": "partners"}]);
        let spec = json!({"from": from, "to": [to]});
        parse(Kind::ReferenceGrant, json!({"metadata": {"namespace": "default", "name": "grant"}, "spec": spec}))
    };
    for (to, is_admitted) in [
        (json!({"group": "", "kind": "Secret"}), false),
        (json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}), true),
    ] {
        harness.apply(Batch { upserts: vec![grant(to.clone())], removes: vec![] });
        let state = harness.describe_state();
        assert_eq!(!state.contains(warning), is_admitted, "{to}: {state}");
        assert_eq!(state, harness.recompiled().describe_state(), "{to}");
    }
}

#[test]
fn unchanged_consumers_and_credentials_keep_their_arc() {
    let mut harness = new_harness();
    harness.apply(Batch { upserts: vec![consumer("ann", 1, "ann", "key-1"), key("key-1", "value")], removes: vec![] });
    let credential =
        |harness: &CompilerHarness| Arc::clone(harness.snapshot.consumers.keys.get(sha256(b"value")).unwrap());
    let (snapshot, before) = (Arc::clone(&harness.snapshot), credential(&harness));

    let mut annotated = consumer_object("ann", 1, "ann", "key-1");
    annotated["metadata"]["annotations"]["konghq.com/tags"] = json!("a");
    annotated["metadata"]["generation"] = json!(7);
    harness.apply(Batch { upserts: vec![parse(Kind::KongConsumer, annotated)], removes: vec![] });
    assert!(Arc::ptr_eq(&harness.snapshot, &snapshot), "annotations do not affect requests");
    let id = ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", "ann"));
    assert_eq!(harness.compiler.verdicts()[&id].generation, 7, "the verdict has the new generation");

    harness.apply(Batch { upserts: vec![consumer("bob", 2, "bob", "key-2")], removes: vec![] });
    assert!(Arc::ptr_eq(&credential(&harness), &before), "another consumer was added");
    harness.apply(Batch { upserts: vec![consumer("ann", 1, "Ann", "key-1")], removes: vec![] });
    assert_eq!(credential(&harness).consumer.username.as_deref(), Some("Ann"));
    assert_eq!(snapshot.consumers.keys.get(sha256(b"value")).unwrap(), &before, "the old snapshot did not change");
}

// docs/kong-compatibility.md, 1.5
// docs/kong-compatibility.md, 1.6
#[test]
fn invalid_credentials_and_groups_do_not_affect_others() {
    let mut harness = new_harness();
    let mut ann = consumer_object("ann", 1, "ann", "key-1");
    ann["credentials"] = json!(["missing", "key-1", "broken"]);
    ann["consumerGroups"] = json!(["missing", "gold"]);
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    let gold = json!({"metadata": {"namespace": "default", "name": "gold", "annotations": annotations}});
    let upserts = vec![
        parse(Kind::KongConsumer, ann),
        parse(Kind::KongConsumerGroup, gold),
        key("key-1", "value"),
        key("broken", ""),
    ];
    harness.apply(Batch { upserts, removes: vec![] });
    let key = harness.snapshot.consumers.keys.get(sha256(b"value")).unwrap();
    assert_eq!(key.consumer.username.as_deref(), Some("ann"));
    assert_eq!(key.consumer.groups().iter().map(|group| &**group).collect::<Vec<_>>(), ["default/gold"]);
    let id = ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", "ann"));
    let fields: Vec<_> =
        harness.compiler.verdicts()[&id].conditions[0].diagnostics.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["consumerGroups[0]", "credentials[0]", "credentials[2]"]);
}

// docs/kong-compatibility.md, 1.6
#[test]
fn consumers_leave_a_group_whose_class_is_no_longer_served() {
    let mut harness = new_harness();
    let mut ann = consumer_object("ann", 1, "ann", "key-1");
    ann["consumerGroups"] = json!(["gold"]);
    // Without a class, the group belongs to the default class.
    let gold = json!({"metadata": {"namespace": "default", "name": "gold"}});
    let class = |name: &str, controller: &str| {
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
        let object =
            json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}});
        parse(Kind::IngressClass, object)
    };
    let default_class = class("second", "portico.dev/ingress-controller");
    let upserts = vec![parse(Kind::KongConsumer, ann), parse(Kind::KongConsumerGroup, gold), default_class];
    harness.apply(Batch { upserts, removes: vec![] });
    let groups = |harness: &CompilerHarness| {
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state());
        harness.snapshot.consumers.usernames.get("ann").unwrap().groups().len()
    };
    let before = groups(&harness);
    harness.apply(Batch { upserts: vec![class("second", "example.com/other")], removes: vec![] });
    assert_eq!((before, groups(&harness)), (1, 0));
}

#[test]
fn consumers_and_groups_of_other_classes_have_a_warning() {
    let mut harness = new_harness();
    let foreign_class = json!({"metadata": {"name": "nginx"}, "spec": {"controller": "nginx.example/controller"}});
    harness.apply(Batch { upserts: vec![parse(Kind::IngressClass, foreign_class)], removes: vec![] });
    let subject = |kind: Kind, class: Option<&str>| {
        let annotations = class.map_or(json!({}), |class| json!({"kubernetes.io/ingress.class": class}));
        let metadata = json!({"namespace": "default", "name": "s", "annotations": annotations});
        let object = match kind {
            Kind::KongConsumer => json!({"metadata": metadata, "username": "s"}),
            _ => json!({"metadata": metadata}),
        };
        Batch { upserts: vec![parse(kind, object)], removes: vec![] }
    };
    for kind in [Kind::KongConsumer, Kind::KongConsumerGroup] {
        let id = ObjectId::new(kind, ObjectKey::new("default", "s"));
        for (class, expected) in [
            (None, Some("it has no class, and no class of Portico is the default class")),
            (Some("portico"), None),
            (Some(""), Some("its class is empty")),
            (Some("kong"), Some("IngressClass kong does not exist, and Portico serves portico")),
            (Some("portico"), None),
            (Some("nginx"), Some("Portico does not serve its class, nginx")),
        ] {
            harness.apply(subject(kind, class));
            assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{kind} {class:?}");
            let verdict = &harness.compiler.verdicts()[&id];
            assert_eq!(verdict.conditions.is_empty(), expected.is_some(), "{kind} {class:?}");
            let found: Vec<_> =
                verdict.diagnostics.iter().map(|note| (note.is_error(), note.message.as_str())).collect();
            match expected {
                None => assert!(found.is_empty(), "{kind} {class:?}: {found:?}"),
                Some(begin) => assert!(
                    matches!(&found[..], [(false, message)] if message.starts_with(begin)),
                    "{kind} {class:?}: {found:?}"
                ),
            }
        }
        // A new default class serves an object without a class.
        harness.apply(subject(kind, None));
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
        let default = json!({"metadata": {"name": "usual", "annotations": annotations},
            "spec": {"controller": "portico.dev/ingress-controller"}});
        harness.apply(Batch { upserts: vec![parse(Kind::IngressClass, default)], removes: vec![] });
        let verdict = &harness.compiler.verdicts()[&id];
        assert_eq!((verdict.conditions.len(), verdict.diagnostics.len()), (1, 0), "{kind}");
        let class = ObjectId::new(Kind::IngressClass, ObjectKey::cluster("usual"));
        harness.apply(Batch { upserts: vec![], removes: vec![class, id.clone()] });
        assert!(!harness.compiler.verdicts().contains_key(&id), "{kind}");
    }
}

fn new_harness() -> CompilerHarness {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    harness.apply(Batch { upserts: vec![parse(Kind::IngressClass, class)], removes: vec![] });
    harness
}

/// The consumer that each username, custom id and key belongs to, and the number of entries.
fn holders(harness: &CompilerHarness) -> BTreeMap<String, String> {
    let directory = &harness.snapshot.consumers;
    let mut holders = BTreeMap::new();
    // All numbers that `edit` puts into names and keys are below `CONSUMERS`.
    for number in 0..CONSUMERS {
        let name = format!("name-{number}");
        let digest = sha256(format!("value-{number}").as_bytes());
        let key = directory.keys.get(digest).map(|key| format!("{} of {}", key.id, key.consumer.id));
        for (kind, holder) in [
            ("username", directory.usernames.get(&*name).map(|consumer| consumer.id.to_string())),
            ("custom id", directory.custom_ids.get(&*name).map(|consumer| consumer.id.to_string())),
            ("key", key),
        ] {
            holders.extend(holder.map(|holder| (format!("{kind} {number}"), holder)));
        }
    }
    let sizes = [directory.consumers.len(), directory.usernames.len(), directory.custom_ids.len()];
    holders.insert("sizes".to_owned(), format!("{sizes:?} {}", directory.keys.len()));
    holders
}

/// Several changes at once, as in a relist.
fn edit(random: &mut fastrand::Rng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.usize(1..4) {
        let (consumer_name, name) =
            (format!("consumer-{}", random.usize(..CONSUMERS)), format!("name-{}", random.usize(..3)));
        let secret_name = format!("key-{}", random.usize(..CONSUMERS));
        match random.usize(..6) {
            0 => batch.removes.push(ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", &consumer_name))),
            1 => batch.removes.push(ObjectId::new(Kind::Secret, ObjectKey::new("default", &secret_name))),
            2 => batch.upserts.push(key(&secret_name, &format!("value-{}", random.usize(..2)))),
            _ => {
                let mut object = consumer_object(&consumer_name, random.i64(0..3), &name, &secret_name);
                if random.bool() {
                    object["custom_id"] = json!(format!("name-{}", random.usize(..2)));
                }
                if random.bool() {
                    let other = format!("key-{}", random.usize(..CONSUMERS));
                    object["credentials"].as_array_mut().unwrap().push(json!(other));
                }
                batch.upserts.push(parse(Kind::KongConsumer, object));
            }
        }
    }
    batch
}

fn consumer(name: &str, created_second: i64, username: &str, secret_name: &str) -> AnyObject {
    parse(Kind::KongConsumer, consumer_object(name, created_second, username, secret_name))
}

fn consumer_object(name: &str, created_second: i64, username: &str, secret_name: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "default",
            "name": name,
            "creationTimestamp": format!("2026-01-02T12:00:0{created_second}Z"),
            "annotations": {"kubernetes.io/ingress.class": "portico"},
        },
        "username": username,
        "credentials": [secret_name],
    })
}

/// A Secret with the key `value`.
fn key(secret_name: &str, value: &str) -> AnyObject {
    let labels = json!({"konghq.com/credential": "key-auth"});
    let metadata = json!({"namespace": "default", "name": secret_name, "labels": labels});
    parse(Kind::Secret, json!({"metadata": metadata, "stringData": {"key": value}}))
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}
