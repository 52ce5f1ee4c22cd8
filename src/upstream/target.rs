//! Where one request or connection is sent.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::socket_budget::client_slots::ClientSlot;
use super::tls::UpstreamServerName;

/// The upstream of a request with the TLS server name to use.
#[derive(Clone, Debug)]
pub struct UpstreamTarget<'u> {
    pub upstream: &'u Arc<Upstream>,
    /// The TLS server name. A connection established under one name is not used for another.
    pub server_name: Option<Rc<UpstreamServerName>>,
    /// The client for which the request is sent.
    pub client: ClientSlot,
    /// The duration of the last TLS handshake, if there was one.
    pub handshake_time: Cell<Option<Duration>>,
}
