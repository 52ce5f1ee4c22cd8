//! What an object with ports for connections or datagrams compiles to, in any dialect.

use std::sync::Arc;

use crate::compile::ingress::settings::{StreamListener, StreamProtocol};
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::Certificates;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::stream::StreamRoute;
use crate::upstream::UpstreamKey;

/// The compiled state of a served object.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct StreamIngressPlan {
    pub generation: i64,
    pub created: Option<i64>,
    pub rules: Vec<PlannedRule>,
    /// By the hosts of `spec.tls`.
    pub certificates: HostMap<Arc<Certificates>>,
    pub upstreams: Vec<UpstreamKey>,
    /// Errors that prevent parts of the object from being served.
    pub errors: Vec<Diagnostic>,
    /// Diagnostics about parts that are served, but possibly not as intended.
    pub notes: Vec<Diagnostic>,
}

/// A rule whose port is open.
#[derive(Debug)]
pub(in crate::compile::ingress) struct PlannedRule {
    pub port: u16,
    pub protocol: StreamProtocol,
    /// `Any` without TLS.
    pub host: HostPattern,
    pub route: Arc<StreamRoute>,
    /// The field of the rule, for diagnostics.
    pub field: String,
}

/// The protocol of the listener of a port, for a rule that expects one. `listeners`: `None` if they are not known, as
/// in `portico check`. An error about `field` if the port is not open.
pub(in crate::compile::ingress) fn open_port(
    listeners: Option<&[StreamListener]>,
    port: u16,
    expected: StreamProtocol,
    field: &str,
) -> Result<StreamProtocol, Diagnostic> {
    let Some(listeners) = listeners else { return Ok(expected) };
    let transport = expected.transport();
    let is_that_port =
        |listener: &&StreamListener| listener.address.port() == port && listener.protocol.transport() == transport;
    listeners.iter().find(is_that_port).map(|listener| listener.protocol).ok_or_else(|| {
        let message = format!("{} port {port} is not open", transport.to_string().to_uppercase());
        let entry = format!("{port}{}", expected.suffix());
        let remedy = format!("add {entry} to --ingress-stream-ports, or use a port of its list");
        Diagnostic::error(field, message, remedy)
    })
}
