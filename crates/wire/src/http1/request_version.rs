//! Versions of HTTP in request lines other than HTTP/1.0 and HTTP/1.1, which the httparse library does not accept.

use memchr::{memchr, memchr_iter};

/// What to do with a request whose version is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherVersion {
    /// A later minor version, which is read as the latest known one (RFC 9110, section 2.5). Its digit is at this
    /// position.
    LaterMinor { digit: usize },
    /// HTTP with another major version, whose syntax is not known.
    OtherMajor,
    /// The beginning of another major version, the rest of which has not arrived.
    Incomplete,
}

/// The version at the end of the first line, or at the end of what has arrived of it. None if there is no such version.
pub(super) fn other_version(head: &[u8]) -> Option<OtherVersion> {
    let line_end = memchr(b'\n', head);
    let line = line_end.map_or(head, |end| &head[..end]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut spaces = memchr_iter(b' ', line);
    let (Some(_), Some(space), None) = (spaces.next(), spaces.next(), spaces.next()) else { return None };
    let start = space + 1;
    match &line[start..] {
        b"HTTP/1.0" | b"HTTP/1.1" => None,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => {
            Some(OtherVersion::LaterMinor { digit: start + "HTTP/1.".len() })
        }
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9'] => Some(OtherVersion::OtherMajor),
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9']
        | [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.']
            if line_end.is_none() =>
        {
            Some(OtherVersion::Incomplete)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use OtherVersion::{Incomplete, LaterMinor, OtherMajor};

    use super::*;

    #[test]
    fn versions_are_found_at_the_end_of_the_first_line() {
        for (head, expected) in [
            ("GET / HTTP/1.2\r\nHost: a\r\n", Some(LaterMinor { digit: 13 })),
            ("GET / HTTP/1.9\n", Some(LaterMinor { digit: 13 })),
            ("GET / HTTP/1.2", Some(LaterMinor { digit: 13 })),
            ("GET / HTTP/2.0\r\n", Some(OtherMajor)),
            ("GET / HTTP/0.9\r\n", Some(OtherMajor)),
            ("GET / HTTP/3.0", Some(OtherMajor)),
            ("GET / HTTP/1.1\r\n", None),
            ("GET / HTTP/1.0\r\n", None),
            ("GET / HTTP/1.10\r\n", None),
            ("GET / HTTP/1.2 \r\n", None),
            ("GET / HTTP/9 HTTP/1.2\r\n", None),
            ("GET / HTTP/1.a\r\n", None),
            ("GET / HTTP/3\r\n", None),
            ("GET / HTTP/3.\r\n", None),
            ("GET / HTTP/3", Some(Incomplete)),
            ("GET / HTTP/0.", Some(Incomplete)),
            ("GET / HTTP/1.", None),
            ("GET / HTTP/11.1\r\n", None),
            ("GET / http/1.2\r\n", None),
            ("GET / FTP/1.2\r\n", None),
            ("GET /HTTP/1.2\r\n", None),
            ("GET /HTTP/1.2\r\nHTTP/1.2", None),
            ("\r\nGET / HTTP/1.2", None),
            ("HTTP/1.2", None),
            ("", None),
        ] {
            assert_eq!(other_version(head.as_bytes()), expected, "{head:?}");
        }
    }
}
