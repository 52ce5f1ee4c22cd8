//! The rule for the connections of a TCP listener, or of one hostname of a TLS listener, and for the sessions of a UDP
//! listener: which route forwards them, and to which backends.

use std::sync::Arc;

use super::rule::{RouteFailure, RuleId, WeightedBackends};
use crate::plugin_chain::StreamChain;

/// How connections, or the datagrams of UDP sessions, are forwarded.
#[derive(Debug, PartialEq)]
pub struct StreamRule {
    /// `namespace/gateway`.
    pub gateway: Arc<str>,
    pub listener: Arc<str>,
    /// The port that clients see.
    pub port: u16,
    /// The oldest of the attached routes. Without a route, connections are reset and datagrams dropped.
    pub route: Option<Arc<StreamRoute>>,
}

/// The rule of one route that forwards connections.
#[derive(Debug, PartialEq)]
pub struct StreamRoute {
    pub id: RuleId,
    /// The plugins decide whether a connection or session is forwarded.
    pub plugins: Option<Arc<StreamChain>>,
    pub action: StreamAction,
}

/// What happens with a connection or a UDP session.
#[derive(Debug, PartialEq)]
pub enum StreamAction {
    /// It is forwarded to an endpoint of one of the backends, which have no filters.
    Forward(WeightedBackends),
    /// No backend can be used, so connections are reset and datagrams dropped.
    Reset(RouteFailure),
}
