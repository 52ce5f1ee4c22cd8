//! Server reflection (`grpc.reflection.v1`), which describes the services of a server to clients such as grpcurl: one
//! stream in both directions, in which each request has a response.

use std::net::Ipv4Addr;

use futures_util::stream::{self, BoxStream, StreamExt};
use futures_util::{Stream, TryStreamExt};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::Grpc as GrpcServer;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::echo_client::within_limit;
use super::echo_server::EchoServer;
use super::{LISTENER, echo_route, grpc_route};
use crate::harness::program::run;
use crate::harness::site::Site;
use crate::stream_servers::{gateway, service};

/// The path of the method. There is also an older service, `grpc.reflection.v1alpha`.
pub(super) const PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const ECHO: &str = "grpc.examples.echo.Echo";
/// Stands for the description of a large file, with bytes that are no text.
static DESCRIPTOR: [u8; 200_000] = [0xfe; 200_000];

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReflectionRequest {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "Question", tags = "4, 7")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Question {
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReflectionResponse {
    #[prost(string, tag = "1")]
    valid_host: String,
    #[prost(message, optional, tag = "2")]
    original_request: Option<ReflectionRequest>,
    #[prost(oneof = "Description", tags = "4, 6, 7")]
    description: Option<Description>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Description {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ReflectionError),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    descriptors: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<ServiceName>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceName {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionError {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

type Descriptions = BoxStream<'static, Result<ReflectionResponse, Status>>;

/// Serves a call of the method.
pub(super) async fn serve(request: http::Request<Body>) -> http::Response<Body> {
    let method = service_fn(|call: Request<Streaming<ReflectionRequest>>| async {
        let descriptions: Descriptions = call.into_inner().map_ok(describe).boxed();
        Ok::<_, Status>(Response::new(descriptions))
    });
    GrpcServer::new(ProstCodec::default()).streaming(method, request).await
}

fn describe(request: ReflectionRequest) -> ReflectionResponse {
    let description = match &request.question {
        Some(Question::ListServices(_)) => {
            Description::Services(Services { services: vec![ServiceName { name: ECHO.to_owned() }] })
        }
        Some(Question::FileContainingSymbol(symbol)) if symbol == ECHO => {
            Description::Files(Files { descriptors: vec![DESCRIPTOR.to_vec()] })
        }
        _ => Description::Error(ReflectionError { code: Code::NotFound as i32, message: "unknown".to_owned() }),
    };
    ReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        description: Some(description),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_lists_the_services_behind_a_route() {
    let (server, site) = (EchoServer::start("server").await, Site::new());
    let manifests = gateway(LISTENER)
        + &service("server", "TCP", (Ipv4Addr::LOCALHOST, server.port))
        + &echo_route(&[("", "server")])
        + &grpc_route("grpc.reflection.v1.ServerReflection", &[("", "server")]);
    site.save("manifests/servers.yaml", &manifests);
    let program = run(&site, &[]);
    program.wait_started();
    let endpoint = Endpoint::from_shared(format!("http://{}", site.address_of("port"))).unwrap();
    let mut client = Grpc::new(within_limit(endpoint.connect()).await.unwrap());

    let (questions, receiver) = tokio::sync::mpsc::channel(1);
    let sent = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut descriptions = call(&mut client, PATH, sent).await.unwrap();
    for question in [
        Question::ListServices(String::new()),
        Question::FileContainingSymbol(ECHO.to_owned()),
        Question::FileContainingSymbol("grpc.examples.Other".to_owned()),
    ] {
        let request = ReflectionRequest { host: "a.example".to_owned(), question: Some(question) };
        within_limit(questions.send(request.clone())).await.unwrap();
        // Each response arrives before the next request is sent.
        let response = within_limit(descriptions.message()).await.unwrap().unwrap();
        assert!(response == describe(request), "{:?}", response.original_request);
    }
    drop(questions);
    assert_eq!(within_limit(descriptions.message()).await.unwrap(), None);

    // No route has the older service.
    let older = PATH.replace("v1", "v1alpha");
    let status = call(&mut client, &older, stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert_eq!(status.message(), "no Route matched with those values");
    drop((descriptions, client));
    program.stop().expect_success();
}

async fn call(
    client: &mut Grpc<tonic::transport::Channel>,
    path: &str,
    requests: impl Stream<Item = ReflectionRequest> + Send + 'static,
) -> Result<Streaming<ReflectionResponse>, Status> {
    within_limit(async {
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::default();
        Ok(client.streaming(Request::new(requests), path.parse().unwrap(), codec).await?.into_inner())
    })
    .await
}
