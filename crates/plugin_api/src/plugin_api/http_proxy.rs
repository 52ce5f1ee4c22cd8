//! HTTP proxies between plugins and servers: requests with whole URLs, and tunnels for TLS (RFC 9110, section 9.3.6).

use std::sync::Arc;

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::remote::{Remote, RemoteStream};
use crate::endpoint_tls::UpstreamTlsSettings;

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

    /// Asks the proxy for a tunnel to a server with TLS. Nothing that follows its final response is read.
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
        stream.write_all(&request).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        // Responses that only precede the final one (RFC 9110, section 15.2). No request asked for 101.
        for _ in 0..=MAX_INTERIM_RESPONSES {
            let head = read_head(stream).await?;
            match status_of(&head) {
                Some(200..=299) => return Ok(()),
                Some(100 | 102..=199) => {}
                Some(status) => return Err(format!("the proxy refuses the tunnel with status {status}")),
                None => return Err("the response to CONNECT is not HTTP".to_owned()),
            }
        }
        Err(format!("more than {MAX_INTERIM_RESPONSES} interim responses precede the one to CONNECT"))
    }
}

fn failed(error: std::io::Error) -> String {
    format!("opening a tunnel has failed: {error}")
}

/// Reads the head of a response, and no byte more.
async fn read_head(stream: &mut (impl RemoteStream + ?Sized)) -> Result<Vec<u8>, String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(format!("the response to CONNECT has more than {MAX_HEAD} bytes"));
        }
        // One byte at a time, because what follows belongs to the handshake of the server.
        head.push(stream.read_u8().await.map_err(failed)?);
    }
    Ok(head)
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
/// How many interim responses a proxy may send before the final one. It could go on with them for the whole timeout.
const MAX_INTERIM_RESPONSES: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;

    use super::*;

    /// Opens a tunnel through a proxy that sends these bytes. Returns what follows them.
    async fn open(response: &str) -> Result<String, String> {
        let remote = |host: &str, port| {
            let timeout = Duration::from_secs(1);
            Remote { host: host.to_owned(), port, namespace: None, tls: None, timeout }
        };
        let proxy = remote("proxy.example", 3128);
        let proxy = Arc::new(HttpProxy { plain: proxy.clone(), secure: proxy, authorization: None });
        let (mut own, mut other) = duplex(1 << 16);
        other.write_all(response.as_bytes()).await.unwrap();
        other.shutdown().await.unwrap();
        ProxyRoute { proxy, tls: None }.open_tunnel(&mut own, &remote("server.example", 443)).await?;
        let mut rest = String::new();
        own.read_to_string(&mut rest).await.unwrap();
        Ok(rest)
    }

    #[tokio::test]
    async fn interim_responses_precede_the_tunnel() {
        let opened = "HTTP/1.1 200 OK\r\n\r\nhello";
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        for before in [String::new(), interim.to_owned(), interim.repeat(4)] {
            assert_eq!(open(&format!("{before}{opened}")).await.as_deref(), Ok("hello"), "{before}");
        }
        for (response, expected) in [
            (format!("{}{opened}", interim.repeat(5)), "more than 8 interim responses"),
            (interim.to_owned(), "has failed"),
            (format!("{interim}HTTP/1.1 407 No\r\n\r\n"), "with status 407"),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), "with status 101"),
            (format!("{interim}hello\r\n\r\n"), "is not HTTP"),
        ] {
            let error = open(&response).await.expect_err(&response);
            assert!(error.contains(expected), "{response}: {error}");
        }
    }
}
