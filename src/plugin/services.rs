//! What a plugin may ask of the world outside: a place for work in the background, answers of other servers, connections to them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::kind::Invalid;
use crate::upstream::Loopback;

/// Given to plugins when they are built. Requests never wait for it, unless a plugin does so knowingly.
pub trait Services: Send + Sync {
    /// Runs beside the requests, on the threads of the control side, until it ends or the process does. Whoever spawns
    /// something endless ends it when the plugin that wants it is gone.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Whether servers may be asked that listen within the machine or Pod itself.
    fn loopback(&self) -> Loopback {
        Loopback::Refused
    }

    /// Fetches a document by `http` or `https`, the certificate checked against the system's roots. Follows no redirects.
    /// Bodies larger than `most` bytes are an error.
    fn fetch(&self, uri: &str, timeout: Duration, most: usize) -> BoxFuture<'static, Result<Fetched, String>>;

    /// Opens a connection to a server that speaks something else than HTTP. Names are Services of the cluster first (`svc`,
    /// `svc.ns`, `svc.ns.svc…`), then DNS. The error says what did not work, with the address.
    fn connect(&self, to: Remote) -> BoxFuture<'static, Result<Box<dyn Stream>, String>> {
        let message = format!("{}:{} is not connected to here", to.host, to.port);
        Box::pin(async move { Err(message) })
    }

    /// Says what is wrong with an object that is in effect, for its conditions, or that nothing is any more. Called when that
    /// changes.
    fn tell(&self, object: &str, trouble: Option<Invalid>) {
        let _ = (object, trouble);
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Where a name without dots is looked for.
    pub namespace: Option<String>,
    pub tls: Option<RemoteTls>,
    /// For all of it: name, connection, handshake.
    pub timeout: Duration,
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteTls {
    /// The name to ask for and to look for in the certificate; the host if there is none.
    pub server_name: Option<String>,
    /// Whether the certificate is checked against the system's roots. If not, anybody may be at the other end.
    pub verify: bool,
}

/// Bytes to and from another server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An answer to [`Services::fetch`].
#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Where nothing runs: `portico check`, and tests of what is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl Services for NoServices {
    fn loopback(&self) -> Loopback {
        Loopback::Served
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(task);
    }

    fn fetch(&self, uri: &str, _timeout: Duration, _most: usize) -> BoxFuture<'static, Result<Fetched, String>> {
        let message = format!("{uri} is not fetched here");
        Box::pin(async move { Err(message) })
    }
}
