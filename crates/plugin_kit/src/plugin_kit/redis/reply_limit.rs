//! Limits the replies of a Redis server while they arrive. The client library keeps an incomplete reply in memory until
//! its end, however long it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reads fail at a reply that is too long or malformed.
pub(super) struct ReplyLimit<S> {
    stream: S,
    scanner: ReplyScanner,
    is_exceeded: Arc<AtomicBool>,
}

impl<S> ReplyLimit<S> {
    /// The second value becomes true when a reply is too long. The client library does not pass the error on.
    pub(super) fn new(stream: S, max_bytes: usize) -> (Self, Arc<AtomicBool>) {
        let is_exceeded = Arc::new(AtomicBool::new(false));
        let scanner = ReplyScanner::new(max_bytes);
        (ReplyLimit { stream, scanner, is_exceeded: Arc::clone(&is_exceeded) }, is_exceeded)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Err(error) = self.scanner.scan(&buffer.filled()[before..]) {
            self.is_exceeded.fetch_or(error == InvalidReply::TooLong, Relaxed);
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a connection is not read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidReply {
    #[error("a reply is too long")]
    TooLong,
    #[error("a reply is malformed")]
    Malformed,
}

/// Finds the ends of replies in RESP2 and RESP3, where the client library finds them.
#[derive(Debug)]
struct ReplyScanner {
    max_bytes: usize,
    part: ReplyPart,
    /// The values that the current reply still consists of, without the one that has begun. 0 between replies.
    values: usize,
    /// The bytes of the current reply until now.
    bytes: usize,
    /// The current line, if it is a length.
    length_line: Vec<u8>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum ReplyPart {
    #[default]
    Type,
    /// A line after this type. `after_cr`: whether the last byte was a carriage return.
    Line { kind: u8, after_cr: bool },
    /// The content of a string and the line end after it.
    Content { bytes: usize },
}

impl ReplyScanner {
    fn new(max_bytes: usize) -> Self {
        ReplyScanner { max_bytes, part: ReplyPart::Type, values: 0, bytes: 0, length_line: Vec::new() }
    }

    fn scan(&mut self, mut received: &[u8]) -> Result<(), InvalidReply> {
        while let Some((&byte, rest)) = received.split_first() {
            let taken = match self.part {
                ReplyPart::Type => {
                    self.values = self.values.max(1);
                    self.part = ReplyPart::Line { kind: byte, after_cr: false };
                    1
                }
                ReplyPart::Line { kind, after_cr } => {
                    self.part = ReplyPart::Line { kind, after_cr: byte == b'\r' };
                    if after_cr && byte == b'\n' {
                        self.end_line(kind)?;
                    } else if LENGTH_KINDS.contains(&kind) {
                        self.length_line.push(byte);
                    } else if !LINE_KINDS.contains(&kind) {
                        return Err(InvalidReply::Malformed);
                    }
                    1
                }
                ReplyPart::Content { bytes } => {
                    let taken = bytes.min(rest.len() + 1);
                    self.part = ReplyPart::Content { bytes: bytes - taken };
                    if taken == bytes {
                        self.end_value(0)?;
                    }
                    taken
                }
            };
            self.bytes += taken;
            // A value has at least 3 bytes, so a list that is too long is noticed before its values arrive.
            if self.bytes.saturating_add(self.values.saturating_mul(3)) > self.max_bytes + 3 {
                return Err(InvalidReply::TooLong);
            }
            if self.values == 0 {
                self.bytes = 0;
            }
            received = &received[taken..];
        }
        Ok(())
    }

    /// Ends the line of a value of this type.
    fn end_line(&mut self, kind: u8) -> Result<(), InvalidReply> {
        if !LENGTH_KINDS.contains(&kind) {
            return self.end_value(0);
        }
        // The carriage return of the line end is white space.
        let length = std::str::from_utf8(&self.length_line).ok().and_then(|line| line.trim().parse::<i64>().ok());
        self.length_line.clear();
        let is_optional = matches!(kind, b'$' | b'*' | b'~' | b'>');
        let length = match length {
            Some(length) if length < 0 && is_optional => return self.end_value(0),
            Some(length) => usize::try_from(length).map_err(|_| InvalidReply::Malformed)?,
            None => return Err(InvalidReply::Malformed),
        };
        if length > self.max_bytes {
            return Err(InvalidReply::TooLong);
        }
        match kind {
            b'*' | b'~' | b'>' => self.end_value(length),
            b'%' => self.end_value(2 * length),
            // The attributes, and the value that they belong to.
            b'|' => self.end_value(2 * length + 1),
            _ if self.bytes + length + "\n\r\n".len() > self.max_bytes => Err(InvalidReply::TooLong),
            _ => {
                self.part = ReplyPart::Content { bytes: length + "\r\n".len() };
                Ok(())
            }
        }
    }

    /// Ends a value, or the head of one that consists of this many others.
    fn end_value(&mut self, parts: usize) -> Result<(), InvalidReply> {
        self.part = ReplyPart::Type;
        self.values = self.values.saturating_sub(1).checked_add(parts).ok_or(InvalidReply::TooLong)?;
        Ok(())
    }
}

/// Maximum size of a reply, unless values are longer. The replies to increments of counters have less than 1 KiB.
pub(super) const MAX_REPLY_BYTES: usize = 64 * 1024;
/// The types of values that begin with a length.
const LENGTH_KINDS: &[u8] = b"$!=*~>%|";
/// The types of values that are a line.
const LINE_KINDS: &[u8] = b"+-:_,#(";

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(parts: &[&[u8]]) -> Result<ReplyScanner, InvalidReply> {
        let mut scanner = ReplyScanner::new(MAX_REPLY_BYTES);
        for part in parts {
            scanner.scan(part)?;
        }
        Ok(scanner)
    }

    #[test]
    fn incomplete_replies_are_limited() {
        let filler = vec![b'x'; MAX_REPLY_BYTES - 3];
        for kind in ["+", "-", ":", "_", ",", "#", "("] {
            let complete = scan(&[kind.as_bytes(), &filler, b"\r\n"]).unwrap();
            assert_eq!((complete.values, complete.bytes), (0, 0), "{kind}");
            let too_long = scan(&[kind.as_bytes(), &filler, b"xx", b"x"]).unwrap_err();
            assert_eq!(too_long, InvalidReply::TooLong, "{kind}");
        }
        let limit = MAX_REPLY_BYTES;
        for text in [
            // The lengths alone are too large.
            format!("${limit}\r\n"),
            "$9223372036854775807\r\n".to_owned(),
            format!("!{limit}\r\n"),
            format!("=999{limit}\r\n"),
            format!("*{}\r\n", limit / 2),
            format!("~{limit}0\r\n"),
            format!("%{}\r\n", limit / 4),
            format!("|{}\r\n", limit / 4),
            format!(">{limit}\r\n"),
            // Many values, each of which is small.
            format!("*2000\r\n{}", format!("$40\r\n{}\r\n", "x".repeat(40)).repeat(2000)),
            "*1000\r\n".repeat(100),
            "*1\r\n".repeat(20_000),
            // Lines without an end.
            format!("*{}", "0".repeat(limit)),
            format!("+{}", "\r".repeat(limit)),
            format!("+{}", "\n".repeat(limit)),
        ] {
            assert_eq!(
                scan(&[text.as_bytes()]).err(),
                Some(InvalidReply::TooLong),
                "{:?}",
                &text[..text.len().min(20)]
            );
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(scan(&bytes).err(), Some(InvalidReply::TooLong), "byte by byte");
        }
        let complete = "*2\r\n:1\r\n*1\r\n$3\r\nabc\r\n".repeat(20_000);
        assert_eq!(scan(&[complete.as_bytes()]).unwrap().bytes, 0, "any number of complete replies");
    }

    #[test]
    fn replies_end_where_the_client_library_sees_their_end() {
        let replies = [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-12\r\n",
            "+\r\n",
            "+a\rb\nc\r\r\n",
            "$5\r\nab\r\nc\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "$ 2 \r\nab\r\n",
            "*0\r\n",
            "*-1\r\n",
            "*2\r\n*1\r\n:1\r\n+a\r\n",
            "*3\r\n$-1\r\n*0\r\n-ERR\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(123456789\r\n",
            "=5\r\ntxt:a\r\n",
            "!3\r\nERR\r\n",
            "~2\r\n:1\r\n:2\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "%0\r\n",
            "|1\r\n+a\r\n:1\r\n*1\r\n:2\r\n",
            ">2\r\n+message\r\n:1\r\n",
        ];
        let next = ":1\r\n";
        for reply in replies {
            let both = format!("{reply}{next}");
            let mut parsed = ::redis::Parser::new();
            let mut reader = both.as_bytes();
            let value = parsed.parse_value(&mut reader);
            assert!(value.is_ok(), "the library rejects {reply:?}: {value:?}");
            let mut scanner = ReplyScanner::new(MAX_REPLY_BYTES);
            for (index, byte) in reply.bytes().enumerate() {
                assert!(index == 0 || scanner.values > 0, "{reply:?} ends before byte {index}");
                scanner.scan(&[byte]).unwrap();
            }
            assert_eq!((scanner.values, scanner.bytes), (0, 0), "{reply:?} has ended");
        }
        for malformed in ["?\r\n", "*a\r\n", "$\r\n", "%-1\r\n", "=-1\r\n", "hello"] {
            assert_eq!(scan(&[malformed.as_bytes()]).err(), Some(InvalidReply::Malformed), "{malformed:?}");
        }
    }
}
