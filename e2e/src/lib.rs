//! A real Kubernetes control plane on one machine, without containers: API server, database and controllers as
//! processes in a network namespace of their own, Pods as processes in others.

pub mod cluster;
pub mod identity;
pub mod netns;
pub mod state;
