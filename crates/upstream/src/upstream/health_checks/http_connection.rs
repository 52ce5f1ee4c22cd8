//! An HTTP connection for checks, which may be kept from one check to the next.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::endpoint_tls::UpstreamProtocol;
use crate::upstream::socket::UpstreamSocket;

/// A connection to an endpoint. Dropping it closes the socket, whatever the endpoint does.
#[derive(Debug)]
pub(super) struct HttpConnection {
    sender: Sender,
    /// The tasks of the connection.
    _tasks: ConnectionTasks,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl HttpConnection {
    pub(super) async fn open(socket: UpstreamSocket, protocol: UpstreamProtocol) -> Result<Self, hyper::Error> {
        let tasks = ConnectionTasks::default();
        let sender = match protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MAX_HEAD);
                let (sender, connection) = builder.handshake(TokioIo::new(socket)).await?;
                tasks.spawn(async { drop(connection.await) });
                Sender::Http1(sender)
            }
            UpstreamProtocol::Http2 => {
                let mut builder = http2::Builder::new(tasks.executor());
                builder.max_header_list_size(MAX_HEAD as u32);
                let (sender, connection) = builder.handshake(TokioIo::new(socket)).await?;
                tasks.spawn(async { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(HttpConnection { sender, _tasks: tasks })
    }

    /// Whether the connection can take another request, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request, and waits for the head of its response.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                // The task of the connection may not have noticed yet that the last response has ended.
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// The tasks of one connection, which end with it.
#[derive(Debug, Default)]
struct ConnectionTasks(Rc<RefCell<JoinSet<()>>>);

impl ConnectionTasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(task);
    }

    fn executor(&self) -> TaskExecutor {
        TaskExecutor(Rc::downgrade(&self.0))
    }
}

/// Executor of the library's tasks. They own executors themselves, which therefore do not keep the set alive.
#[derive(Clone)]
struct TaskExecutor(Weak<RefCell<JoinSet<()>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for TaskExecutor {
    fn execute(&self, task: F) {
        // Without the set, the connection is being dropped.
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.borrow_mut();
        // Each request has a task, which the set would keep otherwise.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }
}

/// Maximum size of the head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;
