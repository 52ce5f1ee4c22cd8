//! Tracks the connections of one listening address in one worker, so that they can be closed gracefully or aborted.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::Notify;

use crate::snapshot::BindAddress;

#[derive(Debug)]
pub(in crate::proxy) struct ListenerConnections {
    /// The listening address, which is the key of `Snapshot::binds`.
    pub(in crate::proxy) address: BindAddress,
    /// Whether connections start with a TLS handshake.
    pub(in crate::proxy) tls: Cell<bool>,
    closing: Cell<bool>,
    aborted: Cell<bool>,
    next_id: Cell<u64>,
    /// The waker of each connection's task, or None until the task first runs. A task keeps the same waker for its
    /// lifetime, so each is stored once.
    wakers: RefCell<HashMap<u64, Option<Waker>, foldhash::fast::FixedState>>,
    all_closed: Notify,
}

/// Registration of one connection; dropping it removes the connection.
pub(in crate::proxy) struct ConnectionRegistration {
    connections: Rc<ListenerConnections>,
    id: u64,
    has_waker: bool,
}

impl ListenerConnections {
    pub(in crate::proxy) fn new(address: BindAddress) -> Rc<Self> {
        Rc::new(ListenerConnections {
            address,
            tls: Cell::new(false),
            closing: Cell::new(false),
            aborted: Cell::new(false),
            next_id: Cell::new(0),
            wakers: RefCell::default(),
            all_closed: Notify::new(),
        })
    }

    pub(in crate::proxy) fn register(self: &Rc<Self>) -> ConnectionRegistration {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.wakers.borrow_mut().insert(id, None);
        ConnectionRegistration { connections: Rc::clone(self), id, has_waker: false }
    }

    /// Starts a graceful close: idle connections close now, busy ones after the current response.
    pub(in crate::proxy) fn close(&self) {
        self.closing.set(true);
        self.wake_all();
    }

    pub(in crate::proxy) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Signals all connections to close at once, and returns how many there are.
    pub(in crate::proxy) fn abort(&self) -> usize {
        self.aborted.set(true);
        self.wake_all();
        self.wakers.borrow().len()
    }

    pub(in crate::proxy) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// Waits until all connections have closed.
    pub(in crate::proxy) async fn wait_until_empty(&self) {
        while !self.wakers.borrow().is_empty() {
            self.all_closed.notified().await;
        }
    }

    fn wake_all(&self) {
        for waker in self.wakers.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }
}

impl ConnectionRegistration {
    /// Stores the waker of the connection's task; only the first call has an effect.
    pub(in crate::proxy) fn set_waker(&mut self, waker: &Waker) {
        if !std::mem::replace(&mut self.has_waker, true) {
            self.connections.wakers.borrow_mut().insert(self.id, Some(waker.clone()));
        }
    }
}

impl Drop for ConnectionRegistration {
    fn drop(&mut self) {
        let mut wakers = self.connections.wakers.borrow_mut();
        wakers.remove(&self.id);
        if wakers.is_empty() {
            self.connections.all_closed.notify_waiters();
        }
    }
}
