//! The rule for the connections of a TCP listener, or of one hostname of a TLS listener: which route forwards them, and
//! to which backends.

use std::sync::Arc;

use super::rule::{RouteFailure, RuleId, Split};

/// How connections are forwarded.
#[derive(Debug)]
pub struct StreamRule {
    /// `namespace/gateway`.
    pub gateway: Arc<str>,
    pub listener: Arc<str>,
    /// The port that clients see.
    pub port: u16,
    /// The oldest of the attached routes. Without a route, connections are reset.
    pub route: Option<Arc<StreamRoute>>,
}

/// The rule of one route that forwards connections.
#[derive(Debug, PartialEq)]
pub struct StreamRoute {
    pub id: RuleId,
    pub action: StreamAction,
}

/// What happens with a connection.
#[derive(Debug, PartialEq)]
pub enum StreamAction {
    /// The connection is forwarded to an endpoint of one of the backends, which have no filters.
    Forward(Split),
    /// No backend can be used, so the connection is reset.
    Reset(RouteFailure),
}
