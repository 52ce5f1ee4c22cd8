//! What happens to a connection before its first request. Each step has its time, and a reason in the books if it fails.
//!
//! ```text
//!   accepted ─▶ PROXY header ─▶ TLS handshake ─▶ protocol ─▶ connection::serve
//!               if the peer is   if the port has  by ALPN
//!               one that sends it listeners of HTTPS
//! ```

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{self, Peer};
use super::group::{Group, Membership};
use super::http2;
use super::proxy_header::{self, Invalid, Origin};
use super::stats::HeaderOutcome;
use super::tls::{Failure, Session};
use super::transport::Transport;
use super::worker::Worker;

/// A connection that can be served.
struct Ready {
    transport: Transport,
    /// Of the client, which is not the peer if that is a balancer.
    address: SocketAddr,
    session: Option<Session>,
}

/// Serves a connection from here to its end. What is `held` is dropped then.
pub(crate) fn start(
    stream: TcpStream,
    address: SocketAddr,
    worker: &Rc<Worker>,
    group: &Rc<Group>,
    held: impl Sized + 'static,
) {
    let (worker, group) = (Rc::clone(worker), Rc::clone(group));
    // It joins before its task runs: a group that closes meanwhile must know of it.
    let membership = group.join();
    let steps = Steps { proxied: worker.is_balancer(address), tls: serves_tls(&worker, &group) };
    if steps.proxied || steps.tls {
        run(in_steps(stream, address, steps, worker, group, membership), held);
    } else {
        // A task of its own kind, since every connection would pay for what only the others need.
        let peer = Rc::new(Peer::new(worker, group, address, None));
        run(connection::serve(Transport::Plain(stream), peer, membership), held);
    }
}

fn run(connection: impl Future<Output = ()> + 'static, held: impl Sized + 'static) {
    tokio::task::spawn_local(async move {
        connection.await;
        drop(held);
    });
}

async fn in_steps(
    stream: TcpStream,
    address: SocketAddr,
    steps: Steps,
    worker: Rc<Worker>,
    group: Rc<Group>,
    mut membership: Membership,
) {
    // Boxed: what the steps need is set aside only as long as they last.
    let preparing = Box::pin(prepare(stream, address, steps, &worker, &group));
    let ready = attended(&group, &mut membership, preparing).await.flatten();
    if let Some(Ready { transport, address, session }) = ready {
        let http2 = session.as_ref().is_some_and(|session| session.http2);
        let peer = Rc::new(Peer::new(worker, group, address, session));
        if http2 {
            // Boxed like all that most connections do not need.
            Box::pin(http2::serve(transport, peer, membership)).await;
        } else {
            connection::serve(transport, peer, membership).await;
        }
    }
}

#[derive(Clone, Copy)]
struct Steps {
    proxied: bool,
    tls: bool,
}

/// Whether clients of this address shake hands. When it is gone from the snapshot, those who are still in its queue are
/// met as they were before.
fn serves_tls(worker: &Worker, group: &Group) -> bool {
    if let Some(bind) = worker.view().bind(&group.address) {
        group.tls.set(bind.tls.is_some());
    }
    group.tls.get()
}

/// None if the connection is over; the reason is in the books then.
async fn prepare(
    mut stream: TcpStream,
    mut address: SocketAddr,
    steps: Steps,
    worker: &Worker,
    group: &Group,
) -> Option<Ready> {
    if steps.proxied {
        let outcome = timeout(worker.limits.proxy_header_timeout, proxy_header::read(&mut stream)).await;
        note_header(worker, group, address, &outcome);
        match outcome {
            Ok(Ok(Origin::Client(client))) => address = client,
            Ok(Ok(Origin::Peer)) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
    if !steps.tls {
        return Some(Ready { transport: Transport::Plain(stream), address, session: None });
    }
    let mut turn = None;
    let shaking = async {
        // Who is here first is served first; a client that waits in vain has its time like any other.
        turn = worker.handshakes.acquire().await.ok();
        worker
            .tls
            .accept(stream, |name| {
                let view = worker.view();
                let bind = view.bind(&group.address)?;
                bind.certificates(name).cloned()
            })
            .await
    };
    let outcome = timeout(worker.limits.handshake_timeout, shaking).await;
    let outcome = outcome.unwrap_or_else(|_| Err(if turn.is_some() { Failure::Timeout } else { Failure::Overload }));
    note_handshake(worker, group, address, &outcome);
    let (stream, session) = outcome.ok()?;
    Some(Ready { transport: Transport::Tls(Box::new(stream)), address, session: Some(session) })
}

type Headed = Result<Result<Origin, Invalid>, Elapsed>;

fn note_header(worker: &Worker, group: &Group, peer: SocketAddr, outcome: &Headed) {
    let counted = match outcome {
        Ok(Ok(Origin::Client(_))) => HeaderOutcome::Client,
        Ok(Ok(Origin::Peer)) => HeaderOutcome::Peer,
        Ok(Err(Invalid::Ended)) => HeaderOutcome::Ended,
        Ok(Err(Invalid::NotAHeader)) => HeaderOutcome::Malformed,
        Ok(Err(Invalid::TooLong)) => HeaderOutcome::TooLong,
        Err(_) => HeaderOutcome::Timeout,
    };
    worker.ledger.headers[counted as usize].add(1);
    let error: &dyn std::error::Error = match outcome {
        Ok(Ok(_)) => return,
        // How many balancers look whether somebody listens.
        Ok(Err(Invalid::Ended)) => return tracing::debug!(%peer, "A balancer left without a PROXY header"),
        Ok(Err(invalid)) => invalid,
        Err(elapsed) => elapsed,
    };
    // Balancers are few, known and configured by the operator, so this is worth a line, but not one per client.
    let now = Instant::now();
    if worker.warned.get().is_none_or(|last| now - last >= WARN_EVERY) {
        worker.warned.set(Some(now));
        tracing::warn!(
            %peer, listener = %group.address, %error,
            "Closed a connection of a balancer that did not send a PROXY header; see --proxy-protocol-from"
        );
    }
}

fn note_handshake<T>(worker: &Worker, group: &Group, client: SocketAddr, outcome: &Result<(T, Session), Failure>) {
    let handshakes = &worker.ledger.handshakes;
    match outcome {
        Ok((_, session)) if session.resumed => handshakes.resumed.add(1),
        Ok(_) => handshakes.full.add(1),
        Err(failure) => {
            handshakes.failed[*failure as usize].add(1);
            // Strangers fail all day long, so it takes a closer look to see them one by one.
            tracing::debug!(%client, listener = %group.address, reason = failure.word(), "TLS handshake failed");
        }
    }
}

/// Goes through a step unless the connection is cut meanwhile. Once the listener closes, it has to come to its end soon.
async fn attended<T>(group: &Group, membership: &mut Membership, step: impl Future<Output = T>) -> Option<T> {
    let mut step = pin!(step);
    let mut last_call = None;
    poll_fn(|cx| {
        membership.wake_with(cx.waker());
        if let Poll::Ready(outcome) = step.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        if group.is_cut() {
            return Poll::Ready(None);
        }
        if group.is_closing() {
            let last_call = last_call.get_or_insert_with(|| Box::pin(sleep(LAST_CALL)));
            return last_call.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    })
    .await
}

/// What a connection that is not ready for requests yet still gets when its listener closes.
const LAST_CALL: Duration = Duration::from_secs(3);
/// How often a worker complains about balancers.
const WARN_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F, G>(_: impl Fn(A, B, C, D, E, F) -> G) -> usize {
        size_of::<G>()
    }

    /// The steps are over before the first request, and are not to be paid for as long as a connection is open.
    #[test]
    fn being_ready_costs_little_later() {
        let whole = size(in_steps);
        assert!(whole <= 1700, "a connection that goes through steps takes {whole} bytes");
    }
}
