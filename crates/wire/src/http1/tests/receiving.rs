//! Reads from a stream into a buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, duplex};

use super::super::{NextInput, poll_receive};

const KIB: usize = 1024;
/// Below and above the number of expected bytes from which they are read in place.
const EXPECTED: [NextInput; 5] = [
    NextInput::Unknown,
    NextInput::Length(KIB),
    NextInput::Length(16 * KIB),
    NextInput::Length(1024 * KIB),
    NextInput::SmallChunks,
];

fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    expected: NextInput,
) -> Poll<io::Result<usize>> {
    poll_receive(stream, &mut Context::from_waker(Waker::noop()), buffer, expected)
}

#[test]
fn what_has_arrived_is_appended() {
    for expected in EXPECTED {
        for earlier in ["", "earlier "] {
            let (mut stream, mut buffer) = (&b"abc"[..], BytesMut::from(earlier));
            assert!(matches!(receive(&mut stream, &mut buffer, expected), Poll::Ready(Ok(3))));
            assert_eq!(buffer, format!("{earlier}abc"), "{expected:?}");
            assert!(matches!(receive(&mut stream, &mut buffer, expected), Poll::Ready(Ok(0))), "the end");
            assert_eq!(buffer, format!("{earlier}abc"), "{expected:?}");
        }
    }
}

#[test]
fn at_most_128_kib_are_received_at_once() {
    let bytes: Vec<u8> = (0..200 * KIB).map(|index| (index / 7 % 251) as u8).collect();
    for expected in EXPECTED {
        let (mut stream, mut received) = (&bytes[..], Vec::new());
        loop {
            let mut buffer = BytesMut::new();
            let Poll::Ready(Ok(length)) = receive(&mut stream, &mut buffer, expected) else { panic!("{expected:?}") };
            assert!(length == buffer.len() && length <= 128 * KIB, "{expected:?}: {length}");
            if length == 0 {
                break;
            }
            received.extend_from_slice(&buffer);
        }
        assert!(received == bytes, "{expected:?}");
    }
}

#[test]
fn many_expected_bytes_are_read_in_place() {
    let bytes = vec![b'd'; 200 * KIB];
    for (expected, received) in [(KIB, 128 * KIB), (16 * KIB, 16 * KIB), (40 * KIB, 40 * KIB), (1024 * KIB, 128 * KIB)]
    {
        let mut buffer = BytesMut::new();
        let expected = NextInput::Length(expected);
        assert!(matches!(receive(&mut &bytes[..], &mut buffer, expected), Poll::Ready(Ok(_))));
        assert_eq!(buffer.len(), received, "only memory of the thread has room for more than was expected");
    }
}

#[test]
fn memory_of_large_parts_is_used_again_when_it_is_released() {
    for (length, is_copied) in [(2 * KIB, true), (63 * KIB, true), (64 * KIB, false), (128 * KIB, false)] {
        let receive_part = |byte| {
            let (bytes, mut buffer) = (vec![byte; length], BytesMut::new());
            let received = receive(&mut &bytes[..], &mut buffer, NextInput::Unknown);
            assert!(matches!(received, Poll::Ready(Ok(received)) if received == length));
            buffer
        };
        let (first, second) = (receive_part(b'1'), receive_part(b'2'));
        assert!(first.iter().all(|byte| *byte == b'1') && second.iter().all(|byte| *byte == b'2'), "{length}");
        let memory = second.as_ptr();
        drop(second);
        let _other = vec![0_u8; length];
        let third = receive_part(b'3');
        assert!(is_copied || third.as_ptr() == memory, "{length}");
    }
}

#[test]
fn small_chunks_are_received_in_small_parts() {
    let (bytes, mut buffer) = (vec![b'd'; 200 * KIB], BytesMut::new());
    assert!(matches!(receive(&mut &bytes[..], &mut buffer, NextInput::SmallChunks), Poll::Ready(Ok(_))));
    assert_eq!(buffer.len(), 8 * KIB);
}

#[tokio::test]
async fn a_connection_that_waits_has_no_memory() {
    for expected in EXPECTED {
        let (mut near, mut far) = duplex(64);
        let mut buffer = BytesMut::with_capacity(64 * KIB);
        assert!(receive(&mut near, &mut buffer, expected).is_pending());
        assert_eq!((buffer.len(), buffer.capacity()), (0, 0), "{expected:?}");
        far.write_all(b"abc").await.unwrap();
        assert!(matches!(receive(&mut near, &mut buffer, expected), Poll::Ready(Ok(3))));
        assert!(receive(&mut near, &mut buffer, expected).is_pending());
        assert_eq!(buffer, "abc", "what was received stays");
        drop(far);
        let mut end = BytesMut::new();
        assert!(matches!(receive(&mut near, &mut end, expected), Poll::Ready(Ok(0))));
        assert_eq!(end.capacity(), 0, "{expected:?}");
    }
}

#[test]
fn bytes_that_others_refer_to_are_not_overwritten() {
    for expected in EXPECTED {
        let mut buffer = BytesMut::new();
        assert!(matches!(receive(&mut &b"first"[..], &mut buffer, expected), Poll::Ready(Ok(5))));
        let first = buffer.split().freeze();
        assert!(matches!(receive(&mut &b"other"[..], &mut buffer, expected), Poll::Ready(Ok(5))));
        assert_eq!((&*first, &*buffer), (&b"first"[..], &b"other"[..]));
    }
}

/// Fails after it has claimed some bytes.
struct FailingInput;

impl AsyncRead for FailingInput {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(b"x");
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

#[test]
fn errors_leave_the_buffer_as_it_is() {
    for expected in EXPECTED {
        for earlier in ["", "earlier"] {
            let mut buffer = BytesMut::from(earlier);
            let Poll::Ready(Err(error)) = receive(&mut FailingInput, &mut buffer, expected) else { panic!("no error") };
            assert_eq!((error.kind(), &*buffer), (io::ErrorKind::ConnectionReset, earlier.as_bytes()));
        }
    }
}
