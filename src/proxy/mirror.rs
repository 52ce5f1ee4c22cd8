//! Copies of requests to other upstreams. Nobody waits for them: neither the request nor its client notices.
//!
//! A copy is sent once the body has passed by on its way to the endpoint, so that nothing has to go at its speed. What that
//! costs is bounded: copies per worker, and bytes of a body; a larger one is not mirrored at all, since half a request is
//! another request.

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

use super::body::RequestBody;
use super::forward::{FRESH, put_into_http2, scheme};
use super::limits::Limits;
use super::stats::{Mirrored, Mirroring};
use crate::snapshot::rule::Mirror;
use crate::upstream::tls::Name;
use crate::upstream::{Aim, Dial, Keep, Pools, Protocol, Traffic, Upstream};

/// The copies of one worker.
pub(crate) struct Mirrors {
    /// Connections of their own, so that no request has to wait for one that a copy has.
    pools: Pools<Full<Bytes>>,
    /// Copies that wait for their body, or for their answer.
    present: Cell<usize>,
    most: usize,
    most_bytes: usize,
    patience: Duration,
    counts: Arc<Mirroring>,
}

impl Mirrors {
    pub(crate) fn new(limits: &Limits, dial: Dial, keep: Keep, traffic: Arc<Traffic>, counts: Arc<Mirroring>) -> Self {
        Mirrors {
            pools: Pools::new(dial, keep, traffic),
            present: Cell::new(0),
            most: limits.mirror_copies,
            most_bytes: limits.mirror_body,
            patience: limits.mirror_timeout,
            counts,
        }
    }

    pub(crate) fn sweep(&self) {
        self.pools.sweep();
    }

    /// Copies the request to those of the mirrors that are drawn. `finish` makes the copy what they are to see; if it cannot,
    /// there is no copy.
    pub(crate) fn copy(
        self: &Rc<Self>,
        mirrors: &[Mirror],
        request: &mut Request<RequestBody>,
        finish: impl Fn(&mut Request<()>) -> bool,
    ) {
        for mirror in mirrors.iter().filter(|mirror| mirror.is_drawn(fastrand::u32(..))) {
            if request.body().size_hint().lower() > self.most_bytes as u64 {
                self.counts.add(Mirrored::TooLarge);
                continue;
            }
            if self.present.get() >= self.most {
                self.counts.add(Mirrored::TooMany);
                continue;
            }
            let mut head = Request::new(());
            *head.method_mut() = request.method().clone();
            *head.uri_mut() = request.uri().clone();
            *head.headers_mut() = request.headers().clone();
            let key = &mirror.upstream.key;
            let finished = finish(&mut head);
            let name = head.headers().get(HOST).filter(|_| key.tls.is_some()).map(Name::of);
            let speaks_http2 = key.protocol == Protocol::Http2;
            if !finished || speaks_http2 && put_into_http2(&mut head, scheme(key)).is_err() {
                self.counts.add(Mirrored::Failed);
                continue;
            }
            self.present.set(self.present.get() + 1);
            let copy = Copy {
                upstream: Arc::clone(&mirror.upstream),
                name,
                head: Some(head),
                mirrors: Rc::clone(self),
                outcome: Mirrored::CutShort,
            };
            if request.body().is_end_stream() {
                copy.send(Bytes::new());
            } else {
                request.body_mut().copy_to(copy);
            }
        }
    }
}

/// One copy, in the books when it is dropped.
pub(crate) struct Copy {
    upstream: Arc<Upstream>,
    name: Option<Rc<Name>>,
    head: Option<Request<()>>,
    mirrors: Rc<Mirrors>,
    outcome: Mirrored,
}

impl Copy {
    /// The task ends within the patience that copies get, and a worker that ends takes it along.
    fn send(self, body: Bytes) {
        tokio::task::spawn_local(async move {
            // All of it, so that it is dropped when this ends.
            let mut copy = self;
            let Some(head) = copy.head.take() else { return };
            let request = head.map(|()| Full::new(body));
            let aim = Aim { upstream: &copy.upstream, name: copy.name.take() };
            let answered = timeout(copy.mirrors.patience, deliver(&copy.mirrors.pools, &aim, request)).await;
            copy.outcome = if answered == Ok(true) { Mirrored::Answered } else { Mirrored::Failed };
        });
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.mirrors.present.set(self.mirrors.present.get() - 1);
        self.mirrors.counts.add(self.outcome);
    }
}

/// Whether there was an answer, to its end or far enough.
async fn deliver(pools: &Pools<Full<Bytes>>, aim: &Aim<'_>, request: Request<Full<Bytes>>) -> bool {
    let Some(address) = pools.next(aim.upstream, &[]) else { return false };
    let mut request = Some(request);
    loop {
        // Sent once, like everything that is not known to bear repeating.
        let idle = pools.idle(aim, address, FRESH);
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match pools.connect(aim, address, None).await {
                Ok(connection) => connection,
                Err(_) => return false,
            },
        };
        let Some(sent) = request.take() else { return false };
        match connection.send(sent).await {
            Ok(answer) => {
                let mut body = answer.into_body();
                let mut read = 0;
                while read < MOST_OF_AN_ANSWER
                    && let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
                {
                    let Ok(frame) = frame else { return false };
                    read += frame.data_ref().map_or(0, Bytes::len);
                }
                if body.is_end_stream() {
                    connection.keep();
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

/// The copies of one request, and as much of its body as has passed.
#[derive(Default)]
pub(crate) struct Copies {
    copies: SmallVec<[Copy; 1]>,
    bytes: BytesMut,
}

impl Copies {
    pub(crate) fn add(&mut self, copy: Copy) {
        self.copies.push(copy);
    }

    /// Takes in what passes. If that becomes too much, there will be no copies.
    pub(crate) fn take_in(this: &mut Option<Copies>, data: &Bytes) {
        let Some(copies) = this else { return };
        let most = copies.copies.iter().map(|copy| copy.mirrors.most_bytes).min().unwrap_or(0);
        if copies.bytes.len() + data.len() > most {
            for copy in &mut copies.copies {
                copy.outcome = Mirrored::TooLarge;
            }
            *this = None;
            return;
        }
        copies.bytes.extend_from_slice(data);
    }

    /// The body has come to its end.
    pub(crate) fn send(self) {
        let body = self.bytes.freeze();
        for copy in self.copies {
            copy.send(body.clone());
        }
    }
}

/// What is read of an answer, so that its connection can be used again. A longer one costs it its connection.
const MOST_OF_AN_ANSWER: usize = 1024 * 1024;
