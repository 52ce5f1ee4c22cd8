//! Tests of responses, failed writes and floods on the socket of an HTTP/2 endpoint.

use super::*;
use crate::http2_frames::END_HEADERS;

fn frame(kind: u8, flags: u8, stream: u32) -> FrameHeader {
    FrameHeader { length: 1, kind, flags: flags | END_HEADERS, stream }
}

fn with_request(stream: u32) -> ResponseStreams {
    let mut streams = ResponseStreams::new(Instant::now(), Rc::default());
    streams.record_written(&frame(HEADERS, 0, stream));
    streams
}

#[test]
fn status_of_a_head_is_informational_or_final() {
    use HeadKind::{Final, Informational, Unknown};
    let cases: [(&[u8], Option<HeadKind>); 14] = [
        (&[0x88], Some(Final)),
        (&[0x8e, 0x40], Some(Final)),
        (b"\x48\x03103", Some(Informational)),
        (b"\x08\x03100", Some(Informational)),
        (b"\x19\x03418", Some(Final)),
        // 103 and 302 in Huffman coding.
        (&[0x48, 0x82, 0x08, 0x19], Some(Informational)),
        (&[0x48, 0x82, 0x64, 0x02], Some(Final)),
        (&[0x80 | 62], Some(Unknown)),
        (&[0x40 | 62], Some(Unknown)),
        (b"\0\x07:status\x03103", Some(Unknown)),
        (&[0x84], Some(Unknown)),
        (&[], None),
        (&[0x48], None),
        (&[0x48, 0x82], None),
    ];
    for (fields, expected) in cases {
        assert_eq!(head_kind(fields), expected, "{fields:x?}");
    }
}

#[test]
fn blocks_after_the_final_head_are_trailers() {
    use FrameAction::{MarkTrailers, Pass, ReadFields};
    let head = frame(HEADERS, 0, 1);
    let end = frame(HEADERS, END_STREAM, 1);
    let mut streams = with_request(1);
    assert_eq!(streams.examine(&head), ReadFields);
    assert!(streams.read_fields(&head, b"\x48\x03103"));
    assert_eq!(streams.examine(&end), Pass, "the final head after an informational one");
    assert_eq!(streams.open.len(), 0);

    let mut streams = with_request(1);
    assert!(streams.read_fields(&head, &[0x88]));
    assert_eq!([streams.examine(&end), streams.examine(&end)], [MarkTrailers; 2], "more of the frame may arrive");
    streams.end_with_trailers(1);
    assert_eq!(streams.examine(&end), Pass, "the stream has ended");

    let mut streams = with_request(1);
    assert!(streams.read_fields(&head, &[0x80 | 62]));
    assert_eq!(streams.examine(&end), Pass, "an unknown status");
    let mut streams = with_request(1);
    streams.examine(&frame(DATA, 0, 1));
    assert_eq!(streams.examine(&end), MarkTrailers, "data follows a final head");
}

/// Reads these bytes and then the end of the connection, which the operating system reports only after the first
/// read. Each write fails.
struct ClosedByEndpoint {
    is_reported: bool,
    received: std::collections::VecDeque<u8>,
}

impl AsyncRead for ClosedByEndpoint {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_reported, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        buffer.put_slice(self.received.make_contiguous());
        self.received.clear();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClosedByEndpoint {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_received_before_a_failed_write_is_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut response = Vec::new();
    frame(HEADERS, 0, 1).write(&mut response);
    response.push(0x88);
    frame(DATA, END_STREAM, 1).write(&mut response);
    response.push(b'x');
    // A response to a request that is sent, to one that is not, and none.
    for (request_flags, received, end_after) in
        [(END_STREAM, response.clone(), 0), (0, response.clone(), 5), (0, Vec::new(), 0)]
    {
        let socket = ClosedByEndpoint { is_reported: false, received: received.clone().into() };
        let connection_end = Rc::<Http2End>::default();
        let mut stream = ResponseStream::new(socket, Rc::clone(&connection_end));
        stream.marker.streams.record_written(&frame(HEADERS, request_flags, 1));
        let begin = Instant::now();
        stream.write_all(b"more of the request").await.unwrap();
        assert!(connection_end.is_retired.get(), "the connection takes no further requests");
        let mut read = Vec::new();
        while read.len() < received.len() {
            stream.read_buf(&mut read).await.unwrap();
        }
        assert_eq!(read, received);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        stream.write_all(b"more of the request").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(begin.elapsed().as_secs(), end_after, "flags {request_flags}");
    }
}

/// An endpoint whose system reports nothing after the failed write.
#[tokio::test(start_paused = true)]
async fn failed_write_is_reported_if_nothing_follows() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    struct Silent;
    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut stream = ResponseStream::new(Silent, Rc::default());
    let error = stream.write_all(b"the preface").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "no response can follow");
    stream.marker.streams.record_written(&frame(HEADERS, 0, 1));
    let begin = Instant::now();
    stream.write_all(b"more of the request").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(begin.elapsed().as_secs(), MAX_READ_AFTER_FAILED_WRITE.as_secs());
}

#[test]
fn streams_are_forgotten_when_they_end() {
    for (what, end) in [
        ("head", frame(HEADERS, END_STREAM, 1)),
        ("data", frame(DATA, END_STREAM, 1)),
        ("reset", frame(RST_STREAM, 0, 1)),
    ] {
        let mut streams = with_request(1);
        streams.examine(&end);
        assert!(streams.open.is_empty(), "{what}");
        // What still arrives, or is still sent, does not open the stream again.
        streams.examine(&frame(DATA, 0, 1));
        streams.record_written(&frame(HEADERS, END_STREAM, 1));
        assert!(streams.open.is_empty(), "{what}");
    }
    let mut streams = with_request(1);
    streams.record_written(&frame(RST_STREAM, 0, 1));
    assert!(streams.open.is_empty(), "the client has canceled the request");
}
#[test]
fn informational_heads_are_limited() {
    let head = frame(HEADERS, 0, 1);
    // Also if the status is an entry of the dynamic table, so that it is not known.
    for fields in [&b"\x48\x03103"[..], &[0x80 | 62]] {
        let mut streams = with_request(1);
        for _ in 0..MAX_INFORMATIONAL {
            assert_eq!(streams.examine(&head), FrameAction::ReadFields);
            assert!(streams.read_fields(&head, fields));
        }
        assert_eq!(streams.examine(&head), FrameAction::MarkTrailers);
        streams.end_with_trailers(1);
        assert!(streams.open.is_empty());
    }
    let mut streams = with_request(1);
    for _ in 1..MAX_INFORMATIONAL {
        streams.examine(&head);
        streams.read_fields(&head, b"\x48\x03103");
    }
    assert_eq!(streams.examine(&frame(HEADERS, END_STREAM, 1)), FrameAction::Pass, "the final head");
}

#[tokio::test(start_paused = true)]
async fn frames_that_no_request_has_caused_are_limited() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    for kind in [SETTINGS, PING, 0xee, RST_STREAM, 8] {
        let mut streams = with_request(1);
        let count = (0..10_000).take_while(|_| {
            streams.examine(&frame(kind, 0, 0));
            !streams.is_flooding
        });
        assert!((500..9_000).contains(&count.count()), "{kind}");
        // Those that follow requests are permitted.
        let mut streams = with_request(1);
        for number in 1..10_000 {
            streams.record_written(&frame(HEADERS, 0, 1 + 2 * number));
            streams.examine(&frame(kind, 0, 0));
        }
        assert!(!streams.is_flooding, "{kind}");
    }
}

/// Whether a connection ends with a complaint on which GOAWAY with this error code arrives in parts of this many bytes.
async fn ends_with_complaint(code: u32, part: usize) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut sent = Vec::new();
    FrameHeader { length: 8, kind: GOAWAY, flags: 0, stream: 0 }.write(&mut sent);
    sent.extend_from_slice(&[0, 0, 0, 1]);
    sent.extend_from_slice(&code.to_be_bytes());
    let (mut endpoint, socket) = tokio::io::duplex(part);
    let connection_end = Rc::<Http2End>::default();
    let mut stream = ResponseStream::new(socket, Rc::clone(&connection_end));
    let bytes = sent.clone();
    let sending = async move { endpoint.write_all(&bytes).await };
    let mut received = Vec::new();
    let (was_sent, was_received) = tokio::join!(sending, stream.read_to_end(&mut received));
    assert!(was_sent.is_ok() && was_received.is_ok());
    assert_eq!(received, sent);
    assert_eq!(connection_end.is_retired.get(), connection_end.is_complaint.get());
    connection_end.is_complaint.get()
}

#[tokio::test(start_paused = true)]
async fn complaint_is_recognized_in_parts() {
    const NO_ERROR: u32 = 0;
    for part in [1, 5, 12, 17] {
        assert!(ends_with_complaint(ENHANCE_YOUR_CALM, part).await, "{part}");
        assert!(!ends_with_complaint(NO_ERROR, part).await, "{part}");
    }
}
