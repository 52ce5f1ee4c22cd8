//! Whether a client on a plain port begins with HTTP/2: by prior knowledge, for there is nothing to negotiate with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the first bytes of a connection. A preface that comes in parts is held back until it is whole: half of one is
/// a bad request in HTTP/1. What is held back is always the beginning of the preface, so only its length is kept.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    held: usize,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// The bytes that were just read begin with the whole preface.
    Http2,
    Other,
}

impl Opening {
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Something came, but not enough to tell what it is.
    pub(crate) fn has_begun(&self) -> bool {
        self.held > 0
    }

    /// Reads until it is clear what the client speaks.
    pub(crate) fn read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Spoken>> {
        let start = buffer.filled().len();
        if buffer.remaining() < PREFACE.len() {
            // No reader asks for less at the beginning; one that did would get HTTP/1.
            self.over = true;
            buffer.put_slice(&PREFACE[..self.held]);
            ready!(Pin::new(stream).poll_read(cx, buffer))?;
            return Poll::Ready(Ok(Spoken::Other));
        }
        loop {
            buffer.put_slice(&PREFACE[..self.held]);
            let read = match Pin::new(&mut *stream).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => &buffer.filled()[start..],
                unfinished => {
                    buffer.set_filled(start);
                    return unfinished.map_ok(|()| Spoken::Other);
                }
            };
            let ended = read.len() == self.held;
            if !ended && read.len() < PREFACE.len() && PREFACE.starts_with(read) {
                self.held = read.len();
                buffer.set_filled(start);
                continue;
            }
            self.over = true;
            return Poll::Ready(Ok(if read.starts_with(PREFACE) { Spoken::Http2 } else { Spoken::Other }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What was made of the bytes, when they come in the given parts.
    async fn read(parts: &[&[u8]]) -> (Spoken, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let mut opening = Opening::default();
        let mut memory = [0; 256];
        let mut buffer = ReadBuf::new(&mut memory);
        let mut parts = parts.iter();
        let spoken = tokio::task::unconstrained(poll_fn(|cx| {
            loop {
                if let Poll::Ready(spoken) = opening.read(&mut server, cx, &mut buffer) {
                    return Poll::Ready(spoken.unwrap());
                }
                assert_eq!(buffer.filled(), b"", "nothing is shown before it is clear what it is");
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
        assert!(opening.is_over());
        (spoken, buffer.filled().to_vec())
    }

    #[tokio::test]
    async fn the_preface_is_told_from_a_request_however_it_comes() {
        for cut in 1..PREFACE.len() {
            let (head, tail) = PREFACE.split_at(cut);
            assert_eq!(read(&[head, tail]).await, (Spoken::Http2, PREFACE.to_vec()), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(read(&bytes).await, (Spoken::Http2, PREFACE.to_vec()));
        let with_more = [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(read(&[&with_more]).await, (Spoken::Http2, with_more));
        for other in ["GET / HTTP/1.1\r\n\r\n", "P", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/1.1\r\n", ""] {
            assert_eq!(read(&[other.as_bytes()]).await, (Spoken::Other, other.as_bytes().to_vec()), "{other:?}");
        }
        assert_eq!(read(&[b"P", b"OST / HTTP/1.1\r\n"]).await, (Spoken::Other, b"POST / HTTP/1.1\r\n".to_vec()));
    }
}
