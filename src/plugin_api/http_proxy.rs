//! HTTP proxies between plugins and servers: requests with whole URLs, and tunnels for TLS (RFC 9110, section 9.3.6).

use std::sync::Arc;

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::remote::{Remote, RemoteStream};
use crate::upstream::tls::UpstreamTlsSettings;

/// The proxies to servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProxy {
    /// The proxy for servers without TLS.
    pub plain: Remote,
    /// The proxy for servers with TLS.
    pub secure: Remote,
    /// The credentials for both.
    pub authorization: Option<HeaderValue>,
}

/// How connections reach a server that is the backend of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyRoute {
    pub proxy: Arc<HttpProxy>,
    /// The settings of handshakes, in place of those of [`Remote::tls`], which says the server name.
    pub tls: Option<UpstreamTlsSettings>,
}

impl ProxyRoute {
    /// The proxy for a server.
    pub fn proxy_for(&self, server: &Remote) -> &Remote {
        if server.tls.is_some() { &self.proxy.secure } else { &self.proxy.plain }
    }

    /// Asks the proxy for a tunnel to a server with TLS. Nothing that follows its response is read.
    pub async fn open_tunnel(&self, stream: &mut (impl RemoteStream + ?Sized), to: &Remote) -> Result<(), String> {
        // An IPv6 address has brackets in a URL and in `Host`.
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
        let authority = format!("{host}:{}", to.port);
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(authorization) = &self.proxy.authorization {
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
