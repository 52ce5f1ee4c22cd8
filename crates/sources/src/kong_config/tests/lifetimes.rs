//! Keys whose lifetime begins when they were created.

use serde_json::{Value, json};

use super::{translated_at, with};
use crate::manifests::Translation;

#[test]
fn keys_expire_after_their_creation() {
    let file = with(json!({"consumers": [{"username": "ann", "keyauth_credentials": [
        {"key": "one", "ttl": 60}, {"key": "two", "ttl": 60, "created_at": 1_000}, {"key": "three", "created_at": 1_000}
    ]}]}));
    let served = [json!("1970-01-02T00:00:00Z"), json!("1970-01-01T00:16:40Z"), Value::Null];
    // The API server knows when it has created the Secrets of a converted file.
    for (read_at, expected) in [(Some(86_400), served), (None, [Value::Null, Value::Null, Value::Null])] {
        let Translation::Objects(objects, _) = translated_at(file.clone(), read_at) else {
            panic!("the file was rejected")
        };
        let secrets = objects.iter().filter(|object| object.value["kind"] == "Secret");
        let created: Vec<_> = secrets.map(|object| object.value["metadata"]["creationTimestamp"].clone()).collect();
        assert_eq!(created, expected, "{read_at:?}");
    }
}
