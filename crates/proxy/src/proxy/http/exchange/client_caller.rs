//! An exchange with a client as the caller of an endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use super::activity::{BodyFailure, UploadState};
use super::client_exchange::ClientExchange;
use super::read_timeout::RuleTimeouts;
use super::request_body::RequestBody;
use crate::limits::ProxyLimits;
use crate::proxy::buffer_budget::BufferUse;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::forwarding::attempt_timeouts::AttemptTimeouts;
use crate::proxy::http::forwarding::caller::{Caller, RepeatableBody};
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::{ClientWait, ConnectionPools};

impl Caller for ClientExchange {
    type Body = RequestBody;

    fn pools(&self) -> &ConnectionPools<RequestBody> {
        &self.http.pools
    }

    fn header_maps(&self) -> &HeaderMapPool {
        &self.http.header_maps
    }

    fn limits(&self) -> &ProxyLimits {
        &self.worker().limits
    }

    fn has_timed_out(&self) -> bool {
        self.activity.timed_out.get()
    }

    fn timeout_error(&self) -> RequestError {
        match self.activity.upload() {
            UploadState::AwaitingClient => self.activity.body_timeout_error(),
            UploadState::AwaitingEndpoint | UploadState::Complete => RequestError::ResponseTimeout,
        }
    }

    fn body_error(&self) -> Option<RequestError> {
        self.activity.body_failure.get().map(|failure| match failure {
            BodyFailure::TooLarge => RequestError::BodyTooLarge,
            BodyFailure::Invalid => RequestError::InvalidBody,
        })
    }

    fn client_time(&self) -> Duration {
        self.activity.client_time()
    }

    fn awaits_client(&self) -> bool {
        self.activity.upload() == UploadState::AwaitingClient
    }

    fn has_sent_request(&self) -> bool {
        self.activity.upload() == UploadState::Complete && !self.activity.body_unread.get()
    }

    fn count_waits(&self, wait: &ClientWait) {
        self.activity.count_waits(wait);
    }

    fn set_timeouts(&self, timeouts: &AttemptTimeouts) {
        self.activity.rule_timeouts.set(RuleTimeouts::new(timeouts));
    }

    fn connect_timeout(&self) -> Option<Duration> {
        self.activity.rule_timeouts.get().connect()
    }

    fn begin_connecting(&self) {
        self.activity.connecting.set(true);
    }

    fn end_connecting(&self) {
        self.activity.connecting.set(false);
        if !self.activity.rule_timeouts.get().is_unset() {
            // The write and read timeouts start here.
            self.activity.record_progress();
        }
    }

    fn record_progress(&self) {
        self.activity.record_progress();
    }

    fn take_informational(&self, response: Response<()>, policy: &InformationalPolicy<'_>) {
        self.queue_informational(response, policy);
    }
}

impl RepeatableBody for RequestBody {
    fn duplicate(&self) -> Self {
        RequestBody::duplicate(self)
    }

    fn share_for_replay(&mut self, max_bytes: usize, namespace: &Arc<str>) -> Self {
        RequestBody::share_for_replay(self, max_bytes, namespace)
    }

    fn reclaim(self) -> Option<Self> {
        RequestBody::reclaim(self)
    }

    fn has_arrived(&self) -> bool {
        RequestBody::has_arrived(self)
    }

    async fn buffer(&mut self, max_bytes: usize, namespace: &str) -> Result<bool, RequestError> {
        self.buffer_up_to(max_bytes, BufferUse::Replay, namespace).await.map_err(|_| RequestError::InvalidBody)
    }

    async fn buffer_until(
        &mut self,
        deadline: Instant,
        max_bytes: usize,
        namespace: &str,
    ) -> Result<bool, RequestError> {
        let buffering = RequestBody::buffer_until(self, deadline, max_bytes, BufferUse::Replay, namespace);
        buffering.await.map_err(|_| RequestError::InvalidBody)
    }
}
