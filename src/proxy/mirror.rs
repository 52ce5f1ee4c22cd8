//! Request mirroring: sends copies of requests to other upstreams without affecting the request or its client.
//!
//! A copy is sent after the body was forwarded to the endpoint, so a slow mirror does not slow the request. The cost is
//! bounded by the number of copies per worker and by the size of a body: larger requests are not mirrored at all, since
//! half a request is a different request.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::HOST;
use http_body::Body;
use http_body_util::Full;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::attempt::FRESH_CONNECTION_AGE;
use super::limits::ProxyLimits;
use super::outgoing_request::{convert_to_http2, scheme};
use super::request_body::RequestBody;
use super::stats::{MirrorCounters, MirrorOutcome};
use crate::snapshot::rule::Mirror;
use crate::upstream::tls::UpstreamServerName;
use crate::upstream::{
    ConnectionPools, EndpointConnector, IdleLimits, Upstream, UpstreamCounters, UpstreamProtocol, UpstreamTarget,
};

/// Mirroring state of one worker.
pub(super) struct Mirrors {
    /// Separate connections, so that no request waits for a connection that a copy uses.
    pools: ConnectionPools<Full<Bytes>>,
    /// Copies that wait for their body or their response.
    in_flight: Cell<usize>,
    max_copies: usize,
    max_body: usize,
    timeout: Duration,
    counters: Arc<MirrorCounters>,
}

impl Mirrors {
    pub(super) fn new(
        limits: &ProxyLimits,
        connector: EndpointConnector,
        idle_limits: IdleLimits,
        upstream_counters: Arc<UpstreamCounters>,
        counters: Arc<MirrorCounters>,
    ) -> Self {
        Mirrors {
            pools: ConnectionPools::new(connector, idle_limits, upstream_counters),
            in_flight: Cell::new(0),
            max_copies: limits.max_mirror_copies,
            max_body: limits.max_mirror_body,
            timeout: limits.mirror_timeout,
            counters,
        }
    }

    pub(super) fn sweep(&self) {
        self.pools.sweep();
    }

    /// Copies the request to the mirrors that the sampling selects. `finish` applies the filters to the copy; if it
    /// fails, no copy is sent.
    pub(super) fn copy(
        self: &Rc<Self>,
        mirrors: &[Mirror],
        request: &mut Request<RequestBody>,
        finish: impl Fn(&mut Request<()>) -> bool,
    ) {
        for mirror in mirrors.iter().filter(|mirror| mirror.is_sampled(fastrand::u32(..))) {
            if request.body().size_hint().lower() > self.max_body as u64 {
                self.counters.add(MirrorOutcome::TooLarge);
                continue;
            }
            if self.in_flight.get() >= self.max_copies {
                self.counters.add(MirrorOutcome::TooMany);
                continue;
            }
            let mut head = Request::new(());
            *head.method_mut() = request.method().clone();
            *head.uri_mut() = request.uri().clone();
            *head.headers_mut() = request.headers().clone();
            let key = &mirror.upstream.key;
            let finished = finish(&mut head);
            let name = head.headers().get(HOST).filter(|_| key.tls.is_some()).map(UpstreamServerName::from_host);
            let speaks_http2 = key.protocol == UpstreamProtocol::Http2;
            if !finished || speaks_http2 && convert_to_http2(&mut head, scheme(key)).is_err() {
                self.counters.add(MirrorOutcome::Failed);
                continue;
            }
            self.in_flight.set(self.in_flight.get() + 1);
            let copy = MirrorCopy {
                upstream: Arc::clone(&mirror.upstream),
                name,
                head: Some(head),
                mirrors: Rc::clone(self),
                outcome: MirrorOutcome::Truncated,
            };
            if request.body().is_end_stream() {
                copy.send(Bytes::new());
            } else {
                request.body_mut().add_mirror(copy);
            }
        }
    }
}

/// One copy, counted by its outcome when it is dropped.
pub(super) struct MirrorCopy {
    upstream: Arc<Upstream>,
    name: Option<Rc<UpstreamServerName>>,
    head: Option<Request<()>>,
    mirrors: Rc<Mirrors>,
    outcome: MirrorOutcome,
}

impl MirrorCopy {
    /// Sends the copy in a local task, which ends within the mirror timeout or with its worker.
    fn send(self, body: Bytes) {
        tokio::task::spawn_local(async move {
            // Moves the whole copy, so that it is dropped at the end of this task.
            let mut copy = self;
            let Some(head) = copy.head.take() else { return };
            let request = head.map(|()| Full::new(body));
            let target = UpstreamTarget { upstream: &copy.upstream, server_name: copy.name.take() };
            let completed = timeout(copy.mirrors.timeout, send_copy(&copy.mirrors.pools, &target, request)).await;
            copy.outcome = if completed == Ok(true) { MirrorOutcome::Completed } else { MirrorOutcome::Failed };
        });
    }
}

impl Drop for MirrorCopy {
    fn drop(&mut self) {
        self.mirrors.in_flight.set(self.mirrors.in_flight.get() - 1);
        self.mirrors.counters.add(self.outcome);
    }
}

/// Sends a copy. Returns whether a response was read, to its end or up to the limit.
async fn send_copy(
    pools: &ConnectionPools<Full<Bytes>>,
    target: &UpstreamTarget<'_>,
    request: Request<Full<Bytes>>,
) -> bool {
    let Some(address) = pools.next_endpoint(target.upstream, &[]) else { return false };
    let mut request = Some(request);
    loop {
        // Sent once, since it is unknown whether the request is idempotent.
        let idle = pools.idle(target, address, FRESH_CONNECTION_AGE);
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match pools.connect(target, address, None).await {
                Ok(connection) => connection,
                Err(_) => return false,
            },
        };
        let Some(sent) = request.take() else { return false };
        match connection.send(sent).await {
            Ok(response) => {
                let mut body = response.into_body();
                let mut read = 0;
                while read < MAX_RESPONSE_READ
                    && let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
                {
                    let Ok(frame) = frame else { return false };
                    read += frame.data_ref().map_or(0, Bytes::len);
                }
                if body.is_end_stream() {
                    connection.release();
                }
                return true;
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => request = Some(unsent),
                _ => return false,
            },
        }
    }
}

/// The pending copies of one request with the part of the body that was forwarded so far.
#[derive(Default)]
pub(super) struct PendingCopies {
    copies: SmallVec<[MirrorCopy; 1]>,
    bytes: BytesMut,
}

impl PendingCopies {
    pub(super) fn add(&mut self, copy: MirrorCopy) {
        self.copies.push(copy);
    }

    /// Buffers forwarded data. If it exceeds the limit, the copies are dropped.
    pub(super) fn buffer(this: &mut Option<PendingCopies>, data: &Bytes) {
        let Some(copies) = this else { return };
        let most = copies.copies.iter().map(|copy| copy.mirrors.max_body).min().unwrap_or(0);
        if copies.bytes.len() + data.len() > most {
            for copy in &mut copies.copies {
                copy.outcome = MirrorOutcome::TooLarge;
            }
            *this = None;
            return;
        }
        copies.bytes.extend_from_slice(data);
    }

    /// Sends the copies, after the end of the body.
    pub(super) fn send(self) {
        let body = self.bytes.freeze();
        for copy in self.copies {
            copy.send(body.clone());
        }
    }
}

/// Maximum bytes read of a mirror's response so that its connection can be reused. Longer responses close the
/// connection.
const MAX_RESPONSE_READ: usize = 1024 * 1024;
