//! Spreads client connections over the workers.
//!
//! The kernel assigns a new connection to the socket of a worker by a hash of its addresses. Of a few connections that
//! stay open for long, such as those of HTTP/2 and gRPC clients, one worker may get all. So a worker that has clearly
//! more connections than another one hands over those that it accepts.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::snapshot::BindAddress;

/// The open connections of each worker, and the way to hand connections over to it.
#[derive(Debug)]
pub(in crate::proxy) struct WorkerLoads(Box<[WorkerLoad]>);

/// Aligned, so that workers do not share the cache lines that they write.
#[derive(Debug)]
#[repr(align(128))]
struct WorkerLoad {
    open: AtomicUsize,
    handed_over: mpsc::Sender<HandedConnection>,
}

/// Counts a connection as one of a worker until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct CountedLoad {
    loads: Arc<WorkerLoads>,
    worker: usize,
}

/// A connection that one worker has accepted for another one.
#[derive(Debug)]
pub(in crate::proxy) struct HandedConnection {
    pub(in crate::proxy) stream: StdStream,
    pub(in crate::proxy) peer: SocketAddr,
    pub(in crate::proxy) address: BindAddress,
    /// Whether the address has TLS. Its listener may be closed when the connection arrives.
    pub(in crate::proxy) tls: bool,
    pub(in crate::proxy) permit: OwnedSemaphorePermit,
    pub(in crate::proxy) load: CountedLoad,
}

impl WorkerLoads {
    /// Also returns the receiver of each worker.
    pub(in crate::proxy) fn new(workers: usize) -> (Arc<Self>, Vec<mpsc::Receiver<HandedConnection>>) {
        let channels = (0..workers).map(|_| mpsc::channel(QUEUE)).map(|(handed_over, receiver)| {
            let load = WorkerLoad { open: AtomicUsize::new(0), handed_over };
            (load, receiver)
        });
        let (loads, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        (Arc::new(WorkerLoads(loads.into())), receivers)
    }

    /// Counts a connection as one of this worker.
    pub(in crate::proxy) fn count(self: &Arc<Self>, worker: usize) -> CountedLoad {
        self.0[worker].open.fetch_add(1, Relaxed);
        CountedLoad { loads: Arc::clone(self), worker }
    }

    /// The open connections of each worker.
    pub(in crate::proxy) fn open(&self) -> Vec<usize> {
        self.0.iter().map(|load| load.open.load(Relaxed)).collect()
    }

    /// The worker with the fewest connections, if `own` has half as many again, or one more than none.
    pub(in crate::proxy) fn less_loaded(&self, own: usize) -> Option<usize> {
        let open = |worker: usize| self.0[worker].open.load(Relaxed);
        let least = (0..self.0.len()).min_by_key(|worker| open(*worker))?;
        (open(own) > open(least) + open(least) / 2).then_some(least)
    }

    /// Hands a connection over to the worker in which it is counted. Returns it if that worker is too busy to take it.
    pub(in crate::proxy) fn hand_over(&self, connection: HandedConnection) -> Result<(), HandedConnection> {
        let worker = &self.0[connection.load.worker];
        worker.handed_over.try_send(connection).map_err(|error| match error {
            TrySendError::Full(connection) | TrySendError::Closed(connection) => connection,
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
            let (loads, _receivers) = WorkerLoads::new(open.len());
            let counted = open.iter().enumerate().flat_map(|(worker, count)| std::iter::repeat_n(worker, *count));
            let counted: Vec<CountedLoad> = counted.map(|worker| loads.count(worker)).collect();
            assert_eq!(loads.less_loaded(own), expected, "{open:?} {own}");
            assert_eq!(loads.open(), open);
            drop(counted);
            assert!(loads.open().iter().all(|open| *open == 0));
        }
    }
}
