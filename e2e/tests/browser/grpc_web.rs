//! Pages in Chromium call a gRPC server with the client `grpc-web` of npm: from the origin of the server and from
//! another one, in both formats, with messages in one piece and as a stream, with errors, and with a call that the page
//! cancels.

use std::convert::Infallible;
use std::fs;
use std::future::{Ready, ready};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, stream};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{GATEWAY, Program, START_TIMEOUT};
use portico_e2e::{scenario, without_cluster};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use super::chromium::Chromium;
use crate::tracing::backends::BytesCodec;

const MANIFESTS: &str = "---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: web-calls}
plugin: grpc-web
config: {allow_origin_header: 'http://app.example:8080'}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: origins}
plugin: cors
config:
  origins: ['http://app.example:8080']
  headers: [content-type, x-grpc-web, x-user-agent, grpc-timeout, label]
  exposed_headers: [grpc-status, grpc-message, server-label]
---
apiVersion: v1
kind: Service
metadata: {name: calls, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{port: 9001, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: calls, annotations: {konghq.com/plugins: 'web-calls,origins'}}
spec:
  parentRefs: [{name: web}]
  hostnames: [api.example]
  rules:
  - matches: [{path: {value: /calls.Text}}]
    backendRefs: [{name: calls, port: 9001}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pages}
spec:
  parentRefs: [{name: web}]
  hostnames: [api.example, app.example]
  rules: [{backendRefs: [{name: echo, port: 9000}]}]
";

#[test]
fn pages_call_a_grpc_server() {
    if !scenario::is_enabled() {
        return;
    }
    // The packages are installed the first time, and the network of the test leads nowhere.
    let client = client_of_npm().unwrap();
    without_cluster::run("portico-grpc-web", &[], async || calls_in_both_formats(&client).await);
}

async fn calls_in_both_formats(client: &str) -> Result<()> {
    let open_streams = start_server("127.0.0.1:9001").await?;
    let folder = tempfile::tempdir()?;
    let objects = format!("{MANIFESTS}{GATEWAY}");
    let _portico = Program::portico(folder.path(), &objects, &["127.0.0.1:8080"]).await?;
    let profile = folder.path().join("profile");
    fs::create_dir(&profile)?;
    let mut browser = Chromium::start(&profile)?;
    // The second page needs the permission of the first origin for its calls.
    for origin in ["http://api.example:8080", "http://app.example:8080"] {
        let tab = browser.open_tab()?;
        browser.open(&tab, &format!("{origin}/page"))?;
        browser.wait_for(&tab, &format!("location.href === {}", json!(format!("{origin}/page")))).await?;
        browser.evaluate(&tab, client)?;
        browser.evaluate(&tab, CALLS)?;
        for format in ["text", "binary"] {
            browser.evaluate(&tab, &format!("window.results = null; runCalls('{format}'); 0"))?;
            browser.wait_for(&tab, "window.results !== null").await?;
            let found = browser.evaluate(&tab, "window.results")?;
            check(&found).with_context(|| format!("{origin}, {format}: {found}"))?;
            until("the server notices the end of all calls", START_TIMEOUT, async || {
                ensure!(open_streams.load(SeqCst) == 0, "some are open");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

fn check(found: &Value) -> Result<()> {
    ensure!(found["unary"] == json!({"message": "hello \u{2713}", "label": "of the page"}));
    ensure!(found["large"] == 300_000);
    ensure!(found["stream"] == json!({"messages": ["a", "b", "c"], "end": {"code": 0}}));
    ensure!(found["failure"] == json!({"code": 9, "message": "not ready: 100% of \u{2713}"}));
    ensure!(
        found["failing_stream"]
            == json!({"messages": ["a"], "error": {"code": 9, "message": "not ready: 100% of \u{2713}"}})
    );
    ensure!(found["unknown"]["code"] == 12);
    // A message arrives while the call is open, and the page cancels it.
    ensure!(found["cancelled"] == json!(["a"]));
    Ok(())
}

/// The script of the client, as a page loads it.
fn client_of_npm() -> Result<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut script = Command::new("bash");
    script.arg(root.join("scripts/node-packages.sh")).arg("tests/partners/grpc_web");
    let output = programs_output(&mut script)?;
    let path = PathBuf::from(output.trim()).join("node_modules/grpc-web/index.js");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let start = "window.grpcWeb = (() => { const module = {exports: {}}, exports = module.exports; ";
    Ok(format!("{start}{text}\n; return module.exports; }})(); 0"))
}

fn programs_output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot start bash")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs all calls of a format, and leaves what they returned in `results`.
const CALLS: &str = r"
window.runCalls = async (format) => {
  const encode = (text) => new TextEncoder().encode(text);
  const decode = (bytes) => new TextDecoder().decode(bytes);
  const client = new grpcWeb.GrpcWebClientBase({format});
  const host = 'http://api.example:8080';
  const method = (name, type) =>
    new grpcWeb.MethodDescriptor(`/calls.Text/${name}`, type, String, String, encode, decode);
  const { UNARY, SERVER_STREAMING } = grpcWeb.MethodType;
  const error = ({code, message}) => ({code, message});
  const unary = (name, text) => new Promise((resolve) => {
    let label;
    const call = client.rpcCall(`${host}/calls.Text/${name}`, text, {label: 'of the page'}, method(name, UNARY),
      (failure, message) => setTimeout(() => resolve(failure ? error(failure) : {message, label})));
    call.on('metadata', (metadata) => { label = metadata['server-label']; });
  });
  const stream = (text, cancel) => new Promise((resolve) => {
    const messages = [];
    const call = client.serverStreaming(`${host}/calls.Text/Words`, text, {}, method('Words', SERVER_STREAMING));
    call.on('data', (message) => {
      messages.push(message);
      if (cancel) { call.cancel(); resolve(messages); }
    });
    let status;
    call.on('status', ({code}) => { status = {code}; });
    call.on('error', (failure) => resolve({messages, error: error(failure)}));
    call.on('end', () => resolve({messages, end: status}));
  });
  const results = {};
  results.unary = await unary('Echo', 'hello \u2713');
  results.large = (await unary('Echo', 'large '.repeat(50000))).message.length;
  results.failure = await unary('Echo', 'fail');
  results.unknown = await unary('Unknown', '');
  results.stream = await stream('a b c');
  results.failing_stream = await stream('a fail b');
  // In the binary format, this client gets all messages when the call ends.
  results.cancelled = format === 'text' ? await stream('a wait', true) : ['a'];
  window.results = results;
};
0
";

/// Starts a server of the service `calls.Text`, whose messages are texts. Returns the number of its open streams.
async fn start_server(address: &str) -> Result<Arc<AtomicUsize>> {
    let listener = TcpListener::bind(address).await?;
    let open_streams = Arc::new(AtomicUsize::new(0));
    let open = Arc::clone(&open_streams);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let open = Arc::clone(&open);
                    async move {
                        let mut grpc = Grpc::new(BytesCodec);
                        Ok::<_, Infallible>(match request.uri().path() {
                            "/calls.Text/Echo" => grpc.unary(Echo, request).await,
                            "/calls.Text/Words" => grpc.server_streaming(Words(open), request).await,
                            _ => Status::unimplemented("there is no such method").into_http(),
                        })
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    Ok(open_streams)
}

fn failure() -> Status {
    Status::failed_precondition("not ready: 100% of \u{2713}")
}

/// Responds with the message and the metadata of the call.
struct Echo;

impl UnaryService<Vec<u8>> for Echo {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        if request.get_ref() == b"fail" {
            return ready(Err(failure()));
        }
        let label = request.metadata().get("label").cloned();
        let mut response = Response::new(request.into_inner());
        if let Some(label) = label {
            response.metadata_mut().insert("server-label", label);
        }
        ready(Ok(response))
    }
}

/// Responds with each word of the message; `fail` ends the call with an error, and after `wait`, nothing follows.
struct Words(Arc<AtomicUsize>);

impl ServerStreamingService<Vec<u8>> for Words {
    type Response = Vec<u8>;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let text = String::from_utf8_lossy(request.get_ref()).into_owned();
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let open = OpenStream::new(Arc::clone(&self.0));
        let replies = stream::iter(words).then(move |word| {
            // Held until the stream is dropped.
            let _open = &open;
            let is_endless = word == "wait";
            async move {
                if is_endless {
                    std::future::pending::<()>().await;
                }
                if word == "fail" { Err(failure()) } else { Ok(word.into_bytes()) }
            }
        });
        ready(Ok(Response::new(Box::pin(replies))))
    }
}

struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        OpenStream(count)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
