//! Detects HTTP/2 with prior knowledge (RFC 9113, section 3.3) on connections without TLS, where ALPN is not available.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::http2_frames::PREFACE;

/// Inspects the first bytes of a connection. A preface that arrives in parts is held back until it is complete, since
/// a part of a preface is an invalid HTTP/1 request. The held bytes are always a prefix of the preface, so only their
/// length is stored.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ProtocolDetector {
    held_bytes: usize,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum DetectedProtocol {
    /// The bytes just read begin with the complete preface.
    Http2,
    Other,
}

impl ProtocolDetector {
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether bytes arrived, but too few to detect the protocol.
    pub(in crate::proxy) fn has_begun(&self) -> bool {
        self.held_bytes > 0
    }

    /// Reads until the protocol is detected.
    pub(in crate::proxy) fn read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<DetectedProtocol>> {
        let start = buffer.filled().len();
        if buffer.remaining() < PREFACE.len() {
            // The first read always has a larger buffer. With a smaller one the connection is treated as HTTP/1.
            self.done = true;
            buffer.put_slice(&PREFACE[..self.held_bytes]);
            ready!(Pin::new(stream).poll_read(cx, buffer))?;
            return Poll::Ready(Ok(DetectedProtocol::Other));
        }
        loop {
            buffer.put_slice(&PREFACE[..self.held_bytes]);
            let read = match Pin::new(&mut *stream).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => &buffer.filled()[start..],
                pending_or_failed => {
                    buffer.set_filled(start);
                    return pending_or_failed.map_ok(|()| DetectedProtocol::Other);
                }
            };
            let ended = read.len() == self.held_bytes;
            if !ended && read.len() < PREFACE.len() && PREFACE.starts_with(read) {
                self.held_bytes = read.len();
                buffer.set_filled(start);
                continue;
            }
            self.done = true;
            return Poll::Ready(Ok(if read.starts_with(PREFACE) {
                DetectedProtocol::Http2
            } else {
                DetectedProtocol::Other
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// The detected protocol and the bytes passed on, for input that arrives in these parts.
    async fn read(parts: &[&[u8]]) -> (DetectedProtocol, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let mut detector = ProtocolDetector::default();
        let mut memory = [0; 256];
        let mut buffer = ReadBuf::new(&mut memory);
        let mut parts = parts.iter();
        let detected = tokio::task::unconstrained(poll_fn(|cx| {
            loop {
                if let Poll::Ready(detected) = detector.read(&mut server, cx, &mut buffer) {
                    return Poll::Ready(detected.unwrap());
                }
                assert_eq!(buffer.filled(), b"", "no bytes are passed on before the protocol is detected");
                match parts.next() {
                    Some(part) => {
                        let mut write = std::pin::pin!(client.write_all(part));
                        assert!(write.as_mut().poll(cx).is_ready());
                    }
                    None => {
                        let mut end = std::pin::pin!(client.shutdown());
                        assert!(end.as_mut().poll(cx).is_ready());
                    }
                }
            }
        }))
        .await;
        assert!(detector.is_done());
        (detected, buffer.filled().to_vec())
    }

    #[tokio::test]
    async fn only_a_complete_preface_is_detected_as_http2() {
        for cut in 1..PREFACE.len() {
            let (head, tail) = PREFACE.split_at(cut);
            assert_eq!(read(&[head, tail]).await, (DetectedProtocol::Http2, PREFACE.to_vec()), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(read(&bytes).await, (DetectedProtocol::Http2, PREFACE.to_vec()));
        let preface_and_frame = [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(read(&[&preface_and_frame]).await, (DetectedProtocol::Http2, preface_and_frame));
        for other in ["GET / HTTP/1.1\r\n\r\n", "P", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/1.1\r\n", ""] {
            assert_eq!(
                read(&[other.as_bytes()]).await,
                (DetectedProtocol::Other, other.as_bytes().to_vec()),
                "{other:?}"
            );
        }
        assert_eq!(
            read(&[b"P", b"OST / HTTP/1.1\r\n"]).await,
            (DetectedProtocol::Other, b"POST / HTTP/1.1\r\n".to_vec())
        );
    }
}
