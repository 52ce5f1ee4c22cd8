//! The connections that came in through one listening address of one worker, so that they can be told to leave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Group {
    /// The address listened on, under which the snapshot knows the listeners.
    pub(crate) address: SocketAddr,
    /// Connections begin with a TLS handshake.
    pub(crate) tls: Cell<bool>,
    closing: Cell<bool>,
    cut: Cell<bool>,
    next: Cell<u64>,
    /// By member; a task keeps its waker for as long as it lives, so this is touched once per connection.
    members: RefCell<HashMap<u64, Option<Waker>, foldhash::fast::FixedState>>,
    left: Notify,
}

/// A connection in its group.
pub(crate) struct Membership {
    group: Rc<Group>,
    number: u64,
    awake: bool,
}

impl Group {
    pub(crate) fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Group {
            address,
            tls: Cell::new(false),
            closing: Cell::new(false),
            cut: Cell::new(false),
            next: Cell::new(0),
            members: RefCell::default(),
            left: Notify::new(),
        })
    }

    pub(crate) fn join(self: &Rc<Self>) -> Membership {
        let number = self.next.get();
        self.next.set(number + 1);
        self.members.borrow_mut().insert(number, None);
        Membership { group: Rc::clone(self), number, awake: false }
    }

    /// Idle connections are to close now, busy ones after the present answer.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.wake_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Ends all connections as they are. Returns how many there were.
    pub(crate) fn cut(&self) -> usize {
        self.cut.set(true);
        self.wake_all();
        self.members.borrow().len()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.borrow().is_empty()
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        while !self.members.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    fn wake_all(&self) {
        for waker in self.members.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }
}

impl Membership {
    /// Says how to wake the connection; only the first call does something.
    pub(crate) fn wake_with(&mut self, waker: &Waker) {
        if !std::mem::replace(&mut self.awake, true) {
            self.group.members.borrow_mut().insert(self.number, Some(waker.clone()));
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.group.members.borrow_mut();
        members.remove(&self.number);
        if members.is_empty() {
            self.group.left.notify_waiters();
        }
    }
}
