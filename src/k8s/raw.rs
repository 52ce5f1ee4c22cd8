//! An object as the API server sends it, parsed so that no content can stop a watch, and without unused metadata.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};

/// An object of any kind. With `META`, only the metadata is requested.
///
/// Any JSON object is accepted. An invalid object is detected when it is parsed as its kind, and becomes a verdict
/// about that object instead of an error of the whole list.
#[derive(Clone)]
pub(super) struct RawObject<const META: bool = false> {
    /// The fields that kube's client needs. The rest of the metadata is in `object`.
    meta: ObjectMeta,
    /// `metadata`, `spec` and all other fields except `status`.
    object: Map<String, Value>,
    status: Value,
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

impl<const META: bool> RawObject<META> {
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

    /// The object without its status, and the status.
    pub(super) fn into_parts(self) -> (Value, Value) {
        (Value::Object(self.object), self.status)
    }
}

impl<const META: bool> Resource for RawObject<META> {
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
impl<const META: bool> fmt::Debug for RawObject<META> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RawObject").field("key", &self.key()).finish_non_exhaustive()
    }
}

impl<'de, const META: bool> Deserialize<'de> for RawObject<META> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = (Map<String, Value>, Value);

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let (mut object, mut status) = (Map::new(), Value::Null);
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "apiVersion" | "kind" => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                        "metadata" => {
                            let PrunedMetadata(value) = fields.next_value()?;
                            object.insert(name, value);
                        }
                        "status" => status = fields.next_value()?,
                        _ => {
                            object.insert(name, fields.next_value()?);
                        }
                    }
                }
                Ok((object, status))
            }
        }
        let (object, status) = deserializer.deserialize_map(Fields)?;
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
        Ok(RawObject { meta, object, status })
    }
}

/// Metadata without the large fields that are never used: they are skipped instead of built and dropped.
struct PrunedMetadata(Value);

impl<'de> Deserialize<'de> for PrunedMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = PrunedMetadata;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<PrunedMetadata, A::Error> {
                let mut metadata = Map::new();
                while let Some(name) = fields.next_key::<String>()? {
                    if IGNORED_METADATA.contains(&name.as_str()) {
                        fields.next_value::<IgnoredAny>()?;
                    } else {
                        metadata.insert(name, fields.next_value()?);
                    }
                }
                Ok(PrunedMetadata(Value::Object(metadata)))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

const IGNORED_METADATA: &[&str] = &["managedFields", "ownerReferences", "finalizers", "selfLink"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
