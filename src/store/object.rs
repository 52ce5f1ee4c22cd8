//! An object of any kind, parsed into its type.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::unserved::UnservedObject;
use crate::api::gateway::{Gateway, PolicyTargetReference};
use crate::api::kind::for_each_served_kind;
use crate::api::{self, Kind, Meta, Object, ObjectId, ObjectKey};

macro_rules! any_object {
    ($($module:ident::$kind:ident in $table:ident,)*) => {
        /// An object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $($kind(Arc<Object<api::$module::$kind>>),)*
            /// A BackendTLSPolicy that cannot be parsed, reduced to its targets.
            UnparseablePolicy(Arc<UnparseablePolicy>),
            /// An object whose kind is validated but not served, so that a verdict can say so.
            Unserved(Arc<UnservedObject>),
            /// An object that is larger than an object may be.
            Oversized(Arc<OversizedObject>),
        }

        impl AnyObject {
            pub fn kind(&self) -> Kind {
                match self {
                    $(AnyObject::$kind(_) => Kind::$kind,)*
                    AnyObject::UnparseablePolicy(_) => Kind::BackendTlsPolicy,
                    AnyObject::Unserved(object) => object.kind,
                    AnyObject::Oversized(object) => object.kind,
                }
            }

            pub fn meta(&self) -> &Meta {
                match self {
                    $(AnyObject::$kind(object) => &object.meta,)*
                    AnyObject::UnparseablePolicy(policy) => &policy.meta,
                    AnyObject::Unserved(object) => &object.meta,
                    AnyObject::Oversized(object) => &object.meta,
                }
            }

            fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    $(AnyObject::$kind(object) => &mut Arc::make_mut(object).meta,)*
                    AnyObject::UnparseablePolicy(policy) => &mut Arc::make_mut(policy).meta,
                    AnyObject::Unserved(object) => &mut Arc::make_mut(object).meta,
                    AnyObject::Oversized(object) => &mut Arc::make_mut(object).meta,
                }
            }
        }

        fn read_as(kind: Kind, meta: Meta, body: Value) -> Result<AnyObject, MalformedObject> {
            Ok(match kind {
                $(Kind::$kind => AnyObject::$kind(Arc::new(Object { meta, body: deserialize_part("", body)? })),)*
                unserved => AnyObject::Unserved(Arc::new(UnservedObject::read(unserved, meta, &body))),
            })
        }
    };
}
for_each_served_kind!(any_object);

/// Why an object cannot be parsed as its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct MalformedObject {
    pub field: String,
    pub message: String,
}

impl AnyObject {
    /// Parses a complete object (`apiVersion`, `kind`, `metadata`, …) as the given kind, whatever its size.
    pub fn parse(kind: Kind, mut value: Value) -> Result<AnyObject, MalformedObject> {
        let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
        read_as(kind, AnyObject::parse_metadata(kind, metadata)?, value)
    }

    /// Parses the metadata of an object of the given kind.
    pub(super) fn parse_metadata(kind: Kind, metadata: Value) -> Result<Meta, MalformedObject> {
        let mut meta: Meta = deserialize_part("metadata", metadata)?;
        if kind != Kind::Secret {
            // Only the revision of a Secret is used. Any other would make objects differ whose parsed content is equal:
            // it changes with the status and with unknown fields.
            meta.revision = 0;
        }
        if !matches!(kind, Kind::Service | Kind::XBackend) {
            // Only the UIDs of Services and XBackends are used.
            meta.uid = None;
        }
        Ok(meta)
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind(), self.meta().key.clone())
    }

    /// The Gateway that this object is, whatever its size.
    pub fn gateway_mut(&mut self) -> Option<&mut Gateway> {
        match self {
            AnyObject::Gateway(gateway) => Some(&mut Arc::make_mut(gateway).body),
            AnyObject::Oversized(oversized) => Arc::make_mut(oversized).stored.as_mut()?.gateway_mut(),
            _ => None,
        }
    }

    /// Sets the generation of an object whose source does not count generations.
    pub fn set_generation(&mut self, generation: i64) {
        self.meta_mut().generation = generation;
        if let AnyObject::Oversized(oversized) = self
            && let Some(stored) = &mut Arc::make_mut(oversized).stored
        {
            stored.set_generation(generation);
        }
    }
}

/// A BackendTLSPolicy that cannot be parsed. It still protects its targets: no requests are sent to them in plain text.
#[derive(Clone, Debug, PartialEq)]
pub struct UnparseablePolicy {
    pub meta: Meta,
    /// The targets; `None` if they cannot be parsed either, which means all Services of its namespace.
    pub targets: Option<Vec<PolicyTargetReference>>,
}

impl UnparseablePolicy {
    /// Extracts the targets of an object that failed to parse as a BackendTLSPolicy.
    pub fn from_value(key: ObjectKey, generation: i64, object: &Value) -> UnparseablePolicy {
        let parse = |target: &Value| PolicyTargetReference::deserialize(target).ok();
        let targets = object["spec"]["targetRefs"].as_array().and_then(|targets| targets.iter().map(parse).collect());
        // An empty list of targets is invalid, too.
        let targets = targets.filter(|targets: &Vec<_>| !targets.is_empty());
        UnparseablePolicy { meta: Meta { generation, ..Meta::new(key) }, targets }
    }
}

/// An object that is larger than an object may be.
#[derive(Clone, Debug, PartialEq)]
pub struct OversizedObject {
    pub kind: Kind,
    pub meta: Meta,
    /// The size of the whole object.
    pub size: u64,
    /// What is stored as an object of its kind: the whole object if it is kept, or what its refusal needs. `None` if a
    /// reference to the object has the same effect as if it did not exist.
    pub stored: Option<AnyObject>,
}

impl OversizedObject {
    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind, self.meta.key.clone())
    }
}

/// Deserializes a part of an object. `part` is its path, which is empty for the whole object.
fn deserialize_part<T: DeserializeOwned>(part: &str, value: Value) -> Result<T, MalformedObject> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match (part, error.path().to_string()) {
            (part, path) if path == "." => part.to_owned(),
            ("", path) => path,
            (part, path) => format!("{part}.{path}"),
        };
        MalformedObject { field, message: error.into_inner().to_string() }
    })
}
