//! The node's own API, as far as the API server needs it: container logs.

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

use super::log::{ContainerKey, Logs};
use crate::cluster::ADDRESS;

/// The port of the kubelet API.
pub(crate) const PORT: u16 = 10250;

/// A bound listener, ready to serve.
pub(crate) struct Kubelet {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    logs: Arc<Logs>,
}

impl Kubelet {
    pub(crate) async fn bind(logs: Arc<Logs>) -> Result<Kubelet> {
        let address = SocketAddr::new(IpAddr::V4(ADDRESS), PORT);
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Kubelet { listener, acceptor: TlsAcceptor::from(Arc::new(server_config()?)), logs })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (acceptor, logs) = (self.acceptor.clone(), self.logs.clone());
                        connections.spawn(async move {
                            // The client sees the failed handshake.
                            let handshake = timeout(Duration::from_secs(10), acceptor.accept(stream)).await;
                            let Ok(Ok(stream)) = handshake else { return };
                            let service = service_fn(async |request| respond(&logs, &request));
                            let mut server = http1::Builder::new();
                            server.timer(TokioTimer::new());
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        });
                    }
                    // Most likely a lack of file descriptors, which become free shortly.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// TLS with a self-signed certificate: the API server does not verify the certificates of nodes by default.
fn server_config() -> Result<ServerConfig> {
    let key = KeyPair::generate().context("cannot create a key for the node")?;
    let mut certificate = CertificateParams::default();
    certificate.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(ADDRESS))];
    let certificate = certificate.self_signed(&key).context("cannot create a certificate for the node")?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the node")?;
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    config.context("cannot set up TLS for the node")
}

/// A response body: a text, or a growing file.
type ResponseBody = BoxBody<Bytes, io::Error>;

fn respond(logs: &Arc<Logs>, request: &Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let text_body = |text: Vec<u8>| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let query = request.uri().query().unwrap_or_default();
    let outcome = if *request.method() == Method::GET {
        read_log(logs, request.uri().path(), query)
    } else {
        Err((StatusCode::METHOD_NOT_ALLOWED, "this node supports only GET".to_owned()))
    };
    let (status, body) = match outcome {
        Ok(LogContent { start, followed: None }) => (StatusCode::OK, text_body(start)),
        Ok(LogContent { start, followed: Some(followed) }) => (StatusCode::OK, follow(start, followed)),
        Err((status, message)) => (status, text_body(message.into_bytes())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

/// The existing part of a log, and the file to follow if the client requests it.
#[derive(Debug)]
struct LogContent {
    start: Vec<u8>,
    followed: Option<FollowedLog>,
}

#[derive(Debug)]
struct FollowedLog {
    logs: Arc<Logs>,
    key: ContainerKey,
    path: PathBuf,
    file: File,
}

/// Serves `/containerLogs/{namespace}/{pod}/{container}`. Lines have no timestamps, because programs write to the file
/// directly; `sinceTime` and `sinceSeconds` are ignored. `follow` has no effect with `limitBytes`, whereas a kubelet
/// follows up to the limit.
fn read_log(logs: &Arc<Logs>, path: &str, query: &str) -> Result<LogContent, (StatusCode, String)> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let ["containerLogs", namespace, pod, container] = segments.as_slice() else {
        let served = "/containerLogs/NAMESPACE/POD/CONTAINER";
        return Err((StatusCode::NOT_FOUND, format!("this node does not serve {path}, only {served}")));
    };
    let parameters: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if parameter("timestamps") == Some("true") {
        let message = "this node does not support `timestamps`, because programs write to the log directly; omit it";
        return Err((StatusCode::NOT_IMPLEMENTED, message.to_owned()));
    }
    let number = |name: &str| match parameter(name).map(str::parse::<usize>) {
        Some(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("{name}: {error}"))),
        Some(Ok(number)) => Ok(Some(number)),
        None => Ok(None),
    };
    let (lines, bytes) = (number("tailLines")?, number("limitBytes")?);
    let [namespace, pod, container] = [namespace, pod, container].map(|segment| (*segment).to_owned());
    let key = ContainerKey { namespace, pod, container };
    let found = logs.find(&key, parameter("previous") == Some("true"));
    let log_path = found.ok_or_else(|| {
        let ContainerKey { namespace, pod, container } = &key;
        (StatusCode::NOT_FOUND, format!("container {container} of Pod {namespace}/{pod} has no such log on this node"))
    })?;
    let (file, content) = read_file(&log_path)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read {}: {error}", log_path.display())))?;
    let mut start = lines.map_or(content.as_slice(), |lines| tail(&content, lines)).to_vec();
    if let Some(bytes) = bytes {
        start.truncate(bytes);
        return Ok(LogContent { start, followed: None });
    }
    let follow = parameter("follow") == Some("true");
    Ok(LogContent { start, followed: follow.then(|| FollowedLog { logs: logs.clone(), key, path: log_path, file }) })
}

fn read_file(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok((file, content))
}

/// Streams a file until the container that writes it ends.
fn follow(start: Vec<u8>, followed: FollowedLog) -> ResponseBody {
    let frames = stream::unfold((Some(start), followed), async |(start, mut followed)| {
        if let Some(start) = start.filter(|start| !start.is_empty()) {
            return Some((Ok(Frame::data(Bytes::from(start))), (None, followed)));
        }
        loop {
            // Checked before reading, so that the last lines are not missed.
            let is_growing = followed.logs.is_growing(&followed.key, &followed.path);
            let mut new_bytes = Vec::new();
            match followed.file.read_to_end(&mut new_bytes) {
                Ok(0) if is_growing => sleep(FOLLOW_INTERVAL).await,
                Ok(0) => return None,
                Ok(_) => return Some((Ok(Frame::data(Bytes::from(new_bytes))), (None, followed))),
                Err(error) => return Some((Err(error), (None, followed))),
            }
        }
    });
    // Fused, because an unfolded stream panics if it is polled after its end.
    BodyExt::boxed(StreamBody::new(Box::pin(frames.fuse()) as FrameStream))
}

type FrameStream = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync>>;

/// How often a followed file is checked.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// The last lines of a text.
fn tail(content: &[u8], lines: usize) -> &[u8] {
    // The newline at the end separates no lines.
    let text = content.strip_suffix(b"\n").unwrap_or(content);
    let mut newlines = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    match lines.checked_sub(1) {
        // Zero lines.
        None => &[],
        Some(skipped) => newlines.nth(skipped).map_or(content, |at| &content[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn log_query_parameters_are_applied() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::new(folder.path().to_owned()));
        let key = ContainerKey { namespace: "space".to_owned(), pod: "pod".to_owned(), container: "main".to_owned() };
        let (pod_uid, next_pod_uid) = ("first", "second");
        // The number is the container's restart count.
        logs.open(&key, pod_uid, 0).unwrap().write_all(b"before\n").unwrap();
        logs.open(&key, pod_uid, 1).unwrap().write_all(b"one\ntwo\nthree\n").unwrap();
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
            (path, "timestamps=true", Err("does not support `timestamps`")),
            ("/containerLogs/space/pod/other", "", Err("has no such log")),
            ("/containerLogs/space/../main", "", Err("has no such log")),
            ("/exec/space/pod/main", "", Err("this node does not serve /exec")),
        ] {
            match (read_log(&logs, path, query), expected) {
                (Ok(log), Ok(expected)) => {
                    assert_eq!(String::from_utf8(log.start).unwrap(), expected, "{query}");
                }
                (Err((_, error)), Err(message)) => assert!(error.contains(message), "{error}"),
                (result, expected) => panic!("{path}?{query}: {result:?} instead of {expected:?}"),
            }
        }
        // Another Pod with the same name starts before the first one is forgotten.
        logs.open(&key, next_pod_uid, 0).unwrap().write_all(b"other\n").unwrap();
        logs.forget(&key, pod_uid);
        assert_eq!(read_log(&logs, path, "").unwrap().start, b"other\n");
        assert!(read_log(&logs, path, "previous=true").is_err());
        logs.forget(&key, next_pod_uid);
        assert!(read_log(&logs, path, "").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn log_is_followed_until_its_container_ends() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::new(folder.path().to_owned()));
        let key = ContainerKey { namespace: "space".to_owned(), pod: "pod".to_owned(), container: "main".to_owned() };
        let (pod_uid, restarts) = ("first", 0);
        let mut file = logs.open(&key, pod_uid, restarts).unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let LogContent { start, followed } =
            read_log(&logs, "/containerLogs/space/pod/main", "follow=true&tailLines=1").unwrap();
        let mut body = follow(start, followed.unwrap());
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
