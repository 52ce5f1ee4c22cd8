//! Requests of plugins for which no client waits. They go to the backend of the request that caused them, with the
//! timeouts and retries of its rule, and count at the limits of its upstream.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use tokio::time::timeout_at;

use super::attempt_policy::AttemptPolicy;
use super::attempts::forward;
use super::destination::Destination;
use super::forwarded::EndpointResponse;
use super::mirror::BackgroundSender;
use super::outgoing_request::OutgoingRequest;
use crate::hop_count::HopCount;
use crate::plugin_api::context::FinishBackground;
use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::plugin_api::trace::EndpointTrace;
use crate::plugin_chain::background::finish_background;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::shared_limit::{Held, SharedLimit};
use crate::snapshot::rule::{Action, RouteRule};
use crate::turn_clock;
use crate::upstream::{ClientSlot, Upstream};

/// A request that is sent in a task of its own.
pub(in crate::proxy) struct BackgroundSending {
    pub(in crate::proxy) upstream: Arc<Upstream>,
    /// The rule whose timeouts and retries apply.
    pub(in crate::proxy) rule: Arc<RouteRule>,
    /// The timeouts that plugins have set for the client's request.
    pub(in crate::proxy) plugins: EndpointTimeouts,
    pub(in crate::proxy) hash: Option<u64>,
    pub(in crate::proxy) hops: HopCount,
    pub(in crate::proxy) client: ClientSlot,
    pub(in crate::proxy) head: Request<()>,
    pub(in crate::proxy) finish: FinishBackground,
    /// Held until the response is read.
    pub(in crate::proxy) place: Held,
}

impl BackgroundSending {
    /// Sends the request, over connections that no client's request waits for.
    pub(in crate::proxy) fn start(self, sender: &Rc<BackgroundSender>) {
        let sender = Rc::clone(sender);
        tokio::task::spawn_local(async move {
            let sending = self;
            sending.send(&sender).await;
        });
    }

    async fn send(self, sender: &Rc<BackgroundSender>) {
        let BackgroundSending { upstream, rule, plugins, hash, hops, client, head, finish, place: _place } = self;
        let timeouts_and_retries = match &rule.action {
            Action::Forward(backends) => backends.timeouts_and_retries.as_deref(),
            Action::Redirect(_) | Action::Fail(_) => None,
        };
        let rule_id = Some(&rule.id);
        let policy = AttemptPolicy { rule: timeouts_and_retries, rule_id, plugins, ..AttemptPolicy::default() };
        let replay = policy.replay(true, head.method(), upstream.key.protocol);
        let destination = Destination {
            upstream: &upstream,
            pinned: None,
            pinned_others: Box::default(),
            hash,
            admitted: None,
            policy,
            settings: upstream.attempt_settings(),
            upgrade: None,
            may_have_te: true,
            informational: InformationalPolicy::default(),
            trace: EndpointTrace::Unchanged,
            forwarding: None,
            hops,
            client,
        };
        let now = turn_clock::refresh();
        let longest = now + sender.response_timeout();
        let end = destination.time_limit(now).map_or(longest, |limit| limit.end.min(longest));
        let request = head.map(|()| Full::new(Bytes::new()));
        let Ok(mut outgoing) = OutgoingRequest::converted_for_endpoint(Rc::clone(sender), destination, request, replay)
        else {
            return;
        };
        let response = timeout_at(end, forward(&mut outgoing, None)).await;
        let Ok(Ok(response)) = response else {
            drop(finish_background(finish, None, &HeaderMap::new(), SystemTime::now()));
            return;
        };
        let (head, body) = response.into_parts();
        let EndpointResponse::Body(mut body) = body else { return };
        let observers = finish_background(finish, Some(head.status), &head.headers, SystemTime::now());
        let reading = async {
            let mut observers = observers;
            let mut read = 0;
            // A body that is not kept need not be read, and its connection is closed.
            while !observers.is_empty()
                && read <= MAX_BODY
                && let Some(frame) = poll_fn(|cx| body.poll_next(cx)).await
            {
                let Ok(frame) = frame else { return };
                if let Ok(data) = frame.into_data() {
                    read += data.len();
                    observers.iter_mut().for_each(|observer| drop(observer.part(data.clone())));
                }
            }
            if body.is_end_stream() {
                observers.iter_mut().for_each(|observer| drop(observer.end()));
                body.release();
            }
        };
        drop(timeout_at(end, reading).await);
    }
}

impl BackgroundSender {
    /// The limit of requests in the background, of which each namespace has a share.
    pub(in crate::proxy) fn background_limit(&self) -> &SharedLimit {
        &self.background
    }
}

/// How many requests a worker sends in the background at the same time.
pub(super) const MAX_BACKGROUND: usize = 64;
/// The longest body that is read.
const MAX_BODY: usize = 64 << 20;
