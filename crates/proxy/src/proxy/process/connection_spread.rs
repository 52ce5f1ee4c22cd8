//! Spreads client connections over the workers.
//!
//! The kernel assigns a new connection to the socket of a worker by a hash of its addresses. Of a few connections that
//! stay open for long, such as those of HTTP/2 and gRPC clients, one worker may get all. So a worker that has clearly
//! more connections than another one hands over those that it accepts, to the same listener of the other worker.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The open connections of each worker.
#[derive(Debug)]
pub(in crate::proxy) struct WorkerLoads(Box<[WorkerLoad]>);

/// Aligned, so that workers do not share the cache lines that they write.
#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerLoad {
    open: AtomicUsize,
}

/// Counts a connection as one of a worker until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct CountedLoad {
    loads: Arc<WorkerLoads>,
    worker: usize,
}

/// What the listener of one worker needs to hand over connections to those of the others.
#[derive(Debug)]
pub(in crate::proxy) struct ConnectionSpread {
    loads: Arc<WorkerLoads>,
    /// The number of the worker.
    own: usize,
    /// The listeners of all workers, by their numbers.
    listeners: Arc<[mpsc::Sender<HandedConnection>]>,
}

/// A connection that one worker has accepted for another one.
#[derive(Debug)]
pub(in crate::proxy) struct HandedConnection {
    pub(in crate::proxy) stream: StdStream,
    pub(in crate::proxy) peer: SocketAddr,
    pub(in crate::proxy) permit: OwnedSemaphorePermit,
    pub(in crate::proxy) load: CountedLoad,
}

impl WorkerLoads {
    pub(in crate::proxy) fn new(workers: usize) -> Arc<Self> {
        Arc::new(WorkerLoads((0..workers).map(|_| WorkerLoad::default()).collect()))
    }

    /// The open connections of each worker.
    pub(in crate::proxy) fn open(&self) -> Vec<usize> {
        self.0.iter().map(|load| load.open.load(Relaxed)).collect()
    }

    fn count(self: &Arc<Self>, worker: usize) -> CountedLoad {
        self.0[worker].open.fetch_add(1, Relaxed);
        CountedLoad { loads: Arc::clone(self), worker }
    }

    /// The worker with the fewest connections, if `own` has more than half as many again.
    fn less_loaded(&self, own: usize) -> Option<usize> {
        let open = |worker: usize| self.0[worker].open.load(Relaxed);
        let least = (0..self.0.len()).min_by_key(|worker| open(*worker))?;
        (open(own) > open(least) + open(least) / 2).then_some(least)
    }
}

impl ConnectionSpread {
    /// For the listeners of one address, one for each worker, with what each of them receives from the others.
    pub(in crate::proxy) fn for_listeners(
        loads: &Arc<WorkerLoads>,
    ) -> impl Iterator<Item = (Self, mpsc::Receiver<HandedConnection>)> {
        let (senders, receivers): (Vec<_>, Vec<_>) = loads.0.iter().map(|_| mpsc::channel(QUEUE)).unzip();
        let (listeners, loads): (Arc<[_]>, _) = (senders.into(), Arc::clone(loads));
        receivers.into_iter().enumerate().map(move |(own, receiver)| {
            let spread = ConnectionSpread { loads: Arc::clone(&loads), own, listeners: Arc::clone(&listeners) };
            (spread, receiver)
        })
    }

    /// Counts a connection as one of the own worker.
    pub(in crate::proxy) fn count(&self) -> CountedLoad {
        self.loads.count(self.own)
    }

    /// The worker to which the next connection is handed over, if there is one with clearly fewer.
    pub(in crate::proxy) fn less_loaded(&self) -> Option<usize> {
        self.loads.less_loaded(self.own)
    }

    /// Hands a connection over. Returns it if the listener of that worker is closed, or too busy to take it.
    pub(in crate::proxy) fn hand_over(
        &self,
        worker: usize,
        stream: StdStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), HandedConnection> {
        let handed = HandedConnection { stream, peer, permit, load: self.loads.count(worker) };
        self.listeners[worker].try_send(handed).map_err(|error| match error {
            TrySendError::Full(handed) | TrySendError::Closed(handed) => handed,
        })
    }
}

impl Drop for CountedLoad {
    fn drop(&mut self) {
        self.loads.0[self.worker].open.fetch_sub(1, Relaxed);
    }
}

/// Connections that wait until a worker takes them. Further ones stay with the worker that accepted them.
const QUEUE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_with_clearly_fewer_connections_get_the_next_one() {
        for (open, own, expected) in [
            (&[0][..], 0, None),
            (&[9], 0, None),
            (&[0, 0], 0, None),
            (&[1, 0], 0, Some(1)),
            (&[1, 0], 1, None),
            (&[1, 1], 0, None),
            (&[2, 1], 0, Some(1)),
            (&[3, 2], 0, None),
            (&[4, 2], 0, Some(1)),
            (&[32, 30], 0, None),
            (&[46, 30], 0, Some(1)),
            (&[3, 9, 1, 5], 1, Some(2)),
        ] {
            let loads = WorkerLoads::new(open.len());
            let counted = open.iter().enumerate().flat_map(|(worker, count)| std::iter::repeat_n(worker, *count));
            let counted: Vec<CountedLoad> = counted.map(|worker| loads.count(worker)).collect();
            assert_eq!(loads.less_loaded(own), expected, "{open:?} {own}");
            assert_eq!(loads.open(), open);
            drop(counted);
            assert!(loads.open().iter().all(|open| *open == 0));
        }
    }
}
