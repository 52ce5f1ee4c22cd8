//! The Services in front of Gateways: written by the replica that leads, read by all.
//!
//! ```text
//!   Wants (what the Gateways need) ─▶ plan ──steps──▶ API server      leader: Services; each Pod: its own EndpointSlices
//!                                      ▲                  │
//!                                      └──── world ◀──watch
//!                                              └──▶ View (ports and addresses that the Services say) ─▶ compile
//! ```
//!
//! With a pool of addresses a Gateway's Service is headless: it carries the labels and annotations that the Gateway wants
//! on what is made for it, and nothing else. Otherwise it is how clients get to us: it has no selector, since all Gateways
//! share the same Pods and each needs ports of its own there. Which port that is stands in the Service and nowhere else,
//! so a restart or another leader moves nothing.

mod applied;
mod choice;
mod keeper;
mod names;
mod plan;
mod pod;
mod ports;
mod service;
mod slices;
mod table;
mod watch;
mod world;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use choice::Bound;
pub use keeper::{Inputs, Settings, keep};
pub use slices::Stay;

use super::client::chain;
use crate::api::ObjectKey;
use crate::api::core::ServiceType;

/// What is in front of Gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: they have addresses of a pool. Their Service is only a carrier of labels and annotations.
    Headless,
    Exposed(ServiceType),
}

/// What a Gateway needs of its Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Of the Gateway.
    pub uid: Arc<str>,
    pub class: String,
    /// The controller name of its class, in whose name we act.
    pub controller: String,
    /// Of `spec.infrastructure`, and `annotations` likewise.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The ports of its listeners.
    pub ports: BTreeSet<u16>,
    /// The address that it is to have.
    pub address: Option<IpAddr>,
    /// The Gateway is not accepted: what there is stays as it is, and nothing new is made.
    pub hold: bool,
}

/// What all Gateways need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub gateways: BTreeMap<ObjectKey, Want>,
    /// The uids of Gateways that belong to another controller. What we made for them when they were ours goes.
    pub foreign: BTreeMap<ObjectKey, Arc<str>>,
}

/// What the Services in front of Gateways say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Everything was listed once; nothing should be concluded from what is missing before.
    pub complete: bool,
    pub fronts: BTreeMap<ObjectKey, Front>,
    /// The Gateways that it speaks of: of others it says nothing.
    pub of: Arc<Wants>,
    /// The addresses of our own Pod.
    pub pod_ips: Vec<IpAddr>,
    /// Those of every Pod of ours, itself included.
    pub replicas: BTreeSet<IpAddr>,
}

/// The Service in front of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// Its name; empty if there is none.
    pub name: String,
    /// Where it sends each of its ports.
    pub ports: BTreeMap<u16, u16>,
    /// Where clients find it: IP addresses, or names that a balancer has.
    pub addresses: Vec<String>,
    /// Why it is not as it should be.
    pub trouble: Option<Trouble>,
}

/// What keeps us from doing something, and what would help: clauses without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub message: String,
    pub remedy: String,
}
