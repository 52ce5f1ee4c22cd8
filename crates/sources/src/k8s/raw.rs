//! An object as the API server sends it, parsed so that no content can stop a watch, without unused metadata, and
//! without most of an object that is too large or nested too deeply.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};
use crate::store::{BYTES_PER_VALUE, BoundedValue, MAX_OBJECT_SIZE};

/// An object of any kind. With `META`, only the metadata is requested. Of a field that is larger than an object may be,
/// only the beginning is kept, unless `WHOLE` is set.
///
/// Any JSON object is accepted. An invalid object is detected when it is parsed as its kind, and becomes a verdict
/// about that object instead of an error of the whole list.
#[derive(Clone)]
pub(super) struct RawObject<const META: bool = false, const WHOLE: bool = false> {
    /// The fields that kube's client needs. The rest of the metadata is in `object`.
    meta: ObjectMeta,
    /// `metadata`, `spec` and all other fields except `status`.
    object: Map<String, Value>,
    status: Value,
    /// The size of the whole object without its status.
    size: u64,
}

/// The API resource of a kind in one of its versions.
pub(super) fn api_resource(kind: Kind, version: &str) -> ApiResource {
    let group = kind.group();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

impl<const META: bool, const WHOLE: bool> RawObject<META, WHOLE> {
    /// None if the object has no name, which no API server sends.
    pub(super) fn key(&self) -> Option<ObjectKey> {
        let name = self.meta.name.as_deref().filter(|name| !name.is_empty())?;
        Some(ObjectKey::new(self.meta.namespace.as_deref().unwrap_or_default(), name))
    }

    pub(super) fn resource_version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn generation(&self) -> i64 {
        self.meta.generation.unwrap_or_default()
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.object.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// Whether an annotation has one of these prefixes.
    pub(super) fn has_annotation_with_prefix(&self, prefixes: &[&str]) -> bool {
        let annotations = self.object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let mut names = annotations.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
        names.any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// The size of the whole object without its status and unused metadata.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The object without its status, and the status.
    pub(super) fn into_parts(self) -> (Value, Value) {
        (Value::Object(self.object), self.status)
    }
}

impl<const META: bool, const WHOLE: bool> Resource for RawObject<META, WHOLE> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        META
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Shows only the key: the object may be a Secret.
impl<const META: bool, const WHOLE: bool> fmt::Debug for RawObject<META, WHOLE> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RawObject").field("key", &self.key()).finish_non_exhaustive()
    }
}

impl<'de, const META: bool, const WHOLE: bool> Deserialize<'de> for RawObject<META, WHOLE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields {
            max_field: u64,
        }
        impl<'de> Visitor<'de> for Fields {
            type Value = (Map<String, Value>, Value, u64);

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let (mut object, mut status, mut total) = (Map::new(), Value::Null, BYTES_PER_VALUE);
                while let Some(name) = fields.next_key::<String>()? {
                    let (name_bytes, size) = (u64::try_from(name.len()).unwrap_or(u64::MAX), Cell::new(0));
                    let value = match name.as_str() {
                        "apiVersion" | "kind" => {
                            fields.next_value::<IgnoredAny>()?;
                            continue;
                        }
                        "status" => {
                            let status_size = Cell::new(0);
                            let bounded = BoundedValue::new(&status_size, u64::MAX).at_level(1);
                            status = fields.next_value_seed(bounded)?.unwrap_or_default();
                            continue;
                        }
                        "metadata" => {
                            Some(fields.next_value_seed(PrunedMetadata { size: &size, max_field: self.max_field })?)
                        }
                        _ => fields.next_value_seed(BoundedValue::new(&size, self.max_field).at_level(1))?,
                    };
                    total = total.saturating_add(name_bytes).saturating_add(size.get());
                    if let Some(value) = value {
                        object.insert(name, value);
                    }
                }
                Ok((object, status, total))
            }
        }
        let max_field = if WHOLE { u64::MAX } else { MAX_OBJECT_SIZE };
        let (object, status, size) = deserializer.deserialize_map(Fields { max_field })?;
        let field = |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            generation: field("generation").and_then(Value::as_i64),
            ..ObjectMeta::default()
        };
        Ok(RawObject { meta, object, status, size })
    }
}

/// Metadata without the large fields that are never used: they are skipped instead of built and dropped. Each of the
/// others is bounded, so that a name is found whatever the labels are.
struct PrunedMetadata<'s> {
    size: &'s Cell<u64>,
    max_field: u64,
}

impl<'de> DeserializeSeed<'de> for PrunedMetadata<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PrunedMetadata<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let (mut metadata, mut total) = (Map::new(), BYTES_PER_VALUE);
        while let Some(name) = fields.next_key::<String>()? {
            if IGNORED_METADATA.contains(&name.as_str()) {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let (name_bytes, size) = (u64::try_from(name.len()).unwrap_or(u64::MAX), Cell::new(0));
            let value = fields.next_value_seed(BoundedValue::new(&size, self.max_field).at_level(2))?;
            total = total.saturating_add(name_bytes).saturating_add(size.get());
            if let Some(value) = value {
                metadata.insert(name, value);
            }
        }
        self.size.set(total);
        Ok(Value::Object(metadata))
    }
}

const IGNORED_METADATA: &[&str] = &["managedFields", "ownerReferences", "finalizers", "selfLink"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::NESTED_TOO_DEEPLY;

    #[test]
    fn any_object_parses_and_unused_fields_are_dropped() {
        let whole = json!({
            "apiVersion": "v1", "kind": "Gateway",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "managedFields": [{"manager": "kubectl"}], "annotations": {"a": "b"}},
            "spec": {"listeners": 5},
            "status": {"addresses": []},
        });
        let raw: RawObject = serde_json::from_value(whole).unwrap();
        assert_eq!(raw.key(), Some(ObjectKey::new("shop", "web")));
        assert_eq!((raw.uid(), raw.resource_version(), raw.generation()), ("u", "7", 3));
        assert_eq!(raw.annotation("a"), Some("b"));
        let (object, status) = raw.into_parts();
        assert_eq!(status, json!({"addresses": []}));
        assert_eq!(object["spec"], json!({"listeners": 5}));
        assert_eq!(object["metadata"].get("managedFields"), None);

        for unusual in [json!({}), json!({"metadata": {"name": 5, "labels": [1]}}), json!({"spec": null, "status": 1})]
        {
            let raw: RawObject = serde_json::from_value(unusual).unwrap();
            assert_eq!(raw.key(), None);
        }
    }

    /// The fields of KongPlugin are in the order in which an API server sends them.
    #[test]
    fn large_objects_are_decoded_in_part() {
        let config: Vec<u32> = vec![0; 700_000];
        let text =
            json!({"config": {"list": config}, "metadata": {"labels": {"a": "b"}, "name": "x"}, "plugin": "cors"})
                .to_string();
        let part: RawObject = serde_json::from_str(&text).unwrap();
        let whole: RawObject<false, true> = serde_json::from_str(&text).unwrap();
        assert!(part.key().is_some() && part.size() > 20 << 20);
        assert_eq!(part.size(), whole.size());
        let [(part, _), (whole, _)] = [part.into_parts(), whole.into_parts()];
        let length = |object: &Value| object["config"]["list"].as_array().unwrap().len();
        assert!(length(&part) < 1 << 15, "{}", length(&part));
        assert_eq!((length(&whole), &part["plugin"]), (700_000, &json!("cors")));
        assert_eq!(crate::store::object_size(&whole), crate::store::object_size(&serde_json::from_str(&text).unwrap()));
    }

    /// An API server accepts 10,000 levels. An error of the decoder would end the list of all objects of the kind, and
    /// lose a deletion.
    #[test]
    fn deeply_nested_objects_leave_others_readable() {
        let deep = format!("{}1{}", r#"{"a":["#.repeat(5_000), "]}".repeat(5_000));
        for field in ["config", "status", "metadata"] {
            let deep_field = match field {
                "metadata" => format!(r#""metadata":{{"name":"x","labels":{deep}}}"#),
                field => format!(r#""{field}":{deep},"metadata":{{"name":"x"}}"#),
            };
            let object = format!(r#"{{"plugin":"cors",{deep_field}}}"#);
            let list = format!(r#"{{"metadata":{{}},"items":[{object},{{"metadata":{{"name":"y"}}}}]}}"#);
            let list: kube::core::ObjectList<RawObject> = serde_json::from_str(&list).unwrap();
            let names: Vec<_> = list.items.iter().map(|raw| raw.key().unwrap().name.to_string()).collect();
            assert_eq!(names, ["x", "y"], "{field}");
            assert_eq!(list.items[0].size() == NESTED_TOO_DEEPLY, field != "status", "{field}");
            let event = format!(r#"{{"type":"DELETED","object":{object}}}"#);
            let event: kube::core::WatchEvent<RawObject> = serde_json::from_str(&event).unwrap();
            assert!(matches!(event, kube::core::WatchEvent::Deleted(raw) if raw.key() == list.items[0].key()));
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        let raw: RawObject =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "aGlkZGVu"}})).unwrap();
        assert!(!format!("{raw:?}").contains("aGlkZGVu"));
    }

    #[test]
    fn resource_names_give_the_request_paths() {
        let route = api_resource(Kind::HttpRoute, "v1");
        assert_eq!(
            RawObject::<false>::url_path(&route, Some("a")),
            "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"
        );
        assert_eq!(RawObject::<true>::url_path(&api_resource(Kind::Secret, "v1"), None), "/api/v1/secrets");
    }
}
