//! Servers and clients of `tonic`, a gRPC library, with GRPCRoutes of `portico run` between them: all four shapes of
//! calls, their metadata and statuses, deadlines and cancellation, also while the configuration changes, and
//! reflection.

mod echo_client;
pub(crate) mod echo_server;
mod reflection;

use std::net::Ipv4Addr;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::harness::TEST_TIMEOUT;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;
use crate::stream_servers::{apply, gateway, service};
use echo_client::{EchoClient, message_of, next_of, rest_of};
use echo_server::{EchoServer, FAIL, WAIT, failure};

const LISTENER: &str = "  - { name: grpc, protocol: HTTP, port: @port@ }\n";

/// A GRPCRoute with a rule for each of these methods of a service. A rule with an empty method is for all of them.
fn grpc_route(service: &str, rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().map(|(method, backend)| {
        let method = if method.is_empty() { String::new() } else { format!(", method: {method}") };
        format!(
            "    - matches: [{{ method: {{ service: {service}{method} }} }}]
      backendRefs: [{{ name: {backend}, port: 1 }}]
"
        )
    });
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{ name: {} }}
spec:
  parentRefs: [{{ name: servers, sectionName: grpc }}]
  rules:
{}",
        service.to_lowercase(),
        rules.collect::<String>()
    )
}

/// A route for the service Echo.
fn echo_route(rules: &[(&str, &str)]) -> String {
    grpc_route("grpc.examples.echo.Echo", rules)
}

/// The program with these manifests, and a client of its plain-text listener.
async fn start(site: &Site, manifests: &str) -> (Program, EchoClient) {
    site.save("manifests/servers.yaml", manifests);
    let program = run(site, &[]);
    program.wait_started();
    let endpoint = Endpoint::from_shared(format!("http://{}", site.address_of("port"))).unwrap();
    (program, EchoClient::connect(endpoint).await)
}

/// The program with one server for all methods.
async fn start_with(site: &Site, server: &EchoServer) -> (Program, EchoClient) {
    let backend = service("server", "TCP", (Ipv4Addr::LOCALHOST, server.port));
    start(site, &(gateway(LISTENER) + &backend + &echo_route(&[("", "server")]))).await
}

/// A request with custom metadata: text with two values, and bytes.
fn with_metadata<T>(content: T) -> Request<T> {
    let mut request = Request::new(content);
    let metadata = request.metadata_mut();
    metadata.append("label", "first value; q=\"1\"".parse().unwrap());
    metadata.append("label", "second".parse().unwrap());
    metadata.insert_bin("token-bin", MetadataValue::from_bytes(&[0, 10, 127, 128, 255]));
    request
}

/// Asserts that these are the metadata of `with_metadata`, with others.
fn expect_metadata(metadata: &MetadataMap) {
    let sent = with_metadata(());
    let sent = sent.metadata();
    assert!(metadata.get_all("label").iter().eq(sent.get_all("label")), "{metadata:?}");
    let bytes = |metadata: &MetadataMap| metadata.get_bin("token-bin").map(|value| value.to_bytes().unwrap());
    assert_eq!(bytes(metadata), bytes(sent));
}

/// Asserts that a status is `failure`, with everything that belongs to it.
fn expect_failure(status: &Status) {
    let sent = failure();
    assert_eq!((status.code(), status.message(), status.details()), (sent.code(), sent.message(), sent.details()));
    let metadata = status.metadata();
    assert_eq!(metadata.get("failed-step"), sent.metadata().get("failed-step"), "{metadata:?}");
    let bytes = |metadata: &MetadataMap| metadata.get_bin("failed-state-bin").map(|value| value.to_bytes().unwrap());
    assert_eq!(bytes(metadata), bytes(sent.metadata()));
}

/// Asserts that calls of all four shapes succeed and fail as without Portico.
async fn expect_all_shapes(client: &mut EchoClient, server: &EchoServer) {
    // Larger than the windows of HTTP/2 and a frame.
    let large = "large ".repeat(200_000);
    for message in ["", "short", &large] {
        let response = client.unary(with_metadata(message_of(message))).await.unwrap();
        expect_metadata(response.metadata());
        assert!(response.into_inner().message == message, "{} bytes", message.len());
    }
    expect_failure(&client.unary(Request::new(message_of(FAIL))).await.unwrap_err());

    let requests = |messages: &[&str]| messages.iter().map(|message| message_of(message)).collect::<Vec<_>>();
    let response = client.client_streaming(with_metadata(requests(&["a", "b", &large, "c"]))).await.unwrap();
    expect_metadata(response.metadata());
    assert!(response.into_inner().message == format!("a b {large} c"));
    assert_eq!(client.client_streaming(Request::new(Vec::new())).await.unwrap().into_inner().message, "");
    expect_failure(&client.client_streaming(Request::new(requests(&["a", FAIL, "b"]))).await.unwrap_err());

    let response = client.server_streaming(with_metadata(message_of("a b c"))).await.unwrap();
    expect_metadata(response.metadata());
    assert_eq!(rest_of(response.into_inner()).await.unwrap(), ["a", "b", "c"]);
    let mut replies =
        client.server_streaming(Request::new(message_of(&format!("a {FAIL} b")))).await.unwrap().into_inner();
    assert_eq!(next_of(&mut replies).await.unwrap().unwrap(), "a");
    expect_failure(&rest_of(replies).await.unwrap_err());

    // The response begins before the first message is sent, and each reply arrives before the next message is sent.
    let response = client.bidirectional_streaming(with_metadata(())).await.unwrap();
    expect_metadata(response.metadata());
    let mut call = response.into_inner();
    for message in ["a", &large, "", "b"] {
        assert!(call.ask(message).await.unwrap() == message, "{} bytes", message.len());
    }
    assert!(call.finish().await.unwrap().is_empty());
    let mut call = client.bidirectional_streaming(Request::new(())).await.unwrap().into_inner();
    assert_eq!(call.ask("a").await.unwrap(), "a");
    expect_failure(&call.ask(FAIL).await.unwrap_err());

    let mut received = server.take_received();
    received.retain(|metadata| metadata.contains_key("label"));
    assert_eq!(received.len(), 6, "{received:?}");
    received.iter().for_each(expect_metadata);
    server.wait_for_open_calls(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_shapes_of_calls_work_in_plain_text() {
    let (server, site) = (EchoServer::start("server").await, Site::new());
    let (program, mut client) = start_with(&site, &server).await;
    expect_all_shapes(&mut client, &server).await;
    drop(client);
    program.stop().expect_success();
}

/// A certificate for a name, and its key.
fn certificate(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

/// The data of an object: each name with text of several lines.
fn data(fields: &[(&str, &str)]) -> String {
    fields
        .iter()
        .map(|(name, text)| format!("  {name}: |\n    {}\n", text.trim_end().replace('\n', "\n    ")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_shapes_of_calls_work_with_tls_on_both_sides() {
    let (of_server, key_of_server) = certificate("backend.example");
    let (of_listener, key_of_listener) = certificate("calls.example");
    let server = EchoServer::start_with_tls("server", Identity::from_pem(&of_server, key_of_server)).await;
    let site = Site::new();
    let listener = "  - { name: grpc, protocol: HTTPS, port: @port@, hostname: calls.example, \
                    tls: { certificateRefs: [{ name: listener }] } }\n";
    let policy = "---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: { name: server }
spec:
  targetRefs: [{ group: '', kind: Service, name: server }]
  validation:
    hostname: backend.example
    caCertificateRefs: [{ group: '', kind: ConfigMap, name: authorities }]
---
apiVersion: v1
kind: ConfigMap
metadata: { name: authorities }
data:
";
    let secret = "---
apiVersion: v1
kind: Secret
metadata: { name: listener }
type: kubernetes.io/tls
stringData:
";
    let manifests = [
        &*gateway(listener),
        &*service("server", "TCP", (Ipv4Addr::LOCALHOST, server.port)),
        &*echo_route(&[("", "server")]),
        policy,
        &*data(&[("ca.crt", &of_server)]),
        secret,
        &*data(&[("tls.crt", &of_listener), ("tls.key", &key_of_listener)]),
    ];
    site.save("manifests/servers.yaml", &manifests.concat());
    let program = run(&site, &[]);
    program.wait_started();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(of_listener)).domain_name("calls.example");
    let endpoint = Endpoint::from_shared(format!("https://{}", site.address_of("port"))).unwrap();
    let endpoint = endpoint.origin("https://calls.example".parse().unwrap()).tls_config(tls).unwrap();
    let mut client = EchoClient::connect(endpoint).await;
    expect_all_shapes(&mut client, &server).await;
    drop(client);
    program.stop().expect_success();
}

/// The name of the server that responds to a unary call.
async fn server_of_unary(client: &mut EchoClient) -> Result<String, Status> {
    let response = client.unary(Request::new(message_of("a"))).await?;
    Ok(response.metadata().get("server").unwrap().to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_of_one_channel_are_routed_by_method() {
    let (first, second) = (EchoServer::start("first").await, EchoServer::start("second").await);
    let site = Site::new();
    let manifests = gateway(LISTENER)
        + &service("first", "TCP", (Ipv4Addr::LOCALHOST, first.port))
        + &service("second", "TCP", (Ipv4Addr::LOCALHOST, second.port))
        + &echo_route(&[("UnaryEcho", "first"), ("ServerStreamingEcho", "second")]);
    let (program, mut client) = start(&site, &manifests).await;
    let streaming = |mut client: EchoClient| async move {
        let response = client.server_streaming(Request::new(message_of("a b"))).await?;
        let server = response.metadata().get("server").unwrap().to_str().unwrap().to_owned();
        assert_eq!(rest_of(response.into_inner()).await?, ["a", "b"]);
        Ok::<_, Status>(server)
    };
    for _ in 0..3 {
        assert_eq!(server_of_unary(&mut client).await.unwrap(), "first");
        assert_eq!(streaming(client.clone()).await.unwrap(), "second");
    }

    // The servers have this method, but the route has no rule for it.
    let status = client.client_streaming(Request::new(vec![message_of("a")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert_eq!((first.take_received().len(), second.take_received().len()), (3, 3));

    second.stop().await;
    let status = streaming(client.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(server_of_unary(&mut client).await.unwrap(), "first");
    drop(client);
    program.stop().expect_success();
}

/// The timeout of a call as its server has received it.
fn received_timeout(server: &EchoServer) -> Duration {
    let received = server.take_received().remove(0);
    let value = received.get("grpc-timeout").unwrap().to_str().unwrap();
    let (count, unit) = value.split_at(value.len() - 1);
    let unit = match unit {
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => panic!("a unit that is too large for the timeout of the test: {value}"),
    };
    unit * count.parse::<u32>().unwrap()
}

/// A call reaches its server and its response begins in this time, also if a busy machine pauses for two seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_without_a_response_ends_at_its_deadline() {
    let (server, site) = (EchoServer::start("server").await, Site::new());
    let (program, mut client) = start_with(&site, &server).await;
    let mut request = Request::new(message_of(WAIT));
    request.set_timeout(CALL_TIMEOUT);
    let started = Instant::now();
    let status = client.unary(request).await.unwrap_err();
    let elapsed = started.elapsed();
    // The client, Portico and the server all have a timer. `tonic` reports its own as Cancelled.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    assert!((CALL_TIMEOUT..TEST_TIMEOUT).contains(&elapsed), "{elapsed:?}");
    let received = received_timeout(&server);
    assert!((Duration::from_nanos(1)..=CALL_TIMEOUT).contains(&received), "{received:?}");
    server.wait_for_open_calls(0).await;
    drop(client);
    program.stop().expect_success();
}

/// Asserts the result of a call whose client has waited for `elapsed`. The status is that of Portico, because neither
/// the client nor the server of `tonic` ends a call at its deadline once the response has begun.
fn expect_deadline(status: &Status, elapsed: Duration) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!((CALL_TIMEOUT..TEST_TIMEOUT).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_ends_at_its_deadline() {
    let (server, site) = (EchoServer::start("server").await, Site::new());
    let (program, mut client) = start_with(&site, &server).await;

    let mut request = Request::new(message_of(&format!("a {WAIT}")));
    request.set_timeout(CALL_TIMEOUT);
    let started = Instant::now();
    let mut replies = client.server_streaming(request).await.unwrap().into_inner();
    assert_eq!(next_of(&mut replies).await.unwrap().unwrap(), "a");
    expect_deadline(&rest_of(replies).await.unwrap_err(), started.elapsed());
    assert!(received_timeout(&server) <= CALL_TIMEOUT);

    let mut request = Request::new(());
    request.set_timeout(CALL_TIMEOUT);
    let started = Instant::now();
    let mut call = client.bidirectional_streaming(request).await.unwrap().into_inner();
    assert_eq!(call.ask("a").await.unwrap(), "a");
    expect_deadline(&call.ask(WAIT).await.unwrap_err(), started.elapsed());
    assert!(received_timeout(&server) <= CALL_TIMEOUT);

    server.wait_for_open_calls(0).await;
    drop((call, client));
    let ended = program.stop().expect_success();
    assert_eq!(ended.stdout.matches("error=call_deadline").count(), 2, "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_stream_survives_changes_of_other_rules_and_routes() {
    let (first, second) = (EchoServer::start("first").await, EchoServer::start("second").await);
    let site = Site::new();
    let manifests = |unary_backend: &str, other_route: &str| {
        gateway(LISTENER)
            + &service("first", "TCP", (Ipv4Addr::LOCALHOST, first.port))
            + &service("second", "TCP", (Ipv4Addr::LOCALHOST, second.port))
            + &echo_route(&[("BidirectionalStreamingEcho", "first"), ("UnaryEcho", unary_backend)])
            + other_route
    };
    let (program, mut client) = start(&site, &manifests("first", "")).await;
    let mut call = client.bidirectional_streaming(Request::new(())).await.unwrap().into_inner();
    assert_eq!(call.ask("before").await.unwrap(), "before");
    let other = |backend: &str| grpc_route("grpc.examples.Other", &[("", backend)]);
    for (unary_backend, other_route) in
        [("second", String::new()), ("second", other("first")), ("second", other("second")), ("first", String::new())]
    {
        apply(&site, &program, &manifests(unary_backend, &other_route));
        assert_eq!(server_of_unary(&mut client).await.unwrap(), unary_backend);
        assert_eq!(call.ask(unary_backend).await.unwrap(), unary_backend, "{other_route}");
    }
    assert!(call.finish().await.unwrap().is_empty());
    drop(client);
    program.stop().expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn cancellation_by_the_client_reaches_the_server() {
    let (server, site) = (EchoServer::start("server").await, Site::new());
    let (program, mut client) = start_with(&site, &server).await;

    let mut other_client = client.clone();
    let unary = tokio::spawn(async move { other_client.unary(Request::new(message_of(WAIT))).await });
    server.wait_for_open_calls(1).await;
    unary.abort();
    server.wait_for_open_calls(0).await;

    let mut replies =
        client.server_streaming(Request::new(message_of(&format!("a {WAIT}")))).await.unwrap().into_inner();
    assert_eq!(next_of(&mut replies).await.unwrap().unwrap(), "a");
    server.wait_for_open_calls(1).await;
    drop(replies);
    server.wait_for_open_calls(0).await;

    // The server ends this call only if it is canceled, because it does not read the end of the requests.
    let mut call = client.bidirectional_streaming(Request::new(())).await.unwrap().into_inner();
    assert_eq!(call.ask("a").await.unwrap(), "a");
    call.send(WAIT).await;
    server.wait_for_open_calls(1).await;
    drop(call);
    server.wait_for_open_calls(0).await;

    // The connection is still used.
    assert_eq!(server_of_unary(&mut client).await.unwrap(), "server");
    drop(client);
    program.stop().expect_success();
}
