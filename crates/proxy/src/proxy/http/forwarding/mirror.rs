//! Request mirroring: sends copies of requests to other upstreams without affecting the request or its client.
//!
//! A copy is sent after the body was forwarded to the endpoint, so a slow mirror does not slow the request. The cost is
//! bounded by the number of copies that a worker sends, by the size of a body, and by the limit of bodies in memory.
//! Requests with larger bodies are not mirrored, since a copy with part of the body is a different request.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::Body;
use http_body_util::Full;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::attempt_policy::AttemptPolicy;
use super::attempts::forward;
use super::background::MAX_BACKGROUND;
use super::caller::{Caller, RepeatableBody};
use super::destination::Destination;
use super::forwarded::EndpointResponse;
use super::outgoing_request::OutgoingRequest;
use crate::hop_count::HopCount;
use crate::limits::ProxyLimits;
use crate::plugin_api::trace::EndpointTrace;
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes, WorkerBuffers};
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::telemetry::stats::{MirrorCounters, MirrorOutcome};
use crate::shared_limit::{Share, SharedLimit};
use crate::snapshot::rule::Mirror;
use crate::upstream::{ClientSlot, ConnectionPools, EndpointSearch, Upstream};

/// The body of a request that may be mirrored.
pub(in crate::proxy) trait MirroredBody: Body {
    /// Adds a copy of the request, which gets all data of the body.
    fn add_mirror_copy(&mut self, copy: MirrorCopy);
}

/// Sends the requests of one worker for which no client waits: mirrored copies, and those of plugins.
pub(in crate::proxy) struct BackgroundSender {
    /// Separate from the pools of requests, so that no request waits for a connection that a copy uses.
    pools: ConnectionPools<Full<Bytes>>,
    /// Copies that wait for their response, of which the Services of each namespace have a share. Those that wait for
    /// their body have no place, so clients that never end their bodies take none from others.
    copies: SharedLimit,
    /// Requests that plugins send in the background.
    pub(super) background: SharedLimit,
    limits: ProxyLimits,
    header_maps: HeaderMapPool,
    counters: Arc<MirrorCounters>,
    buffers: Rc<WorkerBuffers>,
}

impl BackgroundSender {
    pub(in crate::proxy) fn new(
        limits: &ProxyLimits,
        pools: ConnectionPools<Full<Bytes>>,
        counters: Arc<MirrorCounters>,
        buffers: Rc<WorkerBuffers>,
    ) -> Self {
        BackgroundSender {
            pools,
            copies: SharedLimit::new(limits.max_mirror_copies),
            background: SharedLimit::new(MAX_BACKGROUND),
            limits: limits.clone(),
            header_maps: HeaderMapPool::default(),
            counters,
            buffers,
        }
    }

    pub(super) fn response_timeout(&self) -> Duration {
        self.limits.response_timeout
    }

    pub(in crate::proxy) fn sweep(&self) {
        self.pools.sweep();
    }

    pub(in crate::proxy) fn shed_idle(&self) {
        self.pools.shed_idle();
    }

    /// Copies the request for each of the mirrors that the sampling selects; each has the hash of the request for it.
    /// `hops` is that of the request. If `apply_filters` returns false, no copy is sent.
    pub(in crate::proxy) fn mirror_request<'m>(
        self: &Rc<Self>,
        mirrors: impl Iterator<Item = (&'m Mirror, Option<u64>)>,
        request: &mut Request<impl MirroredBody>,
        client: ClientSlot,
        hops: HopCount,
        apply_filters: impl Fn(&mut Request<()>) -> bool,
    ) {
        for (mirror, hash) in mirrors.filter(|(mirror, _)| mirror.is_sampled(fastrand::u32(..))) {
            if request.body().size_hint().lower() > self.limits.max_mirror_body as u64 {
                self.counters.add(MirrorOutcome::TooLarge);
                continue;
            }
            let share = self.copies.share(&mirror.upstream.key.namespace);
            // Before the work for the copy, which takes its place only when the body is complete.
            if !self.copies.has_room(&share) {
                self.counters.add(MirrorOutcome::TooMany);
                continue;
            }
            let mut head = Request::new(());
            *head.method_mut() = request.method().clone();
            *head.uri_mut() = request.uri().clone();
            *head.headers_mut() = request.headers().clone();
            if !apply_filters(&mut head) {
                self.counters.add(MirrorOutcome::Failed);
                continue;
            }
            let copy = MirrorCopy {
                upstream: Arc::clone(&mirror.upstream),
                share,
                client,
                hash,
                head: Some(head),
                hops,
                sender: Rc::clone(self),
                outcome: MirrorOutcome::Truncated,
            };
            if request.body().is_end_stream() {
                copy.send(Bytes::new(), None);
            } else {
                request.body_mut().add_mirror_copy(copy);
            }
        }
    }
}

/// One copy, counted by its outcome when it is dropped.
pub(in crate::proxy) struct MirrorCopy {
    upstream: Arc<Upstream>,
    /// What the namespace of the mirror has of the places.
    share: Arc<Share>,
    /// The client of the request.
    client: ClientSlot,
    /// The hash of the client's request, for load balancing.
    hash: Option<u64>,
    /// The request without its body. None once the copy is sent.
    head: Option<Request<()>>,
    hops: HopCount,
    sender: Rc<BackgroundSender>,
    /// What is counted on drop: `Truncated` until the body is complete and the copy is sent.
    outcome: MirrorOutcome,
}

impl MirrorCopy {
    /// Sends the copy in a local task, which ends within the mirror timeout or with its worker. Without a place, it is
    /// not sent.
    fn send(mut self, body: Bytes, kept: Option<Rc<BufferedBytes>>) {
        let Ok(place) = self.sender.copies.try_take(&self.share, 1) else {
            self.outcome = MirrorOutcome::TooMany;
            return;
        };
        tokio::task::spawn_local(async move {
            let _held = (place, kept);
            // Moves the whole copy, so that it is dropped at the end of this task.
            let mut copy = self;
            let Some(head) = copy.head.take() else { return };
            let sending = copy.send_whole(head.map(|()| Full::new(body)));
            let completed = timeout(copy.sender.limits.mirror_timeout, sending).await;
            copy.outcome = if completed == Ok(true) { MirrorOutcome::Completed } else { MirrorOutcome::Failed };
        });
    }

    /// Sends the copy. Returns whether a response was read, to its end or up to [`MAX_RESPONSE_READ`].
    async fn send_whole(&self, request: Request<Full<Bytes>>) -> bool {
        let policy = AttemptPolicy { is_mirror: true, ..AttemptPolicy::default() };
        let destination = Destination {
            upstream: &self.upstream,
            pinned: None,
            pinned_others: Box::default(),
            hash: self.hash,
            admitted: None,
            policy,
            settings: None,
            upgrade: None,
            may_have_te: true,
            informational: InformationalPolicy::default(),
            trace: EndpointTrace::Unchanged,
            forwarding: None,
            hops: self.hops,
            client: self.client,
        };
        let replay = policy.replay(true, request.method(), self.upstream.key.protocol);
        let Ok(mut outgoing) =
            OutgoingRequest::converted_for_endpoint(Rc::clone(&self.sender), destination, request, replay)
        else {
            return false;
        };
        // So that the trial of a half-open endpoint is left to requests whose outcome counts, if there are any.
        outgoing.search = EndpointSearch::new(None, self.hash).repeatable(false);
        let Ok(response) = forward(&mut outgoing, None).await else { return false };
        let EndpointResponse::Body(mut body) = response.into_body() else { return false };
        let mut read = 0;
        while read < MAX_RESPONSE_READ
            && let Some(frame) = poll_fn(|cx| body.poll_next(cx)).await
        {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        if body.is_end_stream() {
            body.release();
        }
        true
    }
}

/// Copies wait for as long as their timeout, which ends their task.
impl Caller for BackgroundSender {
    type Body = Full<Bytes>;

    fn pools(&self) -> &ConnectionPools<Full<Bytes>> {
        &self.pools
    }

    fn header_maps(&self) -> &HeaderMapPool {
        &self.header_maps
    }

    fn limits(&self) -> &ProxyLimits {
        &self.limits
    }
}

/// The body of a request that Portico has made or kept.
impl RepeatableBody for Full<Bytes> {
    fn duplicate(&self) -> Self {
        self.clone()
    }

    fn share_for_replay(&mut self, _max_bytes: usize, _namespace: &Arc<str>) -> Self {
        self.clone()
    }

    fn reclaim(self) -> Option<Self> {
        Some(self)
    }

    fn has_arrived(&self) -> bool {
        true
    }

    async fn buffer(&mut self, _max_bytes: usize, _namespace: &str) -> Result<bool, RequestError> {
        Ok(true)
    }

    async fn buffer_until(
        &mut self,
        _deadline: Instant,
        _max_bytes: usize,
        _namespace: &str,
    ) -> Result<bool, RequestError> {
        Ok(true)
    }
}

impl Drop for MirrorCopy {
    fn drop(&mut self) {
        self.sender.counters.add(self.outcome);
    }
}

/// The pending copies of one request with the part of the body that was forwarded so far.
#[derive(Default)]
pub(in crate::proxy) struct PendingCopies {
    copies: SmallVec<[MirrorCopy; 1]>,
    bytes: BytesMut,
    /// The bytes of `bytes`. None before the first.
    kept: Option<BufferedBytes>,
}

impl PendingCopies {
    pub(in crate::proxy) fn add(&mut self, copy: MirrorCopy) {
        self.copies.push(copy);
    }

    /// Buffers forwarded data. Drops the copies once the buffered data exceeds the limit of a body or of the process.
    pub(in crate::proxy) fn buffer(this: &mut Option<PendingCopies>, data: &Bytes) {
        let Some(pending) = this else { return };
        if let Err(outcome) = pending.try_buffer(data) {
            for copy in &mut pending.copies {
                copy.outcome = outcome;
            }
            *this = None;
        }
    }

    fn try_buffer(&mut self, data: &Bytes) -> Result<(), MirrorOutcome> {
        // All copies of a request have the same sender.
        let Some(MirrorCopy { sender, upstream, client, .. }) = self.copies.first() else { return Ok(()) };
        if self.bytes.len() + data.len() > sender.limits.max_mirror_body {
            return Err(MirrorOutcome::TooLarge);
        }
        let namespace = &upstream.key.namespace;
        let kept = self.kept.get_or_insert_with(|| sender.buffers.buffered(BufferUse::Mirror, namespace, *client));
        kept.try_grow(data.len()).map_err(|_| MirrorOutcome::BufferLimit)?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Sends the copies, after the end of the body.
    pub(in crate::proxy) fn send(self) {
        let body = self.bytes.freeze();
        let kept = self.kept.map(Rc::new);
        for copy in self.copies {
            copy.send(body.clone(), kept.clone());
        }
    }
}

/// Maximum bytes read of a mirror's response. After a longer response the connection is closed, not reused.
const MAX_RESPONSE_READ: usize = 1024 * 1024;
