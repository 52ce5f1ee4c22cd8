//! An object of any kind, parsed into its type.

use std::sync::Arc;

use serde_json::Value;

use crate::api::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
use crate::api::gateway::{BackendTlsPolicy, Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use crate::api::{Kind, Meta, Object, ObjectId};

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
    pub fn parse(kind: Kind, value: Value) -> Result<AnyObject, Malformed> {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<Arc<T>, Malformed> {
            serde_path_to_error::deserialize(value)
                .map(Arc::new)
                .map_err(|error| Malformed { field: error.path().to_string(), message: error.into_inner().to_string() })
        }
        #[derive(serde::Deserialize)]
        struct MetaOnly {
            metadata: Meta,
        }
        Ok(match kind {
            Kind::GatewayClass => AnyObject::GatewayClass(read(value)?),
            Kind::Gateway => AnyObject::Gateway(read(value)?),
            Kind::HttpRoute => AnyObject::HttpRoute(read(value)?),
            Kind::BackendTlsPolicy => AnyObject::BackendTlsPolicy(read(value)?),
            Kind::ReferenceGrant => AnyObject::ReferenceGrant(read(value)?),
            Kind::Service => AnyObject::Service(read(value)?),
            Kind::EndpointSlice => AnyObject::EndpointSlice(read(value)?),
            Kind::Secret => AnyObject::Secret(read(value)?),
            Kind::ConfigMap => AnyObject::ConfigMap(read(value)?),
            Kind::Namespace => AnyObject::Namespace(read(value)?),
            Kind::ListenerSet
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::XBackend
            | Kind::XBackendTrafficPolicy
            | Kind::XMesh
            | Kind::XTelemetryPolicy => {
                let object: Arc<MetaOnly> = read(value)?;
                AnyObject::Unserved(kind, Arc::new(object.metadata.clone()))
            }
        })
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
            AnyObject::Unserved(_, meta) => Arc::make_mut(meta),
        };
        meta.generation = generation;
    }
}
