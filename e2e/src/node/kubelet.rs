//! The node's own API, as far as the API server needs it: the logs of containers.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::log::{Key, Logs};
use crate::cluster::ADDRESS;

/// Where it listens.
pub(crate) const PORT: u16 = 10250;

/// Has the port; ready to answer.
pub(crate) struct Kubelet {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    logs: Arc<Logs>,
}

impl Kubelet {
    pub(crate) async fn bind(logs: Arc<Logs>) -> Result<Kubelet> {
        let address = SocketAddr::new(IpAddr::V4(ADDRESS), PORT);
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Kubelet { listener, acceptor: TlsAcceptor::from(Arc::new(tls()?)), logs })
    }

    /// Answers until it is given up.
    pub(crate) async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (acceptor, logs) = (self.acceptor.clone(), self.logs.clone());
                        connections.spawn(async move {
                            // Whoever breaks off has no use for an answer.
                            let handshake = timeout(Duration::from_secs(10), acceptor.accept(stream)).await;
                            let Ok(Ok(stream)) = handshake else { return };
                            let service = service_fn(async |request| answer(&logs, &request));
                            let mut server = http1::Builder::new();
                            server.timer(TokioTimer::new());
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        });
                    }
                    // No more files, most likely: some are given back in a moment.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// The API server does not check who a node is unless it is told to.
fn tls() -> Result<ServerConfig> {
    let key = KeyPair::generate().context("cannot make a key for the node")?;
    let mut certificate = CertificateParams::default();
    certificate.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(ADDRESS))];
    let certificate = certificate.self_signed(&key).context("cannot make a certificate for the node")?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the node")?;
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    config.context("cannot set up TLS for the node")
}

fn answer(logs: &Logs, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let (status, body) = if *request.method() == Method::GET {
        read(logs, request.uri().path(), query).unwrap_or_else(|(status, said)| (status, said.into_bytes()))
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, b"this node only answers GET".to_vec())
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

/// `/containerLogs/{namespace}/{pod}/{container}`. Lines carry no times, because programs write to the file
/// themselves: `sinceTime` and `sinceSeconds` give more than was asked for.
fn read(logs: &Logs, path: &str, query: &str) -> Result<(StatusCode, Vec<u8>), (StatusCode, String)> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let ["containerLogs", namespace, pod, container] = parts.as_slice() else {
        return Err((
            StatusCode::NOT_FOUND,
            format!("this node has no {path}; it has /containerLogs/NAMESPACE/POD/CONTAINER"),
        ));
    };
    let parameters: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    for (name, instead) in [("follow", "ask again"), ("timestamps", "leave it out")] {
        if parameter(name) == Some("true") {
            let said = format!("this node cannot do `{name}`: programs write to the file themselves; {instead}");
            return Err((StatusCode::NOT_IMPLEMENTED, said));
        }
    }
    let number = |name: &str| match parameter(name).map(str::parse::<usize>) {
        Some(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("{name}: {error}"))),
        Some(Ok(number)) => Ok(Some(number)),
        None => Ok(None),
    };
    let (lines, bytes) = (number("tailLines")?, number("limitBytes")?);
    let [namespace, pod, container] = [namespace, pod, container].map(|part| (*part).to_owned());
    let key = Key { namespace, pod, container };
    let found = logs.find(&key, parameter("previous") == Some("true"));
    let file = found.ok_or_else(|| {
        let Key { namespace, pod, container } = &key;
        (StatusCode::NOT_FOUND, format!("container {container} of Pod {namespace}/{pod} has not run that often here"))
    })?;
    let content = fs::read(&file)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read {}: {error}", file.display())))?;
    let mut content = lines.map_or(content.as_slice(), |lines| tail(&content, lines)).to_vec();
    content.truncate(bytes.unwrap_or(usize::MAX));
    Ok((StatusCode::OK, content))
}

/// The last lines of a text.
fn tail(content: &[u8], lines: usize) -> &[u8] {
    let end = content.strip_suffix(b"\n").unwrap_or(content);
    let mut newlines = end.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    match lines.checked_sub(1) {
        None => &[],
        Some(more) => newlines.nth(more).map_or(content, |at| &content[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn logs_are_read_as_they_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned());
        let key = Key { namespace: "space".to_owned(), pod: "pod".to_owned(), container: "main".to_owned() };
        logs.open(&key, 0).unwrap().write_all(b"before\n").unwrap();
        logs.open(&key, 1).unwrap().write_all(b"one\ntwo\nthree\n").unwrap();
        let path = "/containerLogs/space/pod/main";
        for (path, query, expected) in [
            (path, "", Ok("one\ntwo\nthree\n")),
            (path, "sinceTime=2026-01-01T00%3A00%3A00Z", Ok("one\ntwo\nthree\n")),
            (path, "tailLines=2", Ok("two\nthree\n")),
            (path, "tailLines=0", Ok("")),
            (path, "tailLines=9", Ok("one\ntwo\nthree\n")),
            (path, "limitBytes=5", Ok("one\nt")),
            (path, "previous=true", Ok("before\n")),
            (path, "tailLines=x", Err("tailLines: ")),
            (path, "follow=true", Err("cannot do `follow`")),
            ("/containerLogs/space/pod/other", "", Err("has not run")),
            ("/containerLogs/space/../main", "", Err("has not run")),
            ("/exec/space/pod/main", "", Err("this node has no /exec")),
        ] {
            match (read(&logs, path, query), expected) {
                (Ok((_, content)), Ok(expected)) => {
                    assert_eq!(String::from_utf8(content).unwrap(), expected, "{query}")
                }
                (Err((_, error)), Err(said)) => assert!(error.contains(said), "{error}"),
                (answer, expected) => panic!("{path}?{query}: {answer:?} instead of {expected:?}"),
            }
        }
        logs.forget(&key);
        assert!(read(&logs, path, "").is_err());
    }
}
