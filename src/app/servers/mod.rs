//! Other servers, as plugins reach them: key sets of issuers, Redis, and work in the background, all on the control runtime.
//!
//! ```text
//!   name ─▶ a Service of the store? its endpoints ─▶ connect ─▶ TLS ─▶ Stream, or one GET
//!              └ otherwise DNS ────────────────────────┘
//! ```

mod names;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

pub(super) use names::Lookup;
use names::Names;
use tls::Configs;

use crate::plugin::{Fetched, Invalid, Remote, RemoteTls, Services, Stream};
use crate::upstream::Loopback;

/// What plugins are given.
pub(super) struct Servers {
    runtime: Handle,
    reach: Arc<Reach>,
    troubles: Arc<Troubles>,
}

/// What is needed to reach a server.
struct Reach {
    names: Names,
    configs: Configs,
}

/// What plugins say about objects that are in effect, until they take it back.
#[derive(Default)]
pub(super) struct Troubles {
    /// By object, `KongPlugin/default/limit`.
    said: Mutex<BTreeMap<String, Invalid>>,
    changed: Notify,
}

impl Troubles {
    /// Waits until something was said that was not said before.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn said(&self) -> BTreeMap<String, Invalid> {
        self.said.lock().clone()
    }
}

impl Servers {
    /// Runs its work on the present runtime. Whoever knows the Services answers the lookups.
    pub(super) fn start(loopback: Loopback) -> anyhow::Result<(Self, tokio::sync::mpsc::Receiver<Lookup>)> {
        let (names, lookups) = Names::new(loopback);
        let reach = Arc::new(Reach { names, configs: Configs::new()? });
        Ok((Servers { runtime: Handle::current(), reach, troubles: Arc::default() }, lookups))
    }

    pub(super) fn troubles(&self) -> Arc<Troubles> {
        Arc::clone(&self.troubles)
    }
}

impl Services for Servers {
    fn loopback(&self) -> Loopback {
        self.reach.names.loopback()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn fetch(&self, uri: &str, patience: Duration, most: usize) -> BoxFuture<'static, Result<Fetched, String>> {
        let (reach, uri) = (Arc::clone(&self.reach), uri.to_owned());
        let fetching = self.runtime.spawn(async move {
            let late = || Err(format!("{uri}: no answer within {patience:?}"));
            timeout(patience, reach.fetch(&uri, patience, most)).await.unwrap_or_else(|_| late())
        });
        async move { fetching.await.unwrap_or_else(|error| Err(format!("fetching has failed: {error}"))) }.boxed()
    }

    fn connect(&self, to: Remote) -> BoxFuture<'static, Result<Box<dyn Stream>, String>> {
        let reach = Arc::clone(&self.reach);
        let connecting = self.runtime.spawn(async move {
            let late = || Err(format!("{}:{}: no connection within {:?}", to.host, to.port, to.timeout));
            timeout(to.timeout, reach.connect(&to)).await.unwrap_or_else(|_| late())
        });
        async move { connecting.await.unwrap_or_else(|error| Err(format!("connecting has failed: {error}"))) }.boxed()
    }

    fn tell(&self, object: &str, trouble: Option<Invalid>) {
        let mut said = self.troubles.said.lock();
        let before = match &trouble {
            Some(trouble) => said.insert(object.to_owned(), trouble.clone()),
            None => said.remove(object),
        };
        if before != trouble {
            self.troubles.changed.notify_one();
        }
    }
}

impl Reach {
    async fn connect(&self, to: &Remote) -> Result<Box<dyn Stream>, String> {
        let at = format!("{}:{}", to.host, to.port);
        let addresses = self.names.resolve(to).await.map_err(|error| format!("{at}: {error}"))?;
        let socket = first_of(&addresses).await.map_err(|error| format!("{at}: cannot connect: {error}"))?;
        // Questions and answers are short, and each waits for the other.
        socket.set_nodelay(true).map_err(|error| format!("{at}: {error}"))?;
        let Some(tls) = &to.tls else { return Ok(Box::new(socket)) };
        let name = tls.server_name.as_deref().unwrap_or(&to.host);
        let secured = self.configs.connect(socket, name, tls.verify).await;
        Ok(Box::new(secured.map_err(|error| format!("{at}: no TLS: {error}"))?))
    }

    async fn fetch(&self, uri: &str, patience: Duration, most: usize) -> Result<Fetched, String> {
        let said = |error: &dyn std::fmt::Display| format!("{uri}: {error}");
        let target: Uri = uri.parse().map_err(|error| said(&error))?;
        let is_secure = match target.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(said(&"begins with neither http:// nor https://")),
        };
        let host = target.host().ok_or_else(|| said(&"names no host"))?;
        let to = Remote {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: target.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            namespace: None,
            tls: is_secure.then_some(RemoteTls { server_name: None, verify: true }),
            timeout: patience,
        };
        let stream = self.connect(&to).await?;
        let (mut sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() =
            target.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let authority = target.authority().map_or("", http::uri::Authority::as_str);
        // What stands before an @ is nobody's host.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(authority).map_err(|error| said(&error))?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("portico/", env!("CARGO_PKG_VERSION"))));
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| said(&error))?;
            let (head, body) = answer.into_parts();
            #[expect(clippy::disallowed_methods, reason = "it is limited")]
            let body = Limited::new(body, most).collect().await.map_err(|error| said(&error))?;
            Ok(Fetched { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let mut exchange = std::pin::pin!(exchange);
        // The connection moves only while it is asked to, and is not kept. What it has brought before its end is still there.
        tokio::select! {
            biased;
            outcome = &mut exchange => outcome,
            _ = connection => exchange.await,
        }
    }
}

/// The first address that takes a connection.
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("it has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests;
