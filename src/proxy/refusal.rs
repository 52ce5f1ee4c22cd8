//! What hyper cannot read as a request: it would answer in words of its own, so it is kept from that, and the client gets an
//! answer like any other, which is counted and logged like any other.

use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::client_stream::ClientStream;
use super::connection::{LEAVE, Peer};
use super::exchange;
use super::fault::Fault;
use super::group::Membership;
use super::limits::Limits;
use super::manners::Manners;
use super::request_id::X_REQUEST_ID;

/// Answers what was read instead of a request, and closes.
pub(crate) async fn refuse(
    mut stream: ClientStream,
    read: Bytes,
    too_large: bool,
    peer: Rc<Peer>,
    membership: Membership,
) {
    let glimpse = Glimpse::of(&read);
    drop(read);
    let fault = if too_large { glimpse.excess(&peer.worker.limits) } else { Fault::Unreadable };
    let account = fault.account();
    let id = peer.worker.request_ids.next();
    let mut answer = Manners::new(glimpse.method.as_ref(), &glimpse.headers).answer(&account, &id);
    answer.headers_mut().insert(X_REQUEST_ID, id.clone());
    let bytes = written(&answer);
    exchange::unreadable(&peer, glimpse, answer.status(), account.word, Some(id), answer.body().len() as u64);
    stream.unmute();
    let tell = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    // Whoever does not read its answer in this time does not want it, and whoever has left cannot.
    let told = timeout(LEAVE, tell).await;
    drop(membership);
    if let Ok(Ok(())) = told {
        linger(stream).await;
    }
}

/// Reads what the client still sends, for a while. A socket closed with unread bytes sends a reset, which may take our
/// answer away from a client that has not read it yet.
pub(crate) async fn linger(mut stream: ClientStream) {
    let mut left = LINGER_BYTES;
    let mut buffer = vec![0; 4096];
    let drain = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await
            && read < left
        {
            left -= read;
        }
    };
    // Whoever is still writing after that does not read either.
    drop(timeout(LINGER, drain).await);
}

const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// The answer as bytes of HTTP/1, the last of its connection.
fn written(answer: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let head = "a Vec takes everything";
    write!(bytes, "HTTP/1.1 {}\r\n", answer.status()).expect(head);
    for (name, value) in answer.headers() {
        write!(bytes, "{name}: ").expect(head);
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !answer.headers().contains_key(CONTENT_LENGTH) {
        write!(bytes, "{CONTENT_LENGTH}: {}\r\n", answer.body().len()).expect(head);
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    write!(bytes, "{CONNECTION}: close\r\n{DATE}: {date}\r\n\r\n").expect(head);
    bytes.extend_from_slice(answer.body());
    bytes
}

/// What can be made out of a head that is none: enough for the log, and for the form of the answer. Nothing else may depend
/// on it, since somebody else may read these bytes differently.
#[derive(Debug, Default)]
pub(crate) struct Glimpse {
    pub(crate) method: Option<Method>,
    pub(crate) target: Option<Uri>,
    pub(crate) version: Option<Version>,
    /// The first of each name that is [`TELLING`].
    pub(crate) headers: HeaderMap,
    /// Of the request line and of the target in it, as far as they have come.
    line_length: usize,
    target_length: usize,
    fields: usize,
}

static TELLING: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, HOST, USER_AGENT];

impl Glimpse {
    fn of(read: &[u8]) -> Self {
        let mut glimpse = Glimpse::default();
        let mut lines = read.split_inclusive(|byte| *byte == b'\n');
        if let Some(line) = lines.clone().next() {
            glimpse.line_length = line.trim_ascii_end().len();
            glimpse.target_length = line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len);
        }
        // Only lines that are there to their end: half a name would be another one.
        let mut line = || lines.next()?.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let Some(first) = line() else { return glimpse };
        let mut words = first.split(|byte| *byte == b' ');
        if let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        {
            glimpse.method = Method::from_bytes(method).ok();
            glimpse.target = Uri::try_from(target).ok();
            glimpse.version = match version {
                b"HTTP/1.1" => Some(Version::HTTP_11),
                b"HTTP/1.0" => Some(Version::HTTP_10),
                _ => None,
            };
        }
        while let Some(field) = line()
            && !field.is_empty()
        {
            glimpse.fields += 1;
            let mut halves = field.splitn(2, |byte| *byte == b':');
            if let (Some(name), Some(value)) = (halves.next(), halves.next())
                && let Some(name) = TELLING.iter().find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
                && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
            {
                glimpse.headers.entry(name).or_insert(value);
            }
        }
        glimpse
    }

    /// What of a head that is too large is too large.
    fn excess(&self, limits: &Limits) -> Fault {
        // The same whether the end of the line has come or not, which is a matter of chance.
        let line_too_long = self.line_length >= limits.max_head && self.target_length > limits.max_head / 2;
        if line_too_long || self.target_length > LONGEST_TARGET {
            Fault::TargetTooLong
        } else if self.fields > limits.max_fields {
            Fault::Fields
        } else {
            Fault::HeadTooLarge
        }
    }
}

/// What hyper takes (and the `http` crate can hold), also if `--client-header-bytes` has room for more.
const LONGEST_TARGET: usize = u16::MAX as usize - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_much_is_seen_as_is_there() {
        let cases: &[(&str, [&str; 4])] = &[
            ("", ["-", "-", "-", "-"]),
            ("GET /half", ["-", "-", "-", "-"]),
            ("nonsense\r\n\r\n", ["-", "-", "-", "-"]),
            ("GET /x HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\nHost: b", ["GET", "/x", "a", "text/html"]),
            ("GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\nacc", ["GET", "/x", "a", "-"]),
            ("GET /x HTTP/1.1\nHost : a\nACCEPT:text/plain\n\n", ["GET", "/x", "-", "text/plain"]),
            ("G\0T /x HTTP/9\r\nhost: a\0\r\n\r\n", ["-", "/x", "-", "-"]),
            ("GET /x y HTTP/1.1\r\nhost: a\r\n\r\n", ["-", "-", "a", "-"]),
        ];
        for (bytes, expected) in cases {
            let glimpse = Glimpse::of(bytes.as_bytes());
            let field = |name| glimpse.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
            let seen = [
                glimpse.method.as_ref().map_or("-".to_owned(), ToString::to_string),
                glimpse.target.as_ref().map_or("-".to_owned(), ToString::to_string),
                field(HOST),
                field(ACCEPT),
            ];
            assert_eq!(&seen, expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_too_large_has_a_name() {
        let limits = Limits::default();
        let cases = [
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(65_534)), Fault::TargetTooLong),
            (format!("GET /{}", "a".repeat(65_536)), Fault::TargetTooLong),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)), Fault::Fields),
            (format!("GET / HTTP/1.1\r\na: {}", "b".repeat(65_536)), Fault::HeadTooLarge),
            ("a".repeat(65_536), Fault::HeadTooLarge),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Glimpse::of(bytes.as_bytes()).excess(&limits), expected, "{bytes:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Glimpse::of(&bytes);
        }
    }
}
