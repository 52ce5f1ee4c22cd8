//! A real Kubernetes control plane on one machine, without containers: API server, database and controllers as
//! processes in a network namespace of their own, Pods as processes in others.

pub mod apiserver;
pub mod balancer;
pub mod bench;
pub mod borrowed;
pub mod cluster;
pub mod conformance;
pub mod controller_manager;
pub mod etcd;
pub mod front;
pub mod helm;
pub mod identity;
pub mod interrupt;
pub mod kubectl;
pub mod netns;
pub mod node;
pub mod patience;
pub mod pki;
pub mod portico;
pub mod process;
pub mod programs;
pub mod progress;
pub mod scenario;
pub mod site;
pub mod state;
