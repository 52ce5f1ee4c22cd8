//! Why an attempt yielded no response, and what that says about the endpoint and about sending the request again.

use h2::Reason;

use crate::endpoint_tls::UpstreamHandshakeError;
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::{ConnectError, EndpointError, OutcomeClass, RetryReason};

/// Why an attempt yielded no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum AttemptError {
    /// No connection could be established.
    NotConnected(RequestError),
    /// Not a byte of the request was sent; the request was put back.
    NotSent,
    /// The endpoint reports that it did not process the request. It can be sent again if a copy was kept.
    NotProcessed,
    /// The connection closed before the first byte of a response.
    NoResponse,
    /// The endpoint ended the connection with ENHANCE_YOUR_CALM before a response: it had too many frames, of all
    /// requests on the connection together. It may have processed this one.
    Complaint,
    /// The endpoint reset the stream before a response. It may have processed the request.
    StreamReset,
    Failed(RequestError),
}

impl AttemptError {
    pub(super) fn from_connect_error(error: &ConnectError) -> Self {
        match error {
            ConnectError::TimedOut(..) | ConnectError::TlsHandshake(_, UpstreamHandshakeError::TimedOut(_)) => {
                AttemptError::NotConnected(RequestError::ConnectTimeout)
            }
            ConnectError::TlsHandshake(..) => AttemptError::NotConnected(RequestError::TlsHandshake),
            ConnectError::NotHttp2(_) => AttemptError::NotConnected(RequestError::InvalidResponse),
            ConnectError::Refused(_) | ConnectError::Failed(..) => {
                AttemptError::NotConnected(RequestError::ConnectionRefused)
            }
            ConnectError::OwnSocket(_) => AttemptError::NotConnected(RequestError::LoopDetected),
            // Another endpoint would need a connection as well.
            ConnectError::LimitReached(..) | ConnectError::LocalShortage(..) => {
                AttemptError::Failed(RequestError::ConnectionLimit)
            }
        }
    }

    pub(super) fn from_endpoint_error(error: &EndpointError) -> Self {
        let library_error = match error {
            EndpointError::Library(error) => error,
            EndpointError::Closed | EndpointError::Reset => return AttemptError::NoResponse,
            EndpointError::Invalid(_) | EndpointError::RequestBody(_) => {
                return AttemptError::Failed(RequestError::InvalidResponse);
            }
        };
        if let Some(error) = http2_error(error) {
            let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            // After a GOAWAY, streams up to its last stream id continue. h2 reports the error only to later streams,
            // which the endpoint did not process (RFC 9113, section 6.8).
            let is_beyond_last_stream = error.is_go_away();
            return match error {
                error if error.is_remote() && (is_refused || is_beyond_last_stream) => AttemptError::NotProcessed,
                // Any other GOAWAY was sent by this side, because the endpoint violated the protocol.
                error if error.is_io() || error.is_go_away() => AttemptError::NoResponse,
                error if error.is_remote() && error.is_reset() => AttemptError::StreamReset,
                _ => AttemptError::Failed(RequestError::InvalidResponse),
            };
        }
        let is_io = std::error::Error::source(library_error).is_some_and(|source| source.is::<std::io::Error>());
        let is_closed = library_error.is_canceled() || library_error.is_closed();
        if is_closed || is_io { AttemptError::NoResponse } else { AttemptError::Failed(RequestError::InvalidResponse) }
    }

    /// The error of the request, if the attempt is the last one.
    pub(in crate::proxy) fn request_error(&self) -> RequestError {
        match self {
            AttemptError::NotSent | AttemptError::NotProcessed | AttemptError::NoResponse | AttemptError::Complaint => {
                RequestError::NoResponse
            }
            AttemptError::StreamReset => RequestError::InvalidResponse,
            AttemptError::NotConnected(error) | AttemptError::Failed(error) => *error,
        }
    }

    /// Whether the endpoint certainly did not process the request.
    pub(super) fn was_not_processed(&self) -> bool {
        match self {
            AttemptError::NotConnected(_) | AttemptError::NotSent | AttemptError::NotProcessed => true,
            AttemptError::NoResponse
            | AttemptError::Complaint
            | AttemptError::StreamReset
            | AttemptError::Failed(_) => false,
        }
    }

    /// Whether the endpoint is out of service, and certainly did not process the request: another upstream may.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            // This process itself would be the endpoint.
            AttemptError::NotConnected(RequestError::LoopDetected) => false,
            AttemptError::NotConnected(_) | AttemptError::NotSent | AttemptError::NotProcessed => true,
            AttemptError::NoResponse
            | AttemptError::Complaint
            | AttemptError::StreamReset
            | AttemptError::Failed(_) => false,
        }
    }

    /// The reason for a retry. `None` if no configuration retries the error.
    pub(super) fn retry_reason(&self) -> Option<RetryReason> {
        match self {
            AttemptError::NotConnected(_) => Some(RetryReason::ConnectFailure),
            AttemptError::NotSent | AttemptError::NotProcessed => Some(RetryReason::RefusedStream),
            AttemptError::NoResponse | AttemptError::Complaint | AttemptError::StreamReset => Some(RetryReason::Reset),
            AttemptError::Failed(RequestError::BackendRequestTimeout) => Some(RetryReason::Timeout),
            AttemptError::Failed(_) => None,
        }
    }

    /// What is reported about the endpoint after it got a connection. `None` if the client has caused the error, and
    /// for errors of connecting, which are reported at once.
    pub(super) fn outcome(&self) -> Option<OutcomeClass> {
        match self {
            AttemptError::NotConnected(_) => None,
            AttemptError::NotSent | AttemptError::NotProcessed => Some(OutcomeClass::NotProcessed),
            AttemptError::NoResponse => Some(OutcomeClass::NoResponse),
            AttemptError::Complaint => Some(OutcomeClass::Inconclusive),
            AttemptError::StreamReset => Some(OutcomeClass::Failed),
            AttemptError::Failed(error) => match error {
                RequestError::ResponseTimeout | RequestError::BackendRequestTimeout => Some(OutcomeClass::TimedOut),
                RequestError::InvalidResponse | RequestError::TlsHandshake | RequestError::NoResponse => {
                    Some(OutcomeClass::Failed)
                }
                _ => None,
            },
        }
    }
}

/// The error of the library for HTTP/2 that has caused this one.
pub(super) fn http2_error(error: &EndpointError) -> Option<&h2::Error> {
    let EndpointError::Library(error) = error else { return None };
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::upstream::LocalShortage;

    #[test]
    fn lack_of_ports_is_reported_as_a_limit_and_not_as_an_error_of_the_endpoint() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for shortage in [LocalShortage::Descriptors, LocalShortage::Ports, LocalShortage::Memory] {
            let error = AttemptError::from_connect_error(&ConnectError::LocalShortage(address, shortage));
            assert_eq!(error.request_error(), RequestError::ConnectionLimit, "{shortage:?}");
            assert!(!matches!(error, AttemptError::NotConnected(_)), "another endpoint is not tried, {shortage:?}");
        }
    }
}
