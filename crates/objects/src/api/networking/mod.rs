//! The group networking.k8s.io, reduced to the fields that Portico reads: Ingress and IngressClass.

mod ingress;
mod ingress_class;

pub use ingress::{
    HttpIngressPath, HttpIngressRules, Ingress, IngressBackend, IngressResource, IngressRule, IngressService,
    IngressServicePort, IngressSpec, IngressTls,
};
pub use ingress_class::{IngressClass, IngressClassParametersReference, IngressClassSpec};
