//! The rule for the connections of a TCP listener, or of one hostname of a TLS listener, and for the sessions of a UDP
//! listener: which route forwards them, and to which backends.

use std::sync::Arc;
use std::time::Duration;

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
    /// `None` if it sets nothing.
    pub options: Option<Arc<StreamOptions>>,
}

/// What a route sets in place of the limits of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Connections begin with a PROXY header, whatever their peer is.
    pub reads_proxy_header: bool,
    /// After which time without data a connection is closed.
    pub idle_timeout: Option<Duration>,
    /// To how many endpoints a connection is tried.
    pub connect_attempts: Option<usize>,
    /// After which time it is tried to no other one.
    pub connect_time: Option<Duration>,
}

/// What happens with a connection or a UDP session.
#[derive(Debug, PartialEq)]
pub enum StreamAction {
    /// It is forwarded to an endpoint of one of the backends, which have no filters.
    Forward(WeightedBackends),
    /// No backend can be used, so connections are reset and datagrams dropped.
    Reset(RouteFailure),
}
