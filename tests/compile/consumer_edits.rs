//! Random edits of consumers with contested names and keys, compared with a compilation from scratch after each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::plugin_api::consumers::sha256;
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;

const SEQUENCES: u64 = 30;
const EDITS: usize = 80;
const CONSUMERS: usize = 6;

// kong-compat §3.7
#[test]
fn random_consumer_edits_match_full_compile() {
    let mut disputes = 0;
    for seed in 0..SEQUENCES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = harness();
        for step in 0..EDITS {
            let batch = edit(&mut random);
            let what = format!("seed {seed}, step {step}: {batch:?}");
            world.apply(batch);
            let fresh = world.recompiled();
            assert_eq!(holders(&world), holders(&fresh), "{what}");
            let found = world.describe_state();
            assert_eq!(found, fresh.describe_state(), "{what}");
            disputes += usize::from(found.contains("is older and already has this"));
        }
    }
    assert!(disputes > 500, "too few conflicts for a meaningful test: {disputes}");
}

#[test]
fn unchanged_consumers_and_credentials_keep_their_arc() {
    let mut world = harness();
    world.apply(Batch { upserts: vec![consumer("ann", 1, "ann", "key-1"), key("key-1", "secret")], removes: vec![] });
    let credential =
        |world: &CompilerHarness| Arc::clone(world.snapshot.consumers.keys.get(sha256(b"secret")).unwrap());
    let (snapshot, before) = (Arc::clone(&world.snapshot), credential(&world));

    let mut annotated = consumer_object("ann", 1, "ann", "key-1");
    annotated["metadata"]["annotations"]["konghq.com/tags"] = json!("a");
    annotated["metadata"]["generation"] = json!(7);
    world.apply(Batch { upserts: vec![parse(Kind::KongConsumer, annotated)], removes: vec![] });
    assert!(Arc::ptr_eq(&world.snapshot, &snapshot), "annotations do not affect requests");
    let id = ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", "ann"));
    assert_eq!(world.compiler.verdicts()[&id].generation, 7, "the verdict has the new generation");

    world.apply(Batch { upserts: vec![consumer("bob", 2, "bob", "key-2")], removes: vec![] });
    assert!(Arc::ptr_eq(&credential(&world), &before), "another consumer was added");
    world.apply(Batch { upserts: vec![consumer("ann", 1, "Ann", "key-1")], removes: vec![] });
    assert_eq!(credential(&world).consumer.username.as_deref(), Some("Ann"));
    assert_eq!(snapshot.consumers.keys.get(sha256(b"secret")).unwrap(), &before, "the old snapshot did not change");
}

// kong-compat §1.5
// kong-compat §1.6
#[test]
fn invalid_credentials_and_groups_do_not_affect_others() {
    let mut world = harness();
    let mut ann = consumer_object("ann", 1, "ann", "key-1");
    ann["credentials"] = json!(["missing", "key-1", "broken"]);
    ann["consumerGroups"] = json!(["missing", "gold"]);
    let annotations = json!({"kubernetes.io/ingress.class": "portico"});
    let gold = json!({"metadata": {"namespace": "default", "name": "gold", "annotations": annotations}});
    let upserts = vec![
        parse(Kind::KongConsumer, ann),
        parse(Kind::KongConsumerGroup, gold),
        key("key-1", "secret"),
        key("broken", ""),
    ];
    world.apply(Batch { upserts, removes: vec![] });
    let key = world.snapshot.consumers.keys.get(sha256(b"secret")).unwrap();
    assert_eq!(key.consumer.username.as_deref(), Some("ann"));
    assert_eq!(key.consumer.groups().iter().map(|group| &**group).collect::<Vec<_>>(), ["default/gold"]);
    let id = ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", "ann"));
    let fields: Vec<_> =
        world.compiler.verdicts()[&id].conditions[0].diagnostics.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["consumerGroups[0]", "credentials[0]", "credentials[2]"]);
}

fn harness() -> CompilerHarness {
    let mut world =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    world.apply(Batch { upserts: vec![parse(Kind::IngressClass, class)], removes: vec![] });
    world
}

/// The holder of every claim.
fn holders(world: &CompilerHarness) -> BTreeMap<String, String> {
    let directory = &world.snapshot.consumers;
    let mut holders = BTreeMap::new();
    for number in 0..CONSUMERS {
        let name = format!("name-{number}");
        let digest = sha256(format!("secret-{number}").as_bytes());
        let key = directory.keys.get(digest).map(|key| format!("{} of {}", key.id, key.consumer.id));
        for (what, holder) in [
            ("username", directory.usernames.get(&*name).map(|consumer| consumer.id.to_string())),
            ("custom id", directory.custom_ids.get(&*name).map(|consumer| consumer.id.to_string())),
            ("key", key),
        ] {
            holders.extend(holder.map(|holder| (format!("{what} {number}"), holder)));
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
        let (person, name) = (format!("person-{}", random.usize(..CONSUMERS)), format!("name-{}", random.usize(..3)));
        let secret = format!("key-{}", random.usize(..CONSUMERS));
        match random.usize(..6) {
            0 => batch.removes.push(ObjectId::new(Kind::KongConsumer, ObjectKey::new("default", &person))),
            1 => batch.removes.push(ObjectId::new(Kind::Secret, ObjectKey::new("default", &secret))),
            2 => batch.upserts.push(key(&secret, &format!("secret-{}", random.usize(..2)))),
            _ => {
                let mut object = consumer_object(&person, random.i64(0..3), &name, &secret);
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

fn consumer(name: &str, created: i64, username: &str, secret: &str) -> AnyObject {
    parse(Kind::KongConsumer, consumer_object(name, created, username, secret))
}

fn consumer_object(name: &str, created: i64, username: &str, secret: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "default",
            "name": name,
            "creationTimestamp": format!("2026-01-02T12:00:0{created}Z"),
            "annotations": {"kubernetes.io/ingress.class": "portico"},
        },
        "username": username,
        "credentials": [secret],
    })
}

fn key(name: &str, secret: &str) -> AnyObject {
    let labels = json!({"konghq.com/credential": "key-auth"});
    let object =
        json!({"metadata": {"namespace": "default", "name": name, "labels": labels}, "stringData": {"key": secret}});
    parse(Kind::Secret, object)
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}
