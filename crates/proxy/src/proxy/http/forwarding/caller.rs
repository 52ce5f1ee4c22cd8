//! What forwarding needs of whatever sends a request: an exchange with a client, a mirror, a call of Portico itself.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::Instant;

use super::attempt_timeouts::AttemptTimeouts;
use crate::limits::ProxyLimits;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::{ClientWait, ConnectionPools};

/// The sender of a request. By default, it waits until it is dropped, and has no timeouts of its own.
pub(in crate::proxy) trait Caller: 'static {
    /// The body of its requests.
    type Body: RepeatableBody;

    /// The connections over which its requests are sent.
    fn pools(&self) -> &ConnectionPools<Self::Body>;

    /// Maps for the copies of its heads.
    fn header_maps(&self) -> &HeaderMapPool;

    fn limits(&self) -> &ProxyLimits;

    /// Whether it does not wait longer. Its task is woken when it gives up.
    fn has_timed_out(&self) -> bool {
        false
    }

    /// Why a request fails whose response is awaited while the caller gives up.
    fn timeout_error(&self) -> RequestError {
        RequestError::ResponseTimeout
    }

    /// Why the body of its request has ended early, if it has.
    fn body_error(&self) -> Option<RequestError> {
        None
    }

    /// How long more of the body of its request was awaited so far while an endpoint was ready for it.
    fn client_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether more of the body of its request is awaited now.
    fn awaits_client(&self) -> bool {
        false
    }

    /// Whether all of its request was sent to the endpoint.
    fn has_sent_request(&self) -> bool {
        true
    }

    /// Takes what counts a request while it waits for its client.
    fn count_waits(&self, _wait: &ClientWait) {}

    /// Sets the timeouts of the rule or of the Service, which apply from now on.
    fn set_timeouts(&self, _timeouts: &AttemptTimeouts) {}

    /// How long connecting to an endpoint may take, if the rule limits it.
    fn connect_timeout(&self) -> Option<Duration> {
        None
    }

    /// Its request waits for a connection from now on.
    fn begin_connecting(&self) {}

    /// Its request has a connection, or connecting has failed.
    fn end_connecting(&self) {}

    /// Restarts the timeout of waiting for the endpoint.
    fn record_progress(&self) {}

    /// Takes an informational response, such as `103 Early Hints`.
    fn take_informational(&self, _response: Response<()>, _policy: &InformationalPolicy<'_>) {}
}

/// The body of a request that may be sent more than once.
pub(in crate::proxy) trait RepeatableBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Sized + 'static
{
    /// A second body with the same data. This one must be empty or completely buffered.
    fn duplicate(&self) -> Self;

    /// Moves the body into a replay buffer of up to `max_bytes` bytes, and returns a second handle to it. Only one of
    /// the handles can be sent: this one, or the returned one after [`Self::reclaim`]. `namespace`: that of the
    /// Service.
    fn share_for_replay(&mut self, max_bytes: usize, namespace: &Arc<str>) -> Self;

    /// Takes the body back from its replay buffer. `None` if more was sent than the buffer keeps.
    fn reclaim(self) -> Option<Self>;

    /// Whether all of it has arrived.
    fn has_arrived(&self) -> bool;

    /// Reads up to `max_bytes` bytes, and returns whether that is the whole body.
    async fn buffer(&mut self, max_bytes: usize, namespace: &str) -> Result<bool, RequestError>;

    /// The same until the deadline, also if more would follow.
    async fn buffer_until(
        &mut self,
        deadline: Instant,
        max_bytes: usize,
        namespace: &str,
    ) -> Result<bool, RequestError>;
}

/// Awaits the future, which is pinned where it is, so that it need not be moved. Returns `None` once the caller has
/// given up.
pub(super) fn until_timed_out<C: Caller, T>(
    caller: &C,
    mut future: impl Future<Output = T> + Unpin,
) -> impl Future<Output = Option<T>> {
    poll_fn(move |cx| match Pin::new(&mut future).poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if caller.has_timed_out() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
}
