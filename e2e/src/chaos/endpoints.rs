//! Endpoints of the scenario: servers that can be killed with all their connections, and started again at the same
//! address.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::cluster::ADDRESS;
use crate::netns::Netns;

/// The header with the number of a request, which an endpoint returns.
pub(super) const NUMBER: &str = "x-number";
/// How long requests to paths with this prefix are processed, so that some are in flight at any time.
const SLOW_PREFIX: &str = "/slow";
const SLOW_RESPONSE: Duration = Duration::from_millis(30);

/// A server that responds to every request with its name, and returns the number of the request.
pub(super) struct Endpoint {
    name: Arc<str>,
    pub(super) address: SocketAddr,
    netns: Netns,
    server: Option<Server>,
    /// Numbers of the requests that are being processed and are the first on their connection.
    first_requests: Arc<Mutex<BTreeSet<u64>>>,
}

/// A thread with a runtime of its own: dropping the runtime closes every connection, as a crash does.
struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Endpoint {
    pub(super) fn start(netns: &Netns, name: &str) -> Result<Endpoint> {
        let address = SocketAddr::from((ADDRESS, 0));
        let (name, netns, first_requests) = (name.into(), netns.clone(), Arc::default());
        let mut endpoint = Endpoint { name, address, netns, server: None, first_requests };
        endpoint.start_again()?;
        Ok(endpoint)
    }

    /// Starts the server at its last address.
    pub(super) fn start_again(&mut self) -> Result<()> {
        let (stop, stopped) = oneshot::channel();
        let (sender, started) = std::sync::mpsc::sync_channel(1);
        let (name, address, netns) = (Arc::clone(&self.name), self.address, self.netns.clone());
        let first_requests = Arc::clone(&self.first_requests);
        let thread = std::thread::spawn(move || {
            let run = || -> Result<_> {
                netns.enter()?;
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let listener = runtime.block_on(TcpListener::bind(address)).context("cannot bind the endpoint")?;
                Ok((listener.local_addr()?, runtime, listener))
            };
            match run() {
                Ok((address, runtime, listener)) => {
                    sender.send(Ok(address)).ok();
                    runtime.block_on(async {
                        tokio::select! {
                            () = serve(listener, name, first_requests) => {}
                            _ = stopped => {}
                        }
                    });
                }
                Err(error) => drop(sender.send(Err(format!("{error:#}")))),
            }
        });
        self.address = started.recv().context("the thread of the endpoint ended")?.map_err(|error| anyhow!(error))?;
        self.server = Some(Server { stop, thread });
        Ok(())
    }

    /// Closes the listener and every connection, also those with requests in flight. Returns the numbers of those that
    /// were the first on their connection.
    pub(super) fn kill(&mut self) -> Result<BTreeSet<u64>> {
        let server = self.server.take().context("the endpoint is not running")?;
        // Fails only if the thread has ended already.
        server.stop.send(()).ok();
        server.thread.join().map_err(|_| anyhow!("the thread of the endpoint panicked"))?;
        Ok(std::mem::take(&mut *self.first_requests.lock()))
    }
}

async fn serve(listener: TcpListener, name: Arc<str>, first_requests: Arc<Mutex<BTreeSet<u64>>>) {
    loop {
        // Without free file descriptors, requests fail, which the scenario reports.
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        let (name, first_requests) = (Arc::clone(&name), Arc::clone(&first_requests));
        tokio::spawn(async move {
            let is_new = AtomicBool::new(true);
            let service = service_fn(|request| {
                let first_requests = is_new.swap(false, Relaxed).then_some(&*first_requests);
                respond(request, &name, first_requests)
            });
            // Errors are reported by the client.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// Adds the number of the request to `first_requests`, if any, until the response is complete.
async fn respond(
    request: Request<Incoming>,
    name: &str,
    first_requests: Option<&Mutex<BTreeSet<u64>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let number = head.headers.get(NUMBER);
    let parsed: Option<u64> = number.and_then(|number| number.to_str().ok()?.parse().ok());
    if let (Some(first_requests), Some(parsed)) = (first_requests, parsed) {
        first_requests.lock().insert(parsed);
    }
    // The frames are read and discarded, so that the connection can be reused.
    while let Some(Ok(_)) = body.frame().await {}
    if head.uri.path().starts_with(SLOW_PREFIX) {
        sleep(SLOW_RESPONSE).await;
    }
    let mut response = Response::new(Full::new(Bytes::from(name.to_owned())));
    if let Some(number) = number {
        response.headers_mut().insert(NUMBER, number.clone());
    }
    if let (Some(first_requests), Some(parsed)) = (first_requests, parsed) {
        first_requests.lock().remove(&parsed);
    }
    Ok(response)
}
