//! What a request knows of its client, and what steps, forwarding and the connection share while it is served.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::Response;

use super::activity::{Activity, ActivityPhase, BodyFailure};
use super::client_body::ClientBody;
use super::client_protocol::ClientProtocol;
use super::http_worker::HttpWorker;
use super::open_streams::OpenStream;
use super::unforwarded_bodies::UnforwardedBodies;
use super::unsent_responses::UnsentResponses;
use crate::http1::write_informational;
use crate::plugin_api::{FieldNames, Scheme};
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::connection::listener_connections::{IdleState, Idleness, ListenerConnections};
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::http::fields::field_policy::{InformationalPolicy, remove_from_informational};
use crate::proxy::http::fields::headers::ForwardedClient;
use crate::proxy::worker::Worker;
use crate::upstream::ClientSlot;

/// What a request knows of its client and of the connection on which it has arrived. On HTTP/1 the requests of a
/// connection share it; on HTTP/2 each stream has its own, with its own [`Activity`].
pub(in crate::proxy) struct ClientExchange {
    pub(in crate::proxy) http: Rc<HttpWorker>,
    pub(in crate::proxy) connections: Rc<ListenerConnections>,
    pub(in crate::proxy) activity: Activity,
    /// The protocol of requests. A connection that turns out to use HTTP/2 has no requests itself.
    pub(in crate::proxy) protocol: ClientProtocol,
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) client: Rc<ForwardedClient>,
    /// In which slot everything that the current request holds is counted: that of the peer, or that of the client
    /// which a trusted peer reports.
    pub(in crate::proxy) counted_client: Cell<ClientSlot>,
    /// What was negotiated, if the connection uses TLS.
    pub(in crate::proxy) tls: Option<Rc<TlsSession>>,
    /// The HTTP/2 stream, which counts as open while this exists.
    open_stream: Option<OpenStream>,
    /// Informational responses that are to be sent before the response, as they are written.
    informational: Cell<Option<Box<BytesMut>>>,
}

impl ClientExchange {
    /// `address` is the client's address, from the PROXY header if there is one.
    pub(in crate::proxy) fn new(
        http: Rc<HttpWorker>,
        connections: Rc<ListenerConnections>,
        address: SocketAddr,
        tls: Option<TlsSession>,
    ) -> Self {
        let ip = address.ip().to_canonical();
        let activity = Activity::new(&http.worker.limits);
        let trusted = http.trusted_ips.iter().any(|network| network.contains(&ip));
        let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
        let client = Rc::new(ForwardedClient::new(ip, trusted, scheme));
        ClientExchange {
            http,
            connections,
            activity,
            protocol: ClientProtocol::Http1,
            address,
            counted_client: Cell::new(client.slot),
            client,
            tls: tls.map(Rc::new),
            open_stream: None,
            informational: Cell::default(),
        }
    }

    /// The state that connections of all protocols share.
    pub(in crate::proxy) fn worker(&self) -> &Worker {
        &self.http.worker
    }

    /// Bytes of a body of the current request that is kept, none so far. `namespace`: that of the object because of
    /// which it is kept.
    pub(in crate::proxy) fn buffered(&self, kept_for: BufferUse, namespace: &str) -> BufferedBytes {
        self.worker().buffers.buffered(kept_for, namespace, self.counted_client.get())
    }

    /// The bytes of the request body that are received and not forwarded, with the number of the request on its
    /// connection. None on HTTP/1.
    pub(in crate::proxy) fn unforwarded(&self) -> Option<(&UnforwardedBodies, u64)> {
        self.open_stream.as_ref()?.unforwarded()
    }

    /// The bytes of responses that the HTTP/2 connection holds because the client has not read them. None on HTTP/1.
    pub(in crate::proxy) fn unsent(&self) -> Option<&Rc<UnsentResponses>> {
        self.open_stream.as_ref().map(OpenStream::unsent)
    }

    /// Keeps the rest of a request body that is not forwarded, so that the HTTP/2 stream is not reset while its client
    /// may still be sending it. Breaks if the body is dropped: on HTTP/1, whose connection reads the rest, and if the
    /// stream needs no more of it.
    pub(in crate::proxy) fn keep_unread(&self, body: ClientBody) -> ControlFlow<()> {
        let ClientBody::Library(body) = body else { return ControlFlow::Break(()) };
        let Some(stream) = &self.open_stream else { return ControlFlow::Break(()) };
        if stream.awaits_continue() || self.activity.body_failure.get() == Some(BodyFailure::Invalid) {
            stream.unread.close();
        }
        stream.unread.keep(body)
    }

    /// The HTTP/2 stream, with what is left of its request body.
    pub(in crate::proxy) fn open_stream(&self) -> Option<&OpenStream> {
        self.open_stream.as_ref()
    }

    /// The request body is read, and has not arrived. Over HTTP/2, a client that expects `100 Continue` gets it now.
    pub(in crate::proxy) fn request_continuation(&self) {
        if let Some(stream) = &self.open_stream {
            stream.request_continuation();
        }
    }

    /// Whether the HTTP/2 connection is not read, because of its unforwarded bytes.
    pub(in crate::proxy) fn is_paused(&self) -> bool {
        self.open_stream.as_ref().is_some_and(OpenStream::is_paused)
    }

    /// How long the HTTP/2 connection was not read so far, because of its unforwarded bytes.
    pub(in crate::proxy) fn paused(&self) -> Duration {
        self.open_stream.as_ref().map_or(Duration::ZERO, OpenStream::paused)
    }

    /// Passes on an informational response of the endpoint, such as `103 Early Hints`. Not on HTTP/2, whose library
    /// cannot send any. If the client does not read them, later ones are omitted.
    pub(in crate::proxy) fn queue_informational(&self, mut response: Response<()>, policy: &InformationalPolicy<'_>) {
        let Some(rule) = policy.rule.filter(|_| self.open_stream.is_none()) else { return };
        let mut queued = self.informational.take().unwrap_or_default();
        if queued.len() < MAX_INFORMATIONAL {
            let others = policy.others.as_deref();
            remove_from_informational(
                response.headers_mut(),
                &self.http.product_headers,
                Some(rule),
                others.unwrap_or(&FieldNames::default()),
            );
            write_informational(&response, &mut queued);
        }
        self.informational.set(Some(queued));
    }

    /// Takes the informational responses that were queued.
    pub(in crate::proxy) fn take_informational(&self) -> Option<Box<BytesMut>> {
        self.informational.take()
    }

    /// The context of a new stream on the same connection, whose requests have this protocol.
    pub(in crate::proxy) fn for_stream(&self, protocol: ClientProtocol, stream: OpenStream) -> Self {
        let activity = Activity::new(&self.http.worker.limits);
        activity.begin_stream(|| stream.paused());
        ClientExchange {
            http: Rc::clone(&self.http),
            connections: Rc::clone(&self.connections),
            activity,
            protocol,
            address: self.address,
            client: Rc::clone(&self.client),
            counted_client: Cell::new(self.client.slot),
            tls: self.tls.clone(),
            open_stream: Some(stream),
            informational: Cell::default(),
        }
    }
}

impl IdleState for ClientExchange {
    fn idleness(&self) -> Option<Idleness> {
        let activity = &self.activity;
        let is_idle = activity.phase() == ActivityPhase::Idle && activity.is_between_requests.get();
        is_idle.then(|| Idleness { had_request: activity.requests.get() > 0, since: activity.last_progress() })
    }
}

impl std::fmt::Debug for ClientExchange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientExchange").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Bytes of informational responses that wait to be sent, before further ones are omitted.
const MAX_INFORMATIONAL: usize = 8 * 1024;
