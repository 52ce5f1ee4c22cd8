//! What a plugin may ask of the world outside: a place for work in the background, and answers of other servers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};

/// Given to plugins when they are built. Requests never wait for it, unless a plugin does so knowingly.
pub trait Services: Send + Sync {
    /// Runs beside the requests, on the threads of the control side, until it ends or the process does. Whoever spawns
    /// something endless ends it when the plugin that wants it is gone.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Fetches a document by `http` or `https`, the certificate checked against the system's roots. Follows no redirects.
    /// Bodies larger than `most` bytes are an error.
    fn fetch(&self, uri: &str, timeout: Duration, most: usize) -> BoxFuture<'static, Result<Fetched, String>>;
}

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
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(task);
    }

    fn fetch(&self, uri: &str, _timeout: Duration, _most: usize) -> BoxFuture<'static, Result<Fetched, String>> {
        let message = format!("{uri} is not fetched here");
        Box::pin(async move { Err(message) })
    }
}
