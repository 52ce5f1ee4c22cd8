//! A `tonic` client of the service Echo, in which every wait ends after [`TEST_TIMEOUT`].

use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::echo_server::{EchoRequest, EchoResponse};
use crate::harness::TEST_TIMEOUT;

/// A client with one channel, which is one connection.
#[derive(Clone)]
pub(crate) struct EchoClient {
    grpc: Grpc<Channel>,
}

impl EchoClient {
    pub(crate) async fn connect(endpoint: Endpoint) -> Self {
        EchoClient { grpc: Grpc::new(within_limit(endpoint.connect()).await.unwrap()) }
    }

    pub(crate) async fn unary(&mut self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        within_limit(async {
            self.ready().await?;
            self.grpc.unary(request, path("UnaryEcho"), ProstCodec::default()).await
        })
        .await
    }

    pub(crate) async fn client_streaming(
        &mut self,
        request: Request<Vec<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        within_limit(async {
            self.ready().await?;
            let request = request.map(stream::iter);
            self.grpc.client_streaming(request, path("ClientStreamingEcho"), ProstCodec::default()).await
        })
        .await
    }

    pub(crate) async fn server_streaming(
        &mut self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Streaming<EchoResponse>>, Status> {
        within_limit(async {
            self.ready().await?;
            self.grpc.server_streaming(request, path("ServerStreamingEcho"), ProstCodec::default()).await
        })
        .await
    }

    /// Begins a call, whose metadata are those of the request.
    pub(crate) async fn bidirectional_streaming(
        &mut self,
        request: Request<()>,
    ) -> Result<Response<BidirectionalCall>, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let sent = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let response = within_limit(async {
            self.ready().await?;
            let request = request.map(|()| sent);
            self.grpc.streaming(request, path("BidirectionalStreamingEcho"), ProstCodec::default()).await
        });
        Ok(response.await?.map(|replies| BidirectionalCall { requests, replies }))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))
    }
}

/// A bidirectional stream. Dropping it cancels the call.
pub(crate) struct BidirectionalCall {
    requests: mpsc::Sender<EchoRequest>,
    replies: Streaming<EchoResponse>,
}

impl BidirectionalCall {
    pub(crate) async fn send(&mut self, message: &str) {
        within_limit(self.requests.send(message_of(message))).await.expect("the call is open");
    }

    /// Sends a message, and waits for the reply.
    pub(crate) async fn ask(&mut self, message: &str) -> Result<String, Status> {
        self.send(message).await;
        Ok(next_of(&mut self.replies).await?.expect("a reply to every message"))
    }

    /// Ends the requests, and returns the replies that follow.
    pub(crate) async fn finish(self) -> Result<Vec<String>, Status> {
        drop(self.requests);
        rest_of(self.replies).await
    }
}

/// The next message of a stream. `None` at its end.
pub(crate) async fn next_of(replies: &mut Streaming<EchoResponse>) -> Result<Option<String>, Status> {
    Ok(within_limit(replies.message()).await?.map(|reply| reply.message))
}

/// The remaining messages of a stream.
pub(crate) async fn rest_of(mut replies: Streaming<EchoResponse>) -> Result<Vec<String>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = next_of(&mut replies).await? {
        messages.push(message);
    }
    Ok(messages)
}

pub(crate) fn message_of(message: &str) -> EchoRequest {
    EchoRequest { message: message.to_owned() }
}

fn path(method: &str) -> PathAndQuery {
    format!("/grpc.examples.echo.Echo/{method}").parse().unwrap()
}

pub(super) async fn within_limit<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("the call makes progress")
}
