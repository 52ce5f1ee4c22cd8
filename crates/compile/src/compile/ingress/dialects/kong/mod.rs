//! Plans Ingresses as Kong's ingress controller translates them (docs/kong-compatibility.md).
//!
//! ```text
//!   plan.rs ─┬ ../../../kong/route_annotations.rs  annotations of the Ingress
//!            ├ path.rs                          paths by type
//!            └ ../../service_backend.rs ─ ../../../kong/service_annotations.rs, upstream_policy
//!   path_conflicts.rs       paths that get no requests, among all Ingresses of a host
//!   stream_ingress.rs       TCPIngress, UDPIngress ─ ../../streams/
//! ```

mod path;
pub(super) mod path_conflicts;
pub(super) mod plan;
pub(in crate::compile::ingress) mod stream_ingress;
