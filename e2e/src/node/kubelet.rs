//! The node's own API, as far as the API server needs it: the logs of containers.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
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

/// What a client is told: a text, or a file as it grows.
type Answer = BoxBody<Bytes, io::Error>;

fn answer(logs: &Arc<Logs>, request: &Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let text = |text: Vec<u8>| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let query = request.uri().query().unwrap_or_default();
    let outcome = if *request.method() == Method::GET {
        read(logs, request.uri().path(), query)
    } else {
        Err((StatusCode::METHOD_NOT_ALLOWED, "this node only answers GET".to_owned()))
    };
    let (status, body) = match outcome {
        Ok(Log { start, rest: None }) => (StatusCode::OK, text(start)),
        Ok(Log { start, rest: Some(rest) }) => (StatusCode::OK, follow(start, rest)),
        Err((status, said)) => (status, text(said.into_bytes())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

/// What there is of a log, and where to read what comes.
#[derive(Debug)]
struct Log {
    start: Vec<u8>,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    logs: Arc<Logs>,
    key: Key,
    path: PathBuf,
    file: File,
}

/// `/containerLogs/{namespace}/{pod}/{container}`. Lines carry no times, because programs write to the file
/// themselves: `sinceTime` and `sinceSeconds` give more than was asked for.
fn read(logs: &Arc<Logs>, path: &str, query: &str) -> Result<Log, (StatusCode, String)> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let ["containerLogs", namespace, pod, container] = parts.as_slice() else {
        let has = "/containerLogs/NAMESPACE/POD/CONTAINER";
        return Err((StatusCode::NOT_FOUND, format!("this node has no {path}; it has {has}")));
    };
    let parameters: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if parameter("timestamps") == Some("true") {
        let said = "this node cannot do `timestamps`: programs write to the file themselves; leave it out";
        return Err((StatusCode::NOT_IMPLEMENTED, said.to_owned()));
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
    let path = found.ok_or_else(|| {
        let Key { namespace, pod, container } = &key;
        (StatusCode::NOT_FOUND, format!("container {container} of Pod {namespace}/{pod} has not run that often here"))
    })?;
    let (file, content) = open(&path)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read {}: {error}", path.display())))?;
    let mut start = lines.map_or(content.as_slice(), |lines| tail(&content, lines)).to_vec();
    if let Some(bytes) = bytes {
        start.truncate(bytes);
        return Ok(Log { start, rest: None });
    }
    let follow = parameter("follow") == Some("true");
    Ok(Log { start, rest: follow.then(|| Rest { logs: logs.clone(), key, path, file }) })
}

fn open(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok((file, content))
}

/// A file up to the end of the container that writes it.
fn follow(start: Vec<u8>, rest: Rest) -> Answer {
    let parts = stream::unfold((Some(start), rest), async |(start, mut rest)| {
        if let Some(start) = start.filter(|start| !start.is_empty()) {
            return Some((Ok(Frame::data(Bytes::from(start))), (None, rest)));
        }
        loop {
            // Asked before reading, so that the last words are read too.
            let grows = rest.logs.grows(&rest.key, &rest.path);
            let mut more = Vec::new();
            match rest.file.read_to_end(&mut more) {
                Ok(0) if grows => sleep(GLANCE).await,
                Ok(0) => return None,
                Ok(_) => return Some((Ok(Frame::data(Bytes::from(more))), (None, rest))),
                Err(error) => return Some((Err(error), (None, rest))),
            }
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(parts.fuse()) as Parts))
}

type Parts = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync>>;

/// How often a file that is followed is looked at.
const GLANCE: Duration = Duration::from_millis(100);

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
        let logs = Arc::new(Logs::new(folder.path().to_owned()));
        let key = Key { namespace: "space".to_owned(), pod: "pod".to_owned(), container: "main".to_owned() };
        logs.open(&key, "first", 0).unwrap().write_all(b"before\n").unwrap();
        logs.open(&key, "first", 1).unwrap().write_all(b"one\ntwo\nthree\n").unwrap();
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
            (path, "timestamps=true", Err("cannot do `timestamps`")),
            ("/containerLogs/space/pod/other", "", Err("has not run")),
            ("/containerLogs/space/../main", "", Err("has not run")),
            ("/exec/space/pod/main", "", Err("this node has no /exec")),
        ] {
            match (read(&logs, path, query), expected) {
                (Ok(log), Ok(expected)) => {
                    assert_eq!(String::from_utf8(log.start).unwrap(), expected, "{query}");
                }
                (Err((_, error)), Err(said)) => assert!(error.contains(said), "{error}"),
                (answer, expected) => panic!("{path}?{query}: {answer:?} instead of {expected:?}"),
            }
        }
        // Another Pod of the same name has come before the first one is forgotten.
        logs.open(&key, "second", 0).unwrap().write_all(b"other\n").unwrap();
        logs.forget(&key, "first");
        assert_eq!(read(&logs, path, "").unwrap().start, b"other\n");
        assert!(read(&logs, path, "previous=true").is_err());
        logs.forget(&key, "second");
        assert!(read(&logs, path, "").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_is_followed_until_its_container_ends() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::new(folder.path().to_owned()));
        let key = Key { namespace: "space".to_owned(), pod: "pod".to_owned(), container: "main".to_owned() };
        let mut file = logs.open(&key, "first", 0).unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let Log { start, rest } = read(&logs, "/containerLogs/space/pod/main", "follow=true&tailLines=1").unwrap();
        let mut body = follow(start, rest.unwrap());
        let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
        assert_eq!(next().await.unwrap(), "two\n");
        file.write_all(b"three\n").unwrap();
        assert_eq!(next().await.unwrap(), "three\n");
        file.write_all(b"last words\n").unwrap();
        logs.close(&key);
        assert_eq!(next().await.unwrap(), "last words\n");
        assert_eq!(next().await, None);
    }
}
