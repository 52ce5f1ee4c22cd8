//! The accept queue of a listening socket.
//!
//! The event loop reports that the queue has connections, but not how many. `accept` on an empty queue creates a socket
//! and discards it again, so `poll` looks for a second connection. If there is one, clients connect faster than they
//! are accepted, and `accept` is called until the queue is empty.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(in crate::proxy) struct AcceptQueue {
    listener: AsyncFd<TcpListener>,
    arrivals: Cell<Arrivals>,
}

/// The connections since the queue was last empty.
#[derive(Clone, Copy, Debug)]
enum Arrivals {
    /// None was accepted yet. When the socket is readable, there is one.
    None,
    /// One was accepted. There may be no more.
    One,
    /// There were more.
    Several,
}

impl AcceptQueue {
    /// The socket must not block.
    ///
    /// # Errors
    ///
    /// If the socket cannot be added to the event loop.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; a listener keeps its descriptor open, as that one requires"
    )]
    pub(in crate::proxy) fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(AcceptQueue {
            listener: AsyncFd::with_interest(listener, Interest::READABLE)?,
            arrivals: Cell::new(Arrivals::None),
        })
    }

    pub(in crate::proxy) fn listener(&self) -> &TcpListener {
        self.listener.get_ref()
    }

    /// Ready with a connection, as from [`AcceptQueue::accept_now`].
    pub(in crate::proxy) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            let mut readable = ready!(self.listener.poll_read_ready(cx))?;
            match readable.try_io(|_| self.accept_expected()) {
                Ok(accepted) => return Poll::Ready(accepted),
                Err(_empty) => self.arrivals.set(Arrivals::None),
            }
        }
    }

    /// Accepts a connection without asking the event loop. Returns a socket that does not block, and the address of its
    /// client.
    ///
    /// # Errors
    ///
    /// If the queue is empty, or the connection cannot be accepted.
    pub(in crate::proxy) fn accept_now(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (stream, peer) = retry_on_intr(|| acceptfrom_with(self.listener(), flags))?;
        let peer = peer.ok_or(Errno::CONNABORTED)?;
        Ok((stream.into(), SocketAddr::try_from(peer)?))
    }

    fn accept_expected(&self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Arrivals::One = self.arrivals.get() {
            if !has_connection(self.listener())? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.arrivals.set(Arrivals::Several);
        }
        let accepted = self.accept_now()?;
        if let Arrivals::None = self.arrivals.get() {
            self.arrivals.set(Arrivals::One);
        }
        Ok(accepted)
    }
}

/// Whether `accept` would not block.
fn has_connection(listener: &TcpListener) -> io::Result<bool> {
    let mut events = [PollFd::new(listener, PollFlags::IN)];
    Ok(poll(&mut events, Some(&Timespec::default()))? > 0)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn queue() -> (AcceptQueue, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (AcceptQueue::new(listener).unwrap(), address)
    }

    /// Accepts as many connections as clients have opened, and then none.
    async fn accept_all(queue: &AcceptQueue, clients: &[TcpStream]) {
        for client in clients {
            let accepting = timeout(Duration::from_secs(10), poll_fn(|cx| queue.poll_accept(cx)));
            let (stream, peer) = accepting.await.expect("the queue has a connection").unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            assert_eq!(stream.peer_addr().unwrap(), peer);
            // The mode is inherited from neither the listener nor the system's default.
            assert_eq!(stream.peek(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        assert!(poll_fn(|cx| queue.poll_accept(cx)).now_or_never().is_none());
    }

    /// Each number of connections leaves another state of the queue behind.
    #[tokio::test]
    async fn every_connection_is_accepted() {
        let (queue, address) = queue();
        for count in [0, 1, 1, 2, 1, 3, 8, 0, 1] {
            let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
            accept_all(&queue, &clients).await;
        }
    }

    /// The event loop reports connections that arrive while the acceptor waits.
    #[tokio::test]
    async fn waiting_acceptor_is_woken() {
        let (queue, address) = queue();
        for _ in 0..3 {
            let mut accepting = pin!(timeout(Duration::from_secs(10), poll_fn(|cx| queue.poll_accept(cx))));
            assert!(accepting.as_mut().now_or_never().is_none());
            let client = TcpStream::connect(address).unwrap();
            let (_, peer) = accepting.await.expect("the acceptor is woken").unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }
}
