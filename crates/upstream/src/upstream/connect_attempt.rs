//! The attempt to open a connection to an endpoint, whose result is recorded in the health of the endpoint.

use std::net::SocketAddr;

use super::endpoint_state::PendingDial;
use super::outcome::{Outcome, OutcomeClass};
use super::{ConnectError, Upstream, UpstreamTarget};

/// A connection that is being opened. Dropping it records that it was given up.
pub(super) struct ConnectAttempt<'u> {
    upstream: &'u Upstream,
    address: SocketAddr,
    has_ended: bool,
    _dial: Option<PendingDial>,
}

impl<'u> ConnectAttempt<'u> {
    pub(super) fn begin(upstream: &'u Upstream, address: SocketAddr) -> Self {
        ConnectAttempt { upstream, address, has_ended: false, _dial: upstream.pending_dial(address) }
    }

    pub(super) fn end(mut self, target: &UpstreamTarget<'_>, error: Option<&ConnectError>) {
        self.has_ended = true;
        record_health(target, self.address, error);
    }
}

impl Drop for ConnectAttempt<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.upstream.report(self.address, &Outcome::of(OutcomeClass::Abandoned));
        }
    }
}

/// Records the result of connecting in the health of the endpoint.
fn record_health(target: &UpstreamTarget<'_>, address: SocketAddr, error: Option<&ConnectError>) {
    let upstream = target.upstream;
    let Some(error) = error else {
        upstream.report(address, &Outcome::of(OutcomeClass::Connected));
        if let Some(name) = &target.server_name {
            upstream.record_tls_success(name);
        }
        return;
    };
    if error.ejects_endpoint(target) {
        upstream.report_unreachable(address, target.server_name.as_deref(), error);
    } else {
        upstream.report(address, &Outcome::of(OutcomeClass::Inconclusive));
    }
    if let ConnectError::TlsHandshake(..) = error {
        warn_handshake(upstream, error);
    }
}

/// Logs a failed TLS handshake, rate-limited since every request may cause it.
pub(super) fn warn_handshake(upstream: &Upstream, error: &ConnectError) {
    if upstream.should_warn() {
        tracing::warn!(upstream = %upstream.key, %error, "TLS handshake with an endpoint failed");
    }
}
