//! An object of any kind, parsed into its type.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::unserved::UnservedObject;
use crate::api::gateway::{Gateway, PolicyTargetReference};
use crate::api::kind::for_each_served_kind;
use crate::api::{self, Kind, Meta, Object, ObjectId};

macro_rules! any_object {
    ($($module:ident::$kind:ident in $table:ident,)*) => {
        /// An object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $($kind(Arc<Object<api::$module::$kind>>),)*
            /// An object that cannot be read as its kind.
            Unparseable(Arc<UnparseableObject>),
            /// An object whose kind is validated but not served, so that a verdict can say so.
            Unserved(Arc<UnservedObject>),
            /// An object that is larger than an object may be.
            Oversized(Arc<OversizedObject>),
        }

        impl AnyObject {
            pub fn kind(&self) -> Kind {
                match self {
                    $(AnyObject::$kind(_) => Kind::$kind,)*
                    AnyObject::Unparseable(object) => object.kind,
                    AnyObject::Unserved(object) => object.kind,
                    AnyObject::Oversized(object) => object.kind,
                }
            }

            pub fn meta(&self) -> &Meta {
                match self {
                    $(AnyObject::$kind(object) => &object.meta,)*
                    AnyObject::Unparseable(object) => &object.meta,
                    AnyObject::Unserved(object) => &object.meta,
                    AnyObject::Oversized(object) => &object.meta,
                }
            }

            fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    $(AnyObject::$kind(object) => &mut Arc::make_mut(object).meta,)*
                    AnyObject::Unparseable(object) => &mut Arc::make_mut(object).meta,
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
        if !matches!(kind, Kind::Service | Kind::XBackend | Kind::KongConsumer) {
            // Only the UIDs of these are used.
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
        self.edit_meta(&|meta: &mut Meta| meta.generation = generation);
    }

    /// Changes the metadata of the object and, if something else is stored in its place, of that too.
    pub fn edit_meta(&mut self, edit: &impl Fn(&mut Meta)) {
        edit(self.meta_mut());
        let stored = match self {
            AnyObject::Oversized(oversized) => &mut Arc::make_mut(oversized).stored,
            AnyObject::Unparseable(unparseable) => &mut Arc::make_mut(unparseable).stored,
            _ => return,
        };
        if let Some(stored) = stored {
            stored.edit_meta(edit);
        }
    }
}

/// An object that is larger than an object may be.
#[derive(Clone, Debug, PartialEq)]
pub struct OversizedObject {
    pub kind: Kind,
    pub meta: Meta,
    /// The size of the whole object.
    pub size: u64,
    /// Whether `stored` is the whole object.
    pub is_whole: bool,
    /// What is stored as an object of its kind: the whole object if it is kept, or what its refusal needs. `None` if a
    /// reference to the object has the same effect as if it did not exist.
    pub stored: Option<AnyObject>,
}

impl OversizedObject {
    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind, self.meta.key.clone())
    }
}

/// An object that cannot be read as its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct UnparseableObject {
    pub kind: Kind,
    pub meta: Meta,
    /// The field that names its class cannot be read, so it may be an object of this process.
    pub has_unknown_class: bool,
    /// The annotation that names the plugins of a consumer group cannot be read.
    pub has_unknown_plugins: bool,
    /// What takes its place in the table of its kind. `None` if a reference to it has the same effect as if it did not
    /// exist.
    pub stored: Option<AnyObject>,
    /// The targets of a BackendTLSPolicy; `None` if they cannot be read either, which means all Services of its
    /// namespace.
    pub targets: Option<Vec<PolicyTargetReference>>,
}

impl UnparseableObject {
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
