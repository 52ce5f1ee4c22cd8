//! An object of any kind, parsed into its type.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kept::{bodies, kept};
use crate::api::gateway::PolicyTargetReference;
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};

macro_rules! any_object {
    ($($kind:ident in $table:ident,)*) => {
        /// An object of any kind that we keep.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $($kind(Arc<Object<bodies::$kind>>),)*
            /// What is left of a BackendTLSPolicy that cannot be read.
            Guard(Arc<Guard>),
            /// A kind that we check but do not serve: known by its metadata, so that a verdict can say so.
            Unserved(Kind, Arc<Meta>),
        }

        impl AnyObject {
            pub fn kind(&self) -> Kind {
                match self {
                    $(AnyObject::$kind(_) => Kind::$kind,)*
                    AnyObject::Guard(_) => Kind::BackendTlsPolicy,
                    AnyObject::Unserved(kind, _) => *kind,
                }
            }

            pub fn meta(&self) -> &Meta {
                match self {
                    $(AnyObject::$kind(object) => &object.meta,)*
                    AnyObject::Guard(guard) => &guard.meta,
                    AnyObject::Unserved(_, meta) => meta,
                }
            }

            fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    $(AnyObject::$kind(object) => &mut Arc::make_mut(object).meta,)*
                    AnyObject::Guard(guard) => &mut Arc::make_mut(guard).meta,
                    AnyObject::Unserved(_, meta) => Arc::make_mut(meta),
                }
            }
        }

        fn read_as(kind: Kind, meta: Meta, body: Value) -> Result<AnyObject, Malformed> {
            Ok(match kind {
                $(Kind::$kind => AnyObject::$kind(Arc::new(Object { meta, body: read("", body)? })),)*
                Kind::ListenerSet
                | Kind::GrpcRoute
                | Kind::TlsRoute
                | Kind::TcpRoute
                | Kind::UdpRoute
                | Kind::XBackend
                | Kind::XBackendTrafficPolicy
                | Kind::XMesh
                | Kind::XTelemetryPolicy => AnyObject::Unserved(kind, Arc::new(meta)),
            })
        }
    };
}
kept!(any_object);

/// Why an object cannot be read as its kind, although its schema was satisfied or not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Malformed {
    pub field: String,
    pub message: String,
}

impl AnyObject {
    /// Reads a whole object (`apiVersion`, `kind`, `metadata`, …) as the given kind.
    pub fn parse(kind: Kind, mut value: Value) -> Result<AnyObject, Malformed> {
        let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
        let mut meta: Meta = read("metadata", metadata)?;
        if kind != Kind::Secret {
            // A status that is written, or a field that nobody reads, makes no other object.
            meta.revision = 0;
        }
        read_as(kind, meta, value)
    }

    /// Whether we serve what objects of a kind say. Of others it is known that they are there.
    pub fn is_served(kind: Kind) -> bool {
        let named = serde_json::json!({"metadata": {"name": "x"}});
        !matches!(AnyObject::parse(kind, named), Ok(AnyObject::Unserved(..)))
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind(), self.meta().key.clone())
    }

    /// Counts the versions of an object that comes from a source which does not count them itself.
    pub fn set_generation(&mut self, generation: i64) {
        self.meta_mut().generation = generation;
    }
}

/// A policy that cannot be read guards all the same: what it was to protect must not be sent in plain text.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    pub meta: Meta,
    /// What it is about; None if not even that can be read, and then it is every Service of its namespace.
    pub targets: Option<Vec<PolicyTargetReference>>,
}

impl Guard {
    /// Of an object that is no BackendTLSPolicy, although it is said to be one.
    pub fn of(key: ObjectKey, generation: i64, object: &Value) -> Guard {
        let read = |target: &Value| PolicyTargetReference::deserialize(target).ok();
        let targets = object["spec"]["targetRefs"].as_array().and_then(|targets| targets.iter().map(read).collect());
        // To be about nothing is not to be readable either.
        let targets = targets.filter(|targets: &Vec<_>| !targets.is_empty());
        Guard {
            meta: Meta {
                key,
                generation,
                revision: 0,
                created: None,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
            },
            targets,
        }
    }
}

/// Reads a part of an object, which is at this path in it.
fn read<T: DeserializeOwned>(at: &str, value: Value) -> Result<T, Malformed> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match (at, error.path().to_string()) {
            (at, path) if path == "." => at.to_owned(),
            ("", path) => path,
            (at, path) => format!("{at}.{path}"),
        };
        Malformed { field, message: error.into_inner().to_string() }
    })
}
