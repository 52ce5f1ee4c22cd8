//! Connections through an HTTP proxy: as they are for requests to `http` URLs, and tunnels for TLS (RFC 9110, section
//! 9.3.6).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::plugin_api::remote_client::RemoteConnector;
use crate::plugin_api::{PluginServices, Remote, RemoteStream};

/// Opens connections to servers through a proxy.
pub(super) struct ProxyConnector {
    /// The proxy for servers without TLS.
    pub(super) plain: Remote,
    /// The proxy for servers with TLS.
    pub(super) secure: Remote,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) services: Arc<dyn PluginServices>,
}

impl RemoteConnector for ProxyConnector {
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let services = Arc::clone(&self.services);
        if remote.tls.is_none() {
            return services.connect(self.plain.clone());
        }
        let (proxy, authorization) = (self.secure.clone(), self.authorization.clone());
        Box::pin(async move {
            let address = format!("{}:{}", proxy.host, proxy.port);
            let limit = proxy.timeout;
            let mut stream = services.connect(proxy).await?;
            let opening = open_tunnel(&mut stream, &remote, authorization.as_ref());
            let opened = timeout(limit, opening).await.unwrap_or_else(|_| Err(format!("no tunnel within {limit:?}")));
            opened.map_err(|error| format!("{address}: {error}"))?;
            services.start_tls(stream, remote).await
        })
    }
}

/// Asks the proxy for a tunnel. Nothing that follows its response is read.
async fn open_tunnel(
    stream: &mut (impl RemoteStream + ?Sized),
    to: &Remote,
    authorization: Option<&HeaderValue>,
) -> Result<(), String> {
    let authority = format!("{}:{}", to.host, to.port);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let failed = |error: std::io::Error| format!("opening a tunnel has failed: {error}");
    stream.write_all(&request).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(format!("the response to CONNECT has more than {MAX_HEAD} bytes"));
        }
        // One byte at a time, because what follows belongs to the handshake of the server.
        head.push(stream.read_u8().await.map_err(failed)?);
    }
    match status_of(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(format!("the proxy refuses the tunnel with status {status}")),
        None => Err("the response to CONNECT is not HTTP".to_owned()),
    }
}

/// The status of a response head.
fn status_of(head: &[u8]) -> Option<u16> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).ok().filter(httparse::Status::is_complete)?;
    response.code
}

/// Maximum size of the head of the response to CONNECT in bytes, and of its fields.
const MAX_HEAD: usize = 8 << 10;
const MAX_FIELDS: usize = 64;
