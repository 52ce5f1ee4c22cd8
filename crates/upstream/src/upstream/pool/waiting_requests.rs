//! The requests of a worker that wait for a socket of an upstream, to which its idle connections are handed over.
//!
//! A connection that is handed over is never idle, so that no later request can take it before the one that waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::endpoint_tls::UpstreamServerName;
use crate::upstream::connect::ConnectError;
use crate::upstream::http1::Http1EndpointConnection;
use crate::upstream::socket_budget::SocketPermit;

/// The requests that wait, in the order of arrival.
pub(super) struct WaitingRequests<B>(RefCell<Vec<Rc<WaitingRequest<B>>>>);

impl<B> Default for WaitingRequests<B> {
    fn default() -> Self {
        WaitingRequests(RefCell::default())
    }
}

struct WaitingRequest<B> {
    address: SocketAddr,
    server_name: Option<Rc<UpstreamServerName>>,
    /// The connection that was handed over.
    connection: Cell<Option<Http1EndpointConnection<B>>>,
    waker: Cell<Option<Waker>>,
}

/// What a request has waited for.
pub(super) enum WaitedFor<B> {
    Permit(SocketPermit),
    Idle(Http1EndpointConnection<B>),
}

/// A request that waits, until this is dropped.
struct Waiting<'w, B, P: Fn(SocketAddr, Http1EndpointConnection<B>)> {
    requests: &'w WaitingRequests<B>,
    request: Rc<WaitingRequest<B>>,
    put_back: &'w P,
}

impl<B> WaitingRequests<B> {
    /// Waits for permission to open a socket, or for an idle connection to the endpoint. `put_back` gets the connection
    /// if it is not needed.
    pub(super) async fn wait_for_place(
        &self,
        permit: impl Future<Output = Result<SocketPermit, ConnectError>>,
        address: SocketAddr,
        server_name: Option<&Rc<UpstreamServerName>>,
        put_back: impl Fn(SocketAddr, Http1EndpointConnection<B>),
    ) -> Result<WaitedFor<B>, ConnectError> {
        let mut permit = pin!(permit);
        let mut waiting = None;
        poll_fn(|cx| {
            // Only what must wait is registered.
            if let Poll::Ready(permit) = permit.as_mut().poll(cx) {
                return Poll::Ready(permit.map(WaitedFor::Permit));
            }
            let Waiting { request, .. } =
                waiting.get_or_insert_with(|| self.begin_waiting(address, server_name, &put_back));
            if let Some(connection) = request.connection.take() {
                return Poll::Ready(Ok(WaitedFor::Idle(connection)));
            }
            request.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    fn begin_waiting<'w, P: Fn(SocketAddr, Http1EndpointConnection<B>)>(
        &'w self,
        address: SocketAddr,
        server_name: Option<&Rc<UpstreamServerName>>,
        put_back: &'w P,
    ) -> Waiting<'w, B, P> {
        let request = Rc::new(WaitingRequest {
            address,
            server_name: server_name.cloned(),
            connection: Cell::default(),
            waker: Cell::default(),
        });
        self.0.borrow_mut().push(Rc::clone(&request));
        Waiting { requests: self, request, put_back }
    }

    /// Hands a connection over to the first request that waits for the same endpoint. Returns it if there is none, or
    /// if it may not be handed over. `may_hand_over` gets the number of requests that wait for the endpoint.
    pub(super) fn hand_over(
        &self,
        address: SocketAddr,
        connection: Http1EndpointConnection<B>,
        may_hand_over: impl Fn(usize) -> bool,
    ) -> Option<Http1EndpointConnection<B>> {
        let mut waiting = self.0.borrow_mut();
        let found = waiting.iter().position(|request| {
            request.address == address && connection.monitor().server_name() == request.server_name.as_deref()
        });
        let requests = || waiting.iter().filter(|request| request.address == address).count();
        let Some(found) = found.filter(|_| may_hand_over(requests())) else { return Some(connection) };
        let request = waiting.remove(found);
        request.connection.set(Some(connection));
        if let Some(waker) = request.waker.take() {
            waker.wake();
        }
        None
    }
}

impl<B, P: Fn(SocketAddr, Http1EndpointConnection<B>)> Drop for Waiting<'_, B, P> {
    fn drop(&mut self) {
        self.requests.0.borrow_mut().retain(|request| !Rc::ptr_eq(request, &self.request));
        if let Some(connection) = self.request.connection.take() {
            // The request has found something else, or is given up.
            (self.put_back)(self.request.address, connection);
        }
    }
}
