//! Test harness that runs a real Kubernetes control plane on one machine, without containers: API server, etcd and
//! controllers as processes in their own network namespace, Pods as processes in others.

pub mod apiserver;
pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod conformance;
pub mod controller_manager;
pub mod error_injector;
pub mod etcd;
pub mod existing_cluster;
pub mod helm;
pub mod identity;
pub mod interrupt;
pub mod journal;
pub mod kubectl;
pub mod load_balancer;
pub mod netns;
pub mod node;
pub mod pki;
pub mod portico;
pub mod process;
pub mod programs;
pub mod progress;
pub mod scenario;
pub mod site;
pub mod wait;
pub mod without_cluster;
