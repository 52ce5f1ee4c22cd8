//! An object of any kind, parsed into its type.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
use crate::api::gateway::{BackendTlsPolicy, Gateway, GatewayClass, HttpRoute, PolicyTargetReference, ReferenceGrant};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};

/// An object of any kind that we keep.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyObject {
    GatewayClass(Arc<Object<GatewayClass>>),
    Gateway(Arc<Object<Gateway>>),
    HttpRoute(Arc<Object<HttpRoute>>),
    BackendTlsPolicy(Arc<Object<BackendTlsPolicy>>),
    ReferenceGrant(Arc<Object<ReferenceGrant>>),
    Service(Arc<Object<Service>>),
    EndpointSlice(Arc<Object<EndpointSlice>>),
    Secret(Arc<Object<Secret>>),
    ConfigMap(Arc<Object<ConfigMap>>),
    Namespace(Arc<Object<Namespace>>),
    /// What is left of a BackendTLSPolicy that cannot be read.
    Guard(Arc<Guard>),
    /// A kind that we check but do not serve: known by its metadata, so that a verdict can say so.
    Unserved(Kind, Arc<Meta>),
}

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
        let meta: Meta = read("metadata", metadata)?;
        Ok(match kind {
            Kind::GatewayClass => AnyObject::GatewayClass(whole(meta, value)?),
            Kind::Gateway => AnyObject::Gateway(whole(meta, value)?),
            Kind::HttpRoute => AnyObject::HttpRoute(whole(meta, value)?),
            Kind::BackendTlsPolicy => AnyObject::BackendTlsPolicy(whole(meta, value)?),
            Kind::ReferenceGrant => AnyObject::ReferenceGrant(whole(meta, value)?),
            Kind::Service => AnyObject::Service(whole(meta, value)?),
            Kind::EndpointSlice => AnyObject::EndpointSlice(whole(meta, value)?),
            Kind::Secret => AnyObject::Secret(whole(meta, value)?),
            Kind::ConfigMap => AnyObject::ConfigMap(whole(meta, value)?),
            Kind::Namespace => AnyObject::Namespace(whole(meta, value)?),
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

    /// Whether we serve what objects of a kind say. Of others it is known that they are there.
    pub fn is_served(kind: Kind) -> bool {
        let named = serde_json::json!({"metadata": {"name": "x"}});
        !matches!(AnyObject::parse(kind, named), Ok(AnyObject::Unserved(..)))
    }

    pub fn kind(&self) -> Kind {
        match self {
            AnyObject::GatewayClass(_) => Kind::GatewayClass,
            AnyObject::Gateway(_) => Kind::Gateway,
            AnyObject::HttpRoute(_) => Kind::HttpRoute,
            AnyObject::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            AnyObject::ReferenceGrant(_) => Kind::ReferenceGrant,
            AnyObject::Service(_) => Kind::Service,
            AnyObject::EndpointSlice(_) => Kind::EndpointSlice,
            AnyObject::Secret(_) => Kind::Secret,
            AnyObject::ConfigMap(_) => Kind::ConfigMap,
            AnyObject::Namespace(_) => Kind::Namespace,
            AnyObject::Guard(_) => Kind::BackendTlsPolicy,
            AnyObject::Unserved(kind, _) => *kind,
        }
    }

    pub fn meta(&self) -> &Meta {
        match self {
            AnyObject::GatewayClass(object) => &object.meta,
            AnyObject::Gateway(object) => &object.meta,
            AnyObject::HttpRoute(object) => &object.meta,
            AnyObject::BackendTlsPolicy(object) => &object.meta,
            AnyObject::ReferenceGrant(object) => &object.meta,
            AnyObject::Service(object) => &object.meta,
            AnyObject::EndpointSlice(object) => &object.meta,
            AnyObject::Secret(object) => &object.meta,
            AnyObject::ConfigMap(object) => &object.meta,
            AnyObject::Namespace(object) => &object.meta,
            AnyObject::Guard(guard) => &guard.meta,
            AnyObject::Unserved(_, meta) => meta,
        }
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::new(self.kind(), self.meta().key.clone())
    }

    /// Counts the versions of an object that comes from a source which does not count them itself.
    pub fn set_generation(&mut self, generation: i64) {
        let meta = match self {
            AnyObject::GatewayClass(object) => &mut Arc::make_mut(object).meta,
            AnyObject::Gateway(object) => &mut Arc::make_mut(object).meta,
            AnyObject::HttpRoute(object) => &mut Arc::make_mut(object).meta,
            AnyObject::BackendTlsPolicy(object) => &mut Arc::make_mut(object).meta,
            AnyObject::ReferenceGrant(object) => &mut Arc::make_mut(object).meta,
            AnyObject::Service(object) => &mut Arc::make_mut(object).meta,
            AnyObject::EndpointSlice(object) => &mut Arc::make_mut(object).meta,
            AnyObject::Secret(object) => &mut Arc::make_mut(object).meta,
            AnyObject::ConfigMap(object) => &mut Arc::make_mut(object).meta,
            AnyObject::Namespace(object) => &mut Arc::make_mut(object).meta,
            AnyObject::Guard(guard) => &mut Arc::make_mut(guard).meta,
            AnyObject::Unserved(_, meta) => Arc::make_mut(meta),
        };
        meta.generation = generation;
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
            meta: Meta { key, generation, created: None, labels: BTreeMap::new(), annotations: BTreeMap::new() },
            targets,
        }
    }
}

fn whole<T: DeserializeOwned>(meta: Meta, body: Value) -> Result<Arc<Object<T>>, Malformed> {
    Ok(Arc::new(Object { meta, body: read("", body)? }))
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
