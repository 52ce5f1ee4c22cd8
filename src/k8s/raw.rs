//! An object as the API server sends it, read so that no content of it can stop a watch, and without what nobody reads.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};

/// An object of any kind. With `META` the API server is asked for nothing but the metadata.
///
/// Every JSON object is one, whatever its fields hold: what is wrong with a single object is found when it is read as its
/// kind, and then it is a verdict about that object instead of an error of the whole list.
#[derive(Clone)]
pub(super) struct Raw<const META: bool = false> {
    /// What the client needs of it. The rest of the metadata is in `object`.
    meta: ObjectMeta,
    /// `metadata`, `spec` and whatever else there is, but not `status`.
    object: Map<String, Value>,
    status: Value,
}

/// The resource that a kind is, in one of its versions.
pub(super) fn resource(kind: Kind, version: &str) -> ApiResource {
    let group = kind.group();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

impl<const META: bool> Raw<META> {
    /// None for what has no name, which no API server sends.
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

    /// Whether the name of an annotation begins with one of these.
    pub(super) fn has_annotation_of(&self, prefixes: &[&str]) -> bool {
        let annotations = self.object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let mut names = annotations.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
        names.any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// The object without its status, and the status.
    pub(super) fn into_parts(self) -> (Value, Value) {
        (Value::Object(self.object), self.status)
    }
}

impl<const META: bool> Resource for Raw<META> {
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

/// Names it, and never shows what is in it: it may be a Secret.
impl<const META: bool> fmt::Debug for Raw<META> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Raw").field("key", &self.key()).finish_non_exhaustive()
    }
}

impl<'de, const META: bool> Deserialize<'de> for Raw<META> {
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
                            let Metadata(value) = fields.next_value()?;
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
        Ok(Raw { meta, object, status })
    }
}

/// Metadata, whose largest part nobody reads: passed over instead of being built and dropped.
struct Metadata(Value);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Metadata;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Metadata, A::Error> {
                let mut metadata = Map::new();
                while let Some(name) = fields.next_key::<String>()? {
                    if UNREAD.contains(&name.as_str()) {
                        fields.next_value::<IgnoredAny>()?;
                    } else {
                        metadata.insert(name, fields.next_value()?);
                    }
                }
                Ok(Metadata(Value::Object(metadata)))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

const UNREAD: &[&str] = &["managedFields", "ownerReferences", "finalizers", "selfLink"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_object_can_be_read_and_loses_what_nobody_reads() {
        let whole = json!({
            "apiVersion": "v1", "kind": "Gateway",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "managedFields": [{"manager": "kubectl"}], "annotations": {"a": "b"}},
            "spec": {"listeners": 5},
            "status": {"addresses": []},
        });
        let raw: Raw = serde_json::from_value(whole).unwrap();
        assert_eq!(raw.key(), Some(ObjectKey::new("shop", "web")));
        assert_eq!((raw.uid(), raw.resource_version(), raw.generation()), ("u", "7", 3));
        assert_eq!(raw.annotation("a"), Some("b"));
        let (object, status) = raw.into_parts();
        assert_eq!(status, json!({"addresses": []}));
        assert_eq!(object["spec"], json!({"listeners": 5}));
        assert_eq!(object["metadata"].get("managedFields"), None);

        for odd in [json!({}), json!({"metadata": {"name": 5, "labels": [1]}}), json!({"spec": null, "status": 1})] {
            let raw: Raw = serde_json::from_value(odd).unwrap();
            assert_eq!(raw.key(), None);
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let raw: Raw = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "aGlkZGVu"}})).unwrap();
        assert!(!format!("{raw:?}").contains("aGlkZGVu"));
    }

    #[test]
    fn resources_are_named_as_paths_need_them() {
        let route = resource(Kind::HttpRoute, "v1");
        assert_eq!(
            Raw::<false>::url_path(&route, Some("a")),
            "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"
        );
        assert_eq!(Raw::<true>::url_path(&resource(Kind::Secret, "v1"), None), "/api/v1/secrets");
    }
}
