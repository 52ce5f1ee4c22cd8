//! Independent check of HTTP/1 request framing: tracks where each request ends and rejects framing that hyper would
//! silently repair.
//!
//! A proxy in front of Portico may interpret such bytes differently, which allows request smuggling:
//! - a length together with `chunked` (hyper drops the length),
//! - a line that ends in a bare line feed (hyper accepts it as a line end),
//! - a fragment in the target (hyper removes it).
//!
//! The guard sees all bytes in order and copies none of them, except for lines that are split between two reads. If it
//! cannot find the end of a request, it rejects all later requests: either hyper rejects the same bytes too, or the
//! guard and hyper disagree and no later request can be trusted.

use memchr::memchr;

use super::request_error::RequestError;

#[derive(Debug, Default)]
pub(in crate::proxy) struct FramingGuard {
    expected: ExpectedInput,
    /// The beginning of a line whose end has not arrived yet. It is bounded, because hyper rejects heads that are too
    /// large and the guard rejects chunk-size lines that are too long.
    line: Vec<u8>,
    /// Requests begun so far.
    requests: u64,
    /// The Content-Length of the newest request.
    length: Option<u64>,
    /// The last Transfer-Encoding of the newest request.
    coding: Option<DeclaredCoding>,
}

/// How to interpret the next bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ExpectedInput {
    #[default]
    RequestLine,
    Field,
    Body(u64),
    ChunkSize,
    /// Remaining bytes of a chunk, including its line end.
    Chunk(u64),
    Trailer,
    /// The end of the request is unknown. Further bytes are ignored, since a rejection was returned.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeclaredCoding {
    Chunked,
    Other,
}

/// The framing guard rejects the requests of the connection from `first_request` on (counted from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct GuardRejection {
    pub(in crate::proxy) first_request: u64,
    pub(in crate::proxy) error: RequestError,
}

pub(in crate::proxy) const BARE_LINE_FEED: RequestError =
    RequestError::AmbiguousFraming("a line of the request does not end in carriage return and line feed");
pub(in crate::proxy) const LENGTH_AND_CODING: RequestError =
    RequestError::AmbiguousFraming("the request has both Content-Length and Transfer-Encoding");
pub(in crate::proxy) const INVALID_LENGTH: RequestError =
    RequestError::AmbiguousFraming("Content-Length is not a number of bytes");
pub(in crate::proxy) const FRAGMENT: RequestError = RequestError::InvalidTarget("the target has a fragment");
const CHUNK_SIZE: RequestError = RequestError::AmbiguousFraming("the size of a chunk is missing or invalid");
const LONG_CHUNK_LINE: RequestError = RequestError::AmbiguousFraming("a chunk-size line is too long");
const AMBIGUOUS_END: RequestError = RequestError::AmbiguousFraming("the end of the previous request is ambiguous");

impl FramingGuard {
    /// Checks the next bytes. Returns a rejection at most once per connection. Calls `on_chunk` with the position of
    /// each chunk that begins in these bytes.
    pub(in crate::proxy) fn read(
        &mut self,
        mut bytes: &[u8],
        mut on_chunk: impl FnMut(usize),
    ) -> Option<GuardRejection> {
        let length = bytes.len();
        while !bytes.is_empty() {
            if self.expected == ExpectedInput::ChunkSize && self.line.is_empty() {
                on_chunk(length - bytes.len());
            }
            match self.expected {
                ExpectedInput::Unknown => return None,
                ExpectedInput::Body(remaining) | ExpectedInput::Chunk(remaining) => {
                    let taken = usize::try_from(remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
                    bytes = &bytes[taken..];
                    let remaining = remaining - taken as u64;
                    self.expected = match self.expected {
                        ExpectedInput::Chunk(_) if remaining == 0 => ExpectedInput::ChunkSize,
                        ExpectedInput::Chunk(_) => ExpectedInput::Chunk(remaining),
                        _ if remaining == 0 => ExpectedInput::RequestLine,
                        _ => ExpectedInput::Body(remaining),
                    };
                }
                ExpectedInput::RequestLine
                | ExpectedInput::Field
                | ExpectedInput::ChunkSize
                | ExpectedInput::Trailer => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        if self.expected == ExpectedInput::ChunkSize && self.line.len() + bytes.len() > MAX_CHUNK_LINE {
                            self.expected = ExpectedInput::Unknown;
                            self.line = Vec::new();
                            return Some(GuardRejection { first_request: self.requests, error: LONG_CHUNK_LINE });
                        }
                        self.line.extend_from_slice(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at(end);
                    bytes = &rest[1..];
                    let outcome = if self.line.is_empty() {
                        self.process_line(line)
                    } else {
                        let mut complete_line = std::mem::take(&mut self.line);
                        complete_line.extend_from_slice(line);
                        self.process_line(&complete_line)
                    };
                    match outcome {
                        Ok(next) => self.expected = next,
                        Err(rejection) => {
                            self.expected = ExpectedInput::Unknown;
                            return Some(rejection);
                        }
                    }
                }
            }
        }
        None
    }

    /// The number of requests received so far, if nothing of a further one has arrived.
    pub(in crate::proxy) fn complete_requests(&self) -> Option<u64> {
        (self.expected == ExpectedInput::RequestLine && self.line.is_empty()).then_some(self.requests)
    }

    /// Processes a whole line, without its line feed, and returns what follows it.
    fn process_line(&mut self, line: &[u8]) -> Result<ExpectedInput, GuardRejection> {
        let reject = |first_request, error| Err(GuardRejection { first_request, error });
        let Some(line) = line.strip_suffix(b"\r") else {
            // While a request line is expected, the request that the line rejects is not counted yet.
            let first_request = self.requests + u64::from(self.expected == ExpectedInput::RequestLine);
            return reject(first_request, BARE_LINE_FEED);
        };
        match self.expected {
            // Empty lines between requests are allowed (RFC 9112, section 2.2).
            ExpectedInput::RequestLine if line.is_empty() => Ok(ExpectedInput::RequestLine),
            ExpectedInput::RequestLine => {
                self.requests += 1;
                (self.length, self.coding) = (None, None);
                if memchr(b'#', line).is_some() {
                    return reject(self.requests, FRAGMENT);
                }
                Ok(ExpectedInput::Field)
            }
            ExpectedInput::Field if line.is_empty() => match (self.length, self.coding) {
                (Some(_), Some(_)) => reject(self.requests, LENGTH_AND_CODING),
                (None, None) | (Some(0), None) => Ok(ExpectedInput::RequestLine),
                (Some(length), None) => Ok(ExpectedInput::Body(length)),
                (None, Some(DeclaredCoding::Chunked)) => Ok(ExpectedInput::ChunkSize),
                // hyper itself rejects the current request.
                (None, Some(DeclaredCoding::Other)) => reject(self.requests + 1, AMBIGUOUS_END),
            },
            ExpectedInput::Field => {
                if let Some(value) = field_value(line, b"content-length:") {
                    // After a coding, hyper would ignore the length whatever it is.
                    let Some(length) = parse_digits(value, 10) else { return reject(self.requests, INVALID_LENGTH) };
                    self.length = Some(length);
                } else if let Some(value) = field_value(line, b"transfer-encoding:") {
                    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
                    let is_chunked = last.eq_ignore_ascii_case(b"chunked");
                    self.coding = Some(if is_chunked { DeclaredCoding::Chunked } else { DeclaredCoding::Other });
                }
                Ok(ExpectedInput::Field)
            }
            ExpectedInput::ChunkSize => {
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                match parse_digits(size, 16) {
                    Some(0) => Ok(ExpectedInput::Trailer),
                    Some(size) if size < u64::MAX - 2 => Ok(ExpectedInput::Chunk(size + 2)),
                    _ => reject(self.requests, CHUNK_SIZE),
                }
            }
            ExpectedInput::Trailer if line.is_empty() => Ok(ExpectedInput::RequestLine),
            ExpectedInput::Trailer => Ok(ExpectedInput::Trailer),
            ExpectedInput::Body(_) | ExpectedInput::Chunk(_) | ExpectedInput::Unknown => Ok(self.expected),
        }
    }
}

/// The longest chunk-size line. hyper accepts any number of zeros before a chunk size, and limits chunk extensions to
/// 16 KiB per body.
const MAX_CHUNK_LINE: usize = 16 * 1024;

/// The field value, if the line has this field name. `name` is in lower case and includes the colon.
fn field_value<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Parses digits without sign or whitespace.
fn parse_digits(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(|digit| char::from(*digit).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads the bytes in one piece, split at every position, and byte by byte; all must give the same result.
    fn read_all_ways(bytes: &[u8]) -> (Option<GuardRejection>, u64) {
        let read = |parts: &[&[u8]]| {
            let mut guard = FramingGuard::default();
            let rejections: Vec<_> = parts.iter().filter_map(|part| guard.read(part, |_| {})).collect();
            assert!(rejections.len() <= 1, "at most one rejection");
            (rejections.first().copied(), guard.requests)
        };
        let whole = read(&[bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole);
        whole
    }

    #[test]
    fn valid_requests_pass() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n#\n\nGET / HTTP/1.1\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"1\"\r\n\n\n\n\r\n0\r\nA: b\r\n\r\n\
                 GET / HTTP/1.1\r\n\r\n",
                2,
            ),
            ("GET /half HTTP/1.1\r\nHo", 1),
        ];
        for (bytes, requests) in cases {
            assert_eq!(read_all_ways(bytes.as_bytes()), (None, requests), "{bytes:?}");
        }
    }

    #[test]
    fn ambiguous_framing_is_rejected() {
        let valid = "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx";
        let cases = [
            ("GET / HTTP/1.1\n\n", 1, BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 1, BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 1, BARE_LINE_FEED),
            ("\nGET / HTTP/1.1\r\n\r\n", 1, BARE_LINE_FEED),
            ("GET /#x HTTP/1.1\r\n\r\n", 1, FRAGMENT),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 1, LENGTH_AND_CODING),
            ("POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\nContent-Length: 0\r\n\r\n", 1, LENGTH_AND_CODING),
            ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", 1, INVALID_LENGTH),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 1, INVALID_LENGTH),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nContent-Length: :\r\n\r\n", 1, INVALID_LENGTH),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n", 1, CHUNK_SIZE),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", 1, CHUNK_SIZE),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n", 1, BARE_LINE_FEED),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n", 1, BARE_LINE_FEED),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\n\r\n", 1, BARE_LINE_FEED),
        ];
        for (bytes, first_request, error) in cases {
            assert_eq!(read_all_ways(bytes.as_bytes()).0, Some(GuardRejection { first_request, error }), "{bytes:?}");
            // Also after a valid request.
            let after_valid = format!("{valid}{bytes}");
            assert_eq!(
                read_all_ways(after_valid.as_bytes()).0,
                Some(GuardRejection { first_request: first_request + 1, error }),
                "{after_valid:?}"
            );
        }
    }

    #[test]
    fn endless_chunk_size_is_rejected_and_its_memory_released() {
        let mut guard = FramingGuard::default();
        assert_eq!(guard.read(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", |_| {}), None);
        let rejections: Vec<_> = (0..10_000).filter_map(|_| guard.read(&[b'0'; 100], |_| {})).collect();
        assert_eq!(rejections, [GuardRejection { first_request: 1, error: LONG_CHUNK_LINE }]);
        assert_eq!(guard.line.capacity(), 0);
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = proptest::collection::vec(any::<u8>(), 0..40);
        (body, 0..3_u8, proptest::collection::vec("[a-z]{1,8}: ?[ -~]{0,20}", 0..4)).prop_map(|(body, kind, fields)| {
            let fields: String = fields.iter().map(|field| format!("x-{field}\r\n")).collect();
            let mut request = format!("POST /x HTTP/1.1\r\n{fields}").into_bytes();
            match kind {
                0 => request.extend_from_slice(b"\r\n"),
                1 => {
                    request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                    request.extend_from_slice(&body);
                }
                _ => {
                    request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(7) {
                        request.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                        request.extend_from_slice(chunk);
                        request.extend_from_slice(b"\r\n");
                    }
                    request.extend_from_slice(b"0\r\n\r\n");
                }
            }
            request
        })
    }

    proptest! {
        #[test]
        fn valid_requests_are_never_rejected(
            requests in proptest::collection::vec(request(), 1..5), seed in any::<u64>(),
        ) {
            let bytes = requests.concat();
            let mut guard = FramingGuard::default();
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(seed);
            while !rest.is_empty() {
                let (part, unread) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert_eq!(guard.read(part, |_| {}), None);
                rest = unread;
            }
            prop_assert_eq!(guard.requests, requests.len() as u64);
            prop_assert_eq!(guard.expected, ExpectedInput::RequestLine);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            FramingGuard::default().read(&bytes, |_| {});
        }
    }
}
