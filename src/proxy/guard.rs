//! A second pair of eyes on what a client sends: it follows where each request ends, and refuses what hyper would repair
//! before we see it.
//!
//! A proxy in front of us may read such bytes differently, and then the next request is not the one it checked:
//! - a length together with `chunked` (hyper drops the length),
//! - a line that ends in a bare line feed (hyper takes it for a line end),
//! - a fragment in the target (hyper cuts it off).
//!
//! It sees all bytes in order and copies none of them, except of a line that is split between two reads. Where it loses its
//! way, it refuses what comes next: hyper has refused the same bytes already, or the two disagree, and then no further
//! request can be trusted.

use memchr::memchr;

use super::fault::Fault;

#[derive(Debug, Default)]
pub(crate) struct Guard {
    expected: Expected,
    /// The beginning of a line whose end has not come yet. hyper gives up on a head that is too large, and the guard on a
    /// chunk size, so it is bounded.
    line: Vec<u8>,
    /// Requests begun so far.
    requests: u64,
    length: Option<u64>,
    coding: Option<Coding>,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    #[default]
    RequestLine,
    Field,
    Body(u64),
    ChunkSize,
    /// With the line end behind it.
    Chunk(u64),
    Trailer,
    /// Nothing that could be told.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

/// From this request on (the first is 1) the connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) from: u64,
    pub(crate) fault: Fault,
}

const BARE_LINE_FEED: Fault = Fault::Framing("a line of the request does not end in carriage return and line feed");
const LENGTH_AND_CODING: Fault = Fault::Framing("the request has both Content-Length and Transfer-Encoding");
const FRAGMENT: Fault = Fault::Target("the target has a fragment");
const CHUNK_SIZE: Fault = Fault::Framing("a chunk of the body has no size, or none that can be");
const LONG_CHUNK_LINE: Fault = Fault::Framing("the line with the size of a chunk is too long");
const LOST: Fault = Fault::Framing("it is not clear where the request before this one ends");

impl Guard {
    /// Looks at the next bytes. Says when something is wrong, once.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Option<Refusal> {
        while !bytes.is_empty() {
            match self.expected {
                Expected::Unknown => return None,
                Expected::Body(left) | Expected::Chunk(left) => {
                    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[taken..];
                    let left = left - taken as u64;
                    self.expected = match self.expected {
                        Expected::Chunk(_) if left == 0 => Expected::ChunkSize,
                        Expected::Chunk(_) => Expected::Chunk(left),
                        _ if left == 0 => Expected::RequestLine,
                        _ => Expected::Body(left),
                    };
                }
                Expected::RequestLine | Expected::Field | Expected::ChunkSize | Expected::Trailer => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        if self.expected == Expected::ChunkSize && self.line.len() + bytes.len() > LONGEST_CHUNK_LINE {
                            self.expected = Expected::Unknown;
                            self.line = Vec::new();
                            return Some(Refusal { from: self.requests, fault: LONG_CHUNK_LINE });
                        }
                        self.line.extend_from_slice(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at(end);
                    bytes = &rest[1..];
                    let outcome = if self.line.is_empty() {
                        self.take(line)
                    } else {
                        let mut whole = std::mem::take(&mut self.line);
                        whole.extend_from_slice(line);
                        self.take(&whole)
                    };
                    match outcome {
                        Ok(next) => self.expected = next,
                        Err(refusal) => {
                            self.expected = Expected::Unknown;
                            return Some(refusal);
                        }
                    }
                }
            }
        }
        None
    }

    /// A whole line, without its line feed. Says what comes after it.
    fn take(&mut self, line: &[u8]) -> Result<Expected, Refusal> {
        let refuse = |from, fault| Err(Refusal { from, fault });
        let Some(line) = line.strip_suffix(b"\r") else {
            // Before a request it is the request to come that is refused.
            let from = self.requests + u64::from(self.expected == Expected::RequestLine);
            return refuse(from, BARE_LINE_FEED);
        };
        match self.expected {
            // Empty lines between requests are allowed (RFC 9112, section 2.2).
            Expected::RequestLine if line.is_empty() => Ok(Expected::RequestLine),
            Expected::RequestLine => {
                self.requests += 1;
                (self.length, self.coding) = (None, None);
                if memchr(b'#', line).is_some() {
                    return refuse(self.requests, FRAGMENT);
                }
                Ok(Expected::Field)
            }
            Expected::Field if line.is_empty() => match (self.length, self.coding) {
                (Some(_), Some(_)) => refuse(self.requests, LENGTH_AND_CODING),
                (None, None) | (Some(0), None) => Ok(Expected::RequestLine),
                (Some(length), None) => Ok(Expected::Body(length)),
                (None, Some(Coding::Chunked)) => Ok(Expected::ChunkSize),
                (None, Some(Coding::Other)) => refuse(self.requests + 1, LOST),
            },
            Expected::Field => {
                if let Some(value) = value_of(line, b"content-length:") {
                    let Some(length) = number(value, 10) else { return refuse(self.requests + 1, LOST) };
                    self.length = Some(length);
                } else if let Some(value) = value_of(line, b"transfer-encoding:") {
                    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
                    let chunked = last.eq_ignore_ascii_case(b"chunked");
                    self.coding = Some(if chunked { Coding::Chunked } else { Coding::Other });
                }
                Ok(Expected::Field)
            }
            Expected::ChunkSize => {
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                match number(size, 16) {
                    Some(0) => Ok(Expected::Trailer),
                    Some(size) if size < u64::MAX - 2 => Ok(Expected::Chunk(size + 2)),
                    _ => refuse(self.requests, CHUNK_SIZE),
                }
            }
            Expected::Trailer if line.is_empty() => Ok(Expected::RequestLine),
            Expected::Trailer => Ok(Expected::Trailer),
            Expected::Body(_) | Expected::Chunk(_) | Expected::Unknown => Ok(self.expected),
        }
    }
}

/// hyper reads any number of zeros before a size. Extensions it limits to 16 KiB for a whole body.
const LONGEST_CHUNK_LINE: usize = 16 * 1024;

/// The value of the field, if the line is one of this name. The name is in lower case, with its colon.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(|digit| char::from(*digit).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All the ways to cut it in two, and byte by byte.
    fn read_all_ways(bytes: &[u8]) -> (Option<Refusal>, u64) {
        let read = |parts: &[&[u8]]| {
            let mut guard = Guard::default();
            let refusals: Vec<_> = parts.iter().filter_map(|part| guard.read(part)).collect();
            assert!(refusals.len() <= 1, "it is said once");
            (refusals.first().copied(), guard.requests)
        };
        let whole = read(&[bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole);
        whole
    }

    #[test]
    fn what_is_in_order_passes() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n#\n\nGET / HTTP/1.1\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"1\"\r\n\n\n\n\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                2,
            ),
            ("GET /half HTTP/1.1\r\nHo", 1),
        ];
        for (bytes, requests) in cases {
            assert_eq!(read_all_ways(bytes.as_bytes()), (None, requests), "{bytes:?}");
        }
    }

    #[test]
    fn what_can_be_read_two_ways_is_refused() {
        let good = "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx";
        let cases = [
            ("GET / HTTP/1.1\n\n", 1, BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 1, BARE_LINE_FEED),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 1, BARE_LINE_FEED),
            ("\nGET / HTTP/1.1\r\n\r\n", 1, BARE_LINE_FEED),
            ("GET /#x HTTP/1.1\r\n\r\n", 1, FRAGMENT),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 1, LENGTH_AND_CODING),
            ("POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\nContent-Length: 0\r\n\r\n", 1, LENGTH_AND_CODING),
            ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", 2, LOST),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 2, LOST),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n", 1, CHUNK_SIZE),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", 1, CHUNK_SIZE),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n", 1, BARE_LINE_FEED),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n", 1, BARE_LINE_FEED),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\n\r\n", 1, BARE_LINE_FEED),
        ];
        for (bytes, from, fault) in cases {
            assert_eq!(read_all_ways(bytes.as_bytes()).0, Some(Refusal { from, fault }), "{bytes:?}");
            // Also behind a request that is in order.
            let behind = format!("{good}{bytes}");
            assert_eq!(read_all_ways(behind.as_bytes()).0, Some(Refusal { from: from + 1, fault }), "{behind:?}");
        }
    }

    #[test]
    fn a_size_of_zeros_without_end_is_not_kept() {
        let mut guard = Guard::default();
        assert_eq!(guard.read(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), None);
        let refusals: Vec<_> = (0..10_000).filter_map(|_| guard.read(&[b'0'; 100])).collect();
        assert_eq!(refusals, [Refusal { from: 1, fault: LONG_CHUNK_LINE }]);
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
        fn no_request_in_order_is_refused(requests in proptest::collection::vec(request(), 1..5), cuts in any::<u64>()) {
            let bytes = requests.concat();
            let mut guard = Guard::default();
            let mut rest = &bytes[..];
            let mut cuts = fastrand::Rng::with_seed(cuts);
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(cuts.usize(1..=rest.len()));
                prop_assert_eq!(guard.read(part), None);
                rest = behind;
            }
            prop_assert_eq!(guard.requests, requests.len() as u64);
            prop_assert_eq!(guard.expected, Expected::RequestLine);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Guard::default().read(&bytes);
        }
    }
}
