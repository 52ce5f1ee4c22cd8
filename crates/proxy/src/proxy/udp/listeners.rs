//! The UDP listeners of one worker: they are bound, receive datagrams, and are closed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};

use super::sessions::UdpSessions;
use super::socket::UdpListener;
use crate::bind_address::BindAddress;
use crate::proxy::http::exchange::http_worker::HttpWorker;

pub(in crate::proxy) struct UdpListeners {
    sessions: Rc<UdpSessions>,
    bound: RefCell<BTreeMap<BindAddress, BoundUdpListener>>,
    next_number: Cell<u64>,
}

/// A listener with the task that receives its datagrams.
struct BoundUdpListener {
    number: u64,
    stop: oneshot::Sender<()>,
    receiving: JoinHandle<()>,
}

impl UdpListeners {
    pub(in crate::proxy) fn new(http: Rc<HttpWorker>) -> Self {
        let sessions = UdpSessions::new(http);
        // The task ends with the worker.
        tokio::task::spawn_local(Rc::clone(&sessions).end_idle());
        UdpListeners { sessions, bound: RefCell::default(), next_number: Cell::new(0) }
    }

    pub(in crate::proxy) fn bind(&self, address: BindAddress, socket: StdUdpSocket) -> io::Result<()> {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let listener = UdpListener::new(number, address, socket)?;
        self.sessions.buffers.borrow_mut().allocate();
        let (stop, stopped) = oneshot::channel();
        let receiving = tokio::task::spawn_local(receive(listener, Rc::clone(&self.sessions), stopped));
        self.bound.borrow_mut().insert(address, BoundUdpListener { number, stop, receiving });
        Ok(())
    }

    pub(in crate::proxy) fn is_bound(&self, address: &BindAddress) -> bool {
        self.bound.borrow().contains_key(address)
    }

    /// Closes the sockets of removed listeners. Replies need the socket, so those in flight get a moment, in which new
    /// datagrams are still forwarded: until the socket is closed, another one at the address does not get them.
    pub(in crate::proxy) async fn close(&self, addresses: &[BindAddress]) {
        let listeners = self.take(|address| addresses.contains(address));
        let numbers: Vec<_> = listeners.iter().map(|listener| listener.number).collect();
        let end = Instant::now() + IN_FLIGHT_GRACE;
        while Instant::now() < end && self.sessions.has_in_flight(&numbers, IN_FLIGHT_GRACE) {
            sleep(CHECK_INTERVAL).await;
        }
        self.close_now(listeners, IN_FLIGHT_GRACE).await;
    }

    /// Closes all sockets when no session is in use any more, but at `end` at the latest. Returns how many sessions
    /// were still in use.
    pub(in crate::proxy) async fn drain(&self, end: Instant) -> usize {
        let listeners = self.take(|_| true);
        while !listeners.is_empty() && Instant::now() < end && self.sessions.is_active(DRAIN_IDLE_TIME) {
            sleep(CHECK_INTERVAL.min(end.saturating_duration_since(Instant::now()))).await;
        }
        self.close_now(listeners, DRAIN_IDLE_TIME).await
    }

    fn take(&self, is_selected: impl Fn(&BindAddress) -> bool) -> Vec<BoundUdpListener> {
        self.bound
            .borrow_mut()
            .extract_if(.., |address, _| is_selected(address))
            .map(|(_, listener)| listener)
            .collect()
    }

    /// Returns how many sessions were used within this time.
    async fn close_now(&self, listeners: Vec<BoundUdpListener>, within: Duration) -> usize {
        let closing = listeners.into_iter().map(async |BoundUdpListener { number, stop, receiving }| {
            drop(stop);
            // A panic of that task is logged; the socket is closed either way.
            drop(receiving.await);
            self.sessions.end_of_listener(number, within)
        });
        join_all(closing).await.into_iter().sum()
    }
}

/// Receives datagrams until the listener is stopped, and then those that have arrived. Closes the socket.
async fn receive(listener: UdpListener, sessions: Rc<UdpSessions>, mut stopped: oneshot::Receiver<()>) {
    let listener = Rc::new(listener);
    let mut failing = false;
    loop {
        let ready = tokio::select! {
            biased;
            _ = &mut stopped => break,
            ready = listener.readable() => ready,
        };
        match ready.and_then(|()| sessions.receive(&listener, BATCHES_PER_TURN)) {
            Ok(()) => {
                failing = false;
                // Other tasks run, however many datagrams arrive.
                yield_now().await;
            }
            Err(error) => {
                // Out of memory, for example. Retrying at once would busy-loop.
                sessions.worker().counters.accept_errors.add(1);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, address = %listener.address, "Cannot receive datagrams; retrying");
                }
                sleep(RECEIVE_PAUSE).await;
            }
        }
    }
    // What cannot be received any more is lost, as any datagram may be.
    drop(sessions.receive(&listener, FINAL_BATCHES));
}

/// Batches that are received before other tasks run.
const BATCHES_PER_TURN: usize = 4;
/// Batches that are received after the listener was stopped.
const FINAL_BATCHES: usize = 64;
/// Pause after a failure that receiving again at once would repeat.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);
/// How long a removed listener waits for replies. Meanwhile, no other change of listeners is applied.
const IN_FLIGHT_GRACE: Duration = Duration::from_millis(250);
/// How long no session may have been used until a stopping process closes the sockets early.
const DRAIN_IDLE_TIME: Duration = Duration::from_secs(1);
/// How often this is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
