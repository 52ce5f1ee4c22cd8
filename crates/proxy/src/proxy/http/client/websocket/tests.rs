//! Tests of both sides of a relay: what they get when one of them sends a message that is too long.

use std::num::NonZeroU32;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::bind_address::BindAddress;
use crate::proxy::connection::listener_connections::ListenerConnections;
use crate::proxy::connection::relay::{RelayEnd, RelayLimits, relay};

const LIMIT: u32 = 100;
const CLOSE_TOO_BIG: &[u8] = b"\x88\x13\x03\xf1Payload Too Large";
const CLOSE_GOING_AWAY: &[u8] = b"\x88\x0c\x03\xe9Going Away";
/// Replies of the sides to a close frame. The mask of the client is zero, so that its bytes are readable.
const CLIENT_CLOSED: &[u8] = b"\x88\x80\0\0\0\0";
const ENDPOINT_CLOSED: &[u8] = b"\x88\x00";

/// A binary message of a client.
fn of_client(length: u8) -> Vec<u8> {
    let header = if length < 126 { vec![0x82, 0x80 | length] } else { vec![0x82, 0x80 | 126, 0, length] };
    [&header[..], &[0; 4], &vec![b'c'; length.into()]].concat()
}

/// A binary message of an endpoint.
fn of_endpoint(length: u8) -> Vec<u8> {
    let header = if length < 126 { vec![0x82, length] } else { vec![0x82, 126, 0, length] };
    [&header[..], &vec![b'e'; length.into()]].concat()
}

/// Runs a relay with limits, of which `talk` has the other ends.
async fn run<T>(talk: impl AsyncFnOnce(DuplexStream, DuplexStream) -> T) -> (RelayEnd, Option<&'static str>, T) {
    run_with_buffers(1 << 16, talk).await
}

/// The same with this many bytes between the relay and each end.
async fn run_with_buffers<T>(
    size: usize,
    talk: impl AsyncFnOnce(DuplexStream, DuplexStream) -> T,
) -> (RelayEnd, Option<&'static str>, T) {
    let ((client, far_client), (endpoint, far_endpoint)) = (duplex(size), duplex(size));
    let limit = NonZeroU32::new(LIMIT).unwrap();
    let limits = MessageLimits { client: limit, endpoint: limit };
    let refused = RefusedFrame::default();
    let mut client = LimitedSide::client(client, limits, &refused);
    let mut endpoint = LimitedSide::endpoint(endpoint, limits, &refused);
    let connections = ListenerConnections::new(BindAddress::tcp(([127, 0, 0, 1], 80).into()));
    let mut registration = connections.register();
    let idle = Instant::now() + Duration::from_secs(3600);
    let limits = RelayLimits { idle_deadline: || idle, closing_grace: None, removed_endpoint_grace: None };
    let relaying = async {
        let end = relay(&mut client, &mut endpoint, &connections, &mut registration, limits).await;
        drop((client, endpoint));
        end
    };
    let (end, result) = tokio::join!(relaying, talk(far_client, far_endpoint));
    (end, refused.reason(), result)
}

async fn read_to_end(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// The frames with the mask of the last one removed, which the proxy has chosen.
fn unmasked_close(bytes: &[u8], before: usize) -> Vec<u8> {
    let (forwarded, frame) = bytes.split_at(before);
    let (mask, payload) = frame[2..].split_at(4);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    forwarded.iter().copied().chain([frame[0], frame[1] & 0x7f]).chain(payload).collect()
}

#[tokio::test(start_paused = true)]
async fn both_sides_learn_why_the_connection_closes() {
    let (end, reason, (to_client, to_endpoint)) = run(async |mut client, mut endpoint| {
        client.write_all(&[of_client(100), of_client(101)].concat()).await.unwrap();
        endpoint.write_all(&of_endpoint(100)).await.unwrap();
        client.write_all(CLIENT_CLOSED).await.unwrap();
        endpoint.write_all(ENDPOINT_CLOSED).await.unwrap();
        (read_to_end(&mut client).await, read_to_end(&mut endpoint).await)
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Completed, Some(CLIENT_MESSAGE_TOO_LARGE)));
    assert!(to_client.ends_with(CLOSE_TOO_BIG), "{to_client:?}");
    let before = of_client(100).len();
    assert_eq!(unmasked_close(&to_endpoint, before), [&of_client(100), CLOSE_GOING_AWAY].concat());

    let (end, reason, (to_client, to_endpoint)) = run(async |mut client, mut endpoint| {
        endpoint.write_all(&[of_endpoint(101), ENDPOINT_CLOSED.to_vec()].concat()).await.unwrap();
        client.write_all(CLIENT_CLOSED).await.unwrap();
        (read_to_end(&mut client).await, read_to_end(&mut endpoint).await)
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Completed, Some(ENDPOINT_MESSAGE_TOO_LARGE)));
    assert_eq!(to_client, CLOSE_GOING_AWAY);
    // The client may have closed before, and nothing follows its close frame.
    let is_close = to_endpoint == CLIENT_CLOSED || unmasked_close(&to_endpoint, 0) == CLOSE_TOO_BIG;
    assert!(is_close, "{to_endpoint:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_follows_whole_frames_only() {
    let (end, _, (to_client, ())) = run(async |mut client, mut endpoint| {
        let message = of_endpoint(100);
        endpoint.write_all(&message[..50]).await.unwrap();
        let mut begin = vec![0; 50];
        client.read_exact(&mut begin).await.unwrap();
        client.write_all(&of_client(101)).await.unwrap();
        // The close frame for the endpoint: the message of the client was refused.
        endpoint.read_exact(&mut [0; 18]).await.unwrap();
        endpoint.write_all(&[&message[50..], ENDPOINT_CLOSED].concat()).await.unwrap();
        client.write_all(CLIENT_CLOSED).await.unwrap();
        let rest = read_to_end(&mut client).await;
        ([begin, rest].concat(), drop(endpoint))
    })
    .await;
    assert_eq!(end, RelayEnd::Completed);
    assert_eq!(to_client, [&of_endpoint(100), CLOSE_TOO_BIG].concat());
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_close_is_cut_off() {
    let begin = Instant::now();
    let (end, reason, to_client) = run(async |mut client, endpoint| {
        // An invalid frame, then more than is worth reading.
        client.write_all(&[&[0xf2, 0x80][..], &vec![0; 60_000]].concat()).await.unwrap();
        let received = read_to_end(&mut client).await;
        drop(endpoint);
        received
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Failed, Some(INVALID_CLIENT_FRAME)));
    assert_eq!(to_client, b"\x88\x10\x03\xeaProtocol Error");
    assert_eq!(begin.elapsed().as_secs(), MAX_CLOSING_TIME.as_secs());
}

#[tokio::test(start_paused = true)]
async fn sides_that_do_not_read_are_cut_off() {
    let (end, reason, _sides) = run_with_buffers(64, async |mut client, mut endpoint| {
        // What fills the buffer of the client, and more.
        endpoint.write_all(&[of_endpoint(62), of_endpoint(50)].concat()).await.unwrap();
        // What fills the buffer of the endpoint, so that it cannot take a close frame.
        client.write_all(&[of_client(58), of_client(101)].concat()).await.unwrap();
        (client, endpoint)
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Failed, Some(CLIENT_MESSAGE_TOO_LARGE)));
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_close_frame() {
    let late = [of_client(5), vec![0xff; 100]].concat();
    let (end, reason, (to_client, to_endpoint)) = run(async |mut client, mut endpoint| {
        client.write_all(&[CLIENT_CLOSED, &late].concat()).await.unwrap();
        let mut closed = [0; CLIENT_CLOSED.len()];
        endpoint.read_exact(&mut closed).await.unwrap();
        client.write_all(&late).await.unwrap();
        // What the endpoint sends until it closes is still for the client.
        endpoint.write_all(&[&of_endpoint(100), ENDPOINT_CLOSED].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        endpoint.shutdown().await.unwrap();
        let rest = read_to_end(&mut endpoint).await;
        (read_to_end(&mut client).await, [&closed[..], &rest].concat())
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Completed, None));
    assert_eq!(to_client, [&of_endpoint(100), ENDPOINT_CLOSED].concat());
    assert_eq!(to_endpoint, CLIENT_CLOSED);

    // A side that has sent nothing else has all the time to receive the rest, another one a few seconds.
    for (late, expected) in [(&b""[..], RelayEnd::Idle), (&late, RelayEnd::Failed)] {
        let (end, _, _sides) = run(async |mut client, endpoint| {
            client.write_all(&[CLIENT_CLOSED, late].concat()).await.unwrap();
            (client, endpoint)
        })
        .await;
        assert_eq!(end, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_never_stops_sending_is_cut_off() {
    /// Has always more bytes, none of which begins a valid frame.
    struct Flood {
        reads: usize,
    }

    impl AsyncRead for Flood {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            assert!(self.reads < 100_000, "the side is read without an end");
            let length = buffer.remaining();
            buffer.put_slice(&vec![0xff; length]);
            Poll::Ready(Ok(()))
        }
    }

    let refused = RefusedFrame::default();
    let limit = NonZeroU32::new(LIMIT).unwrap();
    let limits = MessageLimits { client: limit, endpoint: limit };
    let mut client = LimitedSide::client(Flood { reads: 0 }, limits, &refused);
    let mut bytes = [0; 100];
    assert!(client.read(&mut bytes).await.unwrap() > 0, "a close frame for the endpoint");
    let (read, ()) = tokio::join!(client.read(&mut bytes), tokio::time::advance(MAX_CLOSING_TIME * 2));
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn short_messages_pass_unchanged_in_any_parts() {
    let frames = |frame: fn(u8) -> Vec<u8>| [frame(0), frame(99), frame(100), frame(1)].concat();
    let (end, reason, (to_client, to_endpoint)) = run(async |mut client, mut endpoint| {
        for (of_client, of_endpoint) in frames(of_client).chunks(3).zip(frames(of_endpoint).chunks(1)) {
            client.write_all(of_client).await.unwrap();
            endpoint.write_all(of_endpoint).await.unwrap();
            tokio::task::yield_now().await;
        }
        let sent = frames(of_client).chunks(3).count();
        endpoint.write_all(&frames(of_endpoint)[sent..]).await.unwrap();
        client.shutdown().await.unwrap();
        endpoint.shutdown().await.unwrap();
        (read_to_end(&mut client).await, read_to_end(&mut endpoint).await)
    })
    .await;
    assert_eq!((end, reason), (RelayEnd::Completed, None));
    assert_eq!(to_client, frames(of_endpoint));
    assert_eq!(to_endpoint, frames(of_client));
}
