//! A bidirectional gRPC call that stays open: a client that sends a message and waits for its echo.

use std::future::poll_fn;
use std::pin::Pin;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::mpsc::{Sender, channel};

use crate::grpc::{PREFIX_LENGTH, framed_message};
use crate::http1::LoadResponse;
use crate::http2::{Connection, OutgoingBody};
use crate::plan::RequestShape;

/// An open call with messages of one length.
pub(crate) struct Call {
    messages: Sender<Bytes>,
    replies: Incoming,
    /// A message with its prefix, and with the number of the last message.
    framed: Vec<u8>,
}

impl Call {
    /// Opens a call for the messages of `shape` with its first message, for which some proxies wait. The echo of that
    /// message is yet to be read.
    pub(crate) async fn open(mut connection: Connection, shape: &RequestShape, number: u64) -> Result<Self> {
        let (messages, queued) = channel(1);
        let mut framed = framed_message(shape.body.unwrap_or_default());
        send(&messages, &mut framed, number)?;
        let response = connection.send(shape, number, OutgoingBody::queued(queued)).await?;
        ensure!(response.status() == 200, "the call was answered with status {}", response.status());
        Ok(Call { messages, replies: response.into_body(), framed })
    }

    /// Sends a message and reads its echo.
    pub(crate) async fn exchange(&mut self, number: u64) -> Result<LoadResponse> {
        send(&self.messages, &mut self.framed, number)?;
        self.read_echo(number).await
    }

    /// Reads the echo of the last message, which counts as a response with status 200.
    pub(crate) async fn read_echo(&mut self, number: u64) -> Result<LoadResponse> {
        let length = self.framed.len() - PREFIX_LENGTH;
        let (mut received, mut differs) = (0, false);
        while received < self.framed.len() {
            let frame = poll_fn(|cx| Pin::new(&mut self.replies).poll_frame(cx)).await;
            let frame = frame.context("the call ended before the echo")?.context("cannot read the echo")?;
            let Ok(data) = frame.into_data() else { continue };
            let end = received + data.len();
            differs |= self.framed.get(received..end) != Some(&data[..]);
            received = end;
        }
        Ok(LoadResponse {
            status: 200,
            number: Some(number),
            received: Some(length),
            length,
            differs,
            ..LoadResponse::default()
        })
    }
}

/// Writes the number into the message, and queues it.
fn send(messages: &Sender<Bytes>, framed: &mut [u8], number: u64) -> Result<()> {
    for (byte, digit) in framed[PREFIX_LENGTH..].iter_mut().zip(number.to_be_bytes()) {
        *byte = digit;
    }
    messages.try_send(Bytes::copy_from_slice(framed)).context("the call ended")
}

#[cfg(test)]
mod tests {
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    #[tokio::test]
    async fn echo_of_another_message_differs() {
        let (client, server) = tokio::io::duplex(1024);
        // The first message is also the echo of the second one.
        let service = service_fn(async |request: Request<Incoming>| {
            let mut received = request.into_body();
            let (replies, queued) = channel(1);
            tokio::spawn(async move {
                let first = poll_fn(|cx| Pin::new(&mut received).poll_frame(cx)).await.unwrap().unwrap();
                let first = first.into_data().unwrap();
                replies.send(first.clone()).await.unwrap();
                replies.send(first).await.unwrap();
                drop(replies);
                while poll_fn(|cx| Pin::new(&mut received).poll_frame(cx)).await.is_some() {}
            });
            hyper::Result::Ok(Response::new(OutgoingBody::queued(queued)))
        });
        let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
        let calling = async {
            let connection = Connection::new(client, "http").await.unwrap();
            let shape = RequestShape::call_message("bench.example", 64);
            let mut call = Call::open(connection, &shape, 1).await.unwrap();
            assert!(!call.read_echo(1).await.unwrap().differs);
            assert!(call.exchange(2).await.unwrap().differs);
            assert!(call.exchange(3).await.is_err(), "the call has ended");
        };
        tokio::spawn(serving);
        tokio::task::LocalSet::new().run_until(calling).await;
    }
}
